//! The table itself, and what it keeps.

use std::collections::{BTreeMap, BTreeSet};

use super::deadlines::Deadlines;
use super::lease::Held;
use super::queue::Queue;
use super::units::Job;
use super::work::{JobSeq, Works};
use super::worker::{Worker, WorkerIx};
use super::{Attempt, Config, Event, JobId, Time, Totals, WorkerId};

/// All jobs, leases and workers of a coordinator.
///
/// `now` may stand still but must not go back. What changes is kept as [`Event`]s until [`take_events`](Self::take_events).
#[derive(Debug)]
pub struct Table {
    pub(super) config: Config,
    pub(super) epoch: u32,
    pub(super) started: Time,
    /// Restored jobs: nothing is leased before this.
    pub(super) hold_until: Option<Time>,
    pub(super) attempts: u32,
    pub(super) replies: u64,
    pub(super) next_job: JobSeq,
    pub(super) jobs: BTreeMap<JobSeq, Job>,
    pub(super) job_ids: BTreeMap<JobId, JobSeq>,
    /// Jobs that have not ended.
    pub(super) active: BTreeSet<JobSeq>,
    pub(super) works: Works,
    pub(super) queue: Queue,
    pub(super) leases: BTreeMap<Attempt, Held>,
    pub(super) next_worker: WorkerIx,
    pub(super) workers: BTreeMap<WorkerIx, Worker>,
    pub(super) worker_ids: BTreeMap<WorkerId, WorkerIx>,
    /// Memory of the workers that are ready; the last is the ceiling of what can be placed.
    pub(super) ready_memory: BTreeSet<(u64, WorkerIx)>,
    pub(super) ceiling: Option<u64>,
    /// Workers that are not lost, and since when there is none.
    pub(super) live_workers: usize,
    pub(super) no_worker_since: Time,
    pub(super) deadlines: Deadlines,
    pub(super) totals: Totals,
    pub(super) events: Vec<Event>,
    /// For tests: accept any result for a unit that has not ended.
    #[cfg(test)]
    pub(super) fencing_off: bool,
}

impl Table {
    /// An empty table. `epoch` rises with every start of the coordinator on the same data.
    pub fn new(config: Config, epoch: u32, now: Time) -> Self {
        Self {
            config,
            epoch,
            started: now,
            hold_until: None,
            attempts: 0,
            replies: 0,
            next_job: 0,
            jobs: BTreeMap::new(),
            job_ids: BTreeMap::new(),
            active: BTreeSet::new(),
            works: Works::default(),
            queue: Queue::default(),
            leases: BTreeMap::new(),
            next_worker: 0,
            workers: BTreeMap::new(),
            worker_ids: BTreeMap::new(),
            ready_memory: BTreeSet::new(),
            ceiling: None,
            live_workers: 0,
            no_worker_since: now,
            deadlines: Deadlines::default(),
            totals: Totals::default(),
            events: Vec::new(),
            #[cfg(test)]
            fencing_off: false,
        }
    }

    /// What changed since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The job and its number, if it is in the table.
    pub(super) fn job(&self, id: &JobId) -> Option<(JobSeq, &Job)> {
        let seq = *self.job_ids.get(id)?;
        Some((seq, self.jobs.get(&seq)?))
    }

    /// The next attempt number; `None` when this epoch has used them all, since the next epoch's must be higher.
    pub(super) fn next_attempt(&mut self) -> Option<Attempt> {
        self.attempts = self.attempts.checked_add(1)?;
        Some(Attempt((u64::from(self.epoch) << 32) | u64::from(self.attempts)))
    }

    /// The next reply number. It has more room than an attempt: a large cluster reports hundreds of times a second.
    pub(super) fn next_reply(&mut self) -> u64 {
        self.replies += 1;
        (u64::from(self.epoch) << 40).saturating_add(self.replies)
    }
}
