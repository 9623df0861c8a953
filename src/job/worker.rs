//! Workers as the table knows them.

use std::collections::BTreeSet;

use super::work::WorkId;
use super::{Attempt, Time, WorkerId};

/// Place of a worker in the table; never used again.
pub(super) type WorkerIx = u64;

/// Whether a worker takes leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It reports, and takes leases.
    Ready,
    /// It reports, finishes what it has and takes nothing new.
    Draining,
    /// It has not reported in time; its leases have expired.
    Lost,
}

/// A worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) state: WorkerState,
    pub(super) session: u64,
    pub(super) seen: u64,
    pub(super) cores: u32,
    pub(super) memory: u64,
    pub(super) free_cores: u32,
    pub(super) free_memory: u64,
    pub(super) last_report: Time,
    /// The operator asked it to drain.
    pub(super) drain: bool,
    pub(super) leases: BTreeSet<Attempt>,
    /// Memory of `leases`, in bytes.
    pub(super) held: u64,
    /// Leases in replies that the worker has not seen yet: number of the reply, bytes. They are on their way even if the
    /// table has revoked them since.
    pub(super) in_flight: Vec<(u64, u64)>,
    /// A starving work that this worker is kept free for.
    pub(super) reserving: Option<WorkId>,
}

impl Worker {
    /// Bytes and cores that may be given away now.
    pub(super) fn room(&self) -> (u64, u32) {
        let flying: u64 = self.in_flight.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let reported = self.free_memory.saturating_sub(flying);
        let computed = self.memory.saturating_sub(self.held);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let cores = self.free_cores.saturating_sub(count(self.in_flight.len()));
        (reported.min(computed), cores.min(self.cores.saturating_sub(count(self.leases.len()))))
    }
}
