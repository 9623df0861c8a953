//! [`init`] itself, in a process of its own: it may be called once, and reads the environment.

use std::process::{Command, Stdio};

use super::*;

/// Set in the child.
const ROLE: &str = "SPECTRALD_TEST_TELEMETRY_CHILD";

/// Every line of the log at the finest level, those of the HTTP and gRPC libraries among them, is JSON and has no secret.
#[test]
fn the_whole_log_of_a_process_has_no_secret() {
    if std::env::var_os(ROLE).is_some() {
        child();
        return;
    }
    for protocol in ["http/protobuf", "grpc"] {
        let collector = Collector::start(protocol, &Security::Plain);
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "telemetry::tests::process::the_whole_log_of_a_process_has_no_secret",
                "--nocapture",
            ])
            .env(ROLE, "1")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer%20{CANARY},x-api-key={CANARY}"))
            // The SDK meets this one, too, and must not fail over it.
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{log}");
        let (authorization, _) = collector.spans();
        // The SDK reads the same variables once more: the header must still be one.
        assert_eq!(authorization, format!("Bearer {CANARY}"));
        let lines: Vec<serde_json::Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
            .collect();
        assert!(
            lines.iter().any(|line| line["message"] == "inside" && line["trace_id"] == TRACE_ID),
            "{log}"
        );
        let of_others =
            lines.iter().filter(|line| !line["target"].as_str().unwrap().starts_with("spectrald")).count();
        assert!(of_others > 0, "this test is to see what libraries log, too: {log}");
        let warning =
            "OTEL_EXPORTER_OTLP_COMPRESSION: 'gzip' is not built in; requests are sent uncompressed";
        assert!(lines.iter().any(|line| line["message"] == warning && line["level"] == "WARN"), "{log}");
        assert!(!log.contains(CANARY), "{log}");
    }
}

fn child() {
    let guard = init(&options("trace")).unwrap();
    assert_eq!(init(&options("trace")).map(|_| ()).unwrap_err().to_string(), "telemetry was started before");
    work();
    guard.shutdown().unwrap();
}
