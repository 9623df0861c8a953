//! An analysis as clients see it.

use super::core::Core;
use super::live::{Live, State};
use super::restore::has_ended;
use crate::job::{JobId, Waiting};
use crate::rpc::proto::v1::{self, AnalysisState, WaitingReason};
use crate::{Error, Result};

impl Core {
    /// An analysis by its id, live or ended.
    pub(super) fn view(&self, id: &str) -> Result<v1::Analysis> {
        if let Some(live) = self.live(id) {
            return Ok(self.view_of(&live));
        }
        super::complete::stored(self, id)?
            .and_then(|record| record.analysis)
            .ok_or_else(|| super::core::no_such_analysis(id))
    }

    /// A live analysis as it stands.
    pub(super) fn view_of(&self, live: &Live) -> v1::Analysis {
        let mut state = live.lock();
        let mut analysis = state.analysis().clone();
        if has_ended(analysis.state()) {
            return analysis;
        }
        analysis.progress = Some(progress(self, &live.id, &state));
        drop(state);
        let (waiting, detail) = self.waiting(&live.id, analysis.state());
        analysis.set_waiting(waiting);
        analysis.waiting_detail = detail;
        analysis
    }

    fn waiting(&self, id: &str, state: AnalysisState) -> (WaitingReason, String) {
        if state == AnalysisState::Planning {
            return (WaitingReason::Unspecified, "the headers of the model are read".to_owned());
        }
        let now = self.now();
        let waiting = self.table().waiting(&JobId(id.to_owned()), now);
        match waiting {
            None => (WaitingReason::Unspecified, String::new()),
            Some(Waiting::NoWorkers) => {
                (WaitingReason::NoWorkers, "no worker is there; it starts when one reports".to_owned())
            }
            Some(Waiting::NoWorkerHasMemory { needs, largest }) => {
                let (needs, largest) = (bytesize::ByteSize(needs), bytesize::ByteSize(largest));
                let detail = format!("a layer needs {needs}; the largest worker has {largest}");
                (WaitingReason::NoWorkerHasMemory, detail)
            }
            Some(Waiting::Queued) => (WaitingReason::Queued, "the workers are busy".to_owned()),
            Some(Waiting::BackOff { until }) => {
                let seconds = until.since(now).div_ceil(1000);
                (WaitingReason::BackOff, format!("work that failed is tried again in {seconds} s"))
            }
            Some(Waiting::Adoption { .. }) => (
                WaitingReason::Restarted,
                "the coordinator has just started; its workers report first".to_owned(),
            ),
        }
    }

    /// The row of an analysis by the name of its layer or tensor.
    pub(super) fn find_row(&self, id: &str, layer: &str) -> Result<super::rows::Found> {
        self.view(id)?;
        let mut by_tensor = None;
        let mut by_name = None;
        super::rows::each(self.records.as_ref(), id, &mut |_, record| {
            let Some(row) = &record.row else { return Ok(()) };
            if by_name.is_none() && row.name == layer {
                by_name = Some(record);
            } else if by_tensor.is_none() && row.tensor == layer {
                by_tensor = Some(record);
            }
            Ok(())
        })?;
        by_name.or(by_tensor).ok_or_else(|| {
            Error::new(crate::ErrorKind::NotFound, format!("the analysis has no row '{layer}' (yet)"))
                .in_field("layer")
        })
    }
}

/// How far an analysis is. Its lock is held.
pub(super) fn progress(core: &Core, id: &str, state: &State) -> v1::Progress {
    let layers = state.filled.len() as u64;
    let counts = state.counts;
    let left = layers.saturating_sub(counts.done + counts.failed);
    let table = core.table();
    let view = table.job_view(&JobId(id.to_owned()));
    let running = view.as_ref().map_or(0, |view| view.counts.running).min(left);
    v1::Progress {
        layers,
        queued: left - running,
        running,
        done: counts.done,
        failed: counts.failed,
        from_cache: counts.from_cache,
        retried: view.as_ref().map_or(0, |view| view.counts.retried),
        flops_again: view.as_ref().map_or(0.0, |view| view.counts.again_flops as f64),
        bytes_done: counts.bytes_done,
        bytes: state.planned.as_ref().map_or(0, |planned| planned.bytes.iter().sum()),
    }
}
