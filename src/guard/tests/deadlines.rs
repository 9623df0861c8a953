//! Deadlines of calls and of streams.

use crate::guard::testing::{Stub, finish, reason, request, serve};
use crate::guard::{Deadline, DeadlineLayer, ListenOptions, Policy};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tonic::Code;
use tower::{Layer as _, ServiceExt as _};

fn open() -> Policy {
    Policy::new(None, false, "127.0.0.1:1".parse().unwrap()).unwrap()
}

#[tokio::test]
async fn our_limit_ends_a_handler_and_drops_it() {
    let stub = Stub::default();
    let service = DeadlineLayer::new(Duration::from_millis(10)).layer(stub.clone());
    let (length, status) = finish(service.oneshot(request("CreateAnalysis", &[])).await.unwrap()).await;
    assert_eq!(
        (length, status.code(), reason(&status).as_str()),
        (0, Code::DeadlineExceeded, "SERVER_TIME_LIMIT")
    );
    stub.idle().await;
}

#[tokio::test]
async fn an_exempt_method_has_the_clients_deadline_only() {
    let path = "/spectrald.v1.AnalysisService/CreateAnalysis";
    let stub = Stub::default();
    let service = DeadlineLayer::new(Duration::ZERO)
        .except(&["/spectrald.v1.AnalysisService/CreateAnalysis"])
        .layer(stub.clone());
    assert!(crate::guard::required(path) != crate::guard::Required::Unknown);
    let (_, status) =
        finish(service.oneshot(request("CreateAnalysis", &[("grpc-timeout", "10m")])).await.unwrap()).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
}

#[tokio::test]
async fn a_client_may_ask_for_less_time_but_not_for_more() {
    let service = DeadlineLayer::new(Duration::from_millis(10)).layer(Stub::default());
    let (_, status) =
        finish(service.oneshot(request("CreateAnalysis", &[("grpc-timeout", "99999999H")])).await.unwrap())
            .await;
    assert_eq!(reason(&status), "SERVER_TIME_LIMIT");
}

#[tokio::test]
async fn a_time_that_cannot_be_read_is_the_clients_mistake() {
    for value in ["", "1", "S", "1s", "1x", "-1S", "+1S", "123456789S", "1.5S", " 1S", "1 S"] {
        let service = DeadlineLayer::new(Duration::from_secs(1)).layer(Stub::default());
        let (_, status) =
            finish(service.oneshot(request("GetAnalysis", &[("grpc-timeout", value)])).await.unwrap()).await;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "BAD_TIMEOUT"),
            "{value:?}"
        );
    }
    for value in ["99999999H", "60M", "60S", "60000m", "60000000u", "99999999n"] {
        let service = DeadlineLayer::new(Duration::from_secs(60)).layer(Stub::default());
        let (length, status) =
            finish(service.oneshot(request("GetAnalysis", &[("grpc-timeout", value)])).await.unwrap()).await;
        assert_eq!((length, status.code()), (5, Code::Ok), "{value:?}");
    }
}

#[tokio::test]
async fn handlers_can_see_the_deadline() {
    let service = tower::service_fn(|request: http::Request<tonic::body::Body>| async move {
        let left =
            request.extensions().get::<Deadline>().map(|deadline| deadline.0 - tokio::time::Instant::now());
        assert!(
            left.is_some_and(|left| left > Duration::from_secs(3000) && left <= Duration::from_secs(3600))
        );
        Ok::<_, std::convert::Infallible>(http::Response::new(tonic::body::Body::empty()))
    });
    let service = DeadlineLayer::new(Duration::from_secs(1)).layer(service);
    service.oneshot(request("GetAnalysis", &[("grpc-timeout", "1H")])).await.unwrap();
}

#[tokio::test]
async fn a_stream_ends_with_its_clients_deadline_and_is_dropped() {
    let stub = Stub::default();
    let service = DeadlineLayer::new(Duration::from_secs(60)).layer(stub.clone());
    let response = service.oneshot(request("WatchAnalysis", &[("grpc-timeout", "30m")])).await.unwrap();
    let (length, status) = finish(response).await;
    assert_eq!(
        (length, status.code(), reason(&status).as_str()),
        (5, Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
    );
    stub.idle().await;
}

/// tonic has a timer of its own, outside of every layer, that answers CANCELLED.
#[tokio::test]
async fn our_answer_comes_before_tonics_own() {
    let served = serve(&ListenOptions::default(), open()).await;
    let stream = tokio::net::TcpStream::connect(served.address).await.unwrap();
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let calls = (0..120).map(|i| {
        let mut client = client.clone();
        async move {
            let method = if i % 2 == 0 { "CreateAnalysis" } else { "WatchAnalysis" };
            let timeout = format!("{}m", 5 + i % 20);
            finish(client.send_request(request(method, &[("grpc-timeout", &timeout)])).await.unwrap()).await.1
        }
    });
    for status in futures_util::future::join_all(calls).await {
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
    served.stub.idle().await;
}
