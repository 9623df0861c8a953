//! Leases, and the report and reply that carry them.

use super::work::WorkId;
use super::worker::WorkerIx;
use super::{Attempt, JobId, WorkerId};

/// Units handed to a worker under one attempt number. They run one after the other, in this order, in one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its number.
    pub attempt: Attempt,
    /// The job.
    pub job: JobId,
    /// The job's model.
    pub model: String,
    /// Units of that job.
    pub units: Vec<u32>,
    /// Peak memory in bytes: that of the largest unit.
    pub memory: u64,
    /// Work in flops, all units together.
    pub cost: u64,
}

/// A lease as its worker reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its number.
    pub attempt: Attempt,
    /// What is still to do, the unit being worked on first.
    pub units: Vec<(JobId, u32)>,
    /// What is computed but not acknowledged yet. A unit of the lease in neither list has been given back.
    pub kept: Vec<(JobId, u32)>,
    /// Any counter that rises when work moves: bytes or tiles.
    pub progress: u64,
}

/// What a worker says every few seconds: I live, I have this, give me more. Results are handed to
/// [`Table::finish`](super::Table::finish) before the report that they came with. Saying it twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Who reports.
    pub worker: WorkerId,
    /// Rises with every start of the worker's process (its wall clock at the start will do). A newer session ends
    /// the leases of the older one.
    pub session: u64,
    /// `seq` of the newest reply that the worker has acted on in this session; 0 at first. A worker ignores a reply whose
    /// `seq` is not above this.
    pub seen: u64,
    /// Cores in all.
    pub cores: u32,
    /// Memory budget in bytes.
    pub memory: u64,
    /// Cores that no lease holds, the waiting ones included.
    pub free_cores: u32,
    /// Bytes of the budget that no lease holds, the waiting ones included.
    pub free_memory: u64,
    /// The worker takes no new lease.
    pub draining: bool,
    /// Every lease that it holds.
    pub running: Vec<Running>,
    /// It would take a lease now.
    pub want: bool,
}

/// The answer to a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// Number of this reply, rising for ever. 0: the report was older than one that came before, and was ignored.
    pub seq: u64,
    /// New leases.
    pub leases: Vec<Lease>,
    /// Leases to drop: revoked, not needed any more, or unknown.
    pub cancelled: Vec<Attempt>,
    /// Units to skip within a lease that goes on: done by other means, or not needed any more.
    pub skip: Vec<(Attempt, JobId, u32)>,
}

/// A lease in the table.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) worker: WorkerIx,
    /// The job under whose name it was given; that job may have ended since.
    pub(super) job: JobId,
    /// What is not finished yet, in the worker's order.
    pub(super) items: Vec<Item>,
    pub(super) memory: u64,
    /// The reply that granted it; 0 if it was adopted, since its worker knows it.
    pub(super) granted: u64,
    /// Its worker has reported it.
    pub(super) reported: bool,
    pub(super) progress: u64,
}

/// One unit of a lease.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) unit: u32,
    pub(super) work: WorkId,
    /// The worker has computed it, and waits for the acknowledgement.
    pub(super) kept: bool,
}

impl Held {
    pub(super) fn new(worker: WorkerIx, job: JobId, items: Vec<Item>, memory: u64) -> Self {
        Self { worker, job, items, memory, granted: 0, reported: false, progress: 0 }
    }
}
