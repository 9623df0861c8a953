//! Rows of layers that are not analysed, and what every row says of its layer.

use super::input::dtype_name;
use super::options::Options;
use super::report::{FitColumns, LayerReport, NormColumns, Status};
use crate::format::Catalog;
use crate::layer::{Layer, Skipped};
use crate::{Error, ErrorKind};

/// A row that describes the layer and has no numbers yet.
pub fn described_row(catalog: &Catalog, layer: &Layer) -> LayerReport {
    let tensor = catalog.tensors.get(layer.tensor);
    let (rows, cols) = layer.matrix_shape();
    LayerReport {
        layer_id: Some(layer.layer_id),
        name: layer.name.clone(),
        longname: layer.name.clone(),
        layer_type: Some(format!("{:?}", layer.layer_type).to_lowercase()),
        n: Some(layer.n),
        m: Some(layer.m),
        rf: Some(layer.rf),
        q: (layer.m > 0).then(|| layer.n as f64 / layer.m as f64),
        slice_id: layer.slice_id,
        detail: layer.note.clone(),
        tensor: tensor.map(|t| t.name.clone()).unwrap_or_default(),
        dtype: tensor.map(|t| dtype_name(catalog, layer, t.dtype)).unwrap_or_default(),
        shape: tensor.map(|t| t.shape.clone()).unwrap_or_default(),
        parameters: layer.matrices.len() as u64 * rows * cols,
        role: layer.role.clone(),
        block: layer.block,
        ..LayerReport::default()
    }
}

/// A known result as the row of another layer with the same content: the numbers are the result's, what describes the
/// layer is the layer's own. `known` is of [`row_for_others`].
pub fn adopted_row(catalog: &Catalog, layer: &Layer, known: LayerReport) -> LayerReport {
    let own = described_row(catalog, layer);
    // A failure's text takes the place of the note, other texts follow it.
    let detail = match known.status {
        Status::Success => {
            [own.detail, known.detail].into_iter().flatten().reduce(|a, b| format!("{a}; {b}"))
        }
        _ => known.detail,
    };
    LayerReport {
        layer_id: own.layer_id,
        name: own.name,
        longname: own.longname,
        layer_type: own.layer_type,
        n: own.n,
        m: own.m,
        rf: own.rf,
        q: own.q,
        slice_id: own.slice_id,
        detail,
        tensor: own.tensor,
        dtype: own.dtype,
        shape: own.shape,
        parameters: own.parameters,
        role: own.role,
        block: own.block,
        ..known
    }
}

/// What of a layer's row is a matter of its content: without the note on the layer.
pub fn row_for_others(layer: &Layer, mut row: LayerReport) -> LayerReport {
    if let (Status::Success, Some(note), Some(detail)) = (row.status, &layer.note, &row.detail) {
        let rest = detail.strip_prefix(note.as_str()).map(|rest| rest.trim_start_matches("; ").to_owned());
        row.detail = rest.filter(|rest| !rest.is_empty());
    }
    row
}

/// A row for a layer whose analysis failed before it had a spectrum.
pub fn failed_row(catalog: &Catalog, layer: &Layer, options: &Options, error: &Error) -> LayerReport {
    let reason = match error.kind() {
        ErrorKind::NonFinite => "NON_FINITE",
        ErrorKind::TooLarge => "NEEDS_MEMORY",
        _ => "INTERNAL",
    };
    let mut row = described_row(catalog, layer);
    row.detail = Some(error.message().to_owned());
    fail(&mut row, reason, options);
    row
}

/// Marks a fit as failed. WeightWatcher writes −1 into the columns of a failed fit and calls it over-trained
/// (weightwatcher.py:4190, 4456).
pub(super) fn fail(row: &mut LayerReport, reason: &str, options: &Options) {
    row.status = Status::Failed;
    row.reason = Some(reason.to_owned());
    if options.is_compat() {
        row.warning = Some("over-trained".to_owned());
        row.fit = FitColumns {
            alpha: Some(-1.0),
            xmin: Some(-1.0),
            d: Some(-1.0),
            sigma: Some(-1.0),
            num_pl_spikes: Some(-1),
            ..FitColumns::default()
        };
    } else {
        row.fit = FitColumns::default();
        row.norms.alpha_weighted = None;
        row.norms.log_alpha_norm = None;
    }
}

/// A row for a tensor that is not analysed.
pub fn skipped_row(catalog: &Catalog, skipped: &Skipped) -> LayerReport {
    let tensor = catalog.tensors.get(skipped.tensor);
    LayerReport {
        layer_id: skipped.layer_id,
        name: skipped.name.clone(),
        longname: skipped.name.clone(),
        status: Status::Skipped,
        reason: Some(skipped.reason.code().to_owned()),
        detail: Some(skipped.detail.clone()),
        norms: NormColumns::default(),
        tensor: tensor.map(|t| t.name.clone()).unwrap_or_default(),
        dtype: tensor.map(|t| t.dtype.name().to_owned()).unwrap_or_default(),
        shape: tensor.map(|t| t.shape.clone()).unwrap_or_default(),
        parameters: tensor.map_or(0, crate::format::Tensor::elements),
        ..LayerReport::default()
    }
}
