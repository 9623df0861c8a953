//! Hand-made catalogues: names, dtypes and shapes, no data.

use crate::format::{Catalog, DType, Tensor};
use std::collections::BTreeMap;

/// A tensor without a place.
pub(crate) fn tensor(name: &str, dtype: DType, shape: &[u64]) -> Tensor {
    Tensor { name: name.to_owned(), dtype, shape: shape.to_vec(), file: 0, range: 0..0 }
}

/// A catalogue of these tensors, one after another in a file that does not exist.
pub(crate) fn catalog(mut tensors: Vec<Tensor>, config: Option<serde_json::Value>) -> Catalog {
    let mut end = 0_u64;
    for tensor in &mut tensors {
        let count = tensor.shape.iter().fold(1_u64, |product, &dim| product.saturating_mul(dim));
        let bytes = count.saturating_mul(tensor.dtype.bytes());
        tensor.range = end..end.saturating_add(bytes);
        end = tensor.range.end;
    }
    Catalog {
        notes: Vec::new(),
        uri: "test".to_owned(),
        format: "safetensors",
        files: Vec::new(),
        tensors,
        metadata: BTreeMap::new(),
        config,
    }
}
