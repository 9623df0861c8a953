//! A model analysed in this process: the layers' tasks carried out by threads within a byte budget.
//!
//! A few more tasks are admitted than compute at a time, so that the next tensors are read while others are computed.
//! A task is admitted, in a fixed order, when its peak memory fits what the budget has left; computing needs one of
//! as many permits as there are threads. Numbers never depend on either: the order of every sum follows
//! from the layer's shape.

mod admission;
mod layer;
mod observe;

pub use layer::{Opened, compute_layer, compute_shard, needs_memory, open_layer};
pub use observe::{Observer, Silent};

use crate::analysis::{self, LayerReport, ModelReport, Options, Timings};
use crate::format::Catalog;
use crate::layer::{Layer, Layers};
use crate::plan::{self, Cost};
use crate::{Error, ErrorKind, Result};
use admission::{Admission, Permit, Permits};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Tasks that may be admitted beyond those that compute, to read ahead.
const READ_AHEAD: usize = 2;

/// With what means.
#[derive(Clone)]
pub struct RunOptions {
    /// Layers computed at the same time.
    pub threads: usize,
    /// Most bytes of the tasks under way, together.
    pub memory: u64,
    /// Set to stop: the run ends with `Interrupted`.
    pub cancel: Arc<AtomicBool>,
}

/// A catalog whose tensors have been sorted into layers and others.
pub struct Model {
    /// Every tensor.
    pub catalog: Catalog,
    /// What is analysed and what is not.
    pub layers: Layers,
}

/// Analyses every layer of `model`.
///
/// # Errors
/// `NothingAnalysable` if the model has no layer; `Interrupted`; whatever reading gives: a model that cannot be read
/// whole gives no report. A layer that fails by its own numbers is a row with status `failed`.
pub fn analyze(
    model: &Model,
    options: &Options,
    run: &RunOptions,
    observer: &dyn Observer,
) -> Result<ModelReport> {
    let started = Instant::now();
    if let Some(error) = nothing_analysable(model) {
        return Err(error);
    }
    let rows = layer_rows(model, options, run, observer)?;
    let bytes_read = model.layers.layers.iter().map(|l| plan::cost(&model.catalog, l, options).bytes).sum();
    let timings = Timings { seconds: started.elapsed().as_secs_f64(), bytes_read, threads: run.threads };
    Ok(analysis::model_report(&model.catalog, &model.layers, options, rows, timings))
}

/// `NothingAnalysable`, with the reasons, if the model has no layer.
pub fn nothing_analysable(model: &Model) -> Option<Error> {
    if !model.layers.layers.is_empty() {
        return None;
    }
    let mut reasons: Vec<String> = Vec::new();
    for skipped in &model.layers.skipped {
        let reason = skipped.reason.code().to_owned();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    let tensors = model.catalog.tensors.len();
    let why = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
    let message = format!("none of its {tensors} tensors can be analysed{why}");
    Some(Error::new(ErrorKind::NothingAnalysable, message).in_file(&model.catalog.uri))
}

/// Half of the memory that this machine, or the control group that we run in, has available.
pub fn default_memory() -> u64 {
    const LEAST: u64 = 256 << 20;
    let Ok(mut system) = sysinfo::System::new() else { return LEAST };
    system.refresh_memory();
    let free = system.available_memory();
    let free = system.cgroup_limits().map_or(free, |limits| free.min(limits.free_memory));
    (free / 2).max(LEAST)
}

struct Shared<'a> {
    model: &'a Model,
    options: &'a Options,
    run: &'a RunOptions,
    observer: &'a dyn Observer,
    admission: Admission,
    permits: Permits,
    failed: Mutex<Option<Error>>,
    rows: Mutex<Vec<Option<LayerReport>>>,
    bytes_done: AtomicU64,
    flops: f64,
}

fn layer_rows(
    model: &Model,
    options: &Options,
    run: &RunOptions,
    observer: &dyn Observer,
) -> Result<Vec<LayerReport>> {
    let layers = &model.layers.layers;
    let costs: Vec<Cost> = layers.iter().map(|l| plan::cost(&model.catalog, l, options)).collect();
    observer.planned(layers.len(), costs.iter().map(|c| c.bytes).sum());
    let shared = Shared {
        model,
        options,
        run,
        observer,
        admission: Admission::new(run.memory, longest_first(&costs)),
        permits: Permits::new(run.threads),
        failed: Mutex::new(None),
        rows: Mutex::new(vec![None; layers.len()]),
        bytes_done: AtomicU64::new(0),
        flops: costs.iter().map(|c| c.flops).sum(),
    };
    std::thread::scope(|scope| {
        for _ in 0..(run.threads + READ_AHEAD).min(layers.len()) {
            scope.spawn(|| shared.work(&costs));
        }
    });
    if let Some(error) = shared.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let rows = shared.rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.into_iter()
        .map(|row| row.ok_or_else(|| Error::new(ErrorKind::Internal, "a layer was left out of the run")))
        .collect()
}

/// Tasks (index, peak bytes) with the most flops first: the last to finish is then a short one.
fn longest_first(costs: &[Cost]) -> Vec<(usize, u64)> {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by(|&a, &b| costs[b].flops.total_cmp(&costs[a].flops));
    order.into_iter().map(|i| (i, costs[i].peak_bytes)).collect()
}

impl Shared<'_> {
    fn work(&self, costs: &[Cost]) {
        while let Some(task) = self.admission.next(&self.run.cancel) {
            let layer = &self.model.layers.layers[task.index];
            match self.one(layer, costs[task.index]) {
                Ok(row) => {
                    let bytes = costs[task.index].bytes;
                    let done = self.bytes_done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                    self.observer.finished(layer, done);
                    self.rows.lock().unwrap_or_else(PoisonError::into_inner)[task.index] = Some(row);
                }
                Err(error) => self.fail(error),
            }
            self.admission.release(task);
        }
        if self.run.cancel.load(Ordering::Relaxed) {
            self.fail(Error::new(ErrorKind::Interrupted, "interrupted"));
        }
    }

    /// The first error that is not an echo of stopping is the one to report.
    fn fail(&self, error: Error) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.admission.stop();
    }

    /// Layers are computed side by side, one thread each. Two threads work on one where the run would otherwise wait
    /// for it: where it is more than a thread's share of all the work, or no other layer is left to start.
    fn permit(&self, cost: Cost) -> Permit<'_> {
        const WORTH_SHARING: f64 = 1e9;
        let threads = self.run.threads;
        let large = threads >= 2 && cost.flops > WORTH_SHARING;
        if large && cost.flops * threads as f64 > self.flops {
            return self.permits.take(2);
        }
        let mut permit = self.permits.take(1);
        if large && self.admission.is_drained() {
            permit.widen();
        }
        permit
    }

    fn one(&self, layer: &Layer, cost: Cost) -> Result<LayerReport> {
        let opened = open_layer(&self.model.catalog, layer, self.options, cost.peak_bytes, self.run)?;
        let mut input = match opened {
            Opened::Ready(input) => input,
            Opened::Failed(row) => return Ok(*row),
        };
        let permit = self.permit(cost);
        input.threads = permit.count;
        self.observer.started(layer);
        let row = compute_layer(&mut input, self.options)?.into_row();
        row.ok_or_else(|| Error::new(ErrorKind::Internal, "a layer was taken for known"))
    }
}
