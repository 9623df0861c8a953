//! One lease carried out on one thread: the model opened, its units computed one after another.

use super::agent::Shared;
use super::blame::{Stage, failure};
use super::board::{Task, result_of};
use super::models::InUse;
use crate::analysis::{Analysed, LayerInput};
use crate::layer::Layer;
use crate::plan::{self, Cost};
use crate::rpc::proto::v1::LayerResult;
use crate::rpc::proto::worker::v1::unit::Work;
use crate::rpc::proto::worker::v1::unit_failure::Blame;
use crate::rpc::proto::worker::v1::unit_result::Outcome;
use crate::rpc::proto::worker::v1::{GramSent, Lease, Shard, Unit, UnitFailure, UnitKey, UnitResult};
use crate::run::{self, Opened, RunOptions};
use crate::spectrum::GramSum;
use crate::telemetry::propagate;
use crate::{Error, ErrorKind, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How a unit ended, with something to report. `None` in its place: the coordinator knows the result already.
struct Ended {
    outcome: Outcome,
    has_spectrum: bool,
}

impl Ended {
    fn with(outcome: Outcome) -> Option<Self> {
        Some(Self { outcome, has_spectrum: false })
    }
}

/// Carries out a lease, unless and until it is cancelled.
pub(super) fn lease(shared: &Shared, task: &Task) {
    let lease = task.lease.as_ref();
    let span = tracing::info_span!(
        "lease",
        attempt = lease.attempt,
        analysis = %lease.analysis,
        units = lease.units.len(),
    );
    propagate::set_parent(&span, &lease.traceparent);
    let _entered = span.enter();
    if is_cancelled(task) {
        return;
    }
    let model = match guarded(|| shared.models.open(task)) {
        Ok(model) => model,
        Err(_) if is_cancelled(task) => return,
        Err(error) => {
            let failed = failure(&error, Stage::Opening);
            tracing::warn!(%error, reason = failed.reason, "the model could not be opened");
            if let Some(first) = lease.units.first() {
                finish(
                    shared,
                    task,
                    first.unit,
                    Some(result_of(lease, first.unit, Outcome::Failure(failed))),
                );
            }
            return give_up(shared, task);
        }
    };
    for unit in &lease.units {
        let Some(stop) = shared.board().begin(lease.attempt, unit.unit) else { continue };
        let started = Instant::now();
        let ended = guarded(|| Working { shared, task, model: &model, stop: &stop }.unit(unit));
        if is_cancelled(task) {
            return;
        }
        if stop.load(Ordering::Relaxed) {
            continue;
        }
        let seconds = started.elapsed().as_secs_f64();
        let (result, goes_on) = result(lease, unit, ended);
        tracing::debug!(
            unit = unit.unit,
            layer = unit.name,
            seconds,
            known = result.is_none(),
            "a unit ended"
        );
        finish(shared, task, unit.unit, result.map(|result| UnitResult { seconds, ..result }));
        if !goes_on {
            return give_up(shared, task);
        }
    }
}

fn is_cancelled(task: &Task) -> bool {
    task.cancel.load(Ordering::Relaxed)
}

fn finish(shared: &Shared, task: &Task, unit: u32, result: Option<UnitResult>) {
    shared.board().finish(task.lease.attempt, unit, result);
    shared.changed.notify_one();
}

/// The rest of the lease would meet the same fault: it is handed back rather than blamed for it.
fn give_up(shared: &Shared, task: &Task) {
    shared.models.forget(&task.lease);
    shared.board().hand_back(task.lease.attempt);
}

/// What to report, and whether the lease goes on.
fn result(lease: &Lease, unit: &Unit, ended: Result<Option<Ended>>) -> (Option<UnitResult>, bool) {
    match ended {
        Ok(None) => (None, true),
        Ok(Some(Ended { outcome, has_spectrum })) => {
            let result = result_of(lease, unit.unit, outcome);
            (Some(UnitResult { has_spectrum, ..result }), true)
        }
        Err(error) => {
            let failed = failure(&error, Stage::Computing);
            tracing::warn!(%error, reason = failed.reason, unit = unit.unit, "a unit failed");
            let goes_on = failed.blame() == Blame::Unit;
            (Some(result_of(lease, unit.unit, Outcome::Failure(failed))), goes_on)
        }
    }
}

/// A panic is an error, not the end of the worker.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "panic".to_owned());
        Err(Error::new(ErrorKind::Internal, format!("internal fault: {text}")))
    })
}

/// A lease with its model.
struct Working<'a> {
    shared: &'a Shared,
    task: &'a Task,
    model: &'a InUse,
    /// Set when the unit is not wanted any more.
    stop: &'a Arc<AtomicBool>,
}

impl Working<'_> {
    fn unit(&self, unit: &Unit) -> Result<Option<Ended>> {
        #[cfg(test)]
        (self.shared.before_unit)(unit);
        let placed = |error: Error| match self.task.lease.model.as_ref() {
            Some(at) => error.in_model(&at.uri),
            None => error,
        };
        let layer = self.model.layer(unit).map_err(placed)?;
        let _watching = self.model.watch(layer, &self.task.progress);
        let tensor = self.model.catalog().tensors.get(layer.tensor);
        let name = tensor.map_or(layer.name.as_str(), |tensor| tensor.name.as_str());
        self.work(unit, layer).map_err(|error| placed(error.in_tensor(name)))
    }

    fn work(&self, unit: &Unit, layer: &Layer) -> Result<Option<Ended>> {
        let (catalog, options) = (self.model.catalog(), &self.model.options);
        match &unit.work {
            Some(Work::Whole(_)) => self.row(unit, layer, (plan::cost(catalog, layer, options), None)),
            Some(Work::Shard(shard)) => self.shard(unit, layer, shard),
            Some(Work::Finish(_)) => {
                let cost = plan::finish_cost(catalog, layer, options);
                self.check_memory(cost)?;
                let (rows, cols) = layer.matrix_shape();
                let wanted = || self.is_wanted();
                let sum = self.shared.link.read_gram_sum(&self.key(unit), rows.min(cols), &wanted)?;
                self.row(unit, layer, (cost, Some(sum)))
            }
            None => Err(Error::new(ErrorKind::Unsupported, "a kind of work that this worker does not know")),
        }
    }

    /// The layer's row, from its bytes or from the sum of its Gram matrices.
    fn row(&self, unit: &Unit, layer: &Layer, (cost, sum): (Cost, Option<GramSum>)) -> Result<Option<Ended>> {
        let mut input = match self.open(layer, cost)? {
            Opened::Ready(input) => input,
            Opened::Failed(row) => return Ok(Ended::with(Outcome::Row(LayerResult::from(*row)))),
        };
        input.gram = sum;
        input.keep_spectrum = self.task.lease.keep_spectra;
        input.on_digest = Some(self.lookup(unit));
        let row = match run::compute_layer(&mut input, &self.model.options)? {
            Analysed::Known { .. } => return Ok(None),
            Analysed::Row(row) => *row,
        };
        let has_spectrum = self.send_spectrum(unit, &mut input, row.digest.as_deref())?;
        Ok(Some(Ended { outcome: Outcome::Row(LayerResult::from(row)), has_spectrum }))
    }

    /// Asks whether the content is known, as soon as it is.
    fn lookup(&self, unit: &Unit) -> crate::tensor::OnDigest {
        let (link, key, stop) = (self.shared.link.clone(), self.key(unit), Arc::clone(self.stop));
        Box::new(move |digest| link.lookup(key.clone(), digest, &|| !stop.load(Ordering::Relaxed)))
    }

    fn send_spectrum(&self, unit: &Unit, input: &mut LayerInput<'_>, digest: Option<&str>) -> Result<bool> {
        let Some((digest, values)) = digest.zip(input.take_spectrum()) else { return Ok(false) };
        let wanted = || self.is_wanted();
        self.shared.link.send_spectrum(&self.key(unit), (digest, values), &wanted)?;
        Ok(true)
    }

    fn shard(&self, unit: &Unit, layer: &Layer, shard: &Shard) -> Result<Option<Ended>> {
        let rows = shard.begin..shard.end;
        let cost = plan::shard_cost(self.model.catalog(), layer, &rows);
        let mut input = match self.open(layer, cost)? {
            Opened::Ready(input) => input,
            Opened::Failed(row) => {
                // The whole layer fails so; its row is made of this.
                let failure = UnitFailure {
                    blame: Blame::Unit.into(),
                    reason: row.reason.unwrap_or_default(),
                    message: row.detail.unwrap_or_default(),
                };
                return Ok(Ended::with(Outcome::Failure(failure)));
            }
        };
        let gram = run::compute_shard(&mut input, rows)?;
        drop(input);
        let wanted = || self.is_wanted();
        let digest = self.shared.link.send_gram(&self.key(unit), gram, &wanted)?;
        Ok(Ended::with(Outcome::Gram(GramSent { digest: digest.to_vec() })))
    }

    fn open<'b>(&'b self, layer: &'b Layer, cost: Cost) -> Result<Opened<'b>> {
        self.check_memory(cost)?;
        let options = &self.shared.options;
        let cancel = Arc::clone(self.stop);
        let run = RunOptions { threads: options.cores, memory: options.memory, cancel };
        let mut opened =
            run::open_layer(self.model.catalog(), layer, &self.model.options, cost.peak_bytes, &run)?;
        if let Opened::Ready(input) = &mut opened {
            input.threads = self.threads(cost);
        }
        Ok(opened)
    }

    /// Another worker may have the memory: the layer has not failed.
    fn check_memory(&self, cost: Cost) -> Result<()> {
        let memory = self.shared.options.memory;
        if cost.peak_bytes <= memory {
            return Ok(());
        }
        let message = format!("needs {} bytes, this worker has {memory}", cost.peak_bytes);
        Err(Error::new(ErrorKind::TooLarge, message))
    }

    /// Two threads share a large layer where the other core would have nothing to do.
    fn threads(&self, cost: Cost) -> usize {
        const WORTH_SHARING: f64 = 1e9;
        let shared = cost.flops > WORTH_SHARING && self.shared.board().has_spare_core();
        if shared { 2 } else { 1 }
    }

    fn is_wanted(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn key(&self, unit: &Unit) -> UnitKey {
        let Lease { attempt, analysis, .. } = self.task.lease.as_ref();
        UnitKey { analysis: analysis.clone(), unit: unit.unit, attempt: *attempt }
    }
}
