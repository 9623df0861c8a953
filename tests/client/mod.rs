//! The client in Rust against a coordinator that answers from a list.

mod calls;
mod tls;
mod watch;

use crate::support::coordinator::{Coordinator, Script};
use crate::support::models::{analyze, fixture};
use spectrald::Result;
use spectrald::analysis::{ModelReport, Options};
use spectrald::rpc::client::{Client, Patience, Target};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The report of fracast with every optional group of columns.
fn report() -> &'static ModelReport {
    static REPORT: OnceLock<ModelReport> = OnceLock::new();
    REPORT.get_or_init(|| {
        let options = Options { erg: true, mp: true, randomize: true, vectors: true, ..Options::default() };
        analyze(&fixture("models/fracast/model.safetensors"), &options)
    })
}

/// Short pauses; an answer within a minute, so that a slow machine changes nothing.
fn patience() -> Patience {
    Patience {
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(20),
        seed: 1,
        ..Patience::default()
    }
}

fn target(coordinator: &Coordinator) -> Target {
    Target { addr: coordinator.address().to_string(), ..Target::default() }
}

/// Runs `work` with a client of `target`.
fn with_client<T>(target: &Target, patience: Patience, work: impl AsyncFnOnce(Client) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { work(Client::connect(target).unwrap().with_patience(patience)).await })
}

fn started() -> (Arc<Script>, Coordinator) {
    let script = Script::of(report());
    let coordinator = Coordinator::start(&script);
    (script, coordinator)
}

fn message<T>(outcome: Result<T>) -> String {
    outcome.map(|_| ()).unwrap_err().to_string()
}
