//! After a start: analyses that had not ended are planned anew and go on where their rows end.

use super::admit::note;
use super::core::{Core, decode, failure};
use super::create::{identity, word};
use super::live::{Counts, Happened, Live};
use super::planned::Planned;
use super::rows;
use crate::rpc::proto::store::v1::AnalysisRecord;
use crate::rpc::proto::v1::{self, AnalysisState};
use crate::store::Space;
use crate::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Records read at once.
const PAGE: usize = 256;
/// How long a store that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

impl Core {
    /// Takes up every analysis that had not ended.
    pub(super) fn restore(self: &Arc<Self>) -> Result<usize> {
        let mut after: Option<Vec<u8>> = None;
        let mut found = 0;
        loop {
            let page = self.records.scan(Space::Job, b"", after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(found) };
            after = Some(last.clone());
            for (key, bytes) in page {
                let record: AnalysisRecord =
                    decode(&bytes, || format!("analysis {}", String::from_utf8_lossy(&key)))?;
                let state = record.analysis.as_ref().map_or(AnalysisState::Unspecified, v1::Analysis::state);
                if has_ended(state) {
                    continue;
                }
                found += 1;
                let live = Arc::new(Live::new(record));
                self.add_live(Arc::clone(&live));
                let core = Arc::clone(self);
                self.settings.runtime.spawn(async move { core.take_up(live, state).await });
            }
        }
    }

    async fn take_up(self: Arc<Self>, live: Arc<Live>, state: AnalysisState) {
        if state == AnalysisState::Planning {
            return self.plan_later(live.id.clone()).await;
        }
        let taken = match self.plan_patiently(&live).await {
            Ok(planned) => self.go_on(&live, planned).await,
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            self.end_failed(&live.id, failure(word(&error), &error.to_string()));
        }
    }

    /// Reads the headers of an accepted analysis again. A store that does not answer for a while is waited for: what was
    /// accepted is not lost by it.
    pub(super) async fn plan_patiently(self: &Arc<Self>, live: &Live) -> Result<Planned> {
        let (mut pause, mut waited) = (Duration::from_secs(1), Duration::ZERO);
        loop {
            let planned = match self.to_plan_again(live) {
                Ok(what) => self.plan(what).await,
                Err(error) => Err(error),
            };
            match planned {
                Err(error) if error.kind() == ErrorKind::Unavailable && waited < PATIENCE => {
                    tracing::warn!(%error, analysis = live.id, again_s = pause.as_secs(), "the model cannot be read now");
                }
                other => return other,
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(Duration::from_secs(60));
            if live.lock().closing {
                return Err(Error::new(ErrorKind::Interrupted, "the analysis was ended"));
            }
        }
    }

    async fn go_on(self: &Arc<Self>, live: &Arc<Live>, planned: Planned) -> Result<()> {
        unchanged(&identity(&planned), live.lock().analysis().identity.as_ref())?;
        let planned = Arc::new(planned);
        let (core, id, plan) = (Arc::clone(self), live.id.clone(), Arc::clone(&planned));
        let there = tokio::task::spawn_blocking(move || core.rows_there(&id, &plan)).await;
        let there = there.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, e.to_string())))?;
        let filled = there.filled.clone();
        let complete = {
            let mut state = live.lock();
            state.next_sequence = state.next_sequence.max(there.last_sequence + 1);
            state.filled = there.filled;
            state.counts = there.counts;
            state.events = there.events;
            state.planned = Some(Arc::clone(&planned));
            let sequence = there.last_sequence;
            let analysis = state.analysis();
            analysis.sequence = analysis.sequence.max(sequence);
            state.is_complete()
        };
        if complete {
            super::complete::complete(Arc::clone(self), Arc::clone(live)).await;
            return Ok(());
        }
        tracing::info!(
            analysis = live.id,
            layers = filled.len(),
            done = filled.iter().filter(|x| **x).count(),
            "an analysis goes on after a restart"
        );
        self.queue(live, &planned, &filled, true)
    }

    fn rows_there(&self, id: &str, planned: &Planned) -> Result<There> {
        let layers: BTreeMap<u32, usize> = planned.rows.iter().copied().zip(0..).collect();
        let mut there = There { filled: vec![false; planned.rows.len()], ..There::default() };
        rows::each(self.records.as_ref(), id, &mut |place, record| {
            let Some(&layer) = layers.get(&place) else { return Ok(()) };
            let row = record.row.unwrap_or_default();
            note(&mut there.filled, &mut there.counts, planned, layer);
            there.counts.from_cache -= u64::from(!record.from_cache);
            if record.failed {
                there.counts.done -= 1;
                there.counts.failed += 1;
            }
            there.last_sequence = there.last_sequence.max(record.sequence);
            let status = row.status();
            let layer = u32::try_from(layer).unwrap_or(u32::MAX);
            there.events.push(Happened { sequence: record.sequence, row: place, layer, status });
            Ok(())
        })?;
        there.events.sort_by_key(|event| event.sequence);
        Ok(there)
    }
}

/// The rows of an analysis that are durable.
#[derive(Default)]
struct There {
    filled: Vec<bool>,
    counts: Counts,
    events: Vec<Happened>,
    last_sequence: u64,
}

/// Whether nothing more happens to an analysis in this state.
pub(super) fn has_ended(state: AnalysisState) -> bool {
    matches!(state, AnalysisState::Succeeded | AnalysisState::Failed | AnalysisState::Cancelled)
}

/// `Changed` if a model's objects are not those that an analysis was planned from.
fn unchanged(now: &v1::ModelIdentity, then: Option<&v1::ModelIdentity>) -> Result<()> {
    let Some(then) = then else { return Ok(()) };
    if now.files == then.files {
        return Ok(());
    }
    let differs = now.files.iter().find(|file| !then.files.contains(file)).or(then.files.first());
    let name = differs.map(|file| file.uri.clone()).unwrap_or_default();
    let message = "has changed since the analysis was planned; ask for a new one";
    Err(Error::new(ErrorKind::Changed, message).in_file(name).in_model(&now.uri))
}
