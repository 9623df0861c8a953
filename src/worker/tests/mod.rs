//! The worker against a coordinator in this process that does as it is told.

mod failing;
mod reading;
mod server;
mod working;

use super::agent::{Agent, Shared};
use super::link::Link;
use super::{Token, WorkerOptions};
use crate::Result;
use crate::analysis::Options;
use crate::format;
use crate::layer;
use crate::rpc::proto::v1::{LayerResult, ObjectIdentity};
use crate::rpc::proto::worker::v1::unit::Work;
use crate::rpc::proto::worker::v1::unit_result::Outcome;
use crate::rpc::proto::worker::v1::{Lease, ModelAt, Unit, UnitFailure, UnitResult, Whole};
use crate::run::{self, Model, RunOptions, Silent};
use crate::source::{self, SourceOptions};
use server::Stub;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const MEMORY: u64 = 4 << 30;

/// A model as the coordinator plans it, and the rows that this process gives for it.
struct Planned {
    at: ModelAt,
    names: Vec<String>,
    rows: Vec<LayerResult>,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

fn plan(path: &Path) -> Planned {
    let uri = path.to_str().unwrap().to_owned();
    let source = source::open(&uri, &SourceOptions::default()).unwrap();
    let catalog = format::read_catalog(source.as_ref()).unwrap();
    let options = Options::default();
    let layers = layer::layers(&catalog, &options.layers);
    let names: Vec<String> = layers.layers.iter().map(|layer| layer.name.clone()).collect();
    let files = catalog.files.iter().map(|file| ObjectIdentity::from(file.identity())).collect();
    let run = RunOptions { threads: 1, memory: MEMORY, cancel: Arc::default() };
    let model = Model { catalog, layers };
    let report = run::analyze(&model, &options, &run, &Silent).unwrap();
    let rows = report.layers.into_iter().filter(|row| names.contains(&row.name));
    let rows = rows.map(LayerResult::from).collect();
    Planned { at: ModelAt { uri, files, ..ModelAt::default() }, names, rows }
}

impl Planned {
    fn unit(&self, layer: usize, work: Work) -> Unit {
        let name = self.names[layer].clone();
        Unit { unit: layer as u32, layer: layer as u32, name, work: Some(work) }
    }

    /// A lease of some layers, whole.
    fn lease(&self, attempt: u64, layers: std::ops::Range<usize>) -> Lease {
        Lease {
            attempt,
            analysis: format!("of {attempt}"),
            model: Some(self.at.clone()),
            units: layers.map(|layer| self.unit(layer, Work::Whole(Whole {}))).collect(),
            memory_bytes: 1 << 20,
            ..Lease::default()
        }
    }

    fn row(&self, name: &str) -> &LayerResult {
        self.rows.iter().find(|row| row.name == name).unwrap()
    }

    /// Each result is the row that one process gives.
    fn check_rows(&self, results: &[UnitResult]) {
        for result in results {
            let row = row_of(result);
            assert_eq!(row, self.row(&row.name));
            assert_eq!(row.name, self.names[result.unit as usize]);
        }
    }
}

fn row_of(result: &UnitResult) -> &LayerResult {
    match &result.outcome {
        Some(Outcome::Row(row)) => row,
        other => panic!("no row: {other:?}"),
    }
}

fn failure_of(result: &UnitResult) -> &UnitFailure {
    match &result.outcome {
        Some(Outcome::Failure(failure)) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

fn is_returned(result: &UnitResult) -> bool {
    matches!(result.outcome, Some(Outcome::Returned(_)))
}

/// A worker that reads the files of this machine itself.
fn near(id: &str) -> WorkerOptions {
    WorkerOptions { embedded: true, ..far(id) }
}

/// A worker that reads through the coordinator.
fn far(id: &str) -> WorkerOptions {
    WorkerOptions { report_every: Duration::from_secs(3600), ..WorkerOptions::new(id, 2, MEMORY) }
}

struct Running {
    shutdown: CancellationToken,
    ended: JoinHandle<Result<()>>,
}

impl Running {
    /// Asks it to stop, and waits until it has.
    async fn stop(self) {
        self.shutdown.cancel();
        self.end().await.unwrap();
    }

    async fn end(self) -> Result<()> {
        tokio::time::timeout(Duration::from_secs(60), self.ended).await.expect("it ends").unwrap()
    }
}

fn token() -> Token {
    Arc::new(|| Some("secret\n".to_owned()))
}

fn work(stub: &Stub, options: WorkerOptions) -> Running {
    work_with(stub, options, |_| {})
}

fn work_with(
    stub: &Stub,
    options: WorkerOptions,
    before_unit: impl Fn(&Unit) + Send + Sync + 'static,
) -> Running {
    let runtime = tokio::runtime::Handle::current();
    let link = Link::new(stub.channel.clone(), token(), runtime, options.id.clone());
    let mut shared = Shared::new(options, link);
    shared.before_unit = Box::new(before_unit);
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let ended = tokio::spawn(async move { Agent::new(shared).run(&stop).await });
    Running { shutdown, ended }
}
