//! What is wrong: models, panics, versions, credentials.

use super::*;
use crate::ErrorKind;
use crate::rpc::proto::worker::v1::unit_failure::Blame;
use tonic::Status;

async fn first_failure(lease: Lease, options: WorkerOptions) -> (UnitFailure, Vec<UnitResult>) {
    let stub = Stub::start().await;
    let count = lease.units.len();
    stub.lease(lease);
    let worker = work(&stub, options);
    stub.until_results(count).await;
    worker.stop().await;
    let results = stub.state().results.clone();
    (failure_of(&results[0]).clone(), results)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_than_that_of_the_plan_fails_the_model() {
    let mut planned = plan(&fixture("fracast"));
    let now = planned.at.files[0].clone();
    planned.at.files[0].pin = Some("older".to_owned());
    for options in [near("near"), far("far")] {
        let (failure, results) = first_failure(planned.lease(7, 0..2), options).await;
        assert_eq!((failure.blame(), failure.reason.as_str()), (Blame::Model, "MODEL_CHANGED"));
        let (size, pin) = (now.size, now.pin.as_deref().unwrap());
        let expected = format!(
            "{}: model.safetensors: the plan was made from {size} bytes, version older, which is {size} bytes, version {pin} now",
            planned.at.uri
        );
        assert_eq!(failure.message, expected);
        assert!(is_returned(&results[1]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_not_planned_fails_the_model() {
    let mut planned = plan(&fixture("fracast"));
    planned.at.files[0].uri = planned.at.files[0].uri.replace("model.safetensors", "config.json");
    let config = std::fs::metadata(fixture("fracast/config.json")).unwrap();
    planned.at.files[0].size = config.len();
    planned.at.files[0].pin = None;
    let (failure, _) = first_failure(planned.lease(7, 0..1), near("w")).await;
    assert_eq!((failure.blame(), failure.reason.as_str()), (Blame::Model, "MODEL_CHANGED"));
    assert!(
        failure.message.ends_with("model.safetensors: it was not there when the plan was made"),
        "{}",
        failure.message
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_gone_fails() {
    let planned = plan(&fixture("fracast"));
    let mut lease = planned.lease(7, 0..1);
    lease.model.as_mut().unwrap().uri.push_str("/gone");
    for options in [near("near"), far("far")] {
        let (failure, _) = first_failure(lease.clone(), options).await;
        assert_eq!((failure.blame(), failure.reason.as_str()), (Blame::Model, "MODEL_GONE"));
        assert!(failure.message.contains("fracast/gone: "), "{}", failure.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_of_another_name_fails_the_model() {
    let planned = plan(&fixture("fracast"));
    let mut lease = planned.lease(7, 0..1);
    lease.units[0].name = "other".to_owned();
    let (failure, _) = first_failure(lease, near("w")).await;
    assert_eq!(failure.reason, "MODEL_CHANGED");
    let expected =
        format!("{}: layer 0 is 'other' in the plan and '{}' here", planned.at.uri, planned.names[0]);
    assert_eq!(failure.message, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_an_unknown_kind_fails_the_unit() {
    let planned = plan(&fixture("fracast"));
    let mut lease = planned.lease(7, 0..2);
    lease.units[0].work = None;
    let (failure, results) = first_failure(lease, near("w")).await;
    assert_eq!((failure.blame(), failure.reason.as_str()), (Blame::Unit, "UNSUPPORTED"));
    planned.check_rows(&results[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_its_unit_and_the_worker_lives() {
    let planned = plan(&fixture("fracast"));
    let stub = Stub::start().await;
    stub.lease(planned.lease(7, 0..3));
    let worker = work_with(&stub, near("w"), |unit| {
        if unit.unit == 1 {
            std::panic::resume_unwind(Box::new("of a test"));
        }
    });
    stub.until_results(3).await;
    stub.lease(planned.lease(8, 3..4));
    stub.until_results(4).await;
    worker.stop().await;
    let results = stub.state().results.clone();
    let failure = failure_of(&results[1]);
    assert_eq!((failure.blame(), failure.reason.as_str()), (Blame::Unit, "INTERNAL"));
    assert_eq!(failure.message, "internal fault: of a test");
    planned.check_rows(&[results[0].clone(), results[2].clone(), results[3].clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_of_another_version_ends_the_worker() {
    let stub = Stub::start().await;
    stub.state().refuse = Some(Status::failed_precondition("protocol 2 is spoken here, not 1"));
    let worker = crate::worker::run(near("w"), stub.channel.clone(), token(), CancellationToken::new());
    let error = tokio::time::timeout(Duration::from_secs(60), worker).await.expect("it ends").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let expected = format!(
        "the coordinator refuses this worker (spectrald {}, protocol 1, algorithm {}): protocol 2 is spoken here, not 1",
        env!("CARGO_PKG_VERSION"),
        crate::analysis::ALGORITHM_VERSION
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_tried_for_a_while() {
    let stub = Stub::start().await;
    stub.state().refuse = Some(Status::unauthenticated("unknown token"));
    let options = WorkerOptions { refused_for: Duration::from_millis(200), ..near("w") };
    let error = work(&stub, options).end().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(error.to_string(), "the coordinator has refused this worker for 200ms: unknown token");
    assert!(stub.state().reports.len() > 1, "it was tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_fails_for_a_while_is_waited_for() {
    let planned = plan(&fixture("fracast"));
    let stub = Stub::start().await;
    stub.state().lose_answers = 4;
    stub.lease(planned.lease(7, 0..1));
    let worker = work(&stub, near("w"));
    stub.until_results(1).await;
    worker.stop().await;
    planned.check_rows(&stub.state().results);
}

#[tokio::test]
async fn options_that_make_no_worker_are_refused() {
    for (options, expected) in [
        (WorkerOptions::new("", 1, 1), "field 'id': is a name of 1 to 128 bytes"),
        (WorkerOptions::new("w", 0, 1), "field 'cores': a worker has at least one"),
        (WorkerOptions::new("w", 1, 0), "field 'memory': a worker needs some"),
        (
            WorkerOptions { report_every: Duration::ZERO, ..WorkerOptions::new("w", 1, 1) },
            "field 'report_every': is above zero",
        ),
    ] {
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let error =
            crate::worker::run(options, channel, token(), CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
