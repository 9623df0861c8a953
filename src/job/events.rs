//! What changed, for whom: to be persisted and published by the caller.

use super::{Attempt, JobId, WorkerId, WorkerState};

/// One change. A unit has exactly one of `UnitFinished`, `UnitFailed` and `UnitSetAside` in the life of its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The unit was handed to a worker, or adopted from one. Followers get it as well.
    UnitStarted {
        /// The job.
        job: JobId,
        /// The unit.
        unit: u32,
        /// Who has it.
        worker: WorkerId,
        /// Under which number.
        attempt: Attempt,
    },
    /// The unit is done.
    UnitFinished {
        /// The job.
        job: JobId,
        /// The unit.
        unit: u32,
        /// Done without a worker, from the cache.
        from_cache: bool,
    },
    /// The unit failed for good.
    UnitFailed {
        /// The job.
        job: JobId,
        /// The unit.
        unit: u32,
        /// Why.
        reason: String,
    },
    /// The unit killed too many workers and is not tried again.
    UnitSetAside {
        /// The job.
        job: JobId,
        /// The unit.
        unit: u32,
        /// Why.
        reason: String,
    },
    /// The attempt in force is over without a result; the unit waits again.
    UnitRequeued {
        /// The job.
        job: JobId,
        /// The unit.
        unit: u32,
        /// The attempt that is over.
        attempt: Attempt,
        /// Why.
        cause: Requeue,
    },
    /// The job is in another state.
    JobChanged {
        /// The job.
        job: JobId,
        /// Its new state.
        state: JobState,
    },
    /// The worker is new, or in another state.
    WorkerChanged {
        /// The worker.
        worker: WorkerId,
        /// Its new state; `None` when it has been forgotten.
        state: Option<WorkerState>,
    },
}

/// Why a unit waits again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requeue {
    /// Its worker was not heard of in time, or came back as a new process.
    WorkerLost,
    /// Its progress did not rise in time.
    NoProgress,
    /// Its worker does not have it, or gave it back.
    HandedBack,
    /// The world failed, with this reason.
    World(String),
    /// The job under whose name it was computed failed because of its model; another job needs it too.
    Model(String),
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Nothing of it has started.
    Queued,
    /// Something of it has started.
    Running,
    /// Every unit has ended, though some may have failed.
    Done,
    /// The job as a whole failed, for this reason; units that had not ended are dropped.
    Failed(String),
    /// It was cancelled; units that had not ended are dropped.
    Cancelled,
}

impl JobState {
    /// Nothing more will happen to it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Done | Self::Failed(_) | Self::Cancelled)
    }
}
