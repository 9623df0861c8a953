use std::collections::HashMap;
use std::time::Duration;

use super::*;

fn resolve(vars: &[(&str, &str)]) -> Result<Config> {
    let map: HashMap<String, String> = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Config::from_env(|name| map.get(name).cloned(), "coordinator")
}

fn otlp(vars: &[(&str, &str)]) -> Otlp {
    resolve(vars).unwrap().traces.otlp.unwrap()
}

fn error(vars: &[(&str, &str)]) -> String {
    resolve(vars).map(|_| ()).unwrap_err().to_string()
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");

#[test]
fn nothing_set_sends_nothing() {
    let config = resolve(&[]).unwrap();
    assert!(!config.traces.is_on() && !config.metrics.is_on());
    assert_eq!(config.warnings, Vec::<String>::new());
    assert!(config.propagate);
    assert_eq!(config.sampler, Sampler::ParentOn);
    assert_eq!(config.resource[0], ("service.name".to_owned(), "spectrald-coordinator".to_owned()));
    // An empty value counts as unset.
    assert!(!resolve(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).unwrap().traces.is_on());
}

#[test]
fn endpoints() {
    let both = resolve(&[ENDPOINT]).unwrap();
    assert_eq!(both.traces.otlp.unwrap().endpoint.as_str(), "http://c:4318/v1/traces");
    assert_eq!(both.metrics.otlp.unwrap().endpoint.as_str(), "http://c:4318/v1/metrics");
    assert_eq!(
        otlp(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c/x/")]).endpoint.as_str(),
        "https://c/x/v1/traces"
    );
    // One for the signal is used as it stands, and turns on that signal alone.
    let one = resolve(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/own")]).unwrap();
    assert_eq!(one.traces.otlp.unwrap().endpoint.as_str(), "http://c/own");
    assert!(!one.metrics.is_on());
    // Asked for by name: the defaults of the specification.
    assert_eq!(
        otlp(&[("OTEL_TRACES_EXPORTER", "otlp")]).endpoint.as_str(),
        "http://localhost:4318/v1/traces"
    );
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    assert_eq!(otlp(&[("OTEL_TRACES_EXPORTER", "otlp"), grpc]).endpoint.as_str(), "http://localhost:4317/");
    // Without a scheme gRPC is TLS unless said otherwise.
    let bare = ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317");
    assert_eq!(otlp(&[bare, grpc]).endpoint.scheme(), "https");
    assert_eq!(otlp(&[bare, grpc, ("OTEL_EXPORTER_OTLP_INSECURE", "true")]).endpoint.scheme(), "http");
    assert_eq!(
        error(&[bare]),
        "field 'OTEL_EXPORTER_OTLP_ENDPOINT': an endpoint starts with http:// or https://"
    );
    assert_eq!(
        error(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://c")]),
        "field 'OTEL_EXPORTER_OTLP_ENDPOINT': scheme 'ftp' is neither http nor https"
    );
    assert_eq!(
        error(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:canary@c")]),
        "field 'OTEL_EXPORTER_OTLP_ENDPOINT': a URL with a password would be logged; use OTEL_EXPORTER_OTLP_HEADERS"
    );
    assert_eq!(
        error(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:99999")]),
        "field 'OTEL_EXPORTER_OTLP_ENDPOINT': not a URL: invalid port number"
    );
}

#[test]
fn exporters_by_name() {
    let config =
        resolve(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "otlp,console")]);
    let config = config.unwrap();
    assert!(!config.traces.is_on());
    assert!(config.metrics.console && config.metrics.otlp.is_some());
    assert_eq!(
        error(&[("OTEL_TRACES_EXPORTER", "zipkin")]),
        "field 'OTEL_TRACES_EXPORTER': no exporter 'zipkin'; there are otlp, console, none"
    );
    let disabled = resolve(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]).unwrap();
    assert!(
        disabled.disabled && !disabled.traces.is_on() && !disabled.metrics.is_on() && !disabled.propagate
    );
}

#[test]
fn headers_are_decoded_and_hidden() {
    let set = [ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20canary==, api-key=canary")];
    let collector = otlp(&set);
    assert_eq!(collector.headers[0], ("authorization".to_owned(), "Basic canary==".to_owned()));
    assert_eq!(collector.headers[1], ("api-key".to_owned(), "canary".to_owned()));
    let shown = format!("{collector} {collector:?} {:?}", resolve(&set).unwrap());
    assert!(shown.contains("authorization=<hidden>"), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
    // The form for one signal replaces the general one.
    let own = otlp(&[set[0], set[1], ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=b")]);
    assert_eq!(own.headers, [("a".to_owned(), "b".to_owned())]);
    for (value, message) in [
        ("canary", "pair 1 has no '='"),
        ("a=b,=canary", "pair 2 has no name"),
        ("a=canary%2", "pair 1 is not percent-encoded UTF-8"),
        ("a=canary%0a", "the value of header 'a' has characters that none may have"),
        ("a b=canary", "'a b' is not the name of a header"),
    ] {
        let error = error(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", value)]);
        assert_eq!(error, format!("field 'OTEL_EXPORTER_OTLP_HEADERS': {message}"));
    }
}

#[test]
fn a_key_in_the_query_is_hidden() {
    let collector = otlp(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c/?key=canary")]);
    assert_eq!(collector.endpoint.as_str(), "https://c/v1/traces?key=canary");
    assert_eq!(collector.to_string(), "otlp http/protobuf https://c/v1/traces?hidden timeout=10000ms");
}

#[test]
fn samplers() {
    let sampler = |name, arg| {
        resolve(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", arg)])
            .map(|config| config.sampler)
    };
    assert_eq!(sampler("always_off", "").unwrap(), Sampler::AlwaysOff);
    assert_eq!(sampler("parentbased_traceidratio", "0.01").unwrap(), Sampler::ParentRatio(0.01));
    assert_eq!(
        sampler("traceidratio", "1%").unwrap_err().to_string(),
        "field 'OTEL_TRACES_SAMPLER_ARG': '1%' is not a number from 0 to 1"
    );
    assert!(sampler("traceidratio", "NaN").is_err());
    assert!(
        sampler("jaeger_remote", "")
            .unwrap_err()
            .to_string()
            .contains("no sampler 'jaeger_remote'; there are")
    );
    let missing = resolve(&[("OTEL_TRACES_SAMPLER", "traceidratio")]).unwrap();
    assert_eq!(missing.warnings, ["OTEL_TRACES_SAMPLER_ARG is not set: every trace is sampled"]);
}

#[test]
fn what_is_not_done_is_said() {
    let set = [
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "1"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
    ];
    let config = resolve(&set).unwrap();
    let expected = [
        "OTEL_EXPORTER_OTLP_COMPRESSION: 'gzip' is not built in; requests are sent uncompressed",
        "OTEL_BSP_EXPORT_TIMEOUT has no effect; OTEL_EXPORTER_OTLP_TIMEOUT limits each request",
        "logs are not sent by OTLP; they are lines on standard error",
        "OTEL_METRIC_EXPORT_INTERVAL: 'soon' is not a positive whole number; 60000 is used",
    ];
    assert_eq!(config.warnings, expected);
    assert_eq!(
        error(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]),
        "field 'OTEL_EXPORTER_OTLP_PROTOCOL': protocol 'http/json' is not built in; there are http/protobuf, grpc"
    );
    assert_eq!(
        error(&[("OTEL_PROPAGATORS", "tracecontext,b3")]),
        "field 'OTEL_PROPAGATORS': no propagator 'b3'; there are tracecontext, baggage, none"
    );
}

#[test]
fn the_rest_of_the_variables() {
    let set = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "500"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "me.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "me.key"),
        ("OTEL_SERVICE_NAME", "mine"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=lost,deployment.environment.name=a%20b"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5"),
        ("OTEL_BSP_SCHEDULE_DELAY", "7"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "9"),
        ("OTEL_PROPAGATORS", "none"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta"),
    ];
    let config = resolve(&set).unwrap();
    let traces = config.traces.otlp.clone().unwrap();
    assert_eq!(traces.timeout, Duration::from_millis(250));
    assert_eq!(config.metrics.otlp.clone().unwrap().timeout, Duration::from_millis(500));
    assert_eq!(
        traces.to_string(),
        "otlp http/protobuf https://c/v1/traces timeout=250ms certificate=ca.pem client_certificate=me.pem \
         client_key=me.key"
    );
    let line = config.resource_line();
    assert!(line.starts_with("service.name=mine,"), "{line}");
    assert!(line.ends_with(",deployment.environment.name=a b"), "{line}");
    assert_eq!((config.queue_spans, config.batch_spans), (10, 5));
    assert_eq!(config.batch_delay, Duration::from_millis(7));
    assert_eq!(config.metric_interval, Duration::from_millis(9));
    assert!(!config.propagate);
    assert_eq!(config.temporality, Temporality::Delta);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    // Half an identity, or certificates on a connection without TLS, would be a quiet loss of security.
    assert!(error(&[set[0], set[4]]).contains("the certificate has no key"));
    assert!(error(&[ENDPOINT, set[3]]).contains("the scheme is http, which uses none; write https"));
}
