//! Against real collectors on real sockets.

mod collector;
mod process;

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Mutex;

use opentelemetry_proto::tonic::common::v1::any_value;
use tracing::dispatcher;

use super::*;
use collector::{Collector, Security};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CANARY: &str = "canary-5e1f";

/// Lines as they would stand on standard error.
#[derive(Clone, Default)]
pub(super) struct Capture(Arc<Mutex<String>>);

impl Capture {
    pub(super) fn sink(&self) -> Sink {
        let text = Arc::clone(&self.0);
        Arc::new(move |line| text.lock().unwrap().push_str(std::str::from_utf8(line).unwrap()))
    }

    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn json(&self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn options(filter: &str) -> LogOptions {
    LogOptions { format: Format::Json, filter: filter.to_owned(), service: "worker" }
}

/// Telemetry of its own for a test.
pub(super) fn started(vars: &[(&str, &str)]) -> (Dispatch, Guard, Capture) {
    let map: HashMap<&str, &str> = vars.iter().copied().collect();
    let config = Config::from_env(|name| map.get(name).map(|value| (*value).to_owned()), "worker").unwrap();
    let capture = Capture::default();
    let (dispatch, guard) = build(&options("debug"), &config, capture.sink()).unwrap();
    dispatcher::with_default(&dispatch, || announce(&options("debug"), &config));
    (dispatch, guard, capture)
}

/// A task that came with a lease.
fn work() {
    let span = propagate::span_from(TRACEPARENT, "task");
    let _entered = span.enter();
    tracing::info!("inside");
    let onward = propagate::inject().unwrap();
    assert!(onward.starts_with(&format!("00-{TRACE_ID}-")) && onward.ends_with("-01"), "{onward}");
    assert!(!onward.contains("00f067aa0ba902b7"), "the parent of what follows is this span: {onward}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Spans and metrics arrive, with headers, under the trace that was injected; the log has its ids and no secret.
fn arrives(protocol: &str, security: Security) {
    let collector = Collector::start(protocol, &security);
    let endpoint = collector.endpoint();
    let headers = format!("authorization=Bearer%20{CANARY}");
    let mut vars = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_EXPORTER_OTLP_HEADERS", headers.as_str()),
    ];
    let files = security.files();
    vars.extend(files.iter().map(|(name, file)| (*name, file.as_str())));
    let (dispatch, guard, capture) = started(&vars);
    guard.metrics().fetched(77);
    dispatcher::with_default(&dispatch, work);
    guard.shutdown().unwrap();

    let (authorization, spans) = collector.spans();
    assert_eq!(authorization, format!("Bearer {CANARY}"));
    let spans = &spans.resource_spans[0];
    let resource = &spans.resource.as_ref().unwrap().attributes;
    let name = resource.iter().find(|pair| pair.key == "service.name").unwrap().value.clone().unwrap();
    assert_eq!(name.value, Some(any_value::Value::StringValue("spectrald-worker".to_owned())));
    let span = &spans.scope_spans[0].spans[0];
    assert_eq!(span.name, "process task");
    assert_eq!(hex(&span.trace_id), TRACE_ID);
    assert_eq!(hex(&span.parent_span_id), "00f067aa0ba902b7");

    let metrics = collector.metrics();
    let names: Vec<&str> = metrics.resource_metrics[0].scope_metrics[0]
        .metrics
        .iter()
        .map(|metric| metric.name.as_str())
        .collect();
    assert!(names.contains(&"spectrald.fetch"), "{names:?}");

    let lines = capture.json();
    let inside = lines.iter().find(|line| line["message"] == "inside").unwrap();
    assert_eq!(inside["trace_id"], TRACE_ID);
    assert_eq!(inside["span_id"], hex(&span.span_id));
    let resolved = lines.iter().find(|line| line["message"] == "telemetry").unwrap();
    let traces = resolved["fields"]["traces"].as_str().unwrap();
    assert!(traces.contains("header authorization=<hidden>") && traces.contains(&endpoint), "{traces}");
    assert!(!capture.text().contains(CANARY), "{}", capture.text());
    assert!(lines.iter().all(|line| line["level"] == "INFO"), "{}", capture.text());
}

#[test]
fn a_span_arrives_by_http() {
    arrives("http/protobuf", Security::Plain);
}

#[test]
fn a_span_arrives_by_grpc() {
    arrives("grpc", Security::Plain);
}

#[test]
fn certificates_are_used_by_http() {
    arrives("http/protobuf", Security::mutual_tls());
}

#[test]
fn certificates_are_used_by_grpc() {
    arrives("grpc", Security::mutual_tls());
}

#[test]
fn another_authority_is_not_trusted() {
    for protocol in ["http/protobuf", "grpc"] {
        let (server, other) = (Security::mutual_tls(), Security::mutual_tls());
        let collector = Collector::start(protocol, &server);
        let (endpoint, files) = (collector.endpoint(), other.files());
        let mut vars = vec![
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
        ];
        vars.extend(files.iter().map(|(name, file)| (*name, file.as_str())));
        let (dispatch, guard, capture) = started(&vars);
        dispatcher::with_default(&dispatch, work);
        let _ = guard.shutdown();
        assert!(capture.text().contains("telemetry could not be exported"), "{protocol}: {}", capture.text());
        assert!(collector.nothing_came());
    }
}

#[test]
fn certificates_that_cannot_be_used_are_errors() {
    let error = |protocol: &str, file: &str| {
        let vars = HashMap::from([
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", file),
        ]);
        let config =
            Config::from_env(|name| vars.get(name).map(|value| (*value).to_owned()), "worker").unwrap();
        build(&options("info"), &config, Capture::default().sink()).map(|_| ()).unwrap_err().to_string()
    };
    for protocol in ["http/protobuf", "grpc"] {
        assert_eq!(
            error(protocol, "/no/such.pem"),
            "/no/such.pem: cannot be read: No such file or directory (os error 2)"
        );
    }
    let empty = tempfile::NamedTempFile::new().unwrap();
    let path = empty.path().to_str().unwrap();
    assert_eq!(error("http/protobuf", path), format!("{path}: no PEM certificates"));
}

#[test]
fn with_no_endpoint_nothing_is_sent_and_nothing_complained_of() {
    let (dispatch, guard, capture) = started(&[]);
    dispatcher::with_default(&dispatch, work);
    guard.shutdown().unwrap();
    drop(guard);
    let lines = capture.json();
    assert_eq!(lines.len(), 2, "{}", capture.text());
    assert_eq!(lines[0]["fields"]["traces"], "off");
    assert_eq!(lines[0]["fields"]["metrics"], "off");
    assert_eq!(lines[1]["message"], "inside");
    // Ids are there all the same, so that lines of two processes can be put together.
    assert_eq!(lines[1]["trace_id"], TRACE_ID);
    assert!(lines.iter().all(|line| line["level"] == "INFO"));
}

#[test]
fn disabled_means_no_ids_but_metrics_at_the_port() {
    let (dispatch, guard, capture) = started(&[("OTEL_SDK_DISABLED", "true")]);
    dispatcher::with_default(&dispatch, || {
        let _span = tracing::info_span!("task").entered();
        tracing::info!("inside");
    });
    assert!(capture.json()[1].get("trace_id").is_none());
    assert!(guard.metrics().render().unwrap().contains("spectrald_build_info"));
}

#[test]
fn a_collector_that_is_away_is_mentioned_once_for_each_signal() {
    for protocol in ["http/protobuf", "grpc"] {
        // Bound and let go: nobody listens there.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let endpoint = format!("http://{address}");
        let headers = format!("authorization={CANARY}");
        let (dispatch, guard, capture) = started(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_HEADERS", &headers),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "200"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ]);
        dispatcher::with_default(&dispatch, || {
            for _ in 0..5 {
                drop(tracing::info_span!("task").entered());
            }
        });
        let _ = guard.shutdown();
        let lines = capture.json();
        let failed: Vec<_> =
            lines.iter().filter(|line| line["message"] == "telemetry could not be exported").collect();
        let mut signals: Vec<_> =
            failed.iter().map(|line| line["fields"]["signal"].as_str().unwrap()).collect();
        signals.sort_unstable();
        assert_eq!(signals, ["metrics", "traces"], "{protocol}: {}", capture.text());
        assert!(!capture.text().contains(CANARY));
    }
}

/// A collector that takes connections and never answers.
fn black_hole() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    (listener, endpoint)
}

#[test]
fn shutdown_keeps_its_limit_when_the_collector_is_a_black_hole() {
    for protocol in ["http/protobuf", "grpc"] {
        let (_listener, endpoint) = black_hole();
        let (dispatch, mut guard, _) =
            started(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);
        guard.limit = Duration::from_millis(300);
        dispatcher::with_default(&dispatch, work);
        let began = Instant::now();
        let error = guard.shutdown().unwrap_err();
        assert_eq!(error.to_string(), "the last telemetry could not be exported");
        guard.shutdown().unwrap();
        drop(guard);
        drop(dispatch);
        // The time-out of a request is 10 s.
        assert!(began.elapsed() < Duration::from_secs(4), "{protocol}: {:?}", began.elapsed());
    }
}

/// A runtime must neither be made nor dropped on a thread of another one, which the blocking client and ours would be.
#[tokio::test]
async fn it_starts_and_stops_inside_a_runtime() {
    for protocol in ["http/protobuf", "grpc"] {
        let (_listener, endpoint) = black_hole();
        let (dispatch, mut guard, _) =
            started(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);
        guard.limit = Duration::from_millis(100);
        dispatcher::with_default(&dispatch, work);
        drop(guard);
        drop(dispatch);
    }
}

#[test]
fn the_console_shows_spans_and_metrics() {
    let (dispatch, guard, capture) =
        started(&[("OTEL_TRACES_EXPORTER", "console"), ("OTEL_METRICS_EXPORTER", "console")]);
    dispatcher::with_default(&dispatch, || {
        drop(tracing::info_span!("task", tensor = "a\n\u{1b}[2J").entered());
    });
    guard.metrics().fetched(3);
    guard.shutdown().unwrap();
    let text = capture.text();
    let span = text.lines().find(|line| line.starts_with("span task trace_id=")).unwrap();
    assert!(span.contains(" tensor=a\\n\\u{1b}[2J"), "{span}");
    assert!(text.contains("metric spectrald.fetch 3\n"), "{text}");
}

#[test]
fn a_filter_that_is_none_is_an_error() {
    let config = Config::from_env(|_| None, "worker").unwrap();
    let error =
        build(&options("spectrald=loud"), &config, Capture::default().sink()).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "field 'log filter': 'spectrald=loud': error parsing level filter: expected one of \"off\", \"error\", \"warn\", \
         \"info\", \"debug\", \"trace\", or a number 0-5"
    );
}

#[test]
fn the_filter_of_the_log_is_not_that_of_traces() {
    let map = HashMap::from([("OTEL_TRACES_EXPORTER", "console")]);
    let config = Config::from_env(|name| map.get(name).map(|value| (*value).to_owned()), "worker").unwrap();
    let capture = Capture::default();
    let (dispatch, guard) = build(&options("error"), &config, capture.sink()).unwrap();
    dispatcher::with_default(&dispatch, work);
    guard.shutdown().unwrap();
    assert!(
        capture.text().starts_with(&format!("span process task trace_id={TRACE_ID}")),
        "{}",
        capture.text()
    );
}
