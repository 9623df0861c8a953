//! Calls: what they give, what they try again, what they say.

use super::{message, patience, report, started, target, with_client};
use crate::support::coordinator::ID;
use spectrald::analysis::Timings;
use spectrald::config::Secret;
use spectrald::render::{self, TableOptions};
use spectrald::rpc::client::{Eigenvalues, Patience, Target};
use spectrald::rpc::proto::v1;
use spectrald::rpc::status::status;
use spectrald::{Error, ErrorKind};
use std::time::Duration;
use tonic::Status;

fn create() -> v1::CreateAnalysisRequest {
    v1::CreateAnalysisRequest { model: "s3://b/m".to_owned(), ..Default::default() }
}

#[test]
fn a_report_prints_the_bytes_that_analyze_prints() {
    let (_script, coordinator) = started();
    let mut got =
        with_client(&target(&coordinator), patience(), async |client| client.report(ID).await.unwrap());
    assert_eq!((got.timings.seconds, got.timings.threads), (1.5, 0));
    got.timings = Timings::default();
    let mut own = report().clone();
    own.timings = Timings::default();
    assert!(own.layers.iter().any(|row| row.vectors.is_some() && row.random.is_some()));
    let (got, own) = ([got], [own]);
    assert_eq!(render::json(&got).unwrap(), render::json(&own).unwrap());
    assert_eq!(render::jsonl(&got).unwrap(), render::jsonl(&own).unwrap());
    assert_eq!(render::csv(&got).unwrap(), render::csv(&own).unwrap());
    let table = TableOptions { show_skipped: true, worst_first: true, colour: false };
    assert_eq!(render::table(&got[0], &table), render::table(&own[0], &table));
}

#[test]
fn what_is_unavailable_is_asked_again_under_the_same_request_id() {
    let (script, coordinator) = started();
    with_client(&target(&coordinator), patience(), async |client| {
        script.fail(3, Status::unavailable("starting"));
        assert_eq!(client.create(create()).await.unwrap().id, ID);
        let calls = script.take_calls();
        assert_eq!(calls.len(), 4);
        assert!(calls.iter().all(|call| *call == calls[0]), "{calls:?}");
        let request_id = calls[0].strip_prefix("create s3://b/m ").unwrap();
        assert!(uuid::Uuid::parse_str(request_id).is_ok(), "{request_id}");
        // the fourth failure is the last
        script.fail(4, Status::unavailable("starting"));
        let error = client.create(create()).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "starting"));
        let again = script.take_calls();
        assert_eq!(again.len(), 4);
        assert_ne!(again[0], calls[0], "another creation has another request_id");
        let given = v1::CreateAnalysisRequest { request_id: "mine".to_owned(), ..create() };
        client.create(given).await.unwrap();
        assert_eq!(script.take_calls(), ["create s3://b/m mine"]);
    });
}

#[test]
fn what_will_not_pass_is_asked_once_and_told_in_full() {
    let (script, coordinator) = started();
    with_client(&target(&coordinator), patience(), async |client| {
        for error in [
            Error::invalid("is below 8").in_field("options.max_evals"),
            Error::new(ErrorKind::PermissionDenied, "is under no root").in_file("s3://b/m").in_field("model"),
            Error::new(ErrorKind::NothingAnalysable, "none of its 3 tensors can be analysed").in_file("m"),
            Error::new(ErrorKind::Conflict, "names another request").in_field("request_id"),
        ] {
            script.fail(1, status(&error));
            let told = client.create(create()).await.unwrap_err();
            assert_eq!((told.kind(), told.to_string()), (error.kind(), error.to_string()));
            assert_eq!(script.take_calls().len(), 1);
        }
        // RESOURCE_EXHAUSTED without RetryInfo
        script.fail(1, Status::resource_exhausted("too many streams"));
        assert_eq!(client.get(ID).await.unwrap_err().kind(), ErrorKind::Exhausted);
        assert_eq!(script.take_calls().len(), 1);
        assert_eq!(message(client.report("a9").await), "field 'id': no analysis 'a9'");
    });
}

#[test]
fn a_coordinator_that_is_not_there_or_does_not_answer() {
    let (script, coordinator) = started();
    let addr = format!("http://{}", coordinator.address());
    *script.silent.lock().unwrap() = true;
    let hasty = Patience { answer: Duration::from_millis(100), ..patience() };
    with_client(&target(&coordinator), hasty, async |client| {
        let error = client.get(ID).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(error.to_string(), format!("{addr}: no answer within 0.1 s"));
    });
    assert_eq!(script.take_calls(), ["get"], "a call that ran out of time is not made again");
    let gone = target(&coordinator);
    drop(coordinator);
    with_client(&gone, patience(), async |client| {
        let error = client.get(ID).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        assert!(text.starts_with(&format!("{addr}: cannot reach a coordinator: ")), "{text}");
        assert!(text.contains("refused"), "{text}");
    });
}

#[test]
fn lists_are_read_to_their_end_or_to_the_limit() {
    let (script, coordinator) = started();
    with_client(&target(&coordinator), patience(), async |client| {
        let ids = async |most| {
            let found = client.list(v1::AnalysisState::Unspecified, most).await.unwrap();
            found.into_iter().map(|analysis| analysis.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(50).await, ["a3", "a2", "a1"]);
        assert_eq!(script.take_calls(), ["list 50 ''", "list 48 'more'"]);
        assert_eq!(ids(1).await, ["a3"]);
        assert_eq!(script.take_calls(), ["list 1 ''"]);
        let workers = client.workers().await.unwrap();
        assert_eq!(workers.iter().map(|worker| worker.id.as_str()).collect::<Vec<_>>(), ["w1", "w2"]);
        let described = client.describe("m", &v1::AnalysisOptions::default()).await.unwrap();
        assert_eq!((described.layers.len(), described.plan.layers), (report().layers.len(), 14));
        assert_eq!(described.identity.uri, report().model.uri);
    });
}

#[test]
fn an_analysis_without_report_says_why() {
    let (script, coordinator) = started();
    let state = |state: v1::AnalysisState| script.analysis.lock().unwrap().set_state(state);
    with_client(&target(&coordinator), patience(), async |client| {
        state(v1::AnalysisState::Running);
        let error = message(client.report(ID).await);
        assert_eq!(
            error,
            "analysis a1 has not ended: 14 of 14 layers are done; `spectrald watch` waits for it"
        );
        state(v1::AnalysisState::Failed);
        script.analysis.lock().unwrap().failure =
            Some(v1::Failure { reason: "MODEL_CHANGED".to_owned(), message: "m: changed".to_owned() });
        let error = client.report(ID).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Changed, "m: changed"));
        client.cancel(ID).await.unwrap();
        assert_eq!(message(client.report(ID).await), "analysis a1 was cancelled");
    });
}

/// Eigenvalues in chunks of which each starts where the last ended.
fn chunks(offsets: &[u64]) -> Vec<v1::StreamSpectrumResponse> {
    let chunk = |offset: &u64| v1::StreamSpectrumResponse {
        offset: *offset,
        total: 6,
        values: vec![*offset as f64, *offset as f64 + 1.0],
        layer: "head".to_owned(),
        noise_floor: 1e-9,
        method: "gram".to_owned(),
        num_evals: None,
    };
    offsets.iter().map(chunk).collect()
}

#[test]
fn eigenvalues_are_whole_or_an_error() {
    let (script, coordinator) = started();
    with_client(&target(&coordinator), patience(), async |client| {
        *script.spectrum.lock().unwrap() = chunks(&[0, 2, 4]);
        let whole = Eigenvalues {
            layer: "head".to_owned(),
            method: "gram".to_owned(),
            noise_floor: 1e-9,
            values: vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
            num_evals: None,
        };
        assert_eq!(client.spectrum(ID, "head").await.unwrap(), whole);
        for (offsets, text) in [
            (&[0, 4][..], "eigenvalues out of order"),
            (&[2, 4], "eigenvalues out of order"),
            (&[0, 2], "eigenvalues are missing"),
            (&[0, 2, 4, 4], "eigenvalues out of order"),
            (&[], "eigenvalues are missing"),
        ] {
            *script.spectrum.lock().unwrap() = chunks(offsets);
            assert_eq!(message(client.spectrum(ID, "head").await), text, "{offsets:?}");
        }
    });
}

#[test]
fn a_token_goes_with_every_call() {
    let (script, coordinator) = started();
    let target = Target { token: Some(Secret::new("hunter2")), ..target(&coordinator) };
    with_client(&target, patience(), async |client| {
        client.report(ID).await.unwrap();
        client.workers().await.unwrap();
    });
    let tokens = script.tokens();
    assert_eq!(tokens.len(), 5);
    assert!(tokens.iter().all(|token| token.as_deref() == Some("Bearer hunter2")), "{tokens:?}");
    assert!(!format!("{target:?}").contains("hunter2"));
}
