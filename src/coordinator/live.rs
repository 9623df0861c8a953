//! An analysis that has not ended, as the coordinator holds it in memory.

use super::planned::Planned;
use crate::rpc::proto::store::v1::AnalysisRecord;
use crate::rpc::proto::v1;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A layer got its row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Happened {
    pub(super) sequence: u64,
    pub(super) row: u32,
    pub(super) layer: u32,
    pub(super) status: v1::LayerStatus,
}

/// What is known of the rows so far.
#[derive(Default)]
pub(super) struct State {
    pub(super) record: AnalysisRecord,
    pub(super) planned: Option<Arc<Planned>>,
    /// By layer: whether its row is durable.
    pub(super) filled: Vec<bool>,
    /// In the order of their sequence numbers.
    pub(super) events: Vec<Happened>,
    pub(super) next_sequence: u64,
    pub(super) counts: Counts,
    /// The rows are complete and the report is being made, or it has ended.
    pub(super) closing: bool,
}

/// How far the rows are.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) from_cache: u64,
    pub(super) bytes_done: u64,
}

/// A row that has just become durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filled {
    pub(super) layer: usize,
    pub(super) sequence: u64,
    pub(super) status: v1::LayerStatus,
    /// It could not be computed.
    pub(super) failed: bool,
    pub(super) from_cache: bool,
}

/// An analysis, and who waits for news of it.
pub(super) struct Live {
    pub(super) id: String,
    state: Mutex<State>,
    news: watch::Sender<u64>,
    /// W3C trace context of the request that made it.
    traceparent: String,
}

impl Live {
    pub(super) fn new(record: AnalysisRecord) -> Self {
        let id = record.analysis.as_ref().map(|analysis| analysis.id.clone()).unwrap_or_default();
        let sequence = record.analysis.as_ref().map_or(0, |analysis| analysis.sequence);
        let state = State { record, next_sequence: sequence + 1, ..State::default() };
        let traceparent = crate::telemetry::propagate::inject().unwrap_or_default();
        Self { id, state: Mutex::new(state), news: watch::Sender::new(sequence), traceparent }
    }

    /// The trace that its leases belong to.
    pub(super) fn traceparent(&self) -> String {
        self.traceparent.clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn planned(&self) -> Option<Arc<Planned>> {
        self.lock().planned.clone()
    }

    /// Told whenever something happens.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Tells those who watch.
    pub(super) fn tell(&self) {
        self.news.send_modify(|version| *version += 1);
    }

    /// Notes a durable row. True if it was the last one.
    pub(super) fn fill(&self, filled: &Filled) -> bool {
        let mut state = self.lock();
        let complete = state.fill(filled);
        drop(state);
        self.tell();
        complete
    }
}

impl State {
    /// Takes a sequence number for an event that is about to be made durable.
    pub(super) fn take_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    /// Whether the layer's row is durable.
    pub(super) fn is_filled(&self, layer: usize) -> bool {
        self.filled.get(layer).copied().unwrap_or(true)
    }

    /// The analysis as clients see it, without progress.
    pub(super) fn analysis(&mut self) -> &mut v1::Analysis {
        self.record.analysis.get_or_insert_with(v1::Analysis::default)
    }

    fn fill(&mut self, filled: &Filled) -> bool {
        let Some(slot) = self.filled.get_mut(filled.layer).filter(|slot| !**slot) else { return false };
        *slot = true;
        if filled.failed {
            self.counts.failed += 1;
        } else {
            self.counts.done += 1;
        }
        self.counts.from_cache += u64::from(filled.from_cache);
        if let Some(planned) = &self.planned {
            self.counts.bytes_done += planned.bytes.get(filled.layer).copied().unwrap_or(0);
            let row = planned.rows.get(filled.layer).copied().unwrap_or(0);
            let layer = u32::try_from(filled.layer).unwrap_or(u32::MAX);
            self.events.push(Happened { sequence: filled.sequence, row, layer, status: filled.status });
        }
        let last = filled.sequence;
        let analysis = self.analysis();
        analysis.sequence = analysis.sequence.max(last);
        self.is_complete()
    }

    /// Whether every layer has its row and nobody is ending the analysis yet; whoever gets true is to end it.
    pub(super) fn is_complete(&mut self) -> bool {
        let complete = !self.closing && self.planned.is_some() && self.filled.iter().all(|&filled| filled);
        self.closing |= complete;
        complete
    }
}
