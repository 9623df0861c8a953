//! What is right: rows, acknowledgements, cancellation, draining, shards, spectra, lookups.

use super::server::State;
use super::*;
use crate::format::testing::{Entry, safetensors};
use crate::layer::Layers;
use crate::rpc::proto::worker::v1::{Finish, Shard, UnitKey};
use std::sync::Mutex;

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_those_of_one_process_read_directly_or_through_the_coordinator() {
    let planned = plan(&fixture("fracast"));
    let count = planned.names.len();
    assert!(count > 4, "{count} layers");
    for options in [near("near"), far("far")] {
        let stub = Stub::start().await;
        let worker = work(&stub, options);
        stub.lease(planned.lease(1, 0..count / 2));
        stub.lease(planned.lease(2, count / 2..count));
        stub.until_results(count).await;
        worker.stop().await;
        let state = stub.state();
        planned.check_rows(&state.results);
        assert!(state.results.iter().all(|r| r.seconds > 0.0 && !r.has_spectrum));
        let first = &state.reports[0];
        assert_eq!((first.cores, first.free_cores, first.memory_bytes), (2, 2, MEMORY));
        assert_eq!(
            (first.protocol, first.seen, first.algorithm_version),
            (1, 0, crate::analysis::ALGORITHM_VERSION)
        );
        assert!(first.session > 0 && state.reports.iter().all(|r| r.session == first.session));
        let bytes: u64 = state.reports.iter().map(|report| report.bytes_read).sum();
        assert!(bytes > 0, "what was read is told");
        assert!(state.authorization.iter().all(|value| value == "Bearer secret"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_sent_until_it_is_acknowledged() {
    let planned = plan(&fixture("fracast"));
    let stub = Stub::start().await;
    stub.state().deaf = true;
    stub.lease(planned.lease(7, 0..2));
    let worker = work(&stub, near("w"));
    stub.until_results(2).await;
    let before = stub.state().deliveries;
    stub.until("they come again", |s| s.deliveries > before + 4).await;
    {
        let mut state = stub.state();
        state.deaf = false;
        state.lose_answers = 2;
    }
    stub.until("the answers are heard", |s| s.lose_answers == 0).await;
    stub.until("nothing is left", |s| s.reports.last().is_some_and(|report| report.results.is_empty())).await;
    worker.stop().await;
    let state = stub.state();
    assert_eq!(state.results.len(), 2);
    planned.check_rows(&state.results);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_lease_vanishes_and_frees_its_core() {
    let planned = plan(&fixture("fracast"));
    let stub = Stub::start().await;
    stub.close_gate();
    stub.lease(planned.lease(7, 0..3));
    let worker = work(&stub, far("w"));
    stub.until("it reads", |s| s.reads > 0 && s.reports.last().is_some_and(|r| r.running.len() == 1)).await;
    assert_eq!(stub.state().reports.last().unwrap().running[0].units, [0, 1, 2]);
    stub.state().cancel.push(7);
    stub.until("it vanishes", |s| s.cancel.is_empty() && s.reports.last().unwrap().running.is_empty()).await;
    stub.until("its core is free", |s| s.reports.last().unwrap().free_cores == 2).await;
    stub.open_gate();
    stub.lease(planned.lease(8, 3..4));
    stub.until_results(1).await;
    worker.stop().await;
    let state = stub.state();
    assert!(state.results.iter().all(|r| r.attempt == 8), "nothing came of the one that was cancelled");
    planned.check_rows(&state.results);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_is_skipped_has_no_result_and_the_lease_goes_on() {
    let planned = plan(&fixture("fracast"));
    let stub = Stub::start().await;
    stub.close_gate();
    stub.lease(planned.lease(7, 0..3));
    let worker = work(&stub, far("w"));
    stub.until("it reads", |s| s.reads > 0).await;
    stub.state().skip.push(UnitKey { analysis: "of 7".to_owned(), unit: 1, attempt: 7 });
    let units = |s: &State| s.reports.last().and_then(|r| Some(r.running.first()?.units.clone()));
    stub.until("it is skipped", |s| units(s).is_some_and(|units| units == [0, 2])).await;
    stub.open_gate();
    stub.until_results(2).await;
    worker.stop().await;
    let state = stub.state();
    assert_eq!(state.results.iter().map(|r| r.unit).collect::<Vec<_>>(), [0, 2]);
    planned.check_rows(&state.results);
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_what_is_under_way() {
    let planned = plan(&fixture("fracast"));
    let stub = Stub::start().await;
    stub.close_gate();
    stub.lease(planned.lease(7, 0..2));
    let worker = work(&stub, far("w"));
    stub.until("it reads", |s| s.reads > 0).await;
    worker.shutdown.cancel();
    stub.until("it says so", |s| s.reports.last().is_some_and(|r| r.draining)).await;
    stub.lease(planned.lease(8, 2..3));
    stub.until("the late lease comes back", |s| s.results.iter().any(is_returned)).await;
    stub.open_gate();
    worker.end().await.unwrap();
    let state = stub.state();
    let of = |attempt: u64| state.results.iter().filter(move |r| r.attempt == attempt).cloned();
    planned.check_rows(&of(7).collect::<Vec<_>>());
    assert_eq!((of(7).count(), of(8).count()), (2, 1));
    let last = state.reports.last().unwrap();
    assert!(last.draining && last.free_cores == 0 && last.free_memory_bytes == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_within_the_grace_is_handed_back() {
    let planned = plan(&fixture("fracast"));
    let stub = Stub::start().await;
    stub.close_gate();
    stub.lease(planned.lease(7, 0..2));
    let worker = work(&stub, WorkerOptions { drain_grace: Duration::from_millis(50), ..far("w") });
    stub.until("it reads", |s| s.reads > 0).await;
    worker.stop().await;
    let state = stub.state();
    assert_eq!(state.results.len(), 2);
    assert!(state.results.iter().all(is_returned));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_coordinator_a_worker_still_ends() {
    let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let ended = crate::worker::run(near("w"), channel, token(), shutdown);
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("it ends").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_wait_for_memory() {
    let planned = plan(&fixture("fracast"));
    let stub = Stub::start().await;
    for attempt in 1..=6 {
        let lease = planned.lease(attempt, 0..3);
        stub.lease(Lease { memory_bytes: MEMORY / 2 + 1, ..lease });
    }
    let begun = Arc::new(Mutex::new(Vec::new()));
    let order = Arc::clone(&begun);
    let worker = work_with(&stub, near("w"), move |unit| order.lock().unwrap().push(unit.unit));
    stub.until_results(18).await;
    worker.stop().await;
    // Units of two leases under way would mingle.
    assert_eq!(*begun.lock().unwrap(), [0, 1, 2].repeat(6));
    planned.check_rows(&stub.state().results);
    assert!(stub.state().reports.iter().any(|r| r.free_memory_bytes == 0 && r.running.len() > 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_ends_without_a_result() {
    let planned = plan(&fixture("fracast"));
    let stub = Stub::start().await;
    let known = planned.row(&planned.names[1]).digest.clone().unwrap();
    stub.state().known.insert(known.clone());
    stub.lease(planned.lease(7, 0..3));
    let worker = work(&stub, near("w"));
    stub.until_results(2).await;
    stub.until("it is over", |s| s.reports.last().is_some_and(|r| r.running.is_empty())).await;
    worker.stop().await;
    let state = stub.state();
    assert_eq!(state.results.iter().map(|r| r.unit).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(state.lookups.len(), 3);
    assert_eq!(state.lookups[1], known);
}

#[tokio::test(flavor = "multi_thread")]
async fn eigenvalues_are_sent_before_the_result() {
    let planned = plan(&fixture("fracast"));
    let stub = Stub::start().await;
    stub.lease(Lease { keep_spectra: true, ..planned.lease(7, 0..2) });
    let worker = work(&stub, near("w"));
    stub.until_results(2).await;
    worker.stop().await;
    let state = stub.state();
    for result in &state.results {
        assert!(result.has_spectrum);
        let values = &state.spectra[&(7, result.unit)];
        let row = row_of(result);
        assert_eq!(Some(values.len() as u64), row.num_evals);
        assert_eq!(values.last().copied(), row.lambda_max);
        assert!(values.is_sorted());
    }
}

/// A tall layer of finite F8 elements, just large enough to be cut.
fn tall(folder: &Path) -> PathBuf {
    let (rows, cols) = (20_480_u64, 1024_u64);
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"tall");
    let mut data = vec![0; (rows * cols) as usize];
    hasher.finalize_xof().fill(&mut data);
    // Without the highest bit of the exponent: no NaN, and no element much larger than the others.
    data.iter_mut().for_each(|byte| *byte &= 0xbf);
    let entry = Entry { name: "embed.weight", dtype: "F8_E4M3", shape: &[rows, cols], data: &data };
    let file = folder.join("model.safetensors");
    std::fs::write(&file, safetensors(&[entry], &[])).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_by_two_workers_give_the_bits_of_one_process() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = tall(folder.path());
    let planned = plan(&file);
    let source = source::open(&planned.at.uri, &SourceOptions::default()).unwrap();
    let catalog = format::read_catalog(source.as_ref()).unwrap();
    let Layers { layers, .. } = layer::layers(&catalog, &Options::default().layers);
    let shards = crate::plan::shards(&layers[0], &Options::default()).unwrap();
    assert!(shards.len() >= 2, "{shards:?}");
    let stub = Stub::start().await;
    let (one, two) = (work(&stub, near("one")), work(&stub, far("two")));
    stub.until("both are there", |s| {
        s.reports.iter().any(|r| r.worker == "one") && s.reports.iter().any(|r| r.worker == "two")
    })
    .await;
    for (index, rows) in shards.iter().enumerate() {
        let shard = Shard { index: index as u32, begin: rows.start, end: rows.end };
        let unit = Unit { unit: index as u32, ..planned.unit(0, Work::Shard(shard)) };
        stub.lease(Lease { units: vec![unit], ..planned.lease(1 + index as u64, 0..0) });
        // The next goes to whichever worker reports next.
        stub.until("the lease is taken", |s| s.leases.is_empty()).await;
    }
    stub.until_results(shards.len()).await;
    let finish = Unit { unit: 100, ..planned.unit(0, Work::Finish(Finish { shards: shards.len() as u32 })) };
    stub.lease(Lease { units: vec![finish], keep_spectra: true, ..planned.lease(100, 0..0) });
    stub.until_results(shards.len() + 1).await;
    one.stop().await;
    two.stop().await;
    let state = stub.state();
    let (last, parts) = state.results.split_last().unwrap();
    for part in parts {
        let Some(Outcome::Gram(sent)) = &part.outcome else { panic!("{part:?}") };
        let kept = state.grams[&part.unit].0.to_bytes();
        assert_eq!(blake3::hash(&kept).as_bytes().as_slice(), sent.digest);
    }
    assert_eq!(row_of(last), planned.row("embed"));
    assert_eq!(state.spectra[&(100, 100)].len(), 1024);
    let moved = state.reports.iter().flat_map(|r| &r.running).map(|running| running.progress).max();
    assert!(moved > Some(1 << 20), "bytes that are read are progress: {moved:?}");
}
