//! Jobs that nobody can do yet, or ever.

use super::{alone, assert_same, brain, many, text};
use crate::support::cluster::Cluster;
use crate::support::models::{Entry, Numbers, safetensors};
use spectrald::analysis::{Options, Status};
use spectrald::rpc::proto::v1::{AnalysisState, WaitingReason};

#[test]
fn without_a_worker_a_job_says_so() {
    let mut cluster = Cluster::start();
    let model = cluster.write("models/many.safetensors", &many(3, 60, 7));
    let id = cluster.submit(&model, &Options::default());
    let is_waiting = |a: &spectrald::rpc::proto::v1::Analysis| a.waiting() == WaitingReason::NoWorkers;
    let waits = cluster.until(&id, "it says that there is no worker", is_waiting);
    assert_eq!(waits.state(), AnalysisState::Queued);
    assert_eq!(waits.waiting_detail, "no worker is there; it starts when one reports");
    let job = cluster.client_command(&["job", &id, "--format", "json"]).output().unwrap();
    let job: serde_json::Value = serde_json::from_slice(&job.stdout).unwrap();
    assert_eq!((&job["waiting"], &job["state"]), (&"no_workers".into(), &"queued".into()));
    // over a restart as well
    cluster.kill_coordinator();
    cluster.start_coordinator();
    cluster.until(&id, "it says so again", is_waiting);
    cluster.start_worker("w1");
    assert_same(&text(&cluster.report(&id)), &alone(&model, &Options::default()), "a job that waited");
}

#[test]
fn a_layer_that_no_worker_has_memory_for() {
    let settings = [("leases", "unplaceable_timeout = \"3s\"")];
    let mut cluster = Cluster::with(&settings);
    let layers = [
        Entry::gaussian("small.0.weight", &[60, 60], 1),
        brain("large.weight", &[1850, 1850], &mut Numbers::new(2)),
        Entry::gaussian("small.1.weight", &[70, 60], 3),
    ];
    let model = cluster.write("models/mixed.safetensors", &safetensors(&layers));
    let expected = crate::support::models::analyze(std::path::Path::new(&model), &Options::default());
    cluster.start_worker_with("w1", &["--memory", "64MiB"]);
    let id = cluster.submit(&model, &Options::default());
    let waits =
        cluster.until(&id, "it waits for memory", |a| a.waiting() == WaitingReason::NoWorkerHasMemory);
    assert!(waits.waiting_detail.contains("the largest worker has 64.0 MiB"), "{}", waits.waiting_detail);
    let ended = cluster.ended(&id);
    assert_eq!(ended.state(), AnalysisState::Succeeded, "{:?}", ended.failure);
    let progress = ended.progress.unwrap();
    assert_eq!((progress.done, progress.failed), (2, 1));
    let report = cluster.report(&id);
    for (row, alone) in report.layers.iter().zip(&expected.layers) {
        if row.name == "large" {
            assert_eq!(row.status, Status::Failed);
            assert!(row.detail.as_deref().is_some_and(|why| why.contains("memory")), "{:?}", row.detail);
        } else {
            assert_eq!(serde_json::to_string(row).unwrap(), serde_json::to_string(alone).unwrap());
        }
    }
    // it is no result: a worker with the memory gets it
    cluster.start_worker("w2");
    let id = cluster.submit(&model, &Options::default());
    assert_same(&text(&cluster.report(&id)), &text(&expected), "with enough memory");
    assert_eq!(cluster.get(&id).progress.unwrap().from_cache, 2);
}
