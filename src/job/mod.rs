//! The coordinator's table of jobs, leases and workers: plain data and methods.
//!
//! No clock, no runtime, no I/O: `now` is an argument of every method, so that every time-out has a unit test. The
//! coordinator wraps a [`Table`] in a mutex, feeds it reports and results, makes results durable between
//! [`Table::check`] and [`Table::finish`], calls [`Table::expire`] when [`Table::next_deadline`] says so, and
//! persists and publishes what [`Table::take_events`] gives.
//!
//! # Words
//!
//! A *job* is the analysis of one model. It has *units*: a layer, a shard of a tall layer, or the finish of a
//! sharded layer, which waits for its shards. A *work* is what units of equal key share: it is queued, leased and
//! computed once, whoever needs it. The *owner* of a work is the unit under whose name it is queued; the others
//! *follow* it and end with it. A *lease* is one or more units of one job in the hands of one worker under one
//! *attempt* number, which is never used again.
//!
//! # What holds
//!
//! - A result is counted only from the attempt in force (fencing). A work has at most one.
//! - A unit ends exactly once.
//! - Every choice follows from the calls alone: no hash order, no clock, no chance.
//! - A report costs O(jobs + leases given · log units); a time-out costs O(log n).

mod deadlines;
mod events;
mod expire;
mod finish;
mod lease;
mod queue;
mod report;
mod submit;
mod table;
#[cfg(test)]
mod tests;
mod transitions;
mod types;
mod units;
mod view;
mod work;
mod worker;

pub use events::{Event, JobState, Requeue};
pub use lease::{Lease, Reply, Report, Running};
pub use table::Table;
pub use types::{
    Attempt, Config, Finished, JobId, NewJob, NewUnit, Outcome, Restore, Time, Verdict, WorkerId,
};
pub use view::{Counts, JobView, Totals, Waiting, WorkerView};
pub use worker::WorkerState;
