//! A planned analysis made durable with the rows that are known already, and the rest of its work queued.

use super::core::{Core, failure};
use super::create::{identity, put_record, word};
use super::live::{Counts, Happened, Live};
use super::planned::{Planned, Work};
use super::rows;
use crate::analysis;
use crate::job::{JobId, NewJob, Restore};
use crate::rpc::proto::store::v1::{AnalysisRecord, RowRecord};
use crate::rpc::proto::v1::{self, AnalysisState};
use crate::store::{Batch, Space};
use crate::telemetry::metrics::Cache;
use crate::{Error, ErrorKind, Result};
use prost::Message;
use std::sync::Arc;

impl Core {
    /// Makes a planned analysis durable with the rows that are known, and queues the rest.
    pub(super) async fn admit(
        self: &Arc<Self>,
        live: &Arc<Live>,
        planned: Planned,
        request_id: &str,
    ) -> Result<()> {
        let planned = Arc::new(planned);
        let (core, own, plan) = (Arc::clone(self), Arc::clone(live), Arc::clone(&planned));
        let request_id = request_id.to_owned();
        let prepared = tokio::task::spawn_blocking(move || core.prepare(&own, &plan, &request_id)).await;
        let prepared = prepared.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, e.to_string())))?;
        let Prepared { batch, filled, counts, events, record } = prepared;
        self.commit(batch).await?;
        let known = counts.from_cache;
        self.metrics.cache_hit(Cache::Object, known);
        self.metrics.layers_done("analysed", known);
        self.metrics.layers_done("skipped", planned.skipped_rows.len() as u64);
        let complete = {
            let mut state = live.lock();
            state.record = record;
            state.filled = filled.clone();
            state.counts = counts;
            state.next_sequence += events.len() as u64;
            state.events = events;
            state.planned = Some(Arc::clone(&planned));
            state.is_complete()
        };
        self.add_live(Arc::clone(live));
        if complete {
            super::complete::complete(Arc::clone(self), Arc::clone(live)).await;
            return Ok(());
        }
        let queued = self.queue(live, &planned, &filled, false);
        if let Err(error) = &queued {
            // It is durable already: it ends as what it is.
            self.end_failed(&live.id, failure(word(error), &error.to_string()));
        }
        queued
    }

    /// Hands the units that are left to the table.
    pub(super) fn queue(
        self: &Arc<Self>,
        live: &Arc<Live>,
        planned: &Planned,
        filled: &[bool],
        restored: bool,
    ) -> Result<()> {
        let done: Vec<u32> = (0..)
            .zip(&planned.units)
            .filter(|(_, unit)| filled.get(unit.layer).copied().unwrap_or(false))
            .map(|(number, _)| number)
            .collect();
        self.want_sums(&live.id, planned, filled);
        let priority = live.lock().analysis().priority;
        let job = NewJob {
            id: JobId(live.id.clone()),
            units: planned.new_units(),
            priority,
            model: planned.place.uri.clone(),
            restore: restored.then(|| Restore { done: done.clone(), ..Restore::default() }),
        };
        let id = job.id.clone();
        let events = {
            let mut table = self.table();
            table.submit(job, self.now())?;
            if !restored {
                done.iter().for_each(|unit| {
                    // What has just been submitted is open.
                    table.complete(&id, *unit, self.now());
                });
            }
            table.take_events()
        };
        self.follow_up(events);
        self.arrived.notify_waiters();
        Ok(())
    }

    /// Partial Gram matrices are kept as long as an analysis needs them, whoever had them computed.
    fn want_sums(&self, id: &str, planned: &Planned, filled: &[bool]) {
        for unit in planned.units.iter().filter(|unit| matches!(unit.work, Work::Finish { .. })) {
            if !filled.get(unit.layer).copied().unwrap_or(true) {
                self.sums.want(&unit.key, id);
            }
        }
    }

    /// The record and every row that is there from the start: skipped ones, and known ones.
    fn prepare(&self, live: &Live, planned: &Planned, request_id: &str) -> Result<Prepared> {
        let mut batch = Batch::new();
        for (skipped, place) in planned.model.layers.skipped.iter().zip(&planned.skipped_rows) {
            let row = analysis::skipped_row(&planned.model.catalog, skipped);
            let record = RowRecord { row: Some(v1::LayerResult::from(&row)), ..RowRecord::default() };
            batch.put(Space::Row, rows::key(&live.id, *place), record.encode_to_vec());
        }
        let layers = planned.model.layers.layers.len();
        let (mut filled, mut counts, mut events) = (vec![false; layers], Counts::default(), Vec::new());
        let (keep_spectra, mut record, first) = {
            let mut state = live.lock();
            (state.analysis().keep_spectra, state.record.clone(), state.next_sequence)
        };
        for (index, place) in planned.rows.iter().enumerate() {
            let Some((key, row)) = self.known_object(planned, index, keep_spectra)? else { continue };
            let sequence = first + events.len() as u64;
            let status = row.status();
            let known = RowRecord {
                row: Some(row),
                result_key: key.to_vec(),
                sequence,
                from_cache: true,
                failed: false,
            };
            batch.put(Space::Row, rows::key(&live.id, *place), known.encode_to_vec());
            note(&mut filled, &mut counts, planned, index);
            let layer = u32::try_from(index).unwrap_or(u32::MAX);
            events.push(Happened { sequence, row: *place, layer, status });
        }
        if let Some(analysis) = &mut record.analysis {
            analysis.set_state(AnalysisState::Queued);
            analysis.plan = Some(planned.plan());
            analysis.identity = Some(identity(planned));
            analysis.sequence = first + events.len() as u64 - 1;
        }
        put_record(&mut batch, &record, request_id);
        Ok(Prepared { batch, filled, counts, events, record })
    }
}

/// An analysis about to be made durable.
struct Prepared {
    batch: Batch,
    filled: Vec<bool>,
    counts: Counts,
    events: Vec<Happened>,
    record: AnalysisRecord,
}

/// Marks the row of a layer as known.
pub(super) fn note(filled: &mut [bool], counts: &mut Counts, planned: &Planned, layer: usize) {
    if let Some(slot) = filled.get_mut(layer) {
        *slot = true;
    }
    counts.done += 1;
    counts.from_cache += 1;
    counts.bytes_done += planned.bytes.get(layer).copied().unwrap_or(0);
}
