//! json, jsonl and csv.

use crate::analysis::{LayerReport, ModelReport};
use crate::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::{Map, Value};

/// Reports as JSON: one object for one model, an array for several. NaN and infinity become null.
///
/// # Errors
/// `Internal` if a report cannot be written as JSON.
pub fn json(reports: &[ModelReport]) -> Result<String> {
    let mut text = match reports {
        [one] => serde_json::to_string_pretty(one),
        many => serde_json::to_string_pretty(many),
    }
    .map_err(|e| internal(&e))?;
    text.push('\n');
    Ok(text)
}

/// One line a row: the row's columns and `model`.
///
/// # Errors
/// As [`json`].
pub fn jsonl(reports: &[ModelReport]) -> Result<String> {
    let mut text = String::new();
    for report in reports {
        for row in &report.layers {
            let mut columns = Map::new();
            columns.insert("model".to_owned(), Value::from(report.model.uri.as_str()));
            columns.extend(row_columns(row)?);
            text.push_str(&serde_json::to_string(&columns).map_err(|e| internal(&e))?);
            text.push('\n');
        }
    }
    Ok(text)
}

/// A header and one line a row; with several models, the first column is `model`. Values are written as pandas writes
/// them: full precision, `True` and `False`, nothing for a value that does not apply.
///
/// # Errors
/// As [`json`].
pub fn csv(reports: &[ModelReport]) -> Result<String> {
    let mut rows = Vec::new();
    for report in reports {
        for row in &report.layers {
            let mut columns = Map::new();
            if reports.len() > 1 {
                columns.insert("model".to_owned(), Value::from(report.model.uri.as_str()));
            }
            columns.extend(row_columns(row)?);
            rows.push(columns);
        }
    }
    rows_csv(&rows)
}

/// Rows of any kind as csv; the columns are those of all rows, in the order of the row that has most.
pub(super) fn rows_csv(rows: &[Map<String, Value>]) -> Result<String> {
    let mut names: Vec<&str> = Vec::new();
    let mut widest: Vec<&Map<String, Value>> = rows.iter().collect();
    widest.sort_by_key(|row| std::cmp::Reverse(row.len()));
    for name in widest.iter().take(1).chain(&widest).flat_map(|row| row.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut writer = ::csv::WriterBuilder::new().from_writer(Vec::new());
    writer.write_record(&names).map_err(|e| internal(&e))?;
    for row in rows {
        let cells = names.iter().map(|name| row.get(*name).map(cell).unwrap_or_default());
        writer.write_record(cells).map_err(|e| internal(&e))?;
    }
    let bytes = writer.into_inner().map_err(|e| internal(&e))?;
    String::from_utf8(bytes).map_err(|e| internal(&e))
}

/// Any serialisable row as its columns.
pub(super) fn to_columns(row: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(row).map_err(|e| internal(&e))? {
        Value::Object(columns) => Ok(columns),
        _ => Err(Error::new(ErrorKind::Internal, "a row is not an object")),
    }
}

fn row_columns(row: &LayerReport) -> Result<Map<String, Value>> {
    to_columns(row)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join("x"),
        other => other.to_string(),
    }
}

pub(super) fn internal(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, format!("cannot write the report: {error}"))
}
