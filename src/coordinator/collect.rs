//! Results that workers report: checked against the leases, made durable, counted, acknowledged; in this order.

use super::core::Core;
use super::keys::{self, Key};
use super::live::{Filled, Live};
use super::planned::{Planned, Work};
use super::rows;
use crate::job::{Attempt, Finished, JobId, Outcome, Verdict, WorkerId};
use crate::rpc::proto::store::v1::{ObjectRecord, ResultRecord, RowRecord};
use crate::rpc::proto::v1::LayerResult;
use crate::rpc::proto::worker::v1::unit_failure::Blame;
use crate::rpc::proto::worker::v1::{UnitKey, UnitResult, unit_result};
use crate::store::{Batch, Space};
use crate::{Error, ErrorKind, Result};
use prost::Message;
use std::sync::Arc;

/// Whether a result is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Yes,
    No,
    /// Its analysis is being taken up after a start: it is to be sent again.
    Later,
}

/// Rows of one result: its own, and those of other analyses that need the same.
type Targets = Vec<(Arc<Live>, Filled)>;

impl Core {
    /// Takes results; those named in the answer need not be sent again.
    pub(super) async fn take_results(
        self: &Arc<Self>,
        worker: &WorkerId,
        results: Vec<UnitResult>,
    ) -> Vec<UnitKey> {
        let taken: Vec<_> = results.into_iter().map(|result| self.take(worker, result)).collect();
        let mut acknowledged = Vec::new();
        // All are queued by now, so that the store makes them durable together.
        for (key, durable) in taken {
            match durable.await {
                Ok(true) => acknowledged.push(key),
                Ok(false) => {}
                Err(error) => {
                    let UnitKey { analysis, unit, .. } = &key;
                    tracing::error!(%error, analysis, unit, "a result is not durable; its worker keeps it");
                }
            }
        }
        acknowledged
    }

    /// Queues one result. The future ends when it is durable and counted, or need not be; with false if its worker is to
    /// send it again.
    fn take(
        self: &Arc<Self>,
        worker: &WorkerId,
        result: UnitResult,
    ) -> (UnitKey, impl Future<Output = Result<bool>> + use<>) {
        let key = UnitKey { analysis: result.analysis, unit: result.unit, attempt: result.attempt };
        let finished = |outcome| Finished {
            worker: worker.clone(),
            attempt: Attempt(key.attempt),
            job: JobId(key.analysis.clone()),
            unit: key.unit,
            outcome,
        };
        let (finished, row) = match result.outcome {
            Some(unit_result::Outcome::Row(row)) => (Some(finished(Outcome::Done)), Some(row)),
            Some(unit_result::Outcome::Gram(_)) => (Some(finished(self.gram_outcome(&key))), None),
            Some(unit_result::Outcome::Failure(failure)) => {
                let reason = format!("{}: {}", failure.reason, failure.message);
                let outcome = match failure.blame() {
                    Blame::Unit => Outcome::Task(reason),
                    Blame::Model => Outcome::Model(reason),
                    Blame::World | Blame::Unspecified => Outcome::World(reason),
                };
                (Some(finished(outcome)), None)
            }
            // What is handed back is missing from the next report; the table sees it there.
            Some(unit_result::Outcome::Returned(_)) | None => (None, None),
        };
        let core = Arc::clone(self);
        // Judged before anything is kept: what does not count now must not be counted a moment later, when the analysis
        // has been taken up after a start, for then its row was not kept.
        let is_wanted = finished.as_ref().map(|finished| self.is_wanted(finished));
        let finished = finished.filter(|_| is_wanted == Some(Wanted::Yes));
        let queued = finished.map(|finished| {
            let durable = row.map(|row| core.keep(&finished, row, result.has_spectrum, false));
            (finished, durable)
        });
        let ended = async move {
            let Some((finished, durable)) = queued else { return Ok(is_wanted != Some(Wanted::Later)) };
            match durable.transpose()? {
                Some(Some(durable)) => durable.await?,
                Some(None) => return Ok(true),
                None => {}
            }
            core.count(finished);
            Ok(true)
        };
        (key, ended)
    }

    /// Whether the table would take the result of a unit.
    fn is_wanted(&self, finished: &Finished) -> Wanted {
        let verdict = self.table().check(finished);
        if matches!(verdict, Verdict::Accepted { .. }) {
            return Wanted::Yes;
        }
        if verdict == Verdict::Unknown && self.live(&finished.job.0).is_some() {
            return Wanted::Later;
        }
        if verdict == Verdict::Stale {
            self.metrics.stale_result();
        }
        tracing::info!(analysis = %finished.job, unit = finished.unit, worker = %finished.worker,
            attempt = finished.attempt.0, ?verdict, "a result is not counted");
        Wanted::No
    }

    /// Row blocks do not outlive the coordinator's process: one that was sent to the process before this one is
    /// computed again, or the sum would wait for it for ever.
    fn gram_outcome(&self, key: &UnitKey) -> Outcome {
        let Some((_, planned)) = self.planned(&key.analysis) else { return Outcome::Done };
        let Some(unit) = planned.units.get(key.unit as usize) else { return Outcome::Done };
        match (&unit.work, planned.keys.get(unit.layer)) {
            (Work::Shard { index, .. }, Some(layer)) if !self.sums.has(layer, *index) => Outcome::World(
                "its partial Gram matrix was lost when the coordinator was started anew".to_owned(),
            ),
            _ => Outcome::Done,
        }
    }

    /// Counts a result that is durable.
    fn count(self: &Arc<Self>, finished: Finished) {
        let events = {
            let mut table = self.table();
            let verdict = table.finish(&finished, self.now());
            if verdict == Verdict::Stale {
                self.metrics.stale_result();
            }
            if !matches!(verdict, Verdict::Accepted { .. }) {
                tracing::info!(analysis = %finished.job, unit = finished.unit, worker = %finished.worker,
                    attempt = finished.attempt.0, ?verdict, "a result is not counted");
            }
            table.take_events()
        };
        self.follow_up(events);
    }

    /// Queues the rows of a result for every analysis that waits for it. `None` if the result does not count.
    fn keep(
        self: &Arc<Self>,
        finished: &Finished,
        row: LayerResult,
        has_spectrum: bool,
        from_cache: bool,
    ) -> Result<Option<impl Future<Output = Result<()>> + use<>>> {
        let Verdict::Accepted { also } = self.table().check(finished) else { return Ok(None) };
        let mut batch = Batch::new();
        let mut targets = Targets::new();
        // The order is held until the batch is queued.
        let order = self.order();
        let own = (finished.job.clone(), finished.unit);
        let result = self.add_result(&mut batch, &own, row, has_spectrum)?;
        for (job, unit) in std::iter::once(own).chain(also) {
            targets.extend(self.add_row(&mut batch, (&job, unit), &result, from_cache)?);
        }
        let core = Arc::clone(self);
        let durable = self.submit(batch, move || {
            for (live, filled) in &targets {
                core.filled(live, filled);
            }
        });
        drop(order);
        Ok(Some(durable))
    }

    /// Puts a result under its content, and says where.
    fn add_result(
        &self,
        batch: &mut Batch,
        (job, unit): &(JobId, u32),
        row: LayerResult,
        has_spectrum: bool,
    ) -> Result<(LayerResult, Option<Key>)> {
        let Some((_, planned)) = self.planned(&job.0) else { return Ok((row, None)) };
        let Some(unit) = planned.units.get(*unit as usize) else { return Ok((row, None)) };
        let Some(layer) = planned.layer(unit).filter(|_| rows::is_lasting(&row)) else {
            return Ok((row, None));
        };
        let digest = row.digest.clone().unwrap_or_default();
        let key = keys::result_key(&digest, layer, &planned.options);
        let plain = rows::for_others(&planned, unit.layer, row)?;
        let record = ResultRecord { row: Some(plain.clone()), has_spectrum };
        batch.put(Space::Result, key, record.encode_to_vec());
        Ok((plain, Some(key)))
    }

    /// Puts the row of one analysis.
    fn add_row(
        &self,
        batch: &mut Batch,
        (job, unit): (&JobId, u32),
        (row, key): &(LayerResult, Option<Key>),
        from_cache: bool,
    ) -> Result<Option<(Arc<Live>, Filled)>> {
        let Some((live, planned)) = self.planned(&job.0) else { return Ok(None) };
        let Some(unit) = planned.units.get(unit as usize) else { return Ok(None) };
        if matches!(unit.work, Work::Shard { .. }) {
            return Err(Error::new(ErrorKind::Internal, "a row was reported for a row block"));
        }
        let own = match key {
            Some(_) => rows::adopted(&planned, unit.layer, row.clone())?,
            None => row.clone(),
        };
        if let Some(key) = key {
            let record = ObjectRecord { result_key: key.to_vec() };
            batch.put(Space::Object, unit.key, record.encode_to_vec());
        }
        let result_key = key.map(|key| key.to_vec()).unwrap_or_default();
        let record = RowRecord { row: Some(own), result_key, from_cache, ..RowRecord::default() };
        Ok(rows::put(batch, &live, unit.layer, record).map(|filled| (live, filled)))
    }

    /// Whether the result of a unit is known by its content; if so, it is taken.
    pub(super) async fn lookup(self: &Arc<Self>, finished: Finished, digest: &str) -> Result<bool> {
        let Some((live, planned)) = self.planned(&finished.job.0) else { return Ok(false) };
        let Some(unit) = planned.units.get(finished.unit as usize) else { return Ok(false) };
        let Some(layer) = planned.layer(unit) else { return Ok(false) };
        let key = keys::result_key(digest, layer, &planned.options);
        let keep_spectra = live.lock().analysis().keep_spectra;
        let Some(known) = self.known(&key, keep_spectra)? else { return Ok(false) };
        if !matches!(self.table().check(&finished), Verdict::Accepted { .. }) {
            return Ok(false);
        }
        let has_spectrum = known.has_spectrum;
        let row = known.row.unwrap_or_default();
        let row = rows::adopted(&planned, unit.layer, row)?;
        let Some(durable) = self.keep(&finished, row, has_spectrum, true)? else { return Ok(false) };
        durable.await?;
        self.count(finished);
        Ok(true)
    }

    /// A result by its content. A corrupt one is a miss, and said so.
    pub(super) fn known(&self, key: &Key, needs_spectrum: bool) -> Result<Option<ResultRecord>> {
        let bytes = match self.records.get(Space::Result, key) {
            Err(error) if crate::store::is_corrupt(&error) => {
                tracing::warn!(%error, "a stored result is corrupt and will be computed again");
                return Ok(None);
            }
            other => other?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let record: ResultRecord = super::core::decode(&bytes, || "a result".to_owned())?;
        if needs_spectrum && !(record.has_spectrum && self.has_spectrum(key)?) {
            return Ok(None);
        }
        Ok(Some(record))
    }

    fn has_spectrum(&self, key: &Key) -> Result<bool> {
        self.records.contains(Space::Result, &rows::spectrum_key(key))
    }

    /// The result of a layer that was computed from the same bytes of an unchanged object.
    pub(super) fn known_object(
        &self,
        planned: &Planned,
        layer: usize,
        needs_spectrum: bool,
    ) -> Result<Option<(Key, LayerResult)>> {
        let Some(unit_key) = planned.keys.get(layer) else { return Ok(None) };
        let bytes = match self.records.get(Space::Object, unit_key) {
            Err(error) if crate::store::is_corrupt(&error) => return Ok(None),
            other => other?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let record: ObjectRecord = super::core::decode(&bytes, || "an object".to_owned())?;
        let Ok(key) = Key::try_from(record.result_key.as_slice()) else { return Ok(None) };
        let Some(known) = self.known(&key, needs_spectrum)? else { return Ok(None) };
        Ok(Some((key, rows::adopted(planned, layer, known.row.unwrap_or_default())?)))
    }
}
