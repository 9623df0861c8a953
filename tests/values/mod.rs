//! Odd numbers and odd shapes in weights: items 97 to 102 of the list of hostile inputs. Each gives a defined row, and
//! never a crash, a NaN in a report, or harm to the other layers.

mod encodings;

use crate::support::models::{Entry, Numbers, analyze, analyze_entries, fixture, row};
use spectrald::analysis::{LayerReport, ModelReport, Options, Status};
use spectrald::layer::Conv;
use spectrald::render;

fn everything() -> Options {
    Options { erg: true, mp: true, randomize: true, vectors: true, ..Options::default() }
}

/// A layer that is always fine.
fn bystander() -> Entry {
    Entry::gaussian("fine.weight", &[64, 32], 1)
}

/// The reports of these tensors and a bystander in every mode. The bystander must come out as it does alone, and
/// what is written must be JSON without a NaN.
fn reports(entries: &[Entry]) -> Vec<ModelReport> {
    let all = [entries, &[bystander()]].concat();
    [Options::default(), everything(), Options { erg: true, mp: true, ..Options::ww_0_7_7(Conv::Pool) }]
        .iter()
        .map(|options| {
            let report = analyze_entries(&all, options);
            let alone = analyze_entries(&[bystander()], options);
            let fine = |report: &ModelReport| LayerReport { layer_id: None, ..row(report, "fine").clone() };
            let text = |row: LayerReport| serde_json::to_string(&row).unwrap();
            assert_eq!(text(fine(&report)), text(fine(&alone)));
            assert_eq!(fine(&report).status, Status::Success);
            assert_written(&report);
            report
        })
        .collect()
}

fn assert_written(report: &ModelReport) {
    let json = render::json(std::slice::from_ref(report)).unwrap();
    let _: serde_json::Value = serde_json::from_str(&json).unwrap();
    let csv = render::csv(std::slice::from_ref(report)).unwrap();
    for text in [json, csv] {
        // what the rows say of their NaN is meant
        let text = text.replace(" NaN and ", " ").replace(" is NaN", "").replace(" is inf", "");
        let words = text.split(|c: char| !c.is_alphanumeric());
        assert!(!words.into_iter().any(|word| matches!(word, "NaN" | "inf" | "nan" | "Infinity")), "{text}");
    }
    for row in &report.layers {
        assert_eq!(
            row.fit.alpha.is_some_and(|alpha| alpha > 0.0),
            row.status == Status::Success,
            "{}",
            row.name
        );
        assert_eq!(row.reason.is_some(), row.status != Status::Success, "{}", row.name);
    }
}

fn assert_failed(row: &LayerReport, reason: &str, detail: &str) {
    let found = (row.status, row.reason.as_deref(), row.detail.as_deref());
    assert_eq!(found, (Status::Failed, Some(reason), Some(detail)), "{}", row.name);
}

/// 64 × 32 Gaussian elements, some replaced.
fn with(values: &[(usize, f64)]) -> Vec<f64> {
    let mut all = Numbers::new(5).gaussian(64 * 32);
    values.iter().for_each(|&(at, value)| all[at] = value);
    all
}

#[test]
fn nan_and_infinity_are_findings_with_counts() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for (name, values, detail) in [
        ("one NaN", with(&[(17, nan)]), "1 NaN and 0 infinite elements"),
        ("all NaN", vec![nan; 64 * 32], "2048 NaN and 0 infinite elements"),
        ("one infinity", with(&[(2047, -inf)]), "0 NaN and 1 infinite elements"),
        ("both", with(&[(0, nan), (1, inf), (2000, -inf)]), "1 NaN and 2 infinite elements"),
    ] {
        for entry in [
            Entry::f32("bad.weight", &[64, 32], &values),
            Entry::f64("bad.weight", &[64, 32], &values),
            Entry::bf16("bad.weight", &[64, 32], &values),
            Entry::f32("bad.weight", &[32, 64], &values),
        ] {
            for report in reports(std::slice::from_ref(&entry)) {
                let bad = row(&report, "bad");
                assert_failed(bad, "NON_FINITE", detail);
                assert!(!bad.has_esd && bad.digest.is_some(), "{name} {}", entry.dtype);
                assert_eq!((report.summary.layers_analysed, report.summary.layers_failed), (1, 1));
            }
        }
    }
}

#[test]
fn nan_counts_go_over_every_matrix_of_a_layer() {
    let mut values = Numbers::new(6).gaussian(16 * 16 * 9);
    values[0] = f64::NAN;
    values[16 * 16 * 9 - 1] = f64::NAN;
    values[700] = f64::INFINITY;
    let report = analyze_entries(&[Entry::f32("conv.weight", &[16, 16, 3, 3], &values)], &Options::default());
    assert_failed(row(&report, "conv"), "NON_FINITE", "2 NaN and 1 infinite elements");
}

#[test]
fn a_bad_scale_is_found() {
    for (scale, shown) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let mut scales = vec![0.5; 64];
        scales[63] = scale;
        let entries = [
            Entry::new("bad.weight", "I8", &[64, 32], (0..64 * 32).map(|i| (i % 251) as u8).collect()),
            Entry::f32("bad.weight_scale", &[64], &scales),
            bystander(),
        ];
        let report = analyze_entries(&entries, &everything());
        assert_failed(
            row(&report, "bad"),
            "NON_FINITE",
            &format!("scale 63 of 'bad.weight_scale' is {shown}"),
        );
        assert_eq!(row(&report, "fine").status, Status::Success);
    }
}

#[test]
fn the_program_exits_0_where_a_layer_is_not_finite() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("m.safetensors");
    let bad = Entry::f32("bad.weight", &[64, 32], &with(&[(17, f64::NAN)]));
    std::fs::write(&file, crate::support::models::safetensors(&[bad, bystander()])).unwrap();
    let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("spectrald"));
    let output = command.arg("analyze").arg(&file).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("NON_FINITE: 1 NaN and 0 infinite elements"), "{table}");
}

#[test]
fn matrices_without_a_tail() {
    let rank_one: Vec<f64> = (0..64 * 32).map(|i| ((i / 32 + 1) * (i % 32 + 1)) as f64).collect();
    for (name, values, rank) in
        [("zero", vec![0.0; 64 * 32], 0), ("constant", vec![3.0; 64 * 32], 1), ("rank one", rank_one, 1)]
    {
        let norm: f64 = values.iter().map(|x| x * x).sum();
        for report in reports(&[Entry::f32("odd.weight", &[64, 32], &values)]) {
            let odd = row(&report, "odd");
            assert!(odd.has_esd, "{name}: {:?}", odd.detail);
            assert_eq!(odd.norms.matrix_rank, Some(rank), "{name}");
            assert_eq!(odd.esd.num_evals, Some(32));
            let lambda_max = odd.esd.lambda_max.unwrap();
            assert!((lambda_max - norm).abs() <= 1e-12 * norm, "{name}: {lambda_max} {norm}");
            if report.options.is_compat() {
                continue; // what WeightWatcher makes of noise is its own
            }
            assert_eq!((odd.status, odd.reason.as_deref()), (Status::Failed, Some("NO_FIT")), "{name}");
            assert_eq!((odd.fit.alpha, odd.norms.alpha_weighted), (None, None), "{name}");
            let stable_rank = odd.norms.stable_rank;
            let entropy = odd.norms.entropy;
            if rank == 1 {
                assert!((stable_rank.unwrap() - 1.0).abs() < 1e-12, "{name}: {stable_rank:?}");
                assert!(entropy.is_none_or(|entropy| entropy.abs() < 1e-9), "{name}: {entropy:?}");
            } else {
                assert!(stable_rank.is_none_or(|rank| rank == 0.0), "{name}: {stable_rank:?}");
            }
        }
    }
}

#[test]
fn rank_deficient_layers_take_the_svd_and_have_their_rank() {
    let full = Numbers::new(3).gaussian(64 * 32);
    let mut deficient = full.clone();
    deficient.chunks_mut(32).for_each(|row| row.copy_within(0..12, 20)); // 20 columns and 12 copies
    for report in reports(&[
        Entry::f32("full.weight", &[64, 32], &full),
        Entry::f32("deficient.weight", &[64, 32], &deficient),
        Entry::f64("deficient64.weight", &[64, 32], &deficient),
    ]) {
        assert_eq!(row(&report, "full").norms.matrix_rank, Some(32));
        for name in ["deficient", "deficient64"] {
            let row = row(&report, name);
            assert_eq!(row.esd.method, Some("svd"), "{name}");
            assert_eq!((row.norms.matrix_rank, row.esd.rank_loss), (Some(20), Some(12)), "{name}");
            assert!(
                row.esd.sv_min.unwrap() < 1e-12 * row.esd.sv_max.unwrap(),
                "{name}: {:?}",
                row.esd.sv_min
            );
        }
        if report.options.is_compat() {
            continue;
        }
        // −Σ p log p over the eigenvalues, as a share of log rank: those that are zero add nothing.
        let doubled = row(&report, "deficient64");
        let copied: Vec<f64> = (0..20 * 64)
            .map(|i| deficient[(i / 20) * 32 + i % 20] * if i % 20 < 12 { 2_f64.sqrt() } else { 1.0 })
            .collect();
        let alone = analyze_entries(&[Entry::f64("a.weight", &[64, 20], &copied)], &Options::default());
        let (one, other) = (doubled.norms.entropy.unwrap(), row(&alone, "a").norms.entropy.unwrap());
        assert!((one - other).abs() < 1e-9, "{one} {other}");
        let alpha = (doubled.fit.alpha.unwrap(), row(&alone, "a").fit.alpha.unwrap());
        assert!((alpha.0 - alpha.1).abs() < 1e-9, "noise is no part of the tail: {alpha:?}");
    }
}

#[test]
fn shapes_that_hold_no_matrix() {
    let one = |count: usize| Numbers::new(9).gaussian(count);
    let entries = [
        Entry::f32("a.weight", &[0, 64], &[]),
        Entry::f32("b.weight", &[64, 0], &[]),
        Entry::f32("c.weight", &[1, 1], &[1.0]),
        Entry::f32("d.weight", &[1, 64], &one(64)),
        Entry::f32("e.weight", &[64, 1], &one(64)),
        Entry::f32("f.weight", &[], &[1.0]),
        Entry::f32("g.weight", &[2; 6], &one(64)),
        Entry::f32("h.weight", &[64, 32, 0, 3], &[]),
        Entry::f32("i.weight", &[1; 6], &[1.0]),
    ];
    for report in reports(&entries) {
        assert_eq!(report.layers.len(), entries.len() + 1);
        let compat = report.options.is_compat();
        for (name, reason) in [
            ("a", "EMPTY"),
            ("b", "EMPTY"),
            ("c", "SCALAR"),
            ("d", "TOO_FEW_EVALS"),
            ("e", "TOO_FEW_EVALS"),
            ("f", "SCALAR"),
            ("g", "NOT_A_MATRIX"),
            ("h", "EMPTY"),
            ("i", "SCALAR"),
        ] {
            let row = row(&report, name);
            assert_eq!(row.status, Status::Skipped, "{name}");
            if !compat {
                assert_eq!(row.reason.as_deref(), Some(reason), "{name}");
            }
            assert!(row.detail.as_ref().is_some_and(|detail| !detail.is_empty()), "{name}");
        }
        assert_eq!(report.summary.layers_analysed, 1);
    }
}

#[test]
fn five_dimensions_and_single_columns_where_they_are_asked_for() {
    let cube = Numbers::new(4).gaussian(16 * 8 * 27);
    let options = Options { ..everything() };
    let report = analyze_entries(&[Entry::f32("v.weight", &[16, 8, 3, 3, 3], &cube)], &options);
    let row3 = row(&report, "v");
    assert_eq!(
        (row3.layer_type.as_deref(), row3.esd.num_evals, row3.rf),
        (Some("conv3d"), Some(27 * 8), Some(27))
    );
    let mut options = everything();
    options.layers.min_evals = 1;
    let values = Numbers::new(5).gaussian(64);
    let report = analyze_entries(&[Entry::f32("w.weight", &[64, 1], &values)], &options);
    let single = row(&report, "w");
    assert_eq!((single.status, single.reason.as_deref()), (Status::Failed, Some("NO_FIT")));
    let norm: f64 = values.iter().map(|&x| (x as f32) as f64).map(|x| x * x).sum();
    assert!((single.esd.lambda_max.unwrap() - norm).abs() < 1e-12 * norm);
    assert_eq!(single.norms.matrix_rank, Some(1));
    assert_written(&report);
}

#[test]
fn numbers_at_the_ends_of_f32_and_f64() {
    let base = Numbers::new(8).gaussian(64 * 32);
    let scaled = |factor: f64| base.iter().map(|x| x * factor).collect::<Vec<_>>();
    let alpha = |entry: Entry| {
        let reports = reports(&[entry]);
        let rows: Vec<LayerReport> = reports.iter().map(|report| row(report, "x").clone()).collect();
        assert!(rows.iter().all(|row| row.has_esd), "{:?}", rows[0].detail);
        rows[0].fit.alpha.unwrap()
    };
    let plain = alpha(Entry::f32("x.weight", &[64, 32], &base));
    // 1e38: the squares pass the range of f32, not of f64
    let huge = alpha(Entry::f32("x.weight", &[64, 32], &scaled(2_f64.powi(124))));
    assert!((huge - plain).abs() < 1e-9, "{huge} {plain}");
    let small = alpha(Entry::f32("x.weight", &[64, 32], &scaled(2_f64.powi(-100))));
    assert!((small - plain).abs() < 1e-9, "{small} {plain}");
    // denormals of f32 keep fewer digits
    let denormal = alpha(Entry::f32("x.weight", &[64, 32], &scaled(2_f64.powi(-132))));
    assert!((denormal / plain - 1.0).abs() < 0.01, "{denormal} {plain}");
    // f64 whose squares pass the range of f64, at either end
    for factor in [1e200, 1e-200] {
        let entry = Entry::f64("x.weight", &[64, 32], &scaled(factor));
        let [strict, all, compat]: [ModelReport; 3] = reports(&[entry]).try_into().ok().unwrap();
        for report in [strict, all] {
            assert_failed(row(&report, "x"), "NON_FINITE", "the eigenvalues leave the range of f64");
        }
        // WeightWatcher rounds to f32 first: to infinity, to 0
        let compat = row(&compat, "x");
        if factor > 1.0 {
            assert_failed(compat, "NON_FINITE", "0 NaN and 2048 infinite elements");
        } else {
            assert_eq!((compat.reason.as_deref(), compat.esd.lambda_max), (Some("NO_FIT"), Some(0.0)));
        }
    }
}

#[test]
fn the_int8_checkpoint_is_close_to_the_one_it_was_made_from() {
    let floats = analyze(&fixture("models/fracast/model.safetensors"), &Options::default());
    let codes = analyze(&fixture("models/fracast-int8/model.int8.safetensors"), &Options::default());
    let mut compared = 0;
    for row in codes.layers.iter().filter(|row| row.dtype == "I8*F32" && row.has_esd) {
        let name = row.tensor.strip_suffix(".qweight").unwrap();
        let float = floats.layers.iter().find(|float| float.tensor == name).unwrap();
        assert_eq!((row.n, row.m, row.esd.num_evals), (float.n, float.m, float.esd.num_evals), "{name}");
        let (alpha, expected) = (row.fit.alpha.unwrap(), float.fit.alpha.unwrap());
        assert!(
            (alpha / expected - 1.0).abs() < 0.25,
            "{name}: alpha {alpha}, of the f32 weights {expected}"
        );
        let (norm, expected) = (row.norms.norm.unwrap(), float.norms.norm.unwrap());
        assert!((norm / expected - 1.0).abs() < 0.01, "{name}: norm {norm}, of the f32 weights {expected}");
        compared += 1;
    }
    assert_eq!(compared, 13);
}
