//! A tall layer computed in parts: one shard's Gram matrix, and the sum of all taken for the first pass.

use super::input::LayerInput;
use super::options::Options;
use crate::layer::Layer;
use crate::spectrum::{Gram, GramSum, PartialGram, PartialHead};
use crate::tensor::{Blocks, shards};
use crate::{Error, Result};
use std::ops::Range;

/// The shards of a layer that may be computed in parts; `None` if it is one task: it is small, wide or of several
/// matrices ([`shards`]), or these options need the whole layer more than once. Shapes alone decide.
pub fn shards_of(layer: &Layer, options: &Options) -> Option<Vec<Range<u64>>> {
    let once = layer.operator.is_none() && options.need_one_pass();
    once.then(|| shards(&layer.matrices)).flatten()
}

/// The Gram matrix of one of the layer's shards ([`shards_of`]), on one thread or two with the same bits. Only the
/// shard's bytes are read. NaN and infinity are counted, not an error: they are a finding on the whole layer, and
/// `analyze_layer` makes its row of the counts.
///
/// # Errors
/// `InvalidArgument` if these rows are not a shard of the layer; what the source gives; `Interrupted`.
pub fn shard_gram(input: &mut LayerInput<'_>, rows: Range<u64>, threads: usize) -> Result<PartialGram> {
    let m = input.reader.m();
    let mut gram = Gram::new(m);
    let read = input.reader.stream_shard(&rows, &mut |_, block| {
        gram.add(block, threads);
        Ok(())
    })?;
    let (non_finite, digest) = (read.non_finite, read.digest);
    let head = PartialHead { m: m as u64, rows, nonzero: gram.saw_nonzero(), non_finite, digest };
    Ok(PartialGram::new(head, &gram))
}

/// Checks that `sum` is that of all shards of the layer, and takes over its digest and counts.
pub(super) fn adopt(input: &mut LayerInput<'_>, sum: &GramSum, options: &Options) -> Result<()> {
    let name = &input.tensor.name;
    let Some(expected) = shards_of(input.layer, options) else {
        return Err(Error::invalid("the layer is not computed in parts").in_tensor(name));
    };
    let (_, cols) = input.layer.matrix_shape();
    if sum.m() != cols || sum.shards() != expected || !sum.is_complete() {
        let message = format!("the sum of {} rows of order {} is not that of the layer", sum.rows(), sum.m());
        return Err(Error::invalid(message).in_tensor(name));
    }
    input.reader.adopt(&sum.digests(), sum.non_finite())
}
