//! Whole models in a real S3 server that checks signatures: the same rows as from disk, and what goes wrong there.

use crate::support::models::{
    Entry, analyze, analyze_from, analyze_with, entries, fetched, fixture, open, safetensors,
};
use crate::support::s3::S3Server;
use serde_json::Value;
use spectrald::ErrorKind;
use spectrald::analysis::{ModelReport, Options};
use spectrald::source::SourceOptions;
use std::path::Path;
use std::time::Duration;

fn options() -> Options {
    Options { erg: true, ..Options::default() }
}

fn client(server: &S3Server) -> SourceOptions {
    let backoff = Duration::from_millis(1);
    SourceOptions { store_config: server.settings(), retries: 2, backoff, ..SourceOptions::default() }
}

/// The report without what says where it was read and how long it took.
fn content(report: &ModelReport) -> Value {
    let mut report = serde_json::to_value(report).unwrap();
    let top = report.as_object_mut().unwrap();
    top.remove("timings").unwrap();
    let model = top.get_mut("model").unwrap().as_object_mut().unwrap();
    model.remove("uri").unwrap();
    model.remove("files").unwrap();
    report
}

fn assert_same_from_the_server(model: &Path) {
    let server = S3Server::start();
    let folder = model.parent().unwrap();
    server.put("some/models/model.safetensors", &std::fs::read(model).unwrap());
    server.put("some/models/config.json", &std::fs::read(folder.join("config.json")).unwrap());
    let local = analyze(model, &options());
    for uri in [server.uri("some/models/model.safetensors"), server.uri("some/models/")] {
        let remote = analyze_from(&uri, &options(), &client(&server)).unwrap();
        assert_eq!(remote.model.uri, uri);
        let file = &remote.model.files[0];
        assert_eq!(file.uri, "s3://models/some/models/model.safetensors");
        assert!(file.pin.is_some());
        assert_eq!(content(&remote), content(&local), "{uri}");
    }
}

#[test]
fn fracast_is_the_same_as_from_disk() {
    assert_same_from_the_server(&fixture("models/fracast/model.safetensors"));
}

#[test]
fn minilm_is_the_same_as_from_disk() {
    let Some(model) = fetched("minilm/model.safetensors") else { return };
    assert_same_from_the_server(&model);
}

/// fracast in three shards with their index. Tensors keep their order, which is the order of the shards.
fn shards() -> Vec<(String, Vec<u8>)> {
    let all = entries(&std::fs::read(fixture("models/fracast/model.safetensors")).unwrap());
    let mut weight_map = serde_json::Map::new();
    let mut files = Vec::new();
    for (i, part) in all.chunks(all.len().div_ceil(3)).enumerate() {
        let name = format!("model-{:05}-of-00003.safetensors", i + 1);
        part.iter().for_each(|entry| {
            weight_map.insert(entry.name.clone(), Value::from(name.as_str()));
        });
        files.push((name, safetensors(part)));
    }
    assert_eq!(files.len(), 3);
    let index = serde_json::json!({"metadata": {"total_size": 0}, "weight_map": weight_map});
    files.push(("model.safetensors.index.json".to_owned(), index.to_string().into_bytes()));
    let config = std::fs::read(fixture("models/fracast/config.json")).unwrap();
    files.push(("config.json".to_owned(), config));
    files
}

#[test]
fn shards_are_the_same_as_the_single_file() {
    let folder = tempfile::TempDir::new().unwrap();
    let server = S3Server::start();
    for (name, bytes) in shards() {
        std::fs::write(folder.path().join(&name), &bytes).unwrap();
        server.put(&format!("sharded/{name}"), &bytes);
    }
    let single = analyze(&fixture("models/fracast/model.safetensors"), &options());
    let index = "model.safetensors.index.json";
    let local = folder.path().to_str().unwrap();
    for uri in [
        local.to_owned(),
        format!("{local}/{index}"),
        server.uri("sharded/"),
        server.uri("sharded"),
        server.uri(&format!("sharded/{index}")),
    ] {
        let sharded = analyze_from(&uri, &options(), &client(&server)).unwrap();
        assert_eq!(sharded.model.files.len(), 3);
        let rows = |report: &ModelReport| content(report)["layers"].clone();
        assert_eq!(rows(&sharded), rows(&single), "{uri}");
        let summary = |report: &ModelReport| content(report)["summary"].clone();
        assert_eq!(summary(&sharded), summary(&single), "{uri}");
    }
}

#[test]
fn a_missing_shard_is_named() {
    let server = S3Server::start();
    for (name, bytes) in shards().iter().filter(|(name, _)| !name.contains("00002-of")) {
        server.put(&format!("sharded/{name}"), bytes);
    }
    let error = analyze_from(&server.uri("sharded/"), &options(), &client(&server)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let message = "model.safetensors.index.json: field 'weight_map': shard 'model-00002-of-00003.safetensors' does not exist";
    assert_eq!(error.to_string(), message);
}

#[test]
fn an_object_replaced_under_way_gives_no_report() {
    let server = S3Server::start();
    let bytes = std::fs::read(fixture("models/fracast/model.safetensors")).unwrap();
    server.put("m.safetensors", &bytes);
    let model = open(&server.uri("m.safetensors"), &options(), &client(&server)).unwrap();
    // The same length, the same header, other weights: a checkpoint that was saved again.
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    server.put("m.safetensors", &changed);
    let error = analyze_with(&model, &options(), 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    let message = error.to_string();
    assert!(message.starts_with("m.safetensors: tensor '"), "{message}");
    assert!(message.contains("': the object changed while it was read: its ETag was \""), "{message}");
}

#[test]
fn a_file_replaced_under_way_gives_no_report() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("m.safetensors");
    let model_of = |seed| safetensors(&[Entry::gaussian("a.weight", &[64, 64], seed)]);
    std::fs::write(&file, model_of(1)).unwrap();
    let model = open(file.to_str().unwrap(), &options(), &SourceOptions::default()).unwrap();
    let beside = folder.path().join("new");
    std::fs::write(&beside, model_of(2)).unwrap();
    std::fs::rename(&beside, &file).unwrap();
    let error = analyze_with(&model, &options(), 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    let message =
        "m.safetensors: tensor 'a.weight': the file changed while it was read: inode-time-size was ";
    assert!(error.to_string().starts_with(message), "{error}");
}

/// The program with the server's settings in its environment, others removed.
fn program(server: &S3Server, args: &[&str], overrides: &[(&str, &str)]) -> std::process::Output {
    let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("spectrald"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.args(args).envs(server.settings()).envs(overrides.iter().copied()).output().unwrap()
}

#[test]
fn the_program_finds_the_server_by_its_environment() {
    let server = S3Server::start();
    let model = fixture("models/fracast/model.safetensors");
    server.put("m/model.safetensors", &std::fs::read(&model).unwrap());
    let uri = server.uri("m/model.safetensors");
    let remote = program(&server, &["analyze", &uri, "--format", "csv"], &[]);
    assert_eq!((remote.status.code(), remote.stderr.as_slice()), (Some(0), &b""[..]));
    let local = program(&server, &["analyze", model.to_str().unwrap(), "--format", "csv"], &[]);
    // config.json lies beside the local file alone; fracast's says nothing that changes a row
    assert!(remote.stdout == local.stdout);
}

#[test]
fn a_wrong_secret_is_one_clear_line_without_it() {
    let server = S3Server::start();
    server.put("m/model.safetensors", b"x");
    let uri = server.uri("m/model.safetensors");
    let wrong = [("AWS_SECRET_ACCESS_KEY", "s3cr3t/that+is-wrong")];
    for uri in [uri.as_str(), "s3://models/m/"] {
        let output = program(&server, &["analyze", uri], &wrong);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.starts_with(&format!("error: {uri}: the store refused access (403 Forbidden")),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for secret in ["s3cr3t", server.secret_key, server.access_key] {
            assert!(!stderr.contains(secret), "{stderr}");
        }
    }
}

#[test]
fn what_is_not_there_is_one_clear_line() {
    let server = S3Server::start();
    server.put("m/notes.md", b"no model");
    for (uri, message) in [
        ("s3://models/none.safetensors", "no such object, and no objects under this prefix"),
        ("s3://models/none/", "no such object, and no objects under this prefix"),
        ("s3://models/m/", "no model file in the directory, which has 1 file (notes.md)"),
    ] {
        let output = program(&server, &["analyze", uri], &[]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr), (Some(2), format!("error: {uri}: {message}\n")));
    }
}
