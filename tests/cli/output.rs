//! What is printed where it goes well.

use super::{Place, run};
use crate::support::models::fixture;
use serde_json::Value;
use std::collections::BTreeMap;

#[test]
fn json_is_the_whole_report() {
    let place = Place::new();
    let ran = place.run(&["analyze", "model.safetensors", "--format", "json", "--threads", "1"]);
    ran.ok();
    let report = ran.json();
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["tool"]["name"], "spectrald");
    assert_eq!(report["tool"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["model"]["uri"], "model.safetensors");
    assert_eq!(report["model"]["files"][0]["size"], 344_412);
    assert!(report["model"]["files"][0]["pin"].is_string());
    assert_eq!(report["options"]["compat"], "none");
    assert_eq!(report["timings"]["threads"], 1);
    assert!(report["timings"]["seconds"].as_f64().unwrap() > 0.0);
    let rows = report["layers"].as_array().unwrap();
    assert_eq!(rows.len(), 47, "every tensor has one row");
    for row in rows {
        let analysed = row["status"] == "success";
        assert_eq!(row["alpha"].is_f64(), analysed, "{row}");
        assert_eq!(row["reason"].is_string(), !analysed, "{row}");
        assert_eq!(row["digest"].as_str().is_some_and(|digest| digest.len() == 64), analysed, "{row}");
    }
    let summary = &report["summary"];
    assert_eq!((&summary["layers_analysed"], &summary["skipped"]), (&14.into(), &33.into()));
    let mean = rows.iter().filter_map(|row| row["alpha"].as_f64()).sum::<f64>() / 14.0;
    assert!((summary["means"]["alpha"].as_f64().unwrap() - mean).abs() < 1e-12);
}

#[test]
fn several_models() {
    let place = Place::new();
    let silero = fixture("models/silero");
    let models = ["model.safetensors", silero.to_str().unwrap()];
    let ran = place.run(&["analyze", models[0], models[1], "--format", "json"]);
    ran.ok();
    let uris: Vec<Value> = ran.json().as_array().unwrap().iter().map(|r| r["model"]["uri"].clone()).collect();
    assert_eq!(uris, models);
    let ran = place.run(&["analyze", models[0], models[1], "--format", "csv"]);
    let mut table = csv::Reader::from_reader(ran.ok().as_bytes());
    assert_eq!(table.headers().unwrap().get(0), Some("model"));
    let named: Vec<String> = table.records().map(|row| row.unwrap()[0].to_owned()).collect();
    assert_eq!(named.len(), 47 + 15);
    assert!(
        named[..47].iter().all(|name| name == models[0]) && named[47..].iter().all(|name| name == models[1])
    );
}

#[test]
fn jsonl_is_one_object_a_row() {
    let place = Place::new();
    let ran = place.run(&["analyze", "model.safetensors", "--format", "jsonl"]);
    let rows: Vec<Value> = ran.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 47);
    assert!(rows.iter().all(|row| row["model"] == "model.safetensors" && row["tensor"].is_string()));
}

#[test]
fn csv_has_weightwatchers_columns() {
    let place = Place::new();
    for (table, options) in [
        ("fracast", &["--erg"][..]),
        ("crepe-tiny-nopool", &["--erg", "--conv", "slices"]),
        ("minilm-l6-randomize-mpfit", &["--erg", "--mp", "--randomize"]),
    ] {
        let args = [&["analyze", "model.safetensors", "--format", "csv"], options].concat();
        let ran = place.run(&args);
        let header = ran.ok().lines().next().unwrap().split(',').collect::<Vec<_>>();
        let golden = std::fs::read_to_string(fixture(&format!("golden/{table}.csv"))).unwrap();
        for column in golden.lines().next().unwrap().split(',') {
            assert!(header.contains(&column), "{table}: no column '{column}' in {header:?}");
        }
    }
}

#[test]
fn output_files_are_whole() {
    let place = Place::new();
    let on_stdout = place.run(&["describe", "model.safetensors", "--format", "csv"]);
    place.write("out.csv", "what was there before");
    place.run(&["describe", "model.safetensors", "--format", "csv", "-o", "out.csv"]).ok();
    assert_eq!(std::fs::read(place.file("out.csv")).unwrap(), on_stdout.stdout);
    assert_eq!(place.names(), ["config.json", "model.safetensors", "out.csv"]);
    let dash = place.run(&["describe", "model.safetensors", "--format", "csv", "-o", "-"]);
    assert_eq!(dash.ok(), on_stdout.ok());
}

/// A device must not be replaced by a file, nor a link by what it names.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_replaced() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let place = Place::new();
    let socket = place.file("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let ran = place.run(&["describe", "model.safetensors", "-o", "socket"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.starts_with("error: socket: cannot write: "), "{}", ran.stderr);
    assert!(std::fs::symlink_metadata(&socket).unwrap().file_type().is_socket());

    std::fs::create_dir(place.file("elsewhere")).unwrap();
    place.write("elsewhere/real.csv", "old");
    symlink("elsewhere/real.csv", place.file("link.csv")).unwrap();
    place.run(&["describe", "model.safetensors", "--format", "csv", "-o", "link.csv"]).ok();
    assert!(std::fs::symlink_metadata(place.file("link.csv")).unwrap().is_symlink());
    assert!(std::fs::read_to_string(place.file("elsewhere/real.csv")).unwrap().starts_with("model,"));
    assert_eq!(std::fs::read_dir(place.file("elsewhere")).unwrap().count(), 1);
}

#[test]
fn eigenvalues_are_the_same_in_every_format() {
    let place = Place::new();
    let esd = |format: &str| place.run(&["esd", "model.safetensors", "head.queries", "--format", format]);
    let text: Vec<f64> = esd("text").ok().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(text.len(), 48);
    assert!(text.is_sorted() && text[0] > 0.0);
    let json = esd("json");
    assert_eq!((&json.json()["layer"], &json.json()["method"]), (&"head.queries".into(), &"gram".into()));
    // serde_json's own parser is not exact to the last bit
    let values = json.text().lines().filter_map(|line| line.trim().trim_end_matches(',').parse().ok());
    assert_eq!(values.collect::<Vec<f64>>(), text);
    let npy = esd("npy");
    assert_eq!(npy.code, Some(0));
    let array = npyz::NpyFile::new(npy.stdout.as_slice()).unwrap();
    assert_eq!(array.shape(), [48]);
    assert_eq!(array.into_vec::<f64>().unwrap(), text);
    // The tensor's own name, where it differs from the layer's.
    let by_tensor = place.run(&["esd", "model.safetensors", "core.block.pw.weight"]);
    assert_eq!(by_tensor.ok(), place.run(&["esd", "model.safetensors", "core.block.pw"]).ok());
    // analyze says the same.
    let report = place.run(&["analyze", "model.safetensors", "--layers", "head.queries", "--format", "csv"]);
    let mut table = csv::Reader::from_reader(report.ok().as_bytes());
    let rows: Vec<BTreeMap<String, String>> = table.deserialize().map(Result::unwrap).collect();
    let row = rows.iter().find(|row| row["name"] == "head.queries").unwrap();
    assert_eq!(row["lambda_max"].parse::<f64>().ok(), text.last().copied());
}

#[test]
fn a_filter_leaves_rows_that_say_so() {
    let place = Place::new();
    let ran = place.run(&["analyze", "model.safetensors", "--layers", "head.*", "--format", "json"]);
    ran.ok();
    let report = ran.json();
    let rows = report["layers"].as_array().unwrap();
    assert_eq!(rows.len(), 47);
    for row in rows.iter().filter(|row| row["status"] == "success" || row["reason"] == "FILTERED") {
        let kept = row["name"].as_str().unwrap().starts_with("head.");
        assert_eq!(row["status"] == "success", kept, "{}", row["name"]);
    }
    assert!(rows.iter().any(|row| row["reason"] == "FILTERED"));
}

#[test]
fn colours_only_where_they_are_wanted() {
    let place = Place::new();
    let with = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = place.command(args);
        command.envs(env.iter().copied());
        let ran = run(command);
        (ran.text().contains('\u{1b}'), ran.stderr.contains('\u{1b}'))
    };
    let (table, error) = (["analyze", "model.safetensors"], ["analyze", "nope"]);
    for (env, coloured) in [
        (&[][..], false),
        (&[("NO_COLOR", "1")], false),
        (&[("CLICOLOR_FORCE", "1")], true),
        (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
    ] {
        assert_eq!(with(&table, env), (coloured, false), "{env:?}");
        assert_eq!(with(&error, env), (false, coloured), "{env:?}");
    }
    // A file is not a terminal, whatever stdout is.
    let mut command = place.command(&["analyze", "model.safetensors", "-o", "out.txt"]);
    command.env("CLICOLOR_FORCE", "1");
    run(command).ok();
    assert!(!std::fs::read_to_string(place.file("out.txt")).unwrap().contains('\u{1b}'));
}

#[test]
fn the_table_is_for_people() {
    let place = Place::new();
    let ran = place.run(&["analyze", "model.safetensors", "--sort", "worst"]);
    let table = ran.ok();
    assert!(table.starts_with("model.safetensors (safetensors, 47 tensors)\n"), "{table}");
    for text in ["core.block.ffn.down", "alpha", "skipped 33", "analysed 14 layers"] {
        assert!(table.contains(text), "no '{text}' in\n{table}");
    }
    assert!(!table.contains("dw_bias"));
    let all = place.run(&["analyze", "model.safetensors", "--show-skipped"]);
    assert!(all.ok().contains("dw_bias"));
}

#[test]
fn help_has_examples() {
    let place = Place::new();
    let ran = place.run(&["--help"]);
    let help = ran.ok();
    for text in
        ["Examples:\n", "spectrald analyze s3://models/bert/", "spectrald esd ", "Exit codes: 0 done;"]
    {
        assert!(help.contains(text), "no '{text}' in\n{help}");
    }
    let version = place.run(&["--version"]);
    assert_eq!(version.ok(), format!("spectrald {}\n", env!("CARGO_PKG_VERSION")));
    for command in ["analyze", "describe", "esd"] {
        assert!(place.run(&[command, "--help"]).ok().contains(&format!("Usage: spectrald {command}")));
    }
}
