//! Jobs and their units in the table.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::work::{JobSeq, Member, WorkId};
use super::{Attempt, Counts, JobId, JobState, Time};

/// Where a unit stands in its own job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnitState {
    /// It needs its work.
    Open,
    Done,
    Failed,
    SetAside,
    /// The job ended first.
    Dropped,
}

#[derive(Debug)]
pub(super) struct Unit {
    pub(super) state: UnitState,
    /// Valid while open.
    pub(super) work: WorkId,
    /// How many of those that must be done first are not.
    pub(super) pending: u32,
    /// How often it was handed to a worker.
    pub(super) starts: u32,
    pub(super) bytes: u64,
    /// The attempt that ended it; 0 if none did.
    pub(super) by: Attempt,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) model: String,
    pub(super) priority: i32,
    pub(super) state: JobState,
    pub(super) submitted: Time,
    pub(super) units: Vec<Unit>,
    /// For a unit that others wait for: which.
    pub(super) dependents: BTreeMap<u32, Vec<u32>>,
    /// `queued` is left at 0 here, and computed when asked for.
    pub(super) counts: Counts,
}

impl Unit {
    pub(super) fn is_open(&self) -> bool {
        self.state == UnitState::Open
    }
}

impl Job {
    pub(super) fn member(&self, seq: JobSeq, unit: u32) -> Member {
        Member { priority: Reverse(self.priority), job: seq, unit }
    }

    pub(super) fn unit(&self, unit: u32) -> Option<&Unit> {
        self.units.get(unit as usize)
    }

    pub(super) fn unit_mut(&mut self, unit: u32) -> Option<&mut Unit> {
        self.units.get_mut(unit as usize)
    }

    /// Units that have not ended.
    pub(super) fn open(&self) -> u64 {
        let counts = &self.counts;
        counts.units - counts.done - counts.failed - counts.set_aside - counts.dropped
    }
}
