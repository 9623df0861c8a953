//! Reading through the coordinator when it goes wrong; models that are kept open.

use super::*;
use crate::rpc::proto::worker::v1::unit_failure::Blame;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_resumed() {
    let planned = plan(&fixture("fracast"));
    let stub = Stub::start().await;
    stub.state().breaks.extend([3, 0, 1000, 1, 200, 7, 100_000]);
    stub.lease(planned.lease(7, 0..4));
    let worker = work(&stub, far("w"));
    stub.until_results(4).await;
    worker.stop().await;
    assert!(stub.state().breaks.is_empty());
    planned.check_rows(&stub.state().results);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_read_once_and_a_lease_that_has_ended_is_not_needed() {
    let planned = plan(&fixture("fracast"));
    let stub = Stub::start().await;
    stub.lease(planned.lease(7, 0..1));
    let worker = work(&stub, far("w"));
    stub.until_results(1).await;
    // The model is open under attempt 7, which is refused from now on.
    stub.state().refuse_attempt = 7;
    let lease = planned.lease(8, 1..3);
    stub.lease(lease);
    stub.until_results(3).await;
    worker.stop().await;
    assert_eq!(stub.state().lists, 1);
    planned.check_rows(&stub.state().results);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_meanwhile_fails_the_model() {
    let planned = plan(&fixture("fracast"));
    let stub = Stub::start().await;
    stub.lease(planned.lease(7, 0..1));
    let worker = work(&stub, far("w"));
    stub.until_results(1).await;
    stub.state().pin = Some("another".to_owned());
    stub.lease(planned.lease(8, 1..3));
    stub.until_results(3).await;
    worker.stop().await;
    let state = stub.state();
    let failure = failure_of(&state.results[1]);
    assert_eq!((failure.blame(), failure.reason.as_str()), (Blame::Model, "MODEL_CHANGED"));
    let end = "version another now";
    assert!(failure.message.contains("model.safetensors: tensor '"), "{}", failure.message);
    assert!(failure.message.ends_with(end), "{}", failure.message);
    assert!(is_returned(&state.results[2]), "the other is not blamed");
}
