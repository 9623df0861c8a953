use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

use super::super::tests::{Capture, started};
use super::super::{Guard, propagate};
use super::*;

const METHOD: &str = "opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Any service will do. It answers with an error to a request that has something in it.
struct Example;

#[tonic::async_trait]
impl TraceService for Example {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> std::result::Result<Response<ExportTraceServiceResponse>, Status> {
        tracing::info!(seen = propagate::inject(), "handler");
        match request.into_inner().resource_spans.len() {
            0 => Ok(Response::new(ExportTraceServiceResponse::default())),
            1 => Err(Status::not_found("no")),
            _ => Err(Status::internal("no")),
        }
    }
}

async fn served(metrics: Arc<Metrics>) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let server = Server::builder()
        .layer(RpcLayer::new(metrics, [METHOD.to_owned()]))
        .add_service(TraceServiceServer::new(Example))
        .add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

fn request(len: usize) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans::default(); len] }
}

/// Spans that ended, as the console exporter shows them.
fn spans(guard: &Guard, capture: &Capture) -> Vec<String> {
    guard.shutdown().unwrap();
    capture.text().lines().filter(|line| line.starts_with("span ")).map(str::to_owned).collect()
}

fn calls(guard: &Guard) -> Vec<String> {
    let text = guard.metrics().render().unwrap();
    let count = "rpc_server_call_duration_seconds_count";
    text.lines().filter_map(|line| line.strip_prefix(count)).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_trace_goes_on_in_the_server() {
    let (dispatch, guard, capture) = started(&[("OTEL_TRACES_EXPORTER", "console")]);
    let _default = tracing::dispatcher::set_default(&dispatch);
    let channel = served(guard.metrics()).await;
    let client = tracing::info_span!("client");
    let sent = propagate::inject_span(&client).unwrap();
    async {
        let mut stub = TraceServiceClient::with_interceptor(channel.clone(), TraceInterceptor);
        stub.export(request(0)).await.unwrap();
        assert_eq!(stub.export(request(1)).await.unwrap_err().code(), tonic::Code::NotFound);
        assert_eq!(stub.export(request(2)).await.unwrap_err().code(), tonic::Code::Internal);
    }
    .instrument(client.clone())
    .await;
    drop(client);
    let (trace, parent) = (&sent[3..35], &sent[36..52]);
    let mut counted = calls(&guard);
    let spans = spans(&guard, &capture);
    let ours: Vec<&String> =
        spans.iter().filter(|span| span.starts_with(&format!("span {METHOD} "))).collect();
    assert_eq!(ours.len(), 3, "{spans:?}");
    for (span, status) in ours.iter().zip(["OK", "NOT_FOUND", "INTERNAL"]) {
        assert!(span.contains(&format!("trace_id={trace} ")), "{span}");
        assert!(span.contains(&format!("parent={parent} ")), "{span}");
        assert!(span.contains(&format!(" rpc.method={METHOD}")), "{span}");
        assert!(span.contains(" rpc.system.name=grpc"), "{span}");
        assert!(span.contains(&format!(" rpc.status_code={status}")), "{span}");
        assert!(span.contains(" server.address=127.0.0.1"), "{span}");
        // What the client did wrong is no error of the server.
        assert_eq!(span.contains(" error.type=INTERNAL"), status == "INTERNAL", "{span}");
    }
    // The handler ran within the span of the call.
    assert!(capture.text().contains(&format!("\"seen\":\"00-{trace}-")), "{}", capture.text());
    counted.sort();
    let line = |status: &str| {
        format!("{{rpc_method=\"{METHOD}\",rpc_status_code=\"{status}\",rpc_system_name=\"grpc\"}} 1")
    };
    assert_eq!(counted, [line("INTERNAL"), line("NOT_FOUND"), line("OK")]);
}

#[tokio::test]
async fn health_is_not_seen_and_names_of_strangers_are_no_labels() {
    let (dispatch, guard, capture) = started(&[("OTEL_TRACES_EXPORTER", "console")]);
    let _default = tracing::dispatcher::set_default(&dispatch);
    let channel = served(guard.metrics()).await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    for name in ["/a.B/C", "/a.B/D", "/x"] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let path = http::uri::PathAndQuery::from_static(name);
        let answer: std::result::Result<Response<()>, Status> =
            client.unary(Request::new(()), path, codec).await;
        assert_eq!(answer.unwrap_err().code(), tonic::Code::Unimplemented);
    }
    let counted = calls(&guard);
    let spans = spans(&guard, &capture);
    assert_eq!(spans.len(), 3, "{spans:?}");
    assert!(spans.iter().all(|span| span.starts_with("span _OTHER ")), "{spans:?}");
    let line = "{rpc_method=\"_OTHER\",rpc_status_code=\"UNIMPLEMENTED\",rpc_system_name=\"grpc\"} 3";
    assert_eq!(counted, [line]);
}

#[test]
fn a_call_that_is_dropped_is_cancelled() {
    let metrics = Arc::new(Metrics::standalone("coordinator").unwrap());
    drop(Call::new(Arc::clone(&metrics), "a.B/C".to_owned(), tracing::Span::none()));
    let text = metrics.render().unwrap();
    assert!(text.contains("rpc_status_code=\"CANCELLED\",rpc_system_name=\"grpc\"} 1\n"), "{text}");
}

/// A call whose deadline passes on the client is dropped by the server before it has an answer.
#[tokio::test]
async fn a_call_that_its_client_gives_up_is_cancelled() {
    let metrics = Arc::new(Metrics::standalone("coordinator").unwrap());
    let layer = RpcLayer::new(Arc::clone(&metrics), ["a.B/C".to_owned()]);
    let slow = tower::service_fn(|_: http::Request<()>| {
        std::future::pending::<std::result::Result<http::Response<tonic::body::Body>, std::convert::Infallible>>(
        )
    });
    let mut service = tower::Layer::layer(&layer, slow);
    let request = http::Request::builder().uri("http://h/a.B/C").body(()).unwrap();
    let call = tower::Service::call(&mut service, request);
    assert!(tokio::time::timeout(Duration::from_millis(1), call).await.is_err());
    let text = metrics.render().unwrap();
    let line = "{rpc_method=\"a.B/C\",rpc_status_code=\"CANCELLED\",rpc_system_name=\"grpc\"} 1\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn methods_of_a_descriptor_set() {
    let names = methods(tonic_health::pb::FILE_DESCRIPTOR_SET).unwrap();
    assert!(names.contains(&"grpc.health.v1.Health/Check".to_owned()), "{names:?}");
    assert!(methods(&[0xff]).unwrap_err().to_string().starts_with("the descriptors cannot be read: "));
}
