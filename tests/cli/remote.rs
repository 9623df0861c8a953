//! Commands that ask a coordinator, which answers from a list.

use super::{Place, Ran, run};
use crate::support::coordinator::{Coordinator, ID, Script};
use crate::support::models::{analyze, fixture};
use spectrald::analysis::{ModelReport, Options};
use spectrald::rpc::proto::v1;
use spectrald::rpc::status::status;
use spectrald::{Error, ErrorKind};
use std::process::Command;
use std::sync::{Arc, OnceLock};

fn report() -> &'static ModelReport {
    static REPORT: OnceLock<ModelReport> = OnceLock::new();
    REPORT.get_or_init(|| {
        let options = Options { erg: true, ..Options::default() };
        analyze(&fixture("models/fracast/model.safetensors"), &options)
    })
}

/// A coordinator, and a place to ask it from.
struct Asked {
    script: Arc<Script>,
    coordinator: Coordinator,
    place: Place,
}

impl Asked {
    fn new() -> Self {
        let script = Script::of(report());
        let coordinator = Coordinator::start(&script);
        Self { script, coordinator, place: Place::new() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        command.env("SPECTRALD_ADDR", self.coordinator.address().to_string());
        for name in ["SPECTRALD_TOKEN", "SPECTRALD_TOKEN_FILE", "SPECTRALD_CA_CERT", "SPECTRALD_SERVER_NAME"]
        {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args))
    }

    /// stdout of a run that must go well.
    fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok().to_owned()
    }

    fn fails(&self, args: &[&str], code: i32, stderr: &str) {
        let ran = self.run(args);
        assert_eq!((ran.code, ran.stderr.as_str(), ran.text()), (Some(code), stderr, ""), "{args:?}");
    }
}

/// A report's JSON without what changes from run to run.
fn without_timings(text: &str) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
    value.as_object_mut().unwrap().remove("timings").unwrap();
    value
}

#[test]
fn results_and_submit_print_what_analyze_prints() {
    let asked = Asked::new();
    let model = fixture("models/fracast/model.safetensors");
    let model = model.to_str().unwrap();
    for format in ["table", "csv", "jsonl"] {
        let own = asked.place.run(&["analyze", model, "--erg", "--format", format]);
        assert_eq!(asked.ok(&["results", ID, "--format", format]), own.ok());
        assert_eq!(asked.ok(&["submit", model, "--erg", "--wait", "--format", format]), own.ok());
    }
    let own = asked.place.run(&["analyze", model, "--erg", "--format", "json"]);
    let theirs = asked.ok(&["results", ID, "--format", "json"]);
    assert_eq!(without_timings(&theirs), without_timings(own.ok()));
    let table = ["--show-skipped", "--sort", "worst"];
    let own = asked.place.run(&[&["analyze", model, "--erg"], &table[..]].concat());
    assert_eq!(asked.ok(&[&["results", ID], &table[..]].concat()), own.ok());
    asked.ok(&["submit", model, "--wait", "--format", "csv", "-o", "out.csv"]);
    assert!(asked.place.file("out.csv").is_file());
}

#[test]
fn submit_prints_the_id_and_names_the_model_for_the_coordinator() {
    let asked = Asked::new();
    let request_id = "6f9619ff-8b86-4d11-b42d-00c04fc964ff";
    assert_eq!(asked.ok(&["submit", "s3://b/m", "--request-id", request_id]), "a1\n");
    assert_eq!(asked.script.take_calls(), [format!("create s3://b/m {request_id}")]);
    assert_eq!(asked.ok(&["submit", "model.safetensors", "s3://b/m"]), "a1\na1\n");
    let absolute = asked.place.path().canonicalize().unwrap().join("model.safetensors");
    let calls = asked.script.take_calls();
    assert!(calls[0].contains(absolute.to_str().unwrap()), "{calls:?}");
    let planned = asked.ok(&["submit", "s3://b/m", "--validate-only"]);
    assert_eq!(planned, "s3://b/m: 14 layers, 33 skipped; 1.000 GFLOP, 0 B to read, largest task 0 B\n");
}

#[test]
fn what_is_wrong_is_said_before_the_coordinator_is_asked() {
    let asked = Asked::new();
    for (args, message) in [
        (&["--max-evals", "2"][..], "field '--max-evals': is below --min-evals"),
        (&["--request-id", "x"], "field '--request-id': 'x' is not a UUID"),
        (&["--wait", "-o", "no/out"], "no: no such directory"),
        (&["--addr", "ftp://h"], "field '--addr': unknown scheme 'ftp': we know http, https"),
        (&["--token-file", "none"], "none: cannot be read: No such file or directory (os error 2)"),
    ] {
        let args = [&["submit", "s3://b/m"], args].concat();
        asked.fails(&args, 2, &format!("error: {message}\n"));
    }
    // To a coordinator on another machine it would be sent.
    asked.fails(&["submit", "m", "--addr", "host:1"], 2, "error: m: no such file or directory\n");
    asked.place.write("token", "hunter2\n");
    let message = "field '--addr': the token would go to host:1 in clear; use https://, or --insecure to send it all the same";
    asked.fails(&["jobs", "--addr", "host:1", "--token-file", "token"], 2, &format!("error: {message}\n"));
    let ran = asked.run(&["submit", "s3://b/m", "--format", "csv"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("--wait"), "{}", ran.stderr);
    assert!(asked.script.take_calls().is_empty());
}

#[test]
fn the_token_comes_from_a_file_or_the_environment() {
    let asked = Asked::new();
    asked.place.write("token", "of-file\n");
    asked.ok(&["jobs", "--token-file", "token"]);
    let mut command = asked.command(&["jobs"]);
    command.env("SPECTRALD_TOKEN", "of-environment");
    run(command).ok();
    let tokens: Vec<_> = asked.script.tokens().into_iter().flatten().collect();
    assert_eq!(&tokens[..1], ["Bearer of-file"]);
    assert_eq!(tokens.last().unwrap(), "Bearer of-environment");
}

#[test]
fn a_failed_analysis_exits_with_its_failure() {
    let asked = Asked::new();
    for (reason, code) in [("MODEL_MALFORMED", 2), ("NOTHING_ANALYSABLE", 3), ("UNHEARD_OF", 2)] {
        let failure = v1::Failure { reason: reason.to_owned(), message: "s3://b/m: why".to_owned() };
        let mut analysis = asked.script.analysis.lock().unwrap();
        analysis.set_state(v1::AnalysisState::Failed);
        analysis.failure = Some(failure);
        drop(analysis);
        asked.fails(&["submit", "s3://b/m", "--wait"], code, "error: s3://b/m: why\n");
        asked.fails(&["results", ID], code, "error: s3://b/m: why\n");
    }
}

#[test]
fn errors_of_the_coordinator_are_told_in_one_line() {
    let asked = Asked::new();
    for (error, code) in [
        (Error::new(ErrorKind::PermissionDenied, "is under no root").in_field("model"), 2),
        (Error::new(ErrorKind::Unauthenticated, "no token"), 2),
        (Error::new(ErrorKind::NothingAnalysable, "none").in_file("m"), 3),
    ] {
        asked.script.fail(1, status(&error));
        asked.fails(&["submit", "s3://b/m"], code, &format!("error: {error}\n"));
    }
    asked.fails(&["job", "a9"], 2, "error: field 'id': no analysis 'a9'\n");
    let place = Place::new();
    let ran = place.run(&["jobs", "--addr", "127.0.0.1:1"]);
    assert_eq!((ran.code, ran.text()), (Some(2), ""));
    let start = "error: http://127.0.0.1:1: cannot reach a coordinator: ";
    assert!(ran.stderr.starts_with(start) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
}

#[test]
fn what_coordinators_tell_is_shown() {
    let asked = Asked::new();
    let jobs = asked.ok(&["jobs", "--limit", "2"]);
    assert_eq!(jobs.lines().count(), 4, "a header, a rule and two analyses: {jobs}");
    assert!(jobs.contains("succeeded") && jobs.contains("14/14"), "{jobs}");
    let jobs = asked.run(&["jobs", "--format", "json"]).json();
    assert_eq!((jobs.as_array().unwrap().len(), &jobs[0]["id"]), (3, &"a3".into()));
    let job = asked.run(&["job", ID, "--format", "json"]).json();
    assert_eq!((&job["state"], &job["options"]["erg"]), (&"succeeded".into(), &true.into()));
    // by the same parser, which may round the last digit
    let summary: serde_json::Value =
        serde_json::from_str(&serde_json::to_string(&report().summary).unwrap()).unwrap();
    assert_eq!(job["summary"], summary);
    assert!(asked.ok(&["job", ID]).contains("took           1.500 s\n"));
    let workers = asked.ok(&["workers"]);
    assert!(workers.contains("w1") && workers.contains("w2") && workers.contains("ready"), "{workers}");
    assert_eq!(asked.run(&["workers", "--format", "json"]).json()[1]["id"], "w2");
    assert_eq!(asked.ok(&["drain", "w1"]), "w1 draining: 1 tasks running\n");
    assert!(asked.ok(&["status"]).contains("accepting      yes\n"));
    assert_eq!(asked.run(&["status", "--format", "json"]).json()["accepting"], true);
    let ended = "14 of 14 layers done (2 from cache), 0 failed in 1.500 s\n";
    assert_eq!(asked.ok(&["watch", ID]), format!("a1 succeeded: {ended}"));
    let watched = asked.ok(&["watch", ID, "--format", "json"]);
    assert_eq!(watched.lines().count(), asked.script.events());
    let last: serde_json::Value = serde_json::from_str(watched.lines().last().unwrap()).unwrap();
    assert_eq!(last["analysis"]["state"], "succeeded");
    assert_eq!(asked.ok(&["cancel", ID]), format!("a1 cancelled: {ended}"));
}

#[test]
fn eigenvalues_in_three_formats() {
    let asked = Asked::new();
    *asked.script.spectrum.lock().unwrap() = vec![v1::StreamSpectrumResponse {
        total: 2,
        values: vec![0.1 + 0.2, 5e-324],
        layer: "head".to_owned(),
        method: "gram".to_owned(),
        ..Default::default()
    }];
    assert_eq!(asked.ok(&["spectrum", ID, "head"]), "0.30000000000000004\n5e-324\n");
    let json = asked.run(&["spectrum", ID, "head", "--format", "json"]).json();
    assert_eq!((&json["layer"], &json["method"]), (&"head".into(), &"gram".into()));
    assert_eq!(json["eigenvalues"].as_array().unwrap().len(), 2);
    asked.ok(&["spectrum", ID, "head", "--format", "npy", "-o", "esd.npy"]);
    assert_eq!(&std::fs::read(asked.place.file("esd.npy")).unwrap()[..6], b"\x93NUMPY");
}

/// Ctrl-C ends the waiting, not the analysis.
#[cfg(unix)]
#[test]
fn an_interrupted_wait_leaves_the_analysis_running() {
    use super::interrupt::{ended, signal};
    use std::process::Stdio;
    for (args, calls) in [(&["submit", "s3://b/m", "--wait", "-o", "out"][..], 2), (&["watch", ID], 1)] {
        let asked = Asked::new();
        asked.script.happened.send_replace(0);
        let mut command = asked.command(args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        asked.script.wait_for_calls(calls);
        signal(&child, "INT");
        let output = ended(child);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(130), &b""[..]));
        let told = "interrupted: analysis a1 goes on; `spectrald watch a1` follows it, `spectrald cancel a1` ends it\n";
        assert_eq!(String::from_utf8(output.stderr).unwrap(), told);
        assert!(!asked.place.file("out").exists());
        assert!(asked.script.take_calls().iter().all(|call| call != "cancel"));
    }
}
