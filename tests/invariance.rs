//! What must not change a number, what changes it in a known way, and the unfoldings against tensors cut by hand.

use crate::support::models::{Entry, Numbers, analyze, analyze_entries, analyze_with, fixture, open, row};
use spectrald::analysis::{LayerReport, ModelReport, Options, Status};
use spectrald::layer::LayerOptions;
use spectrald::source::SourceOptions;
use spectrald::spectrum::MethodChoice;

const SHAPES: [(usize, usize); 6] = [(60, 60), (200, 40), (33, 90), (300, 129), (25, 24), (1000, 9)];

/// Elements with a heavy tail, so that alpha means something.
fn heavy(rows: usize, cols: usize, seed: u64) -> Vec<f64> {
    let numbers = Numbers::new(seed).gaussian(rows * cols);
    numbers.into_iter().map(|x| (x * x * x * 1024.0).round() / 1024.0).collect()
}

fn dense(rows: usize, cols: usize, values: &[f64]) -> Entry {
    Entry::f64("w.weight", &[rows as u64, cols as u64], values)
}

fn one(entry: Entry, options: &Options) -> LayerReport {
    row(&analyze_entries(&[entry], options), "w").clone()
}

fn transposed(rows: usize, cols: usize, values: &[f64]) -> Vec<f64> {
    (0..rows * cols).map(|at| values[(at % rows) * cols + at / rows]).collect()
}

fn close(a: Option<f64>, b: Option<f64>, tolerance: f64, what: &str) {
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!((a - b).abs() <= tolerance * b.abs(), "{what}: {a} {b}");
}

#[test]
fn alpha_does_not_see_the_scale_of_a_layer() {
    for (rows, cols) in SHAPES {
        let values = heavy(rows, cols, 1);
        let before = one(dense(rows, cols, &values), &Options::default());
        for factor in [1e-12, 0.5, 3.0, 1e9] {
            let scaled: Vec<f64> = values.iter().map(|x| x * factor).collect();
            let after = one(dense(rows, cols, &scaled), &Options::default());
            let what = format!("{rows} × {cols} times {factor}");
            close(after.fit.alpha, before.fit.alpha, 1e-9, &what);
            close(after.fit.d, before.fit.d, 1e-9, &what);
            assert_eq!(after.fit.num_pl_spikes, before.fit.num_pl_spikes, "{what}");
            close(after.norms.norm, before.norms.norm.map(|n| n * factor * factor), 1e-12, &what);
            close(after.norms.stable_rank, before.norms.stable_rank, 1e-12, &what);
            close(after.norms.entropy, before.norms.entropy, 1e-12, &what);
        }
    }
}

#[test]
fn transposing_and_permuting_rows_change_rounding_alone() {
    for (rows, cols) in SHAPES {
        let values = heavy(rows, cols, 2);
        let before = one(dense(rows, cols, &values), &Options::default());
        let turned = dense(cols, rows, &transposed(rows, cols, &values));
        let permuted: Vec<f64> = values.chunks(cols).rev().flatten().copied().collect();
        for (how, entry) in [("transposed", turned), ("permuted", dense(rows, cols, &permuted))] {
            let after = one(entry, &Options::default());
            let what = format!("{rows} × {cols} {how}");
            assert_eq!((after.n, after.m), (before.n, before.m), "{what}");
            close(after.fit.alpha, before.fit.alpha, 1e-9, &what);
            close(after.fit.xmin, before.fit.xmin, 1e-9, &what);
            close(after.esd.lambda_max, before.esd.lambda_max, 1e-12, &what);
            close(after.norms.entropy, before.norms.entropy, 1e-12, &what);
        }
    }
}

#[test]
fn the_svd_gives_the_numbers_of_the_gram_matrix() {
    let model = fixture("models/fracast/model.safetensors");
    let svd = Options { method: MethodChoice::Svd, ..Options::default() };
    let (gram, svd) = (analyze(&model, &Options::default()), analyze(&model, &svd));
    for a in gram.layers.iter().filter(|row| row.status == Status::Success) {
        let b = row(&svd, &a.name);
        assert_eq!((a.esd.method, b.esd.method), (Some("gram"), Some("svd")));
        close(a.fit.alpha, b.fit.alpha, 1e-9, &a.name);
        close(a.norms.entropy, b.norms.entropy, 1e-10, &a.name);
        close(a.esd.sv_min, b.esd.sv_min, 1e-5, &a.name);
        assert_eq!(a.norms.matrix_rank, b.norms.matrix_rank);
        assert_eq!(a.digest, b.digest);
    }
}

fn names(report: &ModelReport, status: Status) -> Vec<&str> {
    report.layers.iter().filter(|row| row.status == status).map(|row| row.name.as_str()).collect()
}

#[test]
fn a_head_with_the_bytes_of_the_embedding_is_counted_once() {
    let embedding = Entry::gaussian("model.embed_tokens.weight", &[90, 40], 3);
    let tied = Entry { name: "lm_head.weight".to_owned(), ..embedding.clone() };
    let report = analyze_entries(&[embedding.clone(), tied], &Options::default());
    assert_eq!(names(&report, Status::Success), ["model.embed_tokens"]);
    let head = row(&report, "lm_head");
    assert_eq!(head.reason.as_deref(), Some("TIED"));
    assert_eq!(head.detail.as_deref(), Some("the same bytes as 'model.embed_tokens.weight'"));
    assert_eq!(report.summary.layers_analysed, 1);

    let own = Entry::gaussian("lm_head.weight", &[90, 40], 4);
    let report = analyze_entries(&[embedding, own], &Options::default());
    assert_eq!(names(&report, Status::Success), ["model.embed_tokens", "lm_head"]);
}

/// The rows of parts must be those of the same parts stored as tensors of their own.
fn same_as_cut(whole: &Entry, options: LayerOptions, parts: &[(&str, Entry)]) {
    let options = Options { layers: options, ..Options::default() };
    let split = analyze_entries(std::slice::from_ref(whole), &options);
    for (name, entry) in parts {
        let (own, cut) = (row(&split, name), one(entry.clone(), &Options::default()));
        assert_eq!((own.n, own.m), (cut.n, cut.m), "{name}");
        close(own.fit.alpha, cut.fit.alpha, 1e-10, name);
        close(own.norms.norm, cut.norms.norm, 1e-13, name);
        close(own.esd.sv_min, cut.esd.sv_min, 1e-9, name);
    }
}

#[test]
fn gates_of_an_lstm_are_its_quarters() {
    let values = heavy(80, 20, 5);
    let whole = Entry::f64("lstm.weight_hh_l0", &[80, 20], &values);
    let quarter = |i: usize| dense(20, 20, &values[i * 400..(i + 1) * 400]);
    let parts: Vec<(String, Entry)> = ["i", "f", "g", "o"]
        .iter()
        .enumerate()
        .map(|(i, gate)| (format!("gate_{gate}"), quarter(i)))
        .collect();
    let parts: Vec<(String, Entry)> =
        parts.into_iter().map(|(gate, entry)| (format!("lstm.weight_hh_l0.{gate}"), entry)).collect();
    let parts: Vec<(&str, Entry)> =
        parts.iter().map(|(name, entry)| (name.as_str(), entry.clone())).collect();
    same_as_cut(&whole, LayerOptions { split_gates: true, ..LayerOptions::default() }, &parts);
}

#[test]
fn fused_columns_of_gpt2_are_cut_by_columns() {
    let (rows, cols) = (16, 48);
    let values = heavy(rows, cols, 6);
    let whole = Entry::f64("h.0.attn.c_attn.weight", &[16, 48], &values);
    let third = |i: usize| -> Entry {
        let part: Vec<f64> = values.chunks(cols).flat_map(|row| row[i * 16..(i + 1) * 16].to_vec()).collect();
        dense(rows, 16, &part)
    };
    let parts =
        [("h.0.attn.c_attn.q", third(0)), ("h.0.attn.c_attn.k", third(1)), ("h.0.attn.c_attn.v", third(2))];
    same_as_cut(&whole, LayerOptions { split_fused: true, ..LayerOptions::default() }, &parts);
}

#[test]
fn experts_are_the_matrices_of_a_fused_tensor() {
    let values = heavy(4 * 30, 20, 7);
    let whole = Entry::f64("mlp.experts.down_proj", &[4, 30, 20], &values);
    let names = ["mlp.experts.down_proj[0]", "mlp.experts.down_proj[3]"];
    let expert = |i: usize| dense(30, 20, &values[i * 600..(i + 1) * 600]);
    same_as_cut(&whole, LayerOptions::default(), &[(names[0], expert(0)), (names[1], expert(3))]);
}

#[test]
fn memory_that_allows_one_layer_at_a_time_gives_the_same_rows() {
    let model = fixture("models/fracast/model.safetensors");
    let options = Options::default();
    let opened = open(model.to_str().unwrap(), &options, &SourceOptions::default()).unwrap();
    let costs =
        opened.layers.layers.iter().map(|l| spectrald::plan::cost(&opened.catalog, l, &options).peak_bytes);
    let run =
        spectrald::run::RunOptions { threads: 8, memory: costs.max().unwrap(), cancel: Default::default() };
    let narrow = spectrald::run::analyze(&opened, &options, &run, &spectrald::run::Silent).unwrap();
    let wide = analyze_with(&opened, &options, 8).unwrap();
    let text = |report: &ModelReport| serde_json::to_string(&report.layers).unwrap();
    assert_eq!(text(&narrow), text(&wide));
}

#[test]
fn an_orthogonal_layer_has_no_tail_whatever_its_type_rounds() {
    let v = Numbers::new(8).gaussian(80);
    let norm: f64 = v.iter().map(|x| x * x).sum();
    let values: Vec<f64> =
        (0..6400).map(|at| f64::from(at / 80 == at % 80) - 2.0 * v[at / 80] * v[at % 80] / norm).collect();
    let shape = [80, 80];
    for entry in [Entry::f32("w.weight", &shape, &values), Entry::bf16("w.weight", &shape, &values)] {
        let row = one(entry, &Options::default());
        assert_eq!((row.status, row.reason.as_deref()), (Status::Failed, Some("NO_FIT")), "{:?}", row.fit);
        assert_eq!(row.detail.as_deref(), Some("all eigenvalues are equal"));
        assert_eq!(row.fit.alpha, None);
    }
}
