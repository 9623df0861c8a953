//! Requests that are wrong, forbidden, too large or too late: each with its code, reason and field.

use super::{Cluster, assert_refused, told, write};
use crate::support::hostile::{HostileServer, Step};
use crate::support::models::fixture;
use prost::Message as _;
use spectrald::rpc::proto::v1::{
    AnalysisOptions, AnalysisState, CancelAnalysisRequest, Conv, CreateAnalysisRequest,
    CreateAnalysisResponse, DescribeModelRequest, GetAnalysisRequest, ListAnalysesRequest,
    ListLayerResultsRequest, StreamLayerResultsRequest, StreamSpectrumRequest, WatchAnalysisRequest,
};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::{Code, Status};

const NOT_AN_ID: &str = "01890000-0000-7000-8000-000000000000";

fn model() -> String {
    fixture("models/fracast/model.safetensors").to_string_lossy().into_owned()
}

fn of(model: &str) -> CreateAnalysisRequest {
    CreateAnalysisRequest { model: model.to_owned(), ..CreateAnalysisRequest::default() }
}

fn create(cluster: &Cluster, request: CreateAnalysisRequest) -> Result<CreateAnalysisResponse, Status> {
    let mut client = cluster.client();
    cluster.wait(client.create_analysis(request)).map(tonic::Response::into_inner)
}

/// A coordinator with roots, which takes no paths of this machine.
fn rooted() -> Cluster {
    let folder = TempDir::new().unwrap();
    let models = folder.path().join("models");
    std::fs::create_dir(&models).unwrap();
    let uri = format!("file://{}/", models.display());
    let file = format!(
        "[[root]]\nname = \"disk\"\nuri = \"{uri}\"\n[[root]]\nname = \"web\"\nuri = \"https://h.example/m/\"\n\
         [[root]]\nname = \"s3\"\nuri = \"s3://models/public/\"\n"
    );
    Cluster::start(folder, &file)
}

#[test]
fn models_under_no_root_are_denied() {
    let cluster = rooted();
    assert_refused("empty", create(&cluster, of("")), Code::InvalidArgument, "INVALID_ARGUMENT", "model");
    let inside = format!("file://{}/models/", cluster.folder.path().display());
    for uri in [
        "gopher://h.example/m/x",
        "/etc/passwd",
        "etc/passwd",
        "../x",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/x",
        "http://[fd00:ec2::254]/x",
        "http://metadata.google.internal/x",
        "http://127.0.0.1:7600/x",
        "http://localhost/x",
        "http://2130706433/x",
        "http://0x7f.1/x",
        "https://other.example/m/x",
        "https://h.example:8443/m/x",
        "https://h.example.evil/m/x",
        "http://h.example/m/x",
        "https://h.example/m/../secret",
        "https://h.example/m/%2e%2e/secret",
        "https://h.example/m/%252e%252e/secret",
        "https://h.example/m/..%2fsecret",
        "https://user:hunter2@h.example/m/x",
        "https://h.example@evil.example/m/x",
        "https://h.example/m/x?sig=hunter2",
        "https://h.example/m/x#f",
        "s3://models/private/x",
        "s3://models/public/../private/x",
        "s3://models/publicity/x",
        "s3://other/public/x",
        "S3://models/public/x",
        "s3://models/public/x\r\nHost: evil",
        &format!("{inside}../spectrald.toml"),
        &format!("{inside}%2e%2e/spectrald.toml"),
    ] {
        let (create, describe) = {
            let mut client = cluster.client();
            let request = DescribeModelRequest { model: uri.to_owned(), options: None };
            let described = cluster.wait(client.describe_model(request)).map(|_| ());
            (create(&cluster, of(uri)), described)
        };
        let shown = create.as_ref().err().map(|status| status.message().to_owned()).unwrap_or_default();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_refused(uri, create, Code::PermissionDenied, "PERMISSION_DENIED", "");
        assert_refused(uri, describe, Code::PermissionDenied, "PERMISSION_DENIED", "");
    }
    let gone = create(&cluster, of(&format!("{inside}nothing.safetensors")));
    assert_refused("under a root, not there", gone, Code::NotFound, "NOT_FOUND", "");
    for uri in [&format!("upload://{NOT_AN_ID}"), "upload://../models", "upload://"] {
        assert_refused(uri, create(&cluster, of(uri)), Code::NotFound, "NOT_FOUND", "");
    }
}

#[cfg(unix)]
#[test]
fn a_link_out_of_a_root_is_denied() {
    let cluster = rooted();
    let models = cluster.folder.path().join("models");
    write(cluster.folder.path(), "secret.safetensors", b"x");
    std::os::unix::fs::symlink("../secret.safetensors", models.join("link.safetensors")).unwrap();
    let uri = format!("file://{}/link.safetensors", models.display());
    assert_refused(&uri, create(&cluster, of(&uri)), Code::PermissionDenied, "PERMISSION_DENIED", "");
}

#[test]
fn wrong_options_are_named() {
    let cluster = Cluster::start(TempDir::new().unwrap(), "[coordinator]\nallow_local_files = true\n");
    let many = || vec!["x".repeat(1000); 1000];
    let conv = |conv: Conv| AnalysisOptions { conv: conv.into(), ..AnalysisOptions::default() };
    for (options, field) in [
        (AnalysisOptions { grid: Some(8), ..conv(Conv::Pool) }, "options.grid"),
        (AnalysisOptions { grid: Some(0), ..conv(Conv::Operator) }, "options.grid"),
        (AnalysisOptions { conv: 99, ..AnalysisOptions::default() }, "options.conv"),
        (AnalysisOptions { compat: -1, ..AnalysisOptions::default() }, "options.compat"),
        (AnalysisOptions { method: "fast".into(), ..AnalysisOptions::default() }, "options.method"),
        (
            AnalysisOptions { min_evals: Some(9), max_evals: Some(8), ..AnalysisOptions::default() },
            "options.max_evals",
        ),
        (AnalysisOptions { layers: vec!["nothing*".into()], ..AnalysisOptions::default() }, "options.layers"),
        (AnalysisOptions { layers: many(), ..AnalysisOptions::default() }, "options.layers"),
    ] {
        let request = CreateAnalysisRequest { options: Some(options.clone()), ..of(&model()) };
        let checked = CreateAnalysisRequest { validate_only: true, ..request.clone() };
        for request in [request, checked] {
            let answer = create(&cluster, request);
            assert_refused(field, answer, Code::InvalidArgument, "INVALID_ARGUMENT", field);
        }
        let request = DescribeModelRequest { model: model(), options: Some(options) };
        let mut client = cluster.client();
        let answer = cluster.wait(client.describe_model(request)).map(|_| ());
        assert_refused(field, answer, Code::InvalidArgument, "INVALID_ARGUMENT", field);
    }
    for id in ["x".repeat(129), "a\nb".to_owned()] {
        let answer = create(&cluster, CreateAnalysisRequest { request_id: id, ..of(&model()) });
        assert_refused("request_id", answer, Code::InvalidArgument, "INVALID_ARGUMENT", "request_id");
    }
    let first = CreateAnalysisRequest { request_id: "once".into(), priority: i32::MAX, ..of(&model()) };
    let made = create(&cluster, first.clone()).unwrap().analysis.unwrap();
    assert_eq!(create(&cluster, first.clone()).unwrap().analysis.unwrap().id, made.id);
    let other = create(&cluster, CreateAnalysisRequest { priority: i32::MIN, ..first });
    assert_refused("another request", other, Code::AlreadyExists, "CONFLICT", "request_id");
    let least = CreateAnalysisRequest { priority: i32::MIN, ..of(&model()) };
    assert_eq!(create(&cluster, least).unwrap().analysis.unwrap().priority, i32::MIN);
}

#[test]
fn pages_and_ids_that_are_wrong() {
    let cluster = Cluster::start(TempDir::new().unwrap(), "[coordinator]\nallow_local_files = true\n");
    let id = create(&cluster, of(&model())).unwrap().analysis.unwrap().id;
    create(&cluster, of(&model())).unwrap();
    let mut client = cluster.client();
    let list = ListAnalysesRequest { page_size: 1, ..ListAnalysesRequest::default() };
    let token = cluster.wait(client.list_analyses(list.clone())).unwrap().into_inner().next_page_token;
    assert!(!token.is_empty());
    let long = "0".repeat(3000);
    for (request, field) in [
        (ListAnalysesRequest { page_size: -1, ..list.clone() }, "page_size"),
        (ListAnalysesRequest { page_size: i32::MIN, ..list.clone() }, "page_size"),
        (
            ListAnalysesRequest { page_token: token.clone(), model_prefix: "/x".into(), ..list.clone() },
            "page_token",
        ),
        (ListAnalysesRequest { page_token: token.clone(), state: 4, ..list.clone() }, "page_token"),
        (ListAnalysesRequest { page_token: "garbage".into(), ..list.clone() }, "page_token"),
        (ListAnalysesRequest { page_token: "é".into(), ..list.clone() }, "page_token"),
        (ListAnalysesRequest { page_token: long, ..list.clone() }, "page_token"),
        (ListAnalysesRequest { state: 99, ..list.clone() }, "state"),
    ] {
        let answer = cluster.wait(client.list_analyses(request));
        assert_refused(field, answer, Code::InvalidArgument, "INVALID_ARGUMENT", field);
    }
    let rows = ListLayerResultsRequest { id: id.clone(), ..ListLayerResultsRequest::default() };
    for (request, field) in [
        (ListLayerResultsRequest { page_size: -7, ..rows.clone() }, "page_size"),
        (ListLayerResultsRequest { page_token: token, ..rows.clone() }, "page_token"),
        (ListLayerResultsRequest { status: 99, ..rows }, "status"),
    ] {
        let answer = cluster.wait(client.list_layer_results(request));
        assert_refused(field, answer, Code::InvalidArgument, "INVALID_ARGUMENT", field);
    }
    for id in [NOT_AN_ID, "", "../x", &"x".repeat(100_000)] {
        let id = id.to_owned();
        let gone =
            |answer: Result<(), Status>| assert_refused(&id, answer, Code::NotFound, "NOT_FOUND", "id");
        gone(cluster.wait(client.get_analysis(GetAnalysisRequest { id: id.clone() })).map(|_| ()));
        gone(cluster.wait(client.cancel_analysis(CancelAnalysisRequest { id: id.clone() })).map(|_| ()));
        let watch = WatchAnalysisRequest { id: id.clone(), after_sequence: 0 };
        gone(cluster.wait(client.watch_analysis(watch)).map(|_| ()));
        let rows = ListLayerResultsRequest { id: id.clone(), ..ListLayerResultsRequest::default() };
        gone(cluster.wait(client.list_layer_results(rows)).map(|_| ()));
        let rows = StreamLayerResultsRequest { id: id.clone(), status: 0 };
        gone(cluster.wait(client.stream_layer_results(rows)).map(|_| ()));
        let spectrum = StreamSpectrumRequest { id: id.clone(), layer: "x".into() };
        gone(cluster.wait(client.stream_spectrum(spectrum)).map(|_| ()));
    }
}

#[test]
fn an_analysis_that_has_ended_stays_as_it_is() {
    let cluster = Cluster::working();
    let ended = cluster.analysed(of(&model()));
    assert_eq!(ended.state(), AnalysisState::Succeeded, "{ended:?}");
    let mut client = cluster.client();
    let cancel = CancelAnalysisRequest { id: ended.id.clone() };
    let cancelled = cluster.wait(client.cancel_analysis(cancel)).unwrap().into_inner().analysis.unwrap();
    assert_eq!(cancelled, ended);
    // Beyond its end there is one message, that it has ended.
    for after_sequence in [ended.sequence, ended.sequence + 1, u64::MAX] {
        let request = WatchAnalysisRequest { id: ended.id.clone(), after_sequence };
        let messages = cluster.wait(async {
            let mut stream = client.watch_analysis(request).await.unwrap().into_inner();
            let mut messages = Vec::new();
            while let Some(message) = stream.message().await.unwrap() {
                messages.push(message);
            }
            messages
        });
        assert_eq!(messages.len(), 1, "after {after_sequence}");
        assert_eq!(messages[0].analysis.as_ref().unwrap().state(), AnalysisState::Succeeded);
        assert!(messages[0].layers.is_empty());
    }
    let row = cluster.rows(&ended.id).into_iter().find(|row| row.has_esd).unwrap();
    let spectrum = |layer: &str| StreamSpectrumRequest { id: ended.id.clone(), layer: layer.to_owned() };
    let answer = cluster.wait(client.stream_spectrum(spectrum(&row.name))).map(|_| ());
    assert_refused("not kept", answer, Code::FailedPrecondition, "FAILED_PRECONDITION", "layer");
    let answer = cluster.wait(client.stream_spectrum(spectrum("no such layer"))).map(|_| ());
    assert_refused("no such layer", answer, Code::NotFound, "NOT_FOUND", "layer");
}

#[test]
fn a_message_that_is_too_long_is_not_read() {
    let cluster = rooted();
    let answer = create(&cluster, of(&"x".repeat((4 << 20) + 1)));
    assert_eq!(answer.unwrap_err().code(), Code::OutOfRange);
    let long = "x".repeat((4 << 20) - 100);
    assert_refused(
        "just short enough",
        create(&cluster, of(&long)),
        Code::PermissionDenied,
        "PERMISSION_DENIED",
        "",
    );
    // The connection goes on.
    assert_refused("later", create(&cluster, of("")), Code::InvalidArgument, "INVALID_ARGUMENT", "model");
}

#[test]
fn a_deadline_ends_a_call_on_a_slow_store() {
    let server = HostileServer::start(|_, _| vec![Step::Stall]);
    let file = format!("[[root]]\nname = \"slow\"\nuri = \"{}\"\n", server.uri("/m/"));
    let cluster = Cluster::start(TempDir::new().unwrap(), &file);
    let model = server.uri("/m/model.safetensors");
    for limit in [Duration::from_millis(1), Duration::from_millis(300)] {
        let begun = Instant::now();
        let status = cluster.wait(describe_within(cluster.address, &model, limit));
        let expected = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned(), String::new());
        assert_eq!(told(&status), expected, "{status:?}");
        assert!(begun.elapsed() >= limit && begun.elapsed() < Duration::from_secs(20));
    }
    assert!(!server.requests().is_empty(), "the store was asked");
}

/// DescribeModel with that time to answer, without a client of tonic, which would stop to wait by itself.
async fn describe_within(address: SocketAddr, model: &str, limit: Duration) -> Status {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream));
    let (mut client, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let message = DescribeModelRequest { model: model.to_owned(), options: None }.encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(&message);
    let path = "/spectrald.v1.AnalysisService/DescribeModel";
    let request = http::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", format!("{}m", limit.as_millis()))
        .body(framed_body(framed));
    let answer = client.send_request(request.unwrap()).await.unwrap();
    Status::from_header_map(answer.headers()).expect("a refusal without a message")
}

fn framed_body(bytes: Vec<u8>) -> tonic::body::Body {
    tonic::body::Body::new(Once(Some(bytes.into())))
}

/// One frame as a body.
struct Once(Option<bytes::Bytes>);

impl http_body::Body for Once {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}
