//! The same numbers, bit for bit, whatever the number of threads and the order of the tensors in the file.

use crate::support::models::{Entry, Numbers, analyze_with, fixture, open, safetensors};
use serde_json::Value;
use spectrald::analysis::{Compat, ModelReport, Options};
use spectrald::layer::Conv;
use spectrald::run::Model;
use spectrald::source::SourceOptions;
use std::path::Path;
use tempfile::TempDir;

fn everything(options: Options) -> Options {
    Options { erg: true, mp: true, randomize: true, vectors: true, ..options }
}

/// One layer of every kind, of shapes that stream, that are held, and that need the SVD.
fn synthetic() -> Vec<Entry> {
    let mut rank_deficient = Numbers::new(11).gaussian(40 * 30);
    rank_deficient.chunks_mut(30).for_each(|row| row.copy_within(0..10, 20));
    let wide = Numbers::new(2).gaussian(48 * 700);
    let mut numbers = Numbers::new(7);
    let codes = (0..300 * 200).map(|_| (numbers.bits() & 0xff) as u8).map(|code| code & 0xbf).collect();
    let scales: Vec<f64> = Numbers::new(8).gaussian(6).iter().map(|x| 0.01 + x.abs()).collect();
    vec![
        // 9.6 MB: read in two chunks
        Entry::gaussian("tall.weight", &[50_000, 48], 1),
        Entry::gaussian("small.weight", &[5000, 48], 9),
        Entry::f64("wide.weight", &[48, 700], &wide),
        Entry::gaussian("square.weight", &[130, 130], 3),
        Entry::gaussian("conv.weight", &[32, 16, 3, 3], 4),
        Entry::gaussian("conv1d.weight", &[48, 32, 5], 5),
        Entry::bf16("brain.weight", &[90, 60], &Numbers::new(6).gaussian(90 * 60)),
        Entry::new("blocks.weight", "F8_E4M3", &[300, 200], codes),
        Entry::f32("blocks.weight_scale_inv", &[3, 2], &scales),
        Entry::gaussian("model.layers.0.mlp.experts.down_proj", &[4, 64, 96], 10),
        Entry::f32("deficient.weight", &[40, 30], &rank_deficient),
        Entry::gaussian("square.bias", &[130], 12),
    ]
}

fn written(folder: &TempDir, entries: &[Entry]) -> std::path::PathBuf {
    let file = folder.path().join("model.safetensors");
    std::fs::write(&file, safetensors(entries)).unwrap();
    file
}

fn opened(path: &Path, options: &Options) -> Model {
    open(path.to_str().unwrap(), options, &SourceOptions::default()).unwrap()
}

/// The report as it is written, without its timings.
fn text(report: &ModelReport) -> String {
    let mut report = serde_json::to_value(report).unwrap();
    assert!(report.as_object_mut().unwrap().remove("timings").is_some());
    report.to_string()
}

fn assert_same_with_any_number_of_threads(model: &Model, options: &Options) {
    let one = text(&analyze_with(model, options, 1).unwrap());
    for threads in [2, 8] {
        let many = text(&analyze_with(model, options, threads).unwrap());
        assert!(one == many, "{threads} threads differ from one: {}", first_difference(&one, &many));
    }
}

fn first_difference(a: &str, b: &str) -> String {
    let at = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    let around = |text: &str| text.chars().skip(at.saturating_sub(60)).take(120).collect::<String>();
    format!("\n{}\n{}", around(a), around(b))
}

#[test]
fn threads_on_a_trained_model() {
    for options in [Options::default(), Options::ww_0_7_7(Conv::Pool)] {
        let options = everything(options);
        let model = opened(&fixture("models/fracast/model.safetensors"), &options);
        assert_same_with_any_number_of_threads(&model, &options);
    }
}

#[test]
fn threads_on_every_kind_of_layer() {
    let folder = TempDir::new().unwrap();
    let file = written(&folder, &synthetic());
    for options in [Options::default(), Options::ww_0_7_7(Conv::Pool)] {
        let options = everything(options);
        assert_same_with_any_number_of_threads(&opened(&file, &options), &options);
    }
}

/// Rows by name, without the place in the file.
fn rows(report: &ModelReport) -> Vec<(String, Value)> {
    let mut rows: Vec<(String, Value)> = report
        .layers
        .iter()
        .map(|row| {
            let mut columns = serde_json::to_value(row).unwrap();
            columns.as_object_mut().unwrap().remove("layer_id");
            (row.name.clone(), columns)
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

#[test]
fn the_order_of_tensors_in_the_file() {
    let options = everything(Options::default());
    let mut entries = synthetic();
    let folder = TempDir::new().unwrap();
    let before = analyze_with(&opened(&written(&folder, &entries), &options), &options, 2).unwrap();
    entries.reverse();
    entries.swap(0, 4);
    let after = analyze_with(&opened(&written(&folder, &entries), &options), &options, 2).unwrap();
    let names = |report: &ModelReport| report.layers.iter().map(|row| row.name.clone()).collect::<Vec<_>>();
    assert_ne!(names(&before), names(&after), "the order did change");
    for ((name, one), (_, other)) in rows(&before).into_iter().zip(rows(&after)) {
        assert_eq!(one, other, "{name}");
    }
}

#[test]
fn every_kind_is_analysed_as_meant() {
    let folder = TempDir::new().unwrap();
    let options = everything(Options::default());
    assert_eq!(options.compat, Compat::None);
    let report = analyze_with(&opened(&written(&folder, &synthetic()), &options), &options, 2).unwrap();
    let analysed: Vec<&str> = report.layers.iter().filter(|r| r.has_esd).map(|r| r.name.as_str()).collect();
    assert_eq!(analysed.len(), 9 + 4, "{analysed:?}");
    let method = |name: &str| {
        let row = report.layers.iter().find(|row| row.name == name).unwrap();
        (row.esd.method.unwrap(), row.norms.matrix_rank.unwrap())
    };
    assert_eq!(method("deficient"), ("svd", 20));
    assert_eq!(method("square").1, 130);
}
