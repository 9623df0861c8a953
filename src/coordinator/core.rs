//! What every service of the coordinator shares.

use super::clock::Clock;
use super::live::{Filled, Live};
use super::load::Speed;
use super::planned::{Planned, Work};
use super::settings::Settings;
use super::sources::Sources;
use super::sums::GramSums;
use crate::job::{Event, JobId, JobState, Requeue, Table, Time};
use crate::rpc::proto::store::v1::{AnalysisRecord, RowRecord};
use crate::rpc::proto::v1::{self, AnalysisState};
use crate::store::{Batch, Records};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Cache;
use crate::{Error, ErrorKind, Result};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore, oneshot};

/// Models whose headers are read at the same time.
const PLANNING_AT_ONCE: usize = 4;

/// The coordinator's state.
pub(super) struct Core {
    pub(super) settings: Settings,
    pub(super) sources: Sources,
    pub(super) records: Arc<dyn Records>,
    pub(super) sums: GramSums,
    pub(super) metrics: Arc<Metrics>,
    pub(super) speed: Speed,
    /// When the store was last exported.
    exported: Mutex<Option<prost_types::Timestamp>>,
    clock: Clock,
    pub(super) start: prost_types::Timestamp,
    /// What was repaired when the store was opened.
    pub(super) recovery: String,
    table: Mutex<Table>,
    live: Mutex<BTreeMap<String, Arc<Live>>>,
    /// Held from the moment a row gets its sequence number until its batch is queued: rows become durable, and are
    /// told of, in the order of their numbers.
    order: Mutex<()>,
    /// Told when the table's deadlines may have changed.
    pub(super) wake: Notify,
    /// Told when there is new work, for workers that have none.
    pub(super) arrived: Notify,
    pub(super) planning: Semaphore,
    /// Held while a request id is looked up and taken.
    pub(super) creating: tokio::sync::Mutex<()>,
}

impl Core {
    pub(super) fn new(
        settings: Settings,
        records: Arc<dyn Records>,
        (epoch, recovery): (u32, String),
        metrics: Arc<Metrics>,
    ) -> Self {
        let sums = GramSums::new(settings.gram_memory, settings.data_dir.join("grams"));
        let clock = Clock::new();
        Self {
            sources: Sources::new(&settings),
            table: Mutex::new(Table::new(settings.leases.clone(), epoch, clock.now())),
            settings,
            records,
            sums,
            metrics,
            speed: Speed::default(),
            exported: Mutex::default(),
            clock,
            start: super::clock::wall(),
            recovery,
            live: Mutex::default(),
            order: Mutex::default(),
            wake: Notify::new(),
            arrived: Notify::new(),
            planning: Semaphore::new(PLANNING_AT_ONCE),
            creating: tokio::sync::Mutex::default(),
        }
    }

    /// The job table, for a short while.
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held while rows are numbered and queued.
    pub(super) fn order(&self) -> MutexGuard<'_, ()> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }

    fn lives(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An analysis that has not ended.
    pub(super) fn live(&self, id: &str) -> Option<Arc<Live>> {
        self.lives().get(id).cloned()
    }

    pub(super) fn add_live(&self, live: Arc<Live>) {
        self.lives().insert(live.id.clone(), live);
    }

    /// Whether an analysis under way reads this model.
    pub(super) fn reads(&self, uri: &str) -> bool {
        let lives: Vec<Arc<Live>> = self.lives().values().cloned().collect();
        lives.iter().any(|live| live.lock().analysis().model == uri)
    }

    /// Notes that the store has been exported.
    pub(super) fn note_export(&self) {
        *self.exported.lock().unwrap_or_else(PoisonError::into_inner) = Some(super::clock::wall());
    }

    /// When the store was last exported, since the start.
    pub(super) fn last_export(&self) -> Option<prost_types::Timestamp> {
        *self.exported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn live_count(&self) -> usize {
        self.lives().len()
    }

    /// Makes a batch durable.
    pub(super) async fn commit(&self, batch: Batch) -> Result<()> {
        self.submit(batch, || ()).await
    }

    /// Makes a batch durable and calls `then` on the thread of the store, in the order of submission, if it is.
    pub(super) fn submit<F: FnOnce() + Send + 'static>(
        &self,
        batch: Batch,
        then: F,
    ) -> impl Future<Output = Result<()>> + use<F> {
        let (send, receive) = oneshot::channel();
        self.records.submit(
            batch,
            Box::new(move |outcome| {
                if outcome.is_ok() {
                    then();
                }
                // Nobody waits any more if the request was given up.
                let _ = send.send(outcome);
            }),
        );
        async move {
            let gone = || Err(Error::new(ErrorKind::Unavailable, "the store has stopped"));
            receive.await.unwrap_or_else(|_| gone())
        }
    }

    /// The record of an analysis, live or ended.
    pub(super) fn record(&self, id: &str) -> Result<AnalysisRecord> {
        if let Some(live) = self.live(id) {
            return Ok(live.lock().record.clone());
        }
        super::complete::stored(self, id)?.ok_or_else(|| no_such_analysis(id))
    }

    /// Does what the table says has changed.
    pub(super) fn follow_up(self: &Arc<Self>, events: Vec<Event>) {
        let mut waits_again = false;
        for event in events {
            waits_again |= matches!(event, Event::UnitRequeued { .. });
            match event {
                Event::UnitStarted { job, .. } => self.started(&job),
                Event::UnitFailed { job, unit, reason } => {
                    let failure = failure_of(&reason);
                    self.unit_failed(&job, unit, &failure.reason, &failure.message);
                }
                Event::UnitSetAside { job, unit, reason } => {
                    self.unit_failed(&job, unit, "SET_ASIDE", &reason);
                }
                Event::JobChanged { job, state: JobState::Failed(reason) } => {
                    self.end_failed(&job.0, failure_of(&reason));
                }
                Event::UnitRequeued { job, unit, cause, .. } => {
                    self.count_again(&cause);
                    tracing::warn!(analysis = %job, unit, ?cause, "a unit waits again");
                    if let Some(live) = self.live(&job.0) {
                        live.tell();
                    }
                }
                Event::UnitFinished { job, unit, .. } => self.catch_up(&job, unit),
                Event::JobChanged { .. } => {}
                Event::WorkerChanged { worker, state } => tracing::info!(%worker, ?state, "worker"),
            }
        }
        self.wake.notify_one();
        if waits_again {
            self.arrived.notify_waiters();
        }
    }

    fn count_again(&self, cause: &Requeue) {
        let word = match cause {
            Requeue::WorkerLost => "worker_lost",
            Requeue::NoProgress => "no_progress",
            Requeue::HandedBack => "handed_back",
            Requeue::World(_) => "world",
            Requeue::Model(_) => "model",
        };
        if matches!(cause, Requeue::WorkerLost | Requeue::NoProgress) {
            self.metrics.leases_expired(1);
        }
        self.metrics.retried(word);
    }

    fn started(&self, job: &JobId) {
        let Some(live) = self.live(&job.0) else { return };
        let mut state = live.lock();
        let analysis = state.analysis();
        if analysis.start_time.is_none() {
            analysis.start_time = Some(super::clock::wall());
        }
        if analysis.state() == AnalysisState::Queued {
            analysis.set_state(AnalysisState::Running);
        }
        drop(state);
        live.tell();
    }

    /// A unit can never be done: its layer's row says so.
    fn unit_failed(self: &Arc<Self>, job: &JobId, unit: u32, word: &str, reason: &str) {
        let Some(live) = self.live(&job.0) else { return };
        let Some(planned) = live.planned() else { return };
        let Some(unit) = planned.units.get(unit as usize).cloned() else { return };
        tracing::warn!(analysis = %job, layer = planned.layer(&unit).map(|l| l.name.as_str()), %reason, "a layer failed");
        let row = super::rows::failed_row(&planned, unit.layer, word, reason);
        let record = RowRecord { row: Some(row), failed: true, ..RowRecord::default() };
        self.put_row(&live, unit.layer, record);
    }

    /// The row of a unit is durable before the unit counts as done, but for one that began to follow another after
    /// that one's row was queued: its row is taken from what is known now.
    fn catch_up(self: &Arc<Self>, job: &JobId, number: u32) {
        let Some((live, planned)) = self.planned(&job.0) else { return };
        let Some(unit) = planned.units.get(number as usize) else { return };
        if matches!(unit.work, Work::Shard { .. }) || live.lock().is_filled(unit.layer) {
            return;
        }
        let keep_spectra = live.lock().analysis().keep_spectra;
        let known = self.known_object(&planned, unit.layer, keep_spectra);
        let Ok(Some((key, row))) = known else {
            let reason =
                "it ended with the same layer of another analysis, whose result is not kept; ask again";
            return self.unit_failed(job, number, "FAILED", reason);
        };
        let record =
            RowRecord { row: Some(row), result_key: key.to_vec(), from_cache: true, ..RowRecord::default() };
        self.put_row(&live, unit.layer, record);
    }

    /// Queues one row.
    fn put_row(self: &Arc<Self>, live: &Arc<Live>, layer: usize, record: RowRecord) {
        let order = self.order();
        let mut batch = Batch::new();
        let Some(filled) = super::rows::put(&mut batch, live, layer, record) else { return };
        let (core, live) = (Arc::clone(self), Arc::clone(live));
        let durable = self.submit(batch, move || core.filled(&live, &filled));
        drop(order);
        self.settings.runtime.spawn(async move {
            if let Err(error) = durable.await {
                tracing::error!(%error, "a layer's row is not durable; it will be tried again after a restart");
            }
        });
    }

    /// A row is durable. Called on the thread of the store.
    pub(super) fn filled(self: &Arc<Self>, live: &Arc<Live>, filled: &Filled) {
        let outcome = match filled.status {
            v1::LayerStatus::Success => "analysed",
            _ => "failed",
        };
        self.metrics.layers_done(outcome, 1);
        match filled {
            Filled { from_cache: true, .. } => self.metrics.cache_hit(Cache::Content, 1),
            Filled { failed: false, .. } => self.metrics.cache_miss(1),
            _ => {}
        }
        if live.fill(filled) {
            self.settings.runtime.spawn(super::complete::complete(Arc::clone(self), Arc::clone(live)));
        }
    }

    /// Ends an analysis that failed as a whole.
    pub(super) fn end_failed(self: &Arc<Self>, id: &str, failure: v1::Failure) {
        let Some(live) = self.live(id) else { return };
        let core = Arc::clone(self);
        self.settings.runtime.spawn(async move {
            let ended = super::complete::end(&core, &live, AnalysisState::Failed, Some(failure)).await;
            if let Err(error) = ended {
                tracing::error!(%error, analysis = live.id, "the end of a failed analysis is not durable");
            }
        });
    }

    /// Takes an analysis that has ended, and is durable as such, out of memory.
    pub(super) fn forget(self: &Arc<Self>, live: &Live) {
        let job = JobId(live.id.clone());
        let events = {
            let mut table = self.table();
            table.cancel(&job, self.now());
            table.remove(&job);
            table.take_events()
        };
        self.lives().remove(&live.id);
        if let Some(planned) = live.planned() {
            let keys: Vec<_> = planned.keys.clone();
            self.sums.release(&live.id, &keys);
        }
        self.follow_up(events);
        live.tell();
    }

    /// The plan of an analysis that runs, for a unit of it.
    pub(super) fn planned(&self, id: &str) -> Option<(Arc<Live>, Arc<Planned>)> {
        let live = self.live(id)?;
        let planned = live.planned()?;
        Some((live, planned))
    }
}

/// A failure for clients.
pub(super) fn failure(reason: &str, message: &str) -> v1::Failure {
    v1::Failure { reason: reason.to_owned(), message: message.to_owned() }
}

/// A failure from what the table keeps of it: `WORD: message` where a worker has named the word.
fn failure_of(reason: &str) -> v1::Failure {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    match reason.split_once(": ").filter(|(word, _)| is_word(word)) {
        Some((word, message)) => failure(word, message),
        None => failure("FAILED", reason),
    }
}

/// There is none of this name.
pub(super) fn no_such_analysis(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no analysis '{id}'")).in_field("id")
}

/// A stored message.
pub(super) fn decode<M: Message + Default>(bytes: &[u8], what: impl FnOnce() -> String) -> Result<M> {
    M::decode(bytes)
        .map_err(|error| Error::malformed(format!("the stored record of {} cannot be read: {error}", what())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_failure_is_that_of_the_worker() {
        let gone = failure_of("MODEL_GONE: m: the file is gone: really");
        assert_eq!(
            (gone.reason.as_str(), gone.message.as_str()),
            ("MODEL_GONE", "m: the file is gone: really")
        );
        for reason in ["no worker came: for a day", ": ", "", "Model: x"] {
            assert_eq!(failure_of(reason), failure("FAILED", reason));
        }
    }
}
