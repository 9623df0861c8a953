//! What a coordinator refuses, and models that change under it.

use super::{fracast, many};
use crate::support::cluster::{Cluster, Process, request};
use spectrald::ErrorKind;
use spectrald::analysis::{ALGORITHM_VERSION, Options};
use spectrald::rpc::proto::v1::{AnalysisState, CreateAnalysisRequest, WaitingReason};
use spectrald::rpc::proto::worker::v1::ReportRequest;
use spectrald::rpc::proto::worker::v1::task_service_client::TaskServiceClient;
use std::time::Duration;

#[test]
fn a_second_coordinator_on_the_same_data() {
    let cluster = Cluster::start();
    let log = cluster.file("second.log");
    let mut second = Process::start(cluster.coordinator_command("127.0.0.1:0".parse().unwrap()), &log);
    assert_eq!(second.end_within(Duration::from_secs(20)).code(), Some(2), "{}", second.log());
    let holder = std::fs::read_to_string(cluster.file("data/LOCK")).unwrap();
    let (pid, _) = holder.split_once(' ').unwrap();
    assert!(
        second.log().contains(&format!("the data directory is in use by process {pid} since")),
        "{}",
        second.log()
    );
    // the first is none the worse for it
    assert_eq!(cluster.runtime.block_on(cluster.client().status()).unwrap().workers, 0);
}

#[test]
fn a_worker_of_another_version() {
    let cluster = Cluster::start();
    let report = |protocol, algorithm_version| {
        let url = cluster.url();
        cluster.runtime.block_on(async move {
            let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
            let mut tasks = TaskServiceClient::new(channel);
            let request = ReportRequest {
                protocol,
                algorithm_version,
                version: "9.9.9".to_owned(),
                worker: "old".to_owned(),
                cores: 1,
                memory_bytes: 1 << 30,
                free_cores: 1,
                free_memory_bytes: 1 << 30,
                session: 1,
                ..Default::default()
            };
            tasks.report(request).await
        })
    };
    let status = report(2, ALGORITHM_VERSION).unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    let own = env!("CARGO_PKG_VERSION");
    let said = format!(
        "the worker (spectrald 9.9.9) speaks protocol 2 with numerics {ALGORITHM_VERSION}, this coordinator \
         (spectrald {own}) protocol 1 with numerics {ALGORITHM_VERSION}; run the same version on both"
    );
    assert!(status.message().contains(&said), "{}", status.message());
    let status = report(1, ALGORITHM_VERSION + 1).unwrap_err();
    assert!(
        status.message().contains(&format!("numerics {}", ALGORITHM_VERSION + 1)),
        "{}",
        status.message()
    );
    assert!(cluster.runtime.block_on(cluster.client().workers()).unwrap().is_empty(), "it is no worker");
    assert!(report(1, ALGORITHM_VERSION).unwrap().into_inner().sequence > 0, "the control is taken");
}

#[test]
fn a_request_id_is_one_request() {
    let mut cluster = Cluster::start();
    let ask = |cluster: &Cluster, request: CreateAnalysisRequest| {
        cluster.runtime.block_on(cluster.client().create(request))
    };
    let named = |options: &Options| CreateAnalysisRequest {
        request_id: "3c9e1f62-6f0e-4a3b-9d51-0a4d0c2c1b7e".to_owned(),
        ..request(&fracast(), options)
    };
    let first = ask(&cluster, named(&Options::default())).unwrap().id;
    assert_eq!(ask(&cluster, named(&Options::default())).unwrap().id, first);
    cluster.kill_coordinator();
    cluster.start_coordinator();
    assert_eq!(ask(&cluster, named(&Options::default())).unwrap().id, first, "after a restart");
    let other = Options { mp: true, ..Options::default() };
    let refused = ask(&cluster, named(&other)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert!(refused.to_string().contains(&first), "{refused}");
    let all = cluster.runtime.block_on(cluster.client().list(AnalysisState::Unspecified, 100)).unwrap();
    assert_eq!(all.len(), 1);
}

/// What becomes of a job whose model is treated so between its plan and its first lease, or after a few layers.
fn fails_after(change: impl Fn(&Cluster, &str), in_the_middle: bool) -> (String, String) {
    let mut cluster = Cluster::start();
    let model = cluster.write("models/many.safetensors", &many(24, 220, 11));
    if in_the_middle {
        cluster.start_worker("w1");
    }
    let id = cluster.submit(&model, &super::everything());
    if in_the_middle {
        cluster.until(&id, "it is in the middle", |a| a.progress.is_some_and(|p| p.done > 0));
    } else {
        cluster.until(&id, "it waits", |a| a.waiting() == WaitingReason::NoWorkers);
    }
    change(&cluster, &model);
    if !in_the_middle {
        cluster.start_worker("w1");
    }
    let ended = cluster.ended(&id);
    assert_eq!(ended.state(), AnalysisState::Failed, "{ended:?}");
    let failure = ended.failure.unwrap();
    assert!(failure.message.contains("many.safetensors"), "it names the file: {}", failure.message);
    (failure.reason, failure.message)
}

#[test]
fn a_model_that_is_rewritten() {
    let rewrite = |cluster: &Cluster, model: &str| {
        let other = cluster.write("other", &many(24, 220, 12));
        std::fs::rename(other, model).unwrap();
    };
    for in_the_middle in [false, true] {
        let (reason, message) = fails_after(rewrite, in_the_middle);
        assert_eq!(reason, "MODEL_CHANGED", "{message}");
    }
}

#[test]
fn a_model_that_is_deleted() {
    for in_the_middle in [false, true] {
        let (reason, message) = fails_after(|_, model| std::fs::remove_file(model).unwrap(), in_the_middle);
        assert_eq!(reason, "MODEL_GONE", "{message}");
    }
}

#[test]
fn a_model_that_is_deleted_while_the_coordinator_is_away() {
    let mut cluster = Cluster::start();
    let model = cluster.write("models/many.safetensors", &many(3, 60, 13));
    let id = cluster.submit(&model, &Options::default());
    cluster.kill_coordinator();
    std::fs::remove_file(&model).unwrap();
    cluster.start_coordinator();
    let ended = cluster.ended(&id);
    let failure = ended.failure.unwrap_or_default();
    assert_eq!(
        (ended.state, failure.reason.as_str()),
        (AnalysisState::Failed as i32, "MODEL_GONE"),
        "{failure:?}"
    );
}
