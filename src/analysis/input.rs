//! One layer, ready to be read.

use super::options::Options;
use super::report::LayerReport;
use super::rows::failed_row;
use crate::format::{Catalog, DType, Tensor};
use crate::layer::Layer;
use crate::spectrum::GramSum;
use crate::tensor::{Dequantise, LayerReader, OnDigest, ReadOptions, Scales, decode, is_exact_in_f32};
use crate::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// One layer's description and its bytes.
pub struct LayerInput<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) layer: &'a Layer,
    pub(super) tensor: &'a Tensor,
    pub(super) reader: LayerReader,
    /// Threads that may work on one matrix (1 or 2); the numbers do not depend on it.
    pub threads: usize,
    /// Whether [`LayerInput::take_spectrum`] gives the eigenvalues afterwards.
    pub keep_spectrum: bool,
    /// Called once with the content digest, in hexadecimal, before any arithmetic for a layer that is held whole, else
    /// after the first pass and before any eigenvalue. `true`: the result is known, stop.
    pub on_digest: Option<OnDigest>,
    /// The sum of the Gram matrices of all shards of the layer, which then stands for the first pass over it.
    pub gram: Option<GramSum>,
    pub(super) spectrum: Option<Vec<f64>>,
}

impl<'a> LayerInput<'a> {
    /// Prepares the layer's reader; of its bytes, only the scales of a quantised tensor are read here.
    ///
    /// # Errors
    /// What the source gives; `Internal` if the layer is not of this catalog.
    pub fn open(catalog: &'a Catalog, layer: &'a Layer, cancel: &Arc<AtomicBool>) -> Result<Self> {
        let stray =
            || Error::new(ErrorKind::Internal, "the layer is not of this catalog").in_tensor(&layer.name);
        let tensor = catalog.tensors.get(layer.tensor).ok_or_else(stray)?;
        let file = catalog.files.get(tensor.file).ok_or_else(stray)?;
        let scales = layer.dequantise.as_ref().map(|how| scales(catalog, tensor, how)).transpose()?;
        let (factor, as_f32, cancel) = (layer.scale, layer.as_f32, Arc::clone(cancel));
        let options = ReadOptions { factor, as_f32, scales, cancel };
        let reader = LayerReader::new(Arc::clone(file), tensor.clone(), layer.matrices.clone(), options);
        Ok(Self {
            catalog,
            layer,
            tensor,
            reader,
            threads: 1,
            keep_spectrum: false,
            on_digest: None,
            gram: None,
            spectrum: None,
        })
    }

    /// Reads ahead what can be; see [`LayerReader::prefetch`].
    ///
    /// # Errors
    /// What the source gives.
    pub fn prefetch(&mut self) -> Result<()> {
        self.reader.prefetch()
    }

    /// The row of this layer if it fails so; see [`super::failed_row`].
    pub fn failed_row(&self, options: &Options, error: &Error) -> LayerReport {
        failed_row(self.catalog, self.layer, options, error)
    }

    /// The eigenvalues of all matrices together, ascending, that the row was computed from, if they were to be kept and
    /// there are any: all of them, or with a randomized method those that were found.
    pub fn take_spectrum(&mut self) -> Option<Vec<f64>> {
        self.spectrum.take()
    }

    /// Keeps what has served, if it was asked for.
    pub(super) fn keep(&mut self, evals: Vec<f64>) {
        self.spectrum = self.keep_spectrum.then_some(evals);
    }

    /// Whether every element is an f32 value.
    pub(super) fn is_exact_in_f32(&self) -> bool {
        is_exact_in_f32(self.tensor.dtype) && self.layer.dequantise.is_none() && self.layer.scale == 1.0
    }
}

fn scales(catalog: &Catalog, tensor: &Tensor, how: &Dequantise) -> Result<Scales> {
    let stray =
        || Error::new(ErrorKind::Internal, "its scales are not of this catalog").in_tensor(&tensor.name);
    let scale = catalog.tensors.get(how.scale).ok_or_else(stray)?;
    let file = catalog.files.get(scale.file).ok_or_else(stray)?;
    let bytes = file.read_at(scale.range.clone()).map_err(|e| e.in_tensor(&scale.name))?;
    let mut values = vec![0.0; bytes.len() / scale.dtype.bytes().max(1) as usize];
    decode(scale.dtype, &bytes, &mut values);
    if let Some(bad) = values.iter().position(|value| !value.is_finite()) {
        let message = format!("scale {bad} of '{}' is {}", scale.name, values[bad]);
        return Err(Error::new(ErrorKind::NonFinite, message).in_tensor(&tensor.name));
    }
    let (cols, block_rows, block_cols) = (how.cols.max(1), how.block_rows.max(1), how.block_cols.max(1));
    Ok(Scales { values, how: Dequantise { scale: how.scale, cols, block_rows, block_cols } })
}

/// What a dtype column says: the stored type, and the type of the scales where there are any.
pub(super) fn dtype_name(catalog: &Catalog, layer: &Layer, dtype: DType) -> String {
    let scale = layer.dequantise.as_ref().and_then(|how| catalog.tensors.get(how.scale));
    scale.map_or_else(|| dtype.name().to_owned(), |s| format!("{}*{}", dtype.name(), s.dtype.name()))
}
