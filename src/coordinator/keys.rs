//! Names of work and of results, 32 bytes each.
//!
//! A *unit key* names work before a byte of weights is read: object identity, byte range, unfolding and options. Equal
//! keys are computed once, and an unchanged model is answered by them. A *result key* names a result by its content:
//! the digest of the stored bytes with dtype and unfolding, and the options. Both hold the version of the numerics.

use crate::analysis::{ALGORITHM_VERSION, Options};
use crate::layer::Layer;
use crate::run::Model;
use crate::source::ObjectIdentity;
use std::ops::Range;

/// A name.
pub(super) type Key = [u8; 32];

/// The key of `layer` of `model`. `nonce` stands in for the pin of an object that has none, so that such work is
/// shared within one analysis alone.
pub(super) fn unit_key(model: &Model, layer: &Layer, options: &Options, nonce: &str) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"spectrald unit v1\0");
    let scale = layer.dequantise.as_ref().map(|how| how.scale);
    for tensor in [Some(layer.tensor), scale].into_iter().flatten() {
        let Some(tensor) = model.catalog.tensors.get(tensor) else { continue };
        if let Some(file) = model.catalog.files.get(tensor.file) {
            add_object(&mut hasher, file.identity(), nonce);
        }
        hasher.update(tensor.dtype.name().as_bytes());
        add_numbers(&mut hasher, &[tensor.range.start, tensor.range.end]);
    }
    for view in &layer.matrices {
        add_numbers(&mut hasher, &[view.offset, view.rows, view.cols, view.row_stride, view.col_stride]);
    }
    if let Some(how) = &layer.dequantise {
        add_numbers(&mut hasher, &[how.cols, how.block_rows, how.block_cols]);
    }
    add_computation(&mut hasher, layer, options);
    *hasher.finalize().as_bytes()
}

/// The key of a row block of the work `unit`. It has no part in what follows from the sum.
pub(super) fn shard_key(unit: &Key, rows: &Range<u64>) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"spectrald shard v1\0");
    hasher.update(unit);
    add_numbers(&mut hasher, &[rows.start, rows.end]);
    *hasher.finalize().as_bytes()
}

/// As `key`, for work whose eigenvalues are kept as well: a result without them would not do.
pub(super) fn with_spectrum(key: Key) -> Key {
    *blake3::Hasher::new().update(b"spectrald spectrum v1\0").update(&key).finalize().as_bytes()
}

/// The key of the result for a layer whose content has this digest.
pub(super) fn result_key(digest: &str, layer: &Layer, options: &Options) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"spectrald result v1\0");
    hasher.update(digest.as_bytes());
    add_computation(&mut hasher, layer, options);
    *hasher.finalize().as_bytes()
}

/// What is computed from a layer's elements, as far as the options and the layer decide it.
fn add_computation(hasher: &mut blake3::Hasher, layer: &Layer, options: &Options) {
    add_numbers(hasher, &[u64::from(ALGORITHM_VERSION), layer.n, layer.m, layer.rf, layer.matrix_count()]);
    add_numbers(hasher, &[layer.scale.to_bits(), u64::from(layer.as_f32)]);
    let Options { compat, layers: _, method, erg, mp, randomize, vectors, seed } = options;
    let operator = &layer.operator;
    let text = format!("{compat:?} {method} {erg} {mp} {randomize} {vectors} {seed:?} {operator:?}");
    hasher.update(text.as_bytes());
}

fn add_object(hasher: &mut blake3::Hasher, identity: &ObjectIdentity, nonce: &str) {
    for part in [identity.uri.as_str(), identity.pin.as_deref().unwrap_or(nonce)] {
        add_numbers(hasher, &[part.len() as u64]);
        hasher.update(part.as_bytes());
    }
    add_numbers(hasher, &[identity.size]);
}

fn add_numbers(hasher: &mut blake3::Hasher, numbers: &[u64]) {
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
}
