//! The same numbers, bit for bit, whatever the number of threads and the order of the tensors in the file.

use crate::support::models::{Entry, Numbers, analyze_with, fixture, open, safetensors};
use serde_json::Value;
use spectrald::analysis::{self, Analysed, Compat, LayerInput, ModelReport, Options};
use spectrald::layer::Conv;
use spectrald::plan;
use spectrald::run::Model;
use spectrald::source::SourceOptions;
use spectrald::spectrum::{GramSum, PartialGram, PartialHead};
use std::path::Path;
use std::sync::Arc;
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

const TALL: (u64, u64) = (11_620, 1344);

/// Tall layers in three shards, the last of 100 rows: elements of every way to be read, and NaN in the last shard.
fn tall() -> Vec<Entry> {
    let (n, m) = TALL;
    let mut numbers = Numbers::new(21);
    let elements: Vec<f64> =
        (0..n * m).map(|_| (numbers.bits() >> 40) as f64 / f64::from(1 << 24) - 0.5).collect();
    let codes: Vec<u8> = (0..n * m).map(|_| numbers.bits() as u8).collect();
    let scales: Vec<f64> = (0..n).map(|row| 0.01 + 1e-6 * row as f64).collect();
    let mut broken = Entry::bf16("broken.weight", &[n, m], &elements);
    for (element, value) in [(7, 0x7f80_u16), (11_550 * m, 0x7fc0), (n * m - 1, 0x7fc0)] {
        broken.bytes[2 * element as usize..][..2].copy_from_slice(&value.to_le_bytes());
    }
    vec![
        Entry::f32("single.weight", &[n, m], &elements),
        Entry::bf16("brain.weight", &[n, m], &elements),
        Entry::new("codes.weight", "I8", &[n, m], codes),
        Entry::f32("codes.weight_scale", &[n, 1], &scales),
        broken,
    ]
}

/// The shards' Gram matrices by so many workers, each of which has every so-manieth shard, the last first.
fn parts(model: &Model, layer: usize, (workers, threads): (usize, usize)) -> Vec<PartialGram> {
    let layer = &model.layers.layers[layer];
    let shards = plan::shards(layer, &Options::default()).unwrap();
    assert_eq!(shards.len(), 3);
    let mut parts: Vec<PartialGram> = Vec::new();
    for worker in 0..workers {
        let mut input = LayerInput::open(&model.catalog, layer, &Arc::default()).unwrap();
        for rows in shards.iter().skip(worker).step_by(workers).rev() {
            let part = analysis::shard_gram(&mut input, rows.clone(), threads).unwrap();
            parts.push(PartialGram::from_bytes(&part.to_bytes()).unwrap());
        }
    }
    parts.sort_by_key(|part| part.head.rows.start);
    parts
}

/// The row of the sum; the second half of the parts arrives in pieces, and the sum is sent on.
fn row_of_parts(model: &Model, layer: usize, parts: &[PartialGram], threads: usize) -> Value {
    let layer = &model.layers.layers[layer];
    let mut sum = GramSum::new(TALL.1).unwrap();
    sum.add(&parts[0]).unwrap();
    let mut sum = GramSum::from_bytes(&sum.to_bytes().unwrap(), TALL.1).unwrap();
    for part in &parts[1..] {
        sum.begin(&PartialHead::from_bytes(&part.head.to_bytes()).unwrap()).unwrap();
        for start in (0..part.lower.len()).step_by(400_000) {
            sum.add_piece_bytes(start, &part.piece(start..start + 400_000)).unwrap();
        }
    }
    let mut input = LayerInput::open(&model.catalog, layer, &Arc::default()).unwrap();
    input.threads = threads;
    input.gram = Some(sum);
    match analysis::analyze_layer(&mut input, &Options::default()).unwrap() {
        Analysed::Row(row) => serde_json::to_value(row).unwrap(),
        Analysed::Known { digest } => panic!("{digest} is not known"),
    }
}

#[test]
fn workers_on_the_shards_of_tall_layers() {
    let folder = TempDir::new().unwrap();
    let options = Options::default();
    let model = opened(&written(&folder, &tall()), &options);
    let whole = analyze_with(&model, &options, 2).unwrap();
    let analysed: Vec<&str> = whole.layers.iter().filter_map(|row| row.reason.as_deref()).collect();
    assert_eq!(analysed, ["SCALE", "NON_FINITE"], "three layers have a row of numbers");
    for (layer, of) in model.layers.layers.iter().enumerate() {
        let row = whole.layers.iter().find(|row| row.name == of.name).unwrap();
        let expected = serde_json::to_value(row).unwrap();
        let ways = if of.name == "single" { &[(1, 2), (2, 1), (7, 1)][..] } else { &[(2, 1)] };
        for &(workers, threads) in ways {
            let parts = parts(&model, layer, (workers, threads));
            let found = row_of_parts(&model, layer, &parts, threads);
            assert_eq!(found, expected, "{}: {workers} workers, {threads} threads", of.name);
        }
    }
    let broken = whole.layers.iter().find(|row| row.name == "broken").unwrap();
    assert_eq!(broken.detail.as_deref(), Some("2 NaN and 1 infinite elements"));
    assert!(broken.digest.is_some());
}

#[test]
fn a_sum_of_other_shards_is_refused() {
    let folder = TempDir::new().unwrap();
    let options = Options::default();
    let entry = Entry::new("t.weight", "F8_E5M2", &[TALL.0, TALL.1], vec![0x3c; (TALL.0 * TALL.1) as usize]);
    let model = opened(&written(&folder, &[entry]), &options);
    let layer = &model.layers.layers[0];
    let mut input = LayerInput::open(&model.catalog, layer, &Arc::default()).unwrap();
    let last = analysis::shard_gram(&mut input, 11_520..11_620, 1).unwrap();
    for rows in [0..5759, 5760..11_620, 0..11_620] {
        let error = analysis::shard_gram(&mut input, rows.clone(), 1).unwrap_err();
        assert_eq!(error.kind(), spectrald::ErrorKind::InvalidArgument, "{rows:?}");
    }
    let mut sum = GramSum::new(TALL.1).unwrap();
    let mut other = last.clone();
    other.head.rows = 0..11_620;
    sum.add(&other).unwrap();
    input.gram = Some(sum);
    let error = analysis::analyze_layer(&mut input, &options).unwrap_err();
    let said = "tensor 't.weight': the sum of 11620 rows of order 1344 is not that of the layer";
    assert_eq!(error.to_string(), said);
}
