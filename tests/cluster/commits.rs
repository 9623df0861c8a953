//! The coordinator is killed again and again while it commits: what it has acknowledged is there afterwards.

use super::{alone, assert_same, many, text};
use crate::support::cluster::{Cluster, between, request, until};
use crate::support::models::Numbers;
use spectrald::analysis::Options;
use spectrald::rpc::client::{Client, Patience, Watched};
use spectrald::rpc::proto::v1::AnalysisState;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What clients were told before a kill.
#[derive(Default)]
struct Told {
    ids: BTreeSet<String>,
    rows: BTreeSet<(String, String)>,
    ended: BTreeSet<String>,
}

type Shared = Arc<Mutex<Told>>;

/// A number of the environment, or this one.
pub(super) fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Submits a model, follows it to its end and submits it again, until the coordinator is gone.
async fn submit_and_follow(client: Client, model: String, first_seed: u64, told: Shared) {
    for seed in first_seed.. {
        // another seed is other work
        let options = Options { seed: Some(seed), randomize: true, ..Options::default() };
        let Ok(analysis) = client.create(request(&model, &options)).await else { return };
        told.lock().unwrap().ids.insert(analysis.id.clone());
        follow(&client, analysis.id, &told).await;
    }
}

async fn follow(client: &Client, id: String, told: &Shared) {
    let mut watch = client.watch(&id, 0);
    while let Ok(Some(Watched::Progress(message))) = watch.next().await {
        let mut told = told.lock().unwrap();
        told.rows.extend(message.layers.iter().map(|event| (id.clone(), event.name.clone())));
        if message.analysis.is_some_and(|a| a.state() == AnalysisState::Succeeded) {
            told.ended.insert(id.clone());
        }
    }
}

/// Checks that all that was told is there.
fn all_there(cluster: &Cluster, told: &Told, round: u64) {
    let client = cluster.client();
    for id in &told.ids {
        let found = cluster.runtime.block_on(client.get(id));
        let state =
            found.unwrap_or_else(|error| panic!("round {round}: {id} was acknowledged: {error}")).state();
        assert!(
            !told.ended.contains(id) || state == AnalysisState::Succeeded,
            "{id} had succeeded, now {state:?}"
        );
        let rows = cluster.runtime.block_on(client.layer_results(id)).unwrap();
        for (_, row) in told.rows.iter().filter(|(of, _)| of == id) {
            assert!(
                rows.iter().any(|found| found.name == *row),
                "round {round}: row {row} of {id} was told of"
            );
        }
    }
}

#[test]
fn killed_while_it_commits() {
    let rounds = number("SPECTRALD_KILL_ROUNDS", 10);
    let seed = number("SPECTRALD_CHAOS_SEED", u64::from(std::process::id()));
    let mut numbers = Numbers::new(seed);
    let mut cluster = Cluster::start();
    let model = cluster.write("models/many.safetensors", &many(6, 24, seed));
    cluster.start_worker("w1");
    let mut all = Told::default();
    for round in 0..rounds {
        let told = Shared::default();
        let patience = Patience { tries: 1, ..Patience::default() };
        let client = cluster.client().with_patience(patience);
        let tasks: Vec<_> = (0..4)
            .map(|lane| {
                let first = round << 32 | lane << 24;
                let work = submit_and_follow(client.clone(), model.clone(), first, Arc::clone(&told));
                cluster.runtime.spawn(work)
            })
            .collect();
        // the worker has found the coordinator again, and rows are committed one after the other
        until("a row is told of", || (!told.lock().unwrap().rows.is_empty()).then_some(()));
        std::thread::sleep(Duration::from_millis(between(&mut numbers, 0, 300)));
        cluster.kill_coordinator();
        tasks.iter().for_each(|task| task.abort());
        let told = std::mem::take(&mut *told.lock().unwrap());
        cluster.start_coordinator();
        all_there(&cluster, &told, round);
        all.ids.extend(told.ids);
        all.rows.extend(told.rows);
        all.ended.extend(told.ended);
    }
    let ids: Vec<&String> = all.ids.iter().collect();
    assert!(!ids.is_empty() && !all.rows.is_empty(), "it was never asked anything: {} rows", all.rows.len());
    for id in &ids {
        assert_eq!(cluster.ended(id).state(), AnalysisState::Succeeded);
    }
    // the numbers too, of a few
    for id in ids.iter().step_by(ids.len().div_ceil(5)) {
        let seed = cluster.get(id).options.unwrap().seed;
        let options = Options { seed, randomize: true, ..Options::default() };
        assert_same(&text(&cluster.report(id)), &alone(&model, &options), id);
    }
    let (ids, rows, ended) = (all.ids.len(), all.rows.len(), all.ended.len());
    let _ = writeln!(
        std::io::stderr(),
        "killed {rounds} times (seed {seed}): {ids} analyses acknowledged, {rows} rows and {ended} ends told of; all are there"
    );
}
