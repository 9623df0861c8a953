//! The end of an analysis: its report is made from its rows as `analyze` makes it, and kept.

use super::clock;
use super::core::{Core, decode};
use super::live::Live;
use super::rows;
use crate::analysis::{self, LayerReport, Timings};
use crate::rpc::proto::store::v1::{AnalysisRecord, RowRecord};
use crate::rpc::proto::v1::{self, AnalysisState, LayerStatus};
use crate::store::{Batch, Space};
use crate::{Error, ErrorKind, Result};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait before what could not be made durable is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Completes an analysis whose rows are all there. What cannot be completed is failed, aloud.
pub(super) async fn complete(core: Arc<Core>, live: Arc<Live>) {
    let (inner_core, inner_live) = (Arc::clone(&core), Arc::clone(&live));
    let made = tokio::task::spawn_blocking(move || report(&inner_core, &inner_live)).await;
    let made = made.unwrap_or_else(|panic| Err(Error::new(ErrorKind::Internal, panic.to_string())));
    // The rows are durable, so a restart would complete it as well; a disk that is full may not be for ever.
    loop {
        let ended = match &made {
            Ok((batch, summary)) => finish(&core, &live, batch.clone(), summary.clone()).await,
            Err(error) => {
                tracing::error!(%error, analysis = live.id, "the report cannot be made");
                let failure = super::core::failure("INTERNAL", &error.to_string());
                end(&core, &live, AnalysisState::Failed, Some(failure)).await
            }
        };
        let Err(error) = ended else { return };
        tracing::error!(%error, analysis = live.id, "the end of an analysis is not durable; it is tried again");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Ends an analysis in `state`, durably, and takes it out of memory.
pub(super) async fn end(
    core: &Arc<Core>,
    live: &Arc<Live>,
    state: AnalysisState,
    failure: Option<v1::Failure>,
) -> Result<()> {
    let record = {
        let mut own = live.lock();
        own.closing = true;
        own.analysis().failure = failure;
        closed(core, &live.id, &mut own, state)
    };
    let saved = save(core, live, Batch::new(), record).await;
    if saved.is_err() {
        // It goes on as if it had not been asked to end.
        live.lock().closing = false;
    }
    saved
}

async fn finish(core: &Arc<Core>, live: &Arc<Live>, batch: Batch, summary: v1::Summary) -> Result<()> {
    let record = {
        let mut own = live.lock();
        own.analysis().summary = Some(summary);
        let bytes_read = own.planned.as_ref().map_or(0, |planned| planned.bytes.iter().sum());
        own.record.bytes_read = bytes_read;
        closed(core, &live.id, &mut own, AnalysisState::Succeeded)
    };
    save(core, live, batch, record).await
}

/// The record of an analysis as it ends. The one in memory keeps its state until the new one is durable.
fn closed(core: &Core, id: &str, own: &mut super::live::State, state: AnalysisState) -> AnalysisRecord {
    let progress = super::view::progress(core, id, own);
    let sequence = own.take_sequence();
    let now = clock::wall();
    let mut record = own.record.clone();
    if let Some(analysis) = &mut record.analysis {
        analysis.set_state(state);
        analysis.progress = Some(progress);
        analysis.sequence = sequence;
        analysis.waiting_detail.clear();
        analysis.set_waiting(v1::WaitingReason::Unspecified);
        let started = analysis.start_time.or(analysis.create_time).unwrap_or(now);
        record.seconds = clock::seconds_between(&started, &now).max(0.0);
        analysis.end_time = Some(now);
    }
    record
}

async fn save(core: &Arc<Core>, live: &Arc<Live>, mut batch: Batch, record: AnalysisRecord) -> Result<()> {
    batch.put(Space::Job, live.id.as_bytes(), record.encode_to_vec());
    core.commit(batch).await?;
    count(core, &record);
    live.lock().record = record;
    core.forget(live);
    Ok(())
}

fn count(core: &Core, record: &AnalysisRecord) {
    let Some(analysis) = &record.analysis else { return };
    let state = match analysis.state() {
        AnalysisState::Succeeded => "succeeded",
        AnalysisState::Cancelled => "cancelled",
        _ => "failed",
    };
    let took = analysis
        .create_time
        .zip(analysis.end_time)
        .map_or(0.0, |(from, to)| clock::seconds_between(&from, &to));
    core.metrics.analysis_ended(state, Duration::from_secs_f64(took.max(0.0)));
}

/// The rows that the report changes, and what all rows come to.
fn report(core: &Core, live: &Live) -> Result<(Batch, v1::Summary)> {
    let planned = live.planned().ok_or_else(|| Error::new(ErrorKind::Internal, "it is not planned"))?;
    let mut stored: BTreeMap<u32, RowRecord> = BTreeMap::new();
    rows::each(core.records.as_ref(), &live.id, &mut |place, record| {
        stored.insert(place, record);
        Ok(())
    })?;
    let mut reports = Vec::with_capacity(planned.rows.len());
    for place in &planned.rows {
        let missing = || Error::new(ErrorKind::Internal, format!("row {place} is missing"));
        let row = stored.get(place).and_then(|record| record.row.clone()).ok_or_else(missing)?;
        reports.push(LayerReport::try_from(row)?);
    }
    let made = analysis::model_report(
        &planned.model.catalog,
        &planned.model.layers,
        &planned.options,
        reports,
        Timings::default(),
    );
    let mut batch = Batch::new();
    for (place, row) in (0..).zip(&made.layers) {
        // A tied output head: only the whole model tells.
        if row.status != analysis::Status::Skipped {
            continue;
        }
        let Some(record) = stored.get_mut(&place) else { continue };
        if record.row.as_ref().is_some_and(|old| old.status() != LayerStatus::Skipped) {
            record.row = Some(v1::LayerResult::from(row));
            batch.put(Space::Row, rows::key(&live.id, place), record.encode_to_vec());
        }
    }
    Ok((batch, v1::Summary::from(&made.summary)))
}

/// The record of an analysis that has ended, as stored.
pub(super) fn stored(core: &Core, id: &str) -> Result<Option<AnalysisRecord>> {
    let bytes = core.records.get(Space::Job, id.as_bytes())?;
    bytes.map(|bytes| decode(&bytes, || format!("analysis {id}"))).transpose()
}
