//! The same report as `analyze`, over every way to the weights.

use super::{alone, assert_same, everything, fracast, many, tall, text};
use crate::support::cluster::{Cluster, Process, address_of, program, request};
use crate::support::models::{analyze_from, fixture};
use crate::support::s3::S3Server;
use spectrald::analysis::Options;
use spectrald::source::SourceOptions;
use std::process::Stdio;
use tempfile::TempDir;

/// A JSON report without its last part, the timings.
fn without_timings(stdout: &[u8]) -> String {
    let text = std::str::from_utf8(stdout).unwrap();
    let (report, timings) = text.rsplit_once("\"timings\": {").unwrap();
    assert!(timings.len() < 200, "{timings}");
    report.to_owned()
}

#[test]
fn serve_prints_what_analyze_prints() {
    let folder = TempDir::new().unwrap();
    let mut serve = program();
    serve.arg("serve").arg("--data-dir").arg(folder.path().join("data"));
    serve.args(["--listen", "127.0.0.1:0", "--threads", "2", "--memory", "1GiB"]).stdout(Stdio::piped());
    let mut serve = Process::start(serve, &folder.path().join("serve.log"));
    let address = address_of(&mut serve).to_string();
    let int8 = fixture("models/fracast-int8/model.int8.safetensors").into_os_string().into_string().unwrap();
    let ways: [&[&str]; 5] = [
        &[],
        &["--erg", "--mp", "--randomize", "--vectors"],
        &["--compat", "ww-0.7.7", "--randomize"],
        &["--layers", "*attn*", "--method", "svd"],
        &["--conv", "slices", "--seed", "7", "--randomize"],
    ];
    for model in [fracast(), int8] {
        for way in ways {
            let analyze = program().args(["analyze", "--format", "json", &model]).args(way).output().unwrap();
            let submit = program()
                .args(["submit", "--wait", "--format", "json", "--addr", &address, &model])
                .args(way)
                .output()
                .unwrap();
            let what = format!("{model} {way:?}");
            assert_eq!(submit.status.code(), analyze.status.code(), "{what}: {submit:?}");
            if !analyze.stdout.is_empty() {
                assert_same(&without_timings(&submit.stdout), &without_timings(&analyze.stdout), &what);
            }
        }
    }
    serve.signal("TERM");
    assert_eq!(serve.end_within(std::time::Duration::from_secs(20)).code(), Some(0), "{}", serve.log());
}

#[test]
fn two_workers_on_a_tall_layer() {
    let mut cluster = Cluster::start();
    let model = cluster.write("models/tall.safetensors", &tall(1));
    cluster.start_worker("w1");
    cluster.start_worker("w2");
    let id = cluster.submit(&model, &Options::default());
    assert_same(&text(&cluster.report(&id)), &alone(&model, &Options::default()), "the tall layer");
    let ended = cluster.get(&id);
    let (plan, progress) = (ended.plan.unwrap(), ended.progress.unwrap());
    assert_eq!((plan.layers, plan.units), (2, 5), "three row blocks, their sum, and a small layer");
    assert_eq!((progress.done, progress.failed, progress.retried), (2, 0, 0));
    let workers = cluster.runtime.block_on(cluster.client().workers()).unwrap();
    let finished: Vec<u64> = workers.iter().map(|worker| worker.finished).collect();
    assert!(finished.iter().all(|&units| units > 0), "both had a part: {finished:?}");
    // the grams go with the analysis
    let left = std::fs::read_dir(cluster.file("data/grams")).unwrap().count();
    assert_eq!(left, 0, "partial Gram matrices are left");
}

#[test]
fn a_worker_elsewhere_reads_through_the_coordinator() {
    let models = TempDir::new().unwrap();
    std::fs::write(models.path().join("many.safetensors"), many(6, 90, 3)).unwrap();
    let root = format!("file://{}/", models.path().display());
    let named = format!("name = \"models\"\nuri = \"{root}\"");
    let mut cluster = Cluster::with(&[("coordinator", "allow_local_files = false"), ("[[root]]", &named)]);
    // without a configuration it knows of no root
    let mut command = program();
    command.args(["worker", "--coordinator", &cluster.url(), "--id", "elsewhere", "--threads", "1"]);
    command.args(["--memory", "1GiB"]).current_dir("/").stdout(Stdio::null());
    let log = cluster.file("elsewhere.log");
    cluster.workers.insert("elsewhere".to_owned(), Process::start(command, &log));
    for options in [Options::default(), everything()] {
        let id = cluster.submit(&format!("{root}many.safetensors"), &options);
        let report = cluster.report(&id);
        let expected = analyze_from(&report.model.uri, &options, &SourceOptions::default()).unwrap();
        assert_same(&text(&report), &text(&expected), "read through the coordinator");
        assert_eq!(report.summary.layers_analysed, 6);
    }
    // nothing else of this machine may be named
    let client = cluster.client();
    let create = client.create(request(&fracast(), &Options::default()));
    let refused = cluster.runtime.block_on(create).unwrap_err();
    assert_eq!(refused.kind(), spectrald::ErrorKind::PermissionDenied);
}

#[test]
fn workers_read_an_object_store_themselves() {
    let s3 = S3Server::start();
    s3.put("many.safetensors", &many(6, 90, 4));
    let secret = TempDir::new().unwrap();
    let file = secret.path().join("secret");
    std::fs::write(&file, s3.secret_key).unwrap();
    let root = format!(
        "name = \"models\"\nuri = \"s3://models/\"\nendpoint = \"{}\"\nallow_http = true\n\
         region = \"us-east-1\"\naccess_key_id = \"{}\"\nsecret_access_key_file = \"{}\"",
        s3.endpoint,
        s3.access_key,
        file.display()
    );
    let mut cluster = Cluster::with(&[("[[root]]", &root)]);
    cluster.start_worker("w1");
    cluster.start_worker("w2");
    let uri = s3.uri("many.safetensors");
    let store = SourceOptions { store_config: s3.settings(), ..SourceOptions::default() };
    let id = cluster.submit(&uri, &everything());
    let expected = analyze_from(&uri, &everything(), &store).unwrap();
    assert_same(&text(&cluster.report(&id)), &text(&expected), "read from the store");
}
