//! Names, numbers and settings: what goes into the table.

use std::fmt;

/// Milliseconds on the coordinator's monotonic clock. Only differences mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// This long after; saturates.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to here; 0 if `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The name of a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub String);

/// The name of a worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub String);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a lease: `(epoch << 32) | counter`. Unique and rising for ever, since the epoch rises with every
/// start of the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Attempt(pub u64);

impl Attempt {
    /// Which start of the coordinator gave it.
    pub fn epoch(self) -> u64 {
        self.0 >> 32
    }
}

/// One unit of a job to submit.
#[derive(Debug, Clone, PartialEq)]
pub struct NewUnit {
    /// Identity of the work: equal keys are the same work, in any job.
    pub key: Vec<u8>,
    /// Peak memory in bytes.
    pub memory: u64,
    /// Work in flops: finite, not negative.
    pub cost: f64,
    /// Bytes to read.
    pub bytes: u64,
    /// Units of the same job that must be done first.
    pub after: Vec<u32>,
}

/// A job to submit.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Its name, not in the table yet.
    pub id: JobId,
    /// Its units; a unit's number is its place here.
    pub units: Vec<NewUnit>,
    /// Higher goes first.
    pub priority: i32,
    /// What the units read, for the worker: all units of a lease are of one job, hence of one model.
    pub model: String,
    /// What the store knows of it, if the job was there before a restart of the coordinator. `Some`, even if
    /// empty, starts the adoption grace: workers may speak before anything is leased.
    pub restore: Option<Restore>,
}

/// Units that had ended before a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restore {
    /// Units that are done.
    pub done: Vec<u32>,
    /// Units that failed, each with its reason.
    pub failed: Vec<(u32, String)>,
    /// Units that were set aside, each with its reason.
    pub set_aside: Vec<(u32, String)>,
}

/// How a unit ended at a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is a result.
    Done,
    /// The world failed, not the unit (503, credentials expired): tried again, with back-off and a cap.
    World(String),
    /// The unit itself cannot be done (a broken tensor): final.
    Task(String),
    /// The model has changed or is gone: the whole job fails.
    Model(String),
}

/// A result as a worker reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Who reports.
    pub worker: WorkerId,
    /// The lease under which it was computed.
    pub attempt: Attempt,
    /// The job that the lease names.
    pub job: JobId,
    /// The unit that the lease names.
    pub unit: u32,
    /// How it ended.
    pub outcome: Outcome,
}

/// What becomes of a result. Whatever it is, the worker may now forget the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Accepted {
        /// The other units that end by it, in this job or others. The named unit itself counts too, unless its
        /// job has ended in the meantime. Empty for `World` and `Model`.
        also: Vec<(JobId, u32)>,
    },
    /// The attempt is not the one in force: to be dropped.
    Stale,
    /// The unit ended by this very attempt before: acknowledge again.
    Duplicate,
    /// There is no such job or unit.
    Unknown,
}

/// Settings of the table. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Small units are batched until their summed cost reaches this many flops.
    pub batch_flops: f64,
    /// … or there are this many.
    pub batch_units: usize,
    /// The most leases in one reply.
    pub max_leases_per_report: usize,
    /// Without a report for this long a worker is lost and its leases expire.
    pub lease_timeout: u64,
    /// A lease whose progress has not risen for this long is revoked.
    pub progress_timeout: u64,
    /// How often workers report. The table uses it nowhere else than in the default of `adoption_grace`.
    pub report_interval: u64,
    /// After a start with restored jobs nothing is leased for this long, so that workers can speak first.
    pub adoption_grace: u64,
    /// A unit that has waited this long reserves a worker that could take it when empty.
    pub starve_after: u64,
    /// A unit that killed this many workers is set aside.
    pub max_kills: u32,
    /// A unit that the world failed this many times fails.
    pub max_world_failures: u32,
    /// The first back-off; it doubles with each failure.
    pub backoff_first: u64,
    /// The longest back-off.
    pub backoff_longest: u64,
    /// A unit that no live worker has memory for fails after this long.
    pub unplaceable_timeout: u64,
    /// Jobs fail after this long without any worker. `None`: never.
    pub no_worker_timeout: Option<u64>,
    /// A lost worker is forgotten after this long.
    pub forget_after: u64,
    /// The most jobs that have not ended.
    pub max_jobs_queued: usize,
    /// The most units of jobs in the table, ended or not.
    pub max_units: usize,
}

impl Default for Config {
    fn default() -> Self {
        const SECOND: u64 = 1000;
        const MINUTE: u64 = 60 * SECOND;
        Self {
            batch_flops: 2e9,
            batch_units: 256,
            max_leases_per_report: 64,
            lease_timeout: 30 * SECOND,
            progress_timeout: 10 * MINUTE,
            report_interval: 5 * SECOND,
            adoption_grace: 10 * SECOND,
            starve_after: 2 * MINUTE,
            max_kills: 3,
            max_world_failures: 20,
            backoff_first: SECOND,
            backoff_longest: 5 * MINUTE,
            unplaceable_timeout: 10 * MINUTE,
            no_worker_timeout: Some(24 * 60 * MINUTE),
            forget_after: 60 * MINUTE,
            max_jobs_queued: 1000,
            max_units: 2_000_000,
        }
    }
}
