use assert_cmd::Command;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Rows × columns of f32 numbers in (−½, ½), row r times (r + 1)^−decay: the larger, the heavier the spectrum's tail.
fn matrix(rows: usize, cols: usize, decay: f32) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (rows * 1000 + cols) as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..rows * cols).map(|at| next() * ((at / cols + 1) as f32).powf(-decay)).collect()
}

/// A safetensors file of three layers: heavy-tailed, of few columns, and a convolution of nine matrices.
fn model(folder: &Path) -> PathBuf {
    let tensors = [
        ("heavy.weight", vec![400, 300], matrix(400, 300, 1.0)),
        ("narrow.weight", vec![60, 10], matrix(60, 10, 0.3)),
        ("conv.weight", vec![32, 24, 3, 3], matrix(32, 216, 0.3)),
    ];
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, shape, values) in &tensors {
        let from = data.len();
        data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [from, data.len()]});
        header.insert((*name).to_owned(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    let file = folder.join("model.safetensors");
    std::fs::write(&file, bytes).unwrap();
    file
}

fn run(arguments: &[&str], model: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("spectrald").unwrap();
    let output = command.arg(arguments[0]).arg(model).args(&arguments[1..]).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn rows(arguments: &[&str], model: &Path) -> Vec<Value> {
    let all: Vec<&str> = ["analyze", "--format", "json"].iter().chain(arguments).copied().collect();
    let (code, out, err) = run(&all, model);
    assert_eq!(code, Some(0), "{err}");
    let mut report: Value = serde_json::from_str(&out).unwrap();
    serde_json::from_value(report["layers"].take()).unwrap()
}

fn named<'a>(rows: &'a [Value], name: &str) -> &'a Value {
    rows.iter().find(|row| row["tensor"] == name).unwrap()
}

#[test]
fn a_partial_row_has_what_is_known_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = model(folder.path());
    let whole = rows(&[], &file);
    let partial = rows(&["--method", "randomized:60"], &file);
    let (row, exact) = (named(&partial, "heavy.weight"), named(&whole, "heavy.weight"));
    assert_eq!(
        (&row["method"], &row["num_evals"], &row["k"]),
        (&json!("randomized"), &json!(300), &json!(60))
    );
    for same in ["norm", "lambda_max", "stable_rank", "spectral_norm", "sv_max"] {
        let (a, b) = (row[same].as_f64().unwrap(), exact[same].as_f64().unwrap());
        assert!((a / b - 1.0).abs() < 1e-9, "{same}: {a} {b}");
    }
    let unknown = [
        "entropy",
        "matrix_rank",
        "rank_loss",
        "weak_rank_loss",
        "sv_min",
        "log_alpha_norm",
        "alpha_lo",
        "alpha_hi",
        "xmin_tied",
    ];
    assert!(unknown.iter().all(|name| row[name].is_null()), "{row}");
    let word = row["certificate"].as_str().unwrap();
    let up_to = row["certified_up_to"].as_u64().unwrap();
    let tail = exact["num_pl_spikes"].as_u64().unwrap();
    if up_to >= tail {
        assert_eq!(row["num_pl_spikes"].as_u64(), Some(tail), "the whole fit's tail was looked at");
    }
    assert_eq!(word == "certified", up_to == 300, "{word} {up_to}");
    assert!(row["residual_max"].as_f64().unwrap() <= 1e-4 * row["lambda_max"].as_f64().unwrap());
    assert!(row["alpha_error"].as_f64().unwrap() < 1e-3);
    assert!(exact.get("certificate").is_none(), "columns of this method alone");
    for (name, why) in [("narrow.weight", "half of the 10"), ("conv.weight", "9 matrices")] {
        let (row, exact) = (named(&partial, name), named(&whole, name));
        assert_eq!((&row["certificate"], &row["alpha"]), (&json!("exact"), &exact["alpha"]), "{name}");
        assert!(row["detail"].as_str().unwrap().contains(why), "{row}");
    }
}

/// The table and the summary are read without the other columns: what is not certified must not pass for it.
#[test]
fn uncertified_alphas_are_marked_and_enter_no_mean() {
    let folder = tempfile::tempdir().unwrap();
    let file = model(folder.path());
    let arguments = ["analyze", "--method", "randomized:8", "--layers", "heavy"];
    let (code, table, err) = run(&arguments, &file);
    assert_eq!(code, Some(0), "{err}");
    assert!(table.contains("certificate"), "{table}");
    let (_, out, _) = run(&[&arguments[..], &["--format", "json"]].concat(), &file);
    let report: Value = serde_json::from_str(&out).unwrap();
    let row = named(report["layers"].as_array().unwrap(), "heavy.weight");
    let word = row["certificate"].as_str().unwrap();
    assert!(word != "certified" && table.contains(word), "{row}");
    assert!(row["alpha"].is_f64() && row["warning"].is_null(), "{row}");
    let means = &report["summary"]["means"];
    assert!(means.get("alpha").is_none() && means.get("alpha_weighted").is_none(), "{means}");
    assert!(means["stable_rank"].is_f64(), "{means}");
    assert_eq!(report["summary"]["worst"], json!([]));
}

#[test]
fn auto_computes_the_whole_spectrum_of_small_layers_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = model(folder.path());
    let (whole, auto) = (rows(&[], &file), rows(&["--method", "randomized"], &file));
    for (row, exact) in auto.iter().zip(&whole) {
        assert_eq!(row["certificate"], "exact");
        assert_eq!((&row["alpha"], &row["entropy"]), (&exact["alpha"], &exact["entropy"]));
        assert!(row["detail"].as_str().unwrap().starts_with("whole spectrum"), "{row}");
    }
}

#[test]
fn threads_and_repetition_do_not_change_a_bit() {
    let folder = tempfile::tempdir().unwrap();
    let file = model(folder.path());
    let method = ["--method", "randomized:60", "--seed", "5"];
    let one = rows(&[&method[..], &["--threads", "1"]].concat(), &file);
    assert_eq!(one, rows(&[&method[..], &["--threads", "2"]].concat(), &file));
    assert_eq!(one, rows(&[&method[..], &["--threads", "8"]].concat(), &file));
}

#[test]
fn esd_prints_the_largest() {
    let folder = tempfile::tempdir().unwrap();
    let file = model(folder.path());
    let values = |method: &str| -> Vec<f64> {
        let (code, out, err) = run(&["esd", "heavy", "--method", method], &file);
        assert_eq!(code, Some(0), "{err}");
        out.lines().map(|line| line.parse().unwrap()).collect()
    };
    let (whole, top) = (values("auto"), values("randomized:30"));
    assert_eq!((whole.len(), top.len()), (300, 30));
    for (a, b) in top.iter().zip(&whole[270..]) {
        assert!((a / b - 1.0).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn options_that_need_the_whole_spectrum_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = model(folder.path());
    for needing in [&["--mp"][..], &["--erg"], &["--randomize"], &["--vectors"], &["--compat", "ww-0.7.7"]] {
        for command in ["analyze", "describe"] {
            let all = [&[command, "--method", "randomized:40"][..], needing].concat();
            let (code, out, err) = run(&all, &file);
            assert_eq!((code, out.as_str()), (Some(2), ""), "{all:?}");
            assert!(err.contains("--method randomized") && err.contains(needing[0]), "{err}");
        }
    }
    let (code, _, err) = run(&["analyze", "--method", "randomized:2"], &file);
    assert!(code == Some(2) && err.contains("at least 3"), "{err}");
}
