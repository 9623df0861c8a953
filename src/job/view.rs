//! What people and autoscalers see.

use super::deadlines::Subject;
use super::units::{Job, UnitState};
use super::work::JobSeq;
use super::worker::Worker;
use super::{JobId, JobState, Table, Time, WorkerId, WorkerState};

/// Units of a job by where they stand. `queued + running + done + failed + set_aside + dropped = units`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All units.
    pub units: u64,
    /// Waiting: for a worker, for other units, or for the end of a back-off.
    pub queued: u64,
    /// In the hands of a worker, under this job's name or another's.
    pub running: u64,
    /// Done, those from the cache included.
    pub done: u64,
    /// Failed for good.
    pub failed: u64,
    /// Set aside, since they killed too many workers.
    pub set_aside: u64,
    /// Not needed any more, since the job ended first.
    pub dropped: u64,
    /// Done without a worker.
    pub from_cache: u64,
    /// Handed to a worker more than once.
    pub retried: u64,
    /// Bytes of the units that are done.
    pub bytes_done: u64,
    /// How often work had begun for nothing and had to be done again. Counted at the job under whose name it was done.
    pub again_units: u64,
    /// … and its flops, at most: how far it had come is not known.
    pub again_flops: u128,
}

/// Why nothing of a job is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The coordinator has just started: workers may speak first.
    Adoption {
        /// Until then.
        until: Time,
    },
    /// No worker takes leases.
    NoWorkers,
    /// A unit needs more memory than any worker has. Given even if other units are running.
    NoWorkerHasMemory {
        /// The most that a unit needs, in bytes.
        needs: u64,
        /// The most that a worker has, in bytes.
        largest: u64,
    },
    /// The world failed all that could run; the first is tried again then.
    BackOff {
        /// Until then.
        until: Time,
    },
    /// Others go first.
    Queued,
}

/// A job as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Its name.
    pub id: JobId,
    /// Its model.
    pub model: String,
    /// Higher goes first.
    pub priority: i32,
    /// Where it stands.
    pub state: JobState,
    /// When it came into this table.
    pub submitted: Time,
    /// Its units.
    pub counts: Counts,
}

/// A worker as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Its name.
    pub id: WorkerId,
    /// Whether it takes leases.
    pub state: WorkerState,
    /// Cores in all.
    pub cores: u32,
    /// Memory budget in bytes.
    pub memory: u64,
    /// Cores that were free at its last report.
    pub free_cores: u32,
    /// Bytes that were free at its last report.
    pub free_memory: u64,
    /// When that was.
    pub last_report: Time,
    /// Leases that it holds.
    pub leases: u64,
    /// Units of those that are not finished: job and unit.
    pub running: Vec<(JobId, u32)>,
}

/// Sums over the table. A work that several units need counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Units of jobs in the table, ended or not.
    pub units: u64,
    /// Flops of works that wait, for whatever reason.
    pub waiting_flops: u128,
    /// Flops of works in the hands of workers.
    pub leased_flops: u128,
    /// How often work had begun for nothing, since the start of the coordinator.
    pub again_units: u64,
    /// … and its flops, at most.
    pub again_flops: u128,
}

impl Table {
    /// Where a job stands.
    pub fn job_view(&self, id: &JobId) -> Option<JobView> {
        self.job(id).map(|(_, job)| view(job))
    }

    /// All jobs in the table, the oldest first.
    pub fn jobs(&self) -> impl Iterator<Item = JobView> {
        self.jobs.values().map(view)
    }

    /// All workers that have not been forgotten, by name.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView> {
        self.worker_ids.values().filter_map(|ix| self.workers.get(ix)).map(|worker| self.worker_view(worker))
    }

    /// Sums over the table.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Core-seconds to do what waits.
    pub fn queue_work_seconds(&self, flops_per_core_second: f64) -> f64 {
        self.totals.waiting_flops as f64 / flops_per_core_second
    }

    /// How many workers of the median capacity would do all that waits or runs in this time; at least 1 if there is
    /// anything. Without a worker to judge by, workers of one core.
    pub fn desired_workers(&self, target_seconds: f64, flops_per_core_second: f64) -> u64 {
        let flops = self.totals.waiting_flops + self.totals.leased_flops;
        if self.active.is_empty() {
            return 0;
        }
        let live = self.workers.values().filter(|worker| worker.state != WorkerState::Lost);
        let mut cores: Vec<u32> = live.map(|worker| worker.cores).collect();
        cores.sort_unstable();
        let median = cores.get(cores.len() / 2).copied().unwrap_or(1).max(1);
        let workers = flops as f64 / (target_seconds * flops_per_core_second * f64::from(median));
        // The conversion saturates, and gives 0 for NaN.
        (workers.ceil() as u64).max(1)
    }

    /// Why nothing of a job is running; `None` if something is, or the job has ended.
    pub fn waiting(&self, id: &JobId, now: Time) -> Option<Waiting> {
        let (seq, job) = self.job(id)?;
        if job.state.is_final() {
            return None;
        }
        if let (Some(largest), Some(needs)) = (self.ceiling, self.unplaceable(seq)) {
            return Some(Waiting::NoWorkerHasMemory { needs, largest });
        }
        if job.counts.running > 0 {
            return None;
        }
        if let Some(until) = self.hold_until.filter(|until| now < *until) {
            return Some(Waiting::Adoption { until });
        }
        if self.ceiling.is_none() {
            return Some(Waiting::NoWorkers);
        }
        if self.queue.queued(seq) == 0
            && let Some(until) = self.first_back_off(job)
        {
            return Some(Waiting::BackOff { until });
        }
        Some(Waiting::Queued)
    }

    /// The most memory that a queued unit of the job needs, if it is more than any worker has.
    fn unplaceable(&self, seq: JobSeq) -> Option<u64> {
        let mut needing = self.queue.needing(self.ceiling?, u64::MAX).rev();
        let needed_by = |id| self.works.get(id).is_some_and(|work| work.members.iter().any(|m| m.job == seq));
        needing.find(|(_, id)| needed_by(*id)).map(|(memory, _)| memory)
    }

    fn first_back_off(&self, job: &Job) -> Option<Time> {
        let open = job.units.iter().filter(|unit| unit.state == UnitState::Open);
        open.filter_map(|unit| self.deadlines.get(Subject::BackOff(unit.work))).min()
    }

    fn worker_view(&self, worker: &Worker) -> WorkerView {
        let leases = worker.leases.iter().filter_map(|attempt| self.leases.get(attempt));
        let running = leases.flat_map(|lease| lease.items.iter().map(|item| (lease.job.clone(), item.unit)));
        WorkerView {
            id: worker.id.clone(),
            state: worker.state,
            cores: worker.cores,
            memory: worker.memory,
            free_cores: worker.free_cores,
            free_memory: worker.free_memory,
            last_report: worker.last_report,
            leases: worker.leases.len() as u64,
            running: running.collect(),
        }
    }
}

fn view(job: &Job) -> JobView {
    let counts = Counts { queued: job.open() - job.counts.running, ..job.counts };
    JobView {
        id: job.id.clone(),
        model: job.model.clone(),
        priority: job.priority,
        state: job.state.clone(),
        submitted: job.submitted,
        counts,
    }
}
