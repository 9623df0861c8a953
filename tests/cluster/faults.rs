//! Processes that are killed, stopped and told to end in the middle of a job.

use super::{alone, assert_same, everything, many, tall, text};
use crate::support::cluster::{Cluster, until};
use spectrald::analysis::Options;
use spectrald::rpc::client::Watched;
use spectrald::rpc::proto::v1::{Analysis, AnalysisState};
use std::process::Stdio;
use std::time::Duration;

fn is_in_the_middle(analysis: &Analysis) -> bool {
    let progress = analysis.progress.unwrap_or_default();
    progress.done >= 2 && progress.running > 0 && progress.done < progress.layers
}

/// A job of many layers that takes a worker seconds.
fn long_job(cluster: &Cluster) -> (String, String) {
    let model = cluster.write("models/many.safetensors", &many(36, 260, 5));
    let id = cluster.submit(&model, &everything());
    (model, id)
}

#[test]
fn a_worker_is_killed() {
    let mut cluster = Cluster::start();
    cluster.start_worker("w1");
    let (model, id) = long_job(&cluster);
    cluster.until(&id, "it is in the middle", is_in_the_middle);
    cluster.kill_worker("w1");
    cluster.start_worker("w2");
    assert_same(&text(&cluster.report(&id)), &alone(&model, &everything()), "after a kill");
    let progress = cluster.get(&id).progress.unwrap();
    assert!(progress.retried > 0, "{progress:?}");
    assert_eq!((progress.done, progress.failed, progress.from_cache), (36, 0, 0));
}

#[test]
fn a_worker_is_killed_on_a_row_block() {
    let mut cluster = Cluster::start();
    cluster.start_worker("w1");
    cluster.start_worker("w2");
    let model = cluster.write("models/tall.safetensors", &tall(2));
    let id = cluster.submit(&model, &Options::default());
    until("a row block is under way", || {
        let workers = cluster.runtime.block_on(cluster.client().workers()).unwrap();
        workers.iter().any(|worker| worker.id == "w1" && worker.running > 0).then_some(())
    });
    cluster.kill_worker("w1");
    assert_same(&text(&cluster.report(&id)), &alone(&model, &Options::default()), "after a kill");
    assert!(cluster.get(&id).progress.unwrap().retried > 0);
}

#[test]
fn a_worker_is_stopped_for_longer_than_its_lease() {
    let mut cluster = Cluster::start();
    cluster.start_worker("w1");
    let (model, id) = long_job(&cluster);
    cluster.until(&id, "it is in the middle", is_in_the_middle);
    cluster.workers["w1"].signal("STOP");
    cluster.start_worker("w2");
    cluster.until(&id, "its work is with another", |analysis| {
        analysis.progress.is_some_and(|progress| progress.retried > 0)
    });
    // what it finishes now has a stale attempt, or is done already
    cluster.workers["w1"].signal("CONT");
    assert_same(&text(&cluster.report(&id)), &alone(&model, &everything()), "after a stop");
    let progress = cluster.get(&id).progress.unwrap();
    assert_eq!((progress.done, progress.failed), (36, 0), "each layer counts once");
    let workers = until("both report again", || {
        let workers = cluster.runtime.block_on(cluster.client().workers()).unwrap();
        (workers.len() == 2 && workers.iter().all(|worker| worker.running == 0)).then_some(workers)
    });
    assert!(workers.iter().all(|worker| worker.state == 1), "both are ready: {workers:?}");
}

#[test]
fn the_coordinator_is_killed() {
    let mut cluster = Cluster::start();
    cluster.start_worker("w1");
    let model = cluster.write("models/many.safetensors", &many(36, 260, 6));
    let flags = ["--wait", "--format", "json", "--erg", "--mp", "--randomize", "--quiet"];
    let mut waiting = cluster.client_command(&["submit", &model]);
    let waiting = waiting.args(flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let list = || cluster.runtime.block_on(cluster.client().list(AnalysisState::Unspecified, 10)).unwrap();
    let id = until("it is accepted", || list().first().map(|analysis| analysis.id.clone()));
    let mut told = Vec::new();
    for round in 0..3_u64 {
        let before = told.len() as u64;
        cluster.until(&id, "it goes on", |a| {
            a.progress.is_some_and(|p| p.done >= 2 + 8 * round && p.done > before)
        });
        told = watched(&cluster, &id);
        cluster.kill_coordinator();
        cluster.start_coordinator();
        let again = watched(&cluster, &id);
        assert!(told.iter().all(|row| again.contains(row)), "{told:?} were told, then only {again:?}");
    }
    let output = waiting.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    printed.as_object_mut().unwrap().remove("timings");
    let expected = alone(&model, &everything());
    let parsed: serde_json::Value = serde_json::from_str(&expected).unwrap();
    assert_eq!(printed, parsed, "what submit --wait printed");
    assert_same(&text(&cluster.report(&id)), &expected, "after three kills");
    let progress = cluster.get(&id).progress.unwrap();
    assert_eq!((progress.done, progress.failed), (36, 0));
}

/// Rows that a new watch is told at once.
fn watched(cluster: &Cluster, id: &str) -> Vec<u64> {
    cluster.runtime.block_on(async {
        let mut watch = cluster.client().watch(id, 0);
        loop {
            // planning again after a restart takes a moment, in which there is no progress to see
            if let Some(Watched::Progress(message)) = watch.next().await.unwrap()
                && message.analysis.is_some_and(|a| a.progress.is_some_and(|p| p.layers > 0))
            {
                return message.layers.iter().map(|event| event.row).collect();
            }
        }
    })
}

#[test]
fn a_coordinator_killed_between_row_blocks() {
    let mut cluster = Cluster::start();
    cluster.start_worker("w1");
    let model = cluster.write("models/tall.safetensors", &tall(3));
    let id = cluster.submit(&model, &Options::default());
    until("a row block has arrived", || {
        let found = std::fs::read_dir(cluster.file("data/grams")).unwrap().flatten();
        let arrived = |name: std::ffi::OsString| !name.to_string_lossy().ends_with(".arriving");
        found.map(|entry| entry.file_name()).any(arrived).then_some(())
    });
    cluster.kill_coordinator();
    cluster.start_coordinator();
    assert_same(&text(&cluster.report(&id)), &alone(&model, &Options::default()), "after a kill");
}

#[test]
fn told_to_end() {
    let mut cluster = Cluster::start();
    cluster.start_worker("w1");
    let (model, id) = long_job(&cluster);
    cluster.until(&id, "it is in the middle", is_in_the_middle);
    let mut worker = cluster.workers.remove("w1").unwrap();
    worker.signal("TERM");
    let status = worker.end_within(Duration::from_secs(25));
    assert_eq!(status.code(), Some(0), "{}", worker.log());
    let left = cluster.get(&id).progress.unwrap();
    assert!(left.done < 36, "it did not finish the whole job: {left:?}");
    assert_eq!(left.running, 0, "nothing waits for a lease to expire: {left:?}");
    cluster.start_worker("w2");
    cluster.until(&id, "another goes on", |a| a.progress.is_some_and(|p| p.done > left.done));
    // a watch is open and a worker reports meanwhile
    let mut watch = cluster.client_command(&["watch", &id, "--quiet"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut coordinator = cluster.coordinator.take().unwrap();
    coordinator.signal("TERM");
    let status = coordinator.end_within(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{}", coordinator.log());
    cluster.start_coordinator();
    assert_same(&text(&cluster.report(&id)), &alone(&model, &everything()), "after two ends");
    assert!(watch.wait().unwrap().success(), "the watch has outlived it");
    assert_eq!(cluster.get(&id).progress.unwrap().failed, 0);
}
