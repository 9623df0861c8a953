//! What would be analysed, and at what cost.

use super::data::{rows_csv, to_columns};
use super::table::{new_table, number};
use crate::analysis::Options;
use crate::error::printable;
use crate::layer::Layer;
use crate::plan;
use crate::run::Model;
use crate::{Error, ErrorKind, Result};
use comfy_table::Cell;
use serde::Serialize;

/// One layer or skipped tensor.
#[derive(Debug, Clone, Serialize)]
pub struct DescribeRow {
    /// Place in the model.
    pub layer_id: Option<u64>,
    /// Name of the layer, or of the skipped tensor.
    pub name: String,
    /// `analyze` or `skip`.
    pub action: &'static str,
    /// Why it is skipped, for machines.
    pub reason: Option<&'static str>,
    /// Why it is skipped, or a note, for people.
    pub detail: Option<String>,
    /// Kind of layer.
    pub layer_type: Option<crate::layer::LayerType>,
    /// Part in the model.
    pub role: Option<String>,
    /// Number of the block.
    pub block: Option<u64>,
    /// Full name of the tensor.
    pub tensor: String,
    /// Element type.
    pub dtype: &'static str,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// Number of matrices.
    pub matrices: Option<u64>,
    /// Longer side of each.
    #[serde(rename = "N")]
    pub n: Option<u64>,
    /// Shorter side of each.
    #[serde(rename = "M")]
    pub m: Option<u64>,
    /// Eigenvalues.
    pub num_evals: Option<u64>,
    /// Floating-point operations.
    pub flops: Option<f64>,
    /// Bytes read.
    pub bytes: Option<u64>,
    /// Peak memory in bytes.
    pub peak_bytes: Option<u64>,
}

/// A model's rows with its name.
#[derive(Debug, Clone, Serialize)]
pub struct Description {
    /// URI or path of the model.
    pub uri: String,
    /// Name of the format.
    pub format: &'static str,
    /// One a layer or skipped tensor, in the model's order.
    pub rows: Vec<DescribeRow>,
}

/// Everything that `model` holds, in its order, with costs from shapes alone.
pub fn describe_rows(model: &Model, options: &Options) -> Description {
    let mut rows: Vec<(usize, DescribeRow)> = Vec::new();
    for layer in &model.layers.layers {
        rows.push((layer.tensor, analysed(model, layer, options)));
    }
    for skipped in &model.layers.skipped {
        let Some(tensor) = model.catalog.tensors.get(skipped.tensor) else { continue };
        let row = DescribeRow {
            layer_id: skipped.layer_id,
            name: skipped.name.clone(),
            action: "skip",
            reason: Some(skipped.reason.code()),
            detail: Some(skipped.detail.clone()),
            layer_type: None,
            role: None,
            block: None,
            tensor: tensor.name.clone(),
            dtype: tensor.dtype.name(),
            shape: tensor.shape.clone(),
            matrices: None,
            n: None,
            m: None,
            num_evals: None,
            flops: None,
            bytes: None,
            peak_bytes: None,
        };
        rows.push((skipped.tensor, row));
    }
    rows.sort_by_key(|(tensor, _)| *tensor); // stable: the parts of a tensor stay in order
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    Description { uri: model.catalog.uri.clone(), format: model.catalog.format, rows }
}

fn analysed(model: &Model, layer: &Layer, options: &Options) -> DescribeRow {
    let cost = plan::cost(&model.catalog, layer, options);
    let tensor = model.catalog.tensors.get(layer.tensor);
    DescribeRow {
        layer_id: Some(layer.layer_id),
        name: layer.name.clone(),
        action: "analyze",
        reason: None,
        detail: layer.note.clone(),
        layer_type: Some(layer.layer_type),
        role: layer.role.clone(),
        block: layer.block,
        tensor: tensor.map(|t| t.name.clone()).unwrap_or_default(),
        dtype: tensor.map_or("", |t| t.dtype.name()),
        shape: tensor.map(|t| t.shape.clone()).unwrap_or_default(),
        matrices: Some(layer.matrix_count()),
        n: Some(layer.n),
        m: Some(layer.m),
        num_evals: Some(layer.num_evals()),
        flops: Some(cost.flops),
        bytes: Some(cost.bytes),
        peak_bytes: Some(cost.peak_bytes),
    }
}

/// For people.
pub fn describe_table(description: &Description, colour: bool) -> String {
    let mut table = new_table(colour);
    table
        .set_header(["tensor", "dtype", "shape", "layer", "N × M", "evals", "GFLOP", "read", "peak", "note"]);
    let size = |bytes: Option<u64>| bytes.map(|b| bytesize::ByteSize(b).to_string()).unwrap_or_default();
    for row in &description.rows {
        let shape: Vec<String> = row.shape.iter().map(u64::to_string).collect();
        let matrices = row.matrices.filter(|count| *count > 1).map(|count| format!("{count} × "));
        let sides = row.n.zip(row.m).map(|(n, m)| format!("{n} × {m}")).unwrap_or_default();
        let kind = row.layer_type.map(|kind| format!("{kind:?}").to_lowercase()).unwrap_or_default();
        let role = row.role.as_ref().map(|role| format!(" {role}")).unwrap_or_default();
        let note = [row.reason.map(str::to_owned), row.detail.clone()];
        table.add_row([
            Cell::new(printable(&row.tensor)),
            Cell::new(row.dtype),
            Cell::new(shape.join(" × ")),
            Cell::new(kind + &role),
            Cell::new(matrices.unwrap_or_default() + &sides),
            Cell::new(row.num_evals.map(|n| n.to_string()).unwrap_or_default()),
            Cell::new(number(row.flops.map(|flops| flops / 1e9))),
            Cell::new(size(row.bytes)),
            Cell::new(size(row.peak_bytes)),
            Cell::new(printable(&note.into_iter().flatten().collect::<Vec<_>>().join(": "))),
        ]);
    }
    format!("{} ({})\n{table}\n{}\n", printable(&description.uri), description.format, totals(description))
}

fn totals(description: &Description) -> String {
    let layers = description.rows.iter().filter(|row| row.action == "analyze");
    let flops: f64 = layers.clone().filter_map(|row| row.flops).sum();
    let bytes: u64 = layers.clone().filter_map(|row| row.bytes).sum();
    let peak = layers.clone().filter_map(|row| row.peak_bytes).max().unwrap_or(0);
    format!(
        "{} layers, {} skipped; {} GFLOP, {} to read, largest layer {}",
        layers.count(),
        description.rows.iter().filter(|row| row.action == "skip").count(),
        number(Some(flops / 1e9)),
        bytesize::ByteSize(bytes),
        bytesize::ByteSize(peak)
    )
}

/// One object for one model, an array for several.
///
/// # Errors
/// `Internal` if it cannot be written as JSON.
pub fn describe_json(descriptions: &[Description]) -> Result<String> {
    let text = match descriptions {
        [one] => serde_json::to_string_pretty(one),
        many => serde_json::to_string_pretty(many),
    };
    let text =
        text.map_err(|e| Error::new(ErrorKind::Internal, format!("cannot write the description: {e}")))?;
    Ok(text + "\n")
}

/// One line a row, with the model's name first.
///
/// # Errors
/// `Internal` if it cannot be written as csv.
pub fn describe_csv(descriptions: &[Description]) -> Result<String> {
    let mut rows = Vec::new();
    for description in descriptions {
        for row in &description.rows {
            let mut columns = serde_json::Map::new();
            columns.insert("model".to_owned(), description.uri.as_str().into());
            columns.extend(to_columns(row)?);
            rows.push(columns);
        }
    }
    rows_csv(&rows)
}
