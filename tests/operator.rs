//! `--conv operator`, whole: on a trained model, its options, its plan, its bits.

use crate::support::models::{Entry, Numbers, analyze_entries, analyze_with, fixture, open, row};
use spectrald::analysis::{ModelReport, Options};
use spectrald::layer::{Conv, LayerOptions};
use spectrald::source::SourceOptions;
use spectrald::spectrum::MethodChoice;
use std::process::Command;

const SILERO: &str = "models/silero/silero_vad_16k.safetensors";

fn operator(grid: u64) -> Options {
    let layers = LayerOptions { conv: Conv::Operator, grid, ..LayerOptions::default() };
    Options { layers, ..Options::default() }
}

/// Exit code, stdout and stderr of the program on the Silero model.
fn run(command: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let mut program = Command::new(assert_cmd::cargo::cargo_bin!("spectrald"));
    let output = program.arg(command).arg(fixture(SILERO)).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn silero(args: &[&str]) -> serde_json::Value {
    let (code, stdout, stderr) = run("analyze", &[args, &["--format", "json"]].concat());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    serde_json::from_str(&stdout).unwrap()
}

fn found<'a>(report: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    report["layers"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap()
}

/// `norm`, Σλ, of an operator is points × ‖kernel‖², and that of a pooled 1-D convolution is ‖kernel‖².
#[test]
fn the_norm_is_that_of_the_kernel_times_the_points_of_the_grid() {
    let pooled = silero(&[]);
    for (args, points) in [(&["--conv", "operator"][..], 32), (&["--conv", "operator", "--grid", "9"], 9)] {
        let report = silero(args);
        assert_eq!(report["options"]["layers"]["grid"], points);
        for (name, n, m) in [("conv1", 129, 128), ("conv2", 128, 64), ("conv3", 64, 64), ("conv4", 128, 64)] {
            let (row, pool) = (found(&report, name), found(&pooled, name));
            assert_eq!((&row["N"], &row["M"], &row["rf"]), (&n.into(), &m.into(), &3.into()), "{name}");
            assert_eq!(row["num_evals"], points * m, "{name}");
            assert_eq!(row["detail"], format!("operator on a grid of {points}"), "{name}");
            assert_eq!((&row["layer_type"], &row["status"]), (&"conv1d".into(), &"success".into()), "{name}");
            let ratio = row["norm"].as_f64().unwrap() / pool["norm"].as_f64().unwrap();
            assert!((ratio / f64::from(points) - 1.0).abs() < 1e-12, "{name}: {ratio}");
        }
        let dense = "lstm_cell.weight_hh";
        assert_eq!(found(&report, dense), found(&pooled, dense), "other layers are what they were");
        let stft = found(&report, "stft_conv");
        assert_eq!(stft["reason"], "TOO_LARGE");
        assert_eq!(stft["detail"], format!("a kernel of 256 does not fit the grid of {points}"));
    }
}

#[test]
fn describe_counts_frequencies_and_esd_lists_their_eigenvalues() {
    let args = ["--conv", "operator", "--grid", "10", "--format", "json"];
    let (code, described, _) = run("describe", &args);
    assert_eq!(code, Some(0));
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    let rows = described["rows"].as_array().unwrap();
    let conv3 = rows.iter().find(|row| row["name"] == "conv3").unwrap();
    assert_eq!((&conv3["matrices"], &conv3["num_evals"]), (&10.into(), &640.into()));
    let (code, esd, _) = run("esd", &["conv3", "--conv", "operator", "--grid", "10"]);
    assert_eq!(code, Some(0));
    let evals: Vec<f64> = esd.lines().map(|line| line.parse().unwrap()).collect();
    assert!(evals.len() == 640 && evals.is_sorted());
    let (code, esd, _) = run("esd", &["conv3", "--conv", "operator", "--grid", "10", "--method", "svd"]);
    assert_eq!(code, Some(0));
    for (line, eval) in esd.lines().zip(&evals) {
        assert!((line.parse::<f64>().unwrap() - eval).abs() < 1e-12 * evals[639], "{line} {eval}");
    }
}

#[test]
fn what_an_operator_cannot_be_combined_with_is_said() {
    for (args, message) in [
        (&["--compat", "ww-0.7.7"][..], "'--conv': WeightWatcher does not take convolutions as operators"),
        (&["--vectors"], "'--vectors': the eigenvectors of an operator are not computed"),
    ] {
        for command in ["analyze", "describe"] {
            let (code, stdout, stderr) = run(command, &[&["--conv", "operator"], args].concat());
            assert_eq!((code, stdout.as_str()), (Some(2), ""), "{args:?}");
            assert!(stderr.contains(message), "{stderr}");
        }
    }
    let (code, _, stderr) = run("analyze", &["--grid", "8"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("'--grid': is the grid of --conv operator alone"), "{stderr}");
    let (code, _, stderr) = run("analyze", &["--conv", "operator", "--grid", "0"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--grid"), "{stderr}");
}

/// One to three dimensions, wide and tall, depthwise, rank deficient, and one that does not fit.
fn kernels() -> Vec<Entry> {
    let mut deficient = Numbers::new(3).gaussian(12 * 8 * 9);
    // the last input is the first again
    deficient.chunks_mut(72).for_each(|out| out.copy_within(0..9, 63));
    vec![
        Entry::gaussian("a.weight", &[32, 16, 3, 3], 4),
        Entry::gaussian("b.weight", &[16, 40, 5], 5),
        Entry::gaussian("c.weight", &[8, 6, 2, 3, 2], 6),
        Entry::gaussian("depthwise.weight", &[64, 1, 3, 3], 7),
        Entry::f64("deficient.weight", &[12, 8, 3, 3], &deficient),
        Entry::gaussian("far.weight", &[8, 8, 7, 7], 8),
        Entry::gaussian("dense.weight", &[40, 30], 9),
    ]
}

fn text(report: &ModelReport) -> String {
    let mut report = serde_json::to_value(report).unwrap();
    assert!(report.as_object_mut().unwrap().remove("timings").is_some());
    report.to_string()
}

#[test]
fn the_same_report_with_any_number_of_threads() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("model.safetensors");
    for entries in [kernels(), kernels().into_iter().take(1).collect()] {
        std::fs::write(&file, crate::support::models::safetensors(&entries)).unwrap();
        for method in [MethodChoice::Auto, MethodChoice::Svd] {
            let options = Options { method, erg: true, mp: true, randomize: true, ..operator(6) };
            let model = open(file.to_str().unwrap(), &options, &SourceOptions::default()).unwrap();
            let one = text(&analyze_with(&model, &options, 1).unwrap());
            for threads in [2, 8] {
                assert!(one == text(&analyze_with(&model, &options, threads).unwrap()), "{threads} threads");
            }
        }
    }
}

#[test]
fn every_kernel_has_its_row() {
    let options = Options { mp: true, randomize: true, ..operator(6) };
    let report = analyze_entries(&kernels(), &options);
    for (name, evals, n, m) in [
        ("a", 36 * 16, 32, 16),
        ("b", 6 * 16, 40, 16),
        ("c", 216 * 6, 8, 6),
        ("depthwise", 36, 64, 1),
        ("deficient", 36 * 8, 12, 8),
        ("dense", 30, 40, 30),
    ] {
        let row = row(&report, name);
        assert_eq!((row.esd.num_evals, row.n, row.m), (Some(evals), Some(n), Some(m)), "{name}");
        // the permuted kernel has the same norm, hence spectrum sum, and noise has no traps but by chance
        let random = row.random.as_ref().unwrap();
        assert!(random.max_rand_eval.unwrap() > 0.0 && random.seed.is_some(), "{name}");
    }
    let deficient = row(&report, "deficient");
    assert_eq!((deficient.esd.method, deficient.esd.rank_loss), (Some("svd"), Some(36)));
    assert_eq!(row(&report, "far").reason.as_deref(), Some("TOO_LARGE"));
    // noise on either side: the bulk is Marchenko and Pastur's, and nothing is a spike
    let noise = row(&report, "a");
    assert!(noise.mp.as_ref().unwrap().num_spikes.unwrap() <= 6, "{:?}", noise.mp);
    assert!(noise.random.as_ref().unwrap().num_traps.unwrap() <= 6, "{:?}", noise.random);
}

#[test]
fn limits_count_the_eigenvalues_of_all_frequencies() {
    let entries = [Entry::gaussian("a.weight", &[8, 4, 3, 3], 4)];
    let reason = |min_evals, max_evals| {
        let mut options = operator(5);
        options.layers.min_evals = min_evals;
        options.layers.max_evals = max_evals;
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("model.safetensors");
        std::fs::write(&file, crate::support::models::safetensors(&entries)).unwrap();
        let model = open(file.to_str().unwrap(), &options, &SourceOptions::default()).unwrap();
        model.layers.skipped.first().map(|skipped| skipped.detail.clone())
    };
    assert_eq!(reason(100, Some(100)), None);
    let few = reason(101, None).unwrap();
    assert_eq!(few, "25 matrices of M=4: 100 eigenvalues < min_evals 101");
    assert!(reason(1, Some(99)).unwrap().ends_with("100 eigenvalues > max_evals 99"));
}
