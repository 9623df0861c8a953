//! Whatever is wrong is said in one line, with the right exit code, and nothing on stdout.

use super::{Place, Ran};
use crate::support::models::{Entry, fixture, safetensors};

fn assert_fails(place: &Place, args: &[&str], code: i32, stderr: &str) {
    let Ran { code: found, stdout, stderr: said } = place.run(args);
    assert_eq!((found, said.as_str()), (Some(code), stderr), "{args:?}");
    assert!(stdout.is_empty(), "{args:?} wrote {} bytes", stdout.len());
}

#[test]
fn models_that_are_none() {
    let place = Place::new();
    place.write("notes.txt", "Shopping list: eggs, milk.");
    place.write("noise", [7, 1, 200, 9, 0, 0, 0, 1, 44]);
    place.write("empty-file.safetensors", "");
    std::fs::create_dir(place.file("empty")).unwrap();
    std::fs::create_dir(place.file("papers")).unwrap();
    place.write("papers/a.pdf", "%PDF");
    let schemes = "file, s3, s3a, gs, az, abfs, abfss, http, https, and paths";
    for (model, message) in [
        ("nope", "nope: no such file or directory".to_owned()),
        ("model.safetensors/x", "model.safetensors/x: no such file or directory".to_owned()),
        ("", ": the model's path is empty".to_owned()),
        ("empty", "empty: the directory has no files; folders in it are not searched".to_owned()),
        ("papers", "papers: no model file in the directory, which has 1 file (a.pdf)".to_owned()),
        ("notes.txt", "notes.txt: a text file; this version reads safetensors".to_owned()),
        ("./notes.txt", "./notes.txt: a text file; this version reads safetensors".to_owned()),
        ("noise", "noise: not a kind of file that is known; this version reads safetensors".to_owned()),
        ("ftp://host/m", format!("ftp://host/m: unknown scheme 'ftp': we know {schemes}")),
        (
            "s3://KEY:SECRET@bucket/m",
            "s3://bucket/m: credentials in a URI are not supported: use the store's environment variables"
                .to_owned(),
        ),
    ] {
        for command in ["analyze", "describe"] {
            assert_fails(&place, &[command, model], 2, &format!("error: {message}\n"));
        }
        assert_fails(&place, &["esd", model, "x"], 2, &format!("error: {message}\n"));
    }
    let short = place.run(&["analyze", "empty-file.safetensors"]);
    assert_eq!(short.code, Some(2));
    assert!(short.stderr.starts_with("error: empty-file.safetensors: "), "{}", short.stderr);
    assert_eq!(short.stderr.lines().count(), 1);
}

#[test]
fn the_model_is_named_with_the_file_inside_it() {
    let place = Place::new();
    std::fs::copy(fixture("models/fracast-int8/model.int8.safetensors"), place.file("other.safetensors"))
        .unwrap();
    let message =
        "error: .: tensor 'core.block.dw_bias': is in both 'model.safetensors' and 'other.safetensors'\n";
    assert_fails(&place, &["analyze", "."], 2, message);
    place.write("other.safetensors", "x");
    let ran = place.run(&["analyze", "."]);
    assert!(ran.stderr.starts_with("error: .: other.safetensors: "), "{}", ran.stderr);
    // The second of two models.
    let ran = place.run(&["analyze", "model.safetensors", "other.safetensors"]);
    assert!(ran.stderr.starts_with("error: other.safetensors: "), "{}", ran.stderr);
    assert!(ran.stdout.is_empty());
}

#[test]
fn options_that_are_wrong() {
    let place = Place::new();
    for (options, message) in [
        (
            &["--erq"][..],
            "error: unexpected argument '--erq' found\n\n  tip: a similar argument exists: '--erg'\n",
        ),
        (&["--threads", "0"], "error: invalid value '0' for '--threads <N>': 0 is not in 1..=1024\n"),
        (&["--memory", "lots"], "error: invalid value 'lots' for '--memory <BYTES>'"),
        (
            &["--compat", "ww-1"],
            "error: invalid value 'ww-1' for '--compat <TOOL>'\n  [possible values: ww-0.7.7]\n",
        ),
        (&["--format", "xml"], "error: invalid value 'xml' for '--format <FORMAT>'\n"),
    ] {
        let args = [&["analyze", "model.safetensors"], options].concat();
        let ran = place.run(&args);
        assert_eq!(ran.code, Some(2), "{args:?}");
        assert!(ran.stderr.starts_with(message), "{args:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty());
    }
    for (options, message) in [
        (&["--max-evals", "2"][..], "field '--max-evals': is below --min-evals"),
        (
            &["--compat", "ww-0.7.7", "--conv", "flatten"],
            "field '--conv': WeightWatcher does not flatten convolutions; use pool or slices with --compat",
        ),
        (
            &["--compat", "ww-0.7.7", "--split-gates"],
            "field '--split-gates, --split-fused': WeightWatcher does not split tensors; leave it out with --compat",
        ),
        (&["--layers", "nope*"], "field '--layers': no layer matches 'nope*'"),
        (&["--layers", "head*", "--layers", "tail?"], "field '--layers': no layer matches 'tail?'"),
    ] {
        for command in ["analyze", "describe"] {
            let args = [&[command, "model.safetensors"], options].concat();
            assert_fails(&place, &args, 2, &format!("error: {message}\n"));
        }
    }
    let bare = place.run(&[]);
    assert_eq!((bare.code, bare.stdout.is_empty()), (Some(2), true));
    assert!(bare.stderr.contains("Usage: spectrald <COMMAND>"), "{}", bare.stderr);
}

#[test]
fn nothing_that_can_be_analysed() {
    let place = Place::new();
    let message =
        "error: model.safetensors: none of its 47 tensors can be analysed: BIAS, TOO_FEW_EVALS, NORM\n";
    assert_fails(&place, &["analyze", "model.safetensors", "--min-evals", "1000"], 3, message);
    place.write("none.safetensors", safetensors(&[]));
    let message = "error: none.safetensors: none of its 0 tensors can be analysed\n";
    assert_fails(&place, &["analyze", "none.safetensors"], 3, message);
    // describe still shows every tensor with its reason.
    let ran = place.run(&["describe", "model.safetensors", "--min-evals", "1000", "--format", "json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(3), ""));
    assert_eq!(ran.json()["rows"].as_array().unwrap().len(), 47);
    // Nothing is left behind either.
    let args = ["analyze", "none.safetensors", "-o", "out.json", "--format", "json"];
    assert_eq!(place.run(&args).code, Some(3));
    assert!(!place.file("out.json").exists());
}

#[test]
fn layers_that_are_none() {
    let place = Place::new();
    for (layer, message) in [
        ("head.out_pro", "no layer 'head.out_pro' among 14; did you mean 'head.out_proj'?"),
        (
            "head.decoder_ffns.0.dwn",
            "no layer 'head.decoder_ffns.0.dwn' among 14; did you mean 'head.decoder_ffns.0.down'?",
        ),
        (
            "core.in_proj",
            "tensor 'core.in_proj': is not analysed: TOO_FEW_EVALS: M=7: 7 eigenvalues < min_evals 8",
        ),
    ] {
        let message = format!("error: model.safetensors: {message}\n");
        assert_fails(&place, &["esd", "model.safetensors", layer], 2, &message);
    }
}

#[test]
fn output_that_cannot_be_written() {
    let place = Place::new();
    let before = place.names();
    for args in [
        &["analyze", "model.safetensors"][..],
        &["describe", "model.safetensors"],
        &["esd", "model.safetensors", "head.queries"],
        // It is said before the model is even looked at.
        &["analyze", "nope"],
    ] {
        let args = [args, &["-o", "no/such/out.json"]].concat();
        assert_fails(&place, &args, 2, "error: no/such: no such directory\n");
    }
    assert_fails(&place, &["analyze", "nope", "-o", "."], 2, "error: .: a directory; name a file\n");
    assert_eq!(place.names(), before, "nothing is left behind");
}

#[test]
fn too_little_memory() {
    let place = Place::new();
    let args = ["analyze", "model.safetensors", "--memory", "60KiB", "--format", "json"];
    let ran = place.run(&args);
    assert_eq!(ran.code, Some(2));
    let rows = ran.json();
    let rows = rows["layers"].as_array().unwrap();
    let failed: Vec<_> = rows.iter().filter(|row| row["reason"] == "NEEDS_MEMORY").collect();
    let done = rows.iter().filter(|row| row["status"] == "success").count();
    assert!(
        !failed.is_empty() && done > 0 && failed.len() + done == 14,
        "{} failed, {done} done",
        failed.len()
    );
    assert_eq!(ran.stderr.lines().count(), failed.len());
    for (line, row) in ran.stderr.lines().zip(&failed) {
        let (tensor, detail) = (row["tensor"].as_str().unwrap(), row["detail"].as_str().unwrap());
        assert_eq!(line, format!("error: model.safetensors: tensor '{tensor}': {detail}"));
        assert!(detail.ends_with(" KiB, more than the 60.0 KiB that --memory allows"), "{detail}");
        assert_eq!((&row["status"], &row["alpha"]), (&"failed".into(), &serde_json::Value::Null));
    }
    let message = "error: model.safetensors: tensor 'head.queries': needs 93.9 KiB, more than the 1000 B that --memory allows\n";
    assert_fails(&place, &["esd", "model.safetensors", "head.queries", "--memory", "1k"], 2, message);
}

#[test]
fn a_name_with_control_characters_does_not_reach_the_terminal() {
    let place = Place::new();
    let evil = "a\u{1b}[2J\nb.weight";
    place.write("m.safetensors", safetensors(&[Entry::f32(evil, &[8, 8], &[f64::NAN; 64])]));
    for args in
        [&["analyze", "m.safetensors"][..], &["describe", "m.safetensors"], &["esd", "m.safetensors", "x"]]
    {
        let ran = place.run(args);
        assert!(!ran.text().contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{args:?}: {}", ran.text());
    }
}
