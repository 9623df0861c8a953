//! How much is to do and how fast it goes: for people, autoscalers and metrics.

use super::core::Core;
use crate::job::{JobState, WorkerState};
use crate::telemetry::metrics::StoreSize;
use std::sync::{Mutex, PoisonError};

/// Assumed until something has been measured: flops a second of one core.
const RATE: f64 = 1e10;
/// Desired workers would empty the queue in this many seconds.
const TARGET: f64 = 600.0;

/// Flops done and the seconds that they took on one core, as workers report.
#[derive(Default)]
pub(super) struct Speed(Mutex<(f64, f64)>);

impl Speed {
    pub(super) fn add(&self, flops: f64, seconds: f64) {
        if seconds > 0.0 && flops > 0.0 && flops.is_finite() && seconds.is_finite() {
            let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            sums.0 += flops;
            sums.1 += seconds;
        }
    }

    fn rate(&self) -> f64 {
        let (flops, seconds) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seconds > 1.0 { flops / seconds } else { RATE }
    }
}

/// The load of the moment.
pub(super) struct Load {
    pub(super) queued: u64,
    pub(super) running: u64,
    pub(super) queue_work_seconds: f64,
    pub(super) desired_workers: u32,
    pub(super) workers: u32,
    by_state: [u64; 3],
}

impl Core {
    pub(super) fn load(&self) -> Load {
        let rate = self.speed.rate();
        let table = self.table();
        let (mut queued, mut running) = (0, 0);
        for job in table.jobs().filter(|job| !matches!(job.state, JobState::Failed(_) | JobState::Cancelled))
        {
            queued += job.counts.queued;
            running += job.counts.running;
        }
        let mut by_state = [0; 3];
        for worker in table.workers() {
            by_state[match worker.state {
                WorkerState::Ready => 0,
                WorkerState::Draining => 1,
                WorkerState::Lost => 2,
            }] += 1;
        }
        Load {
            queued,
            running,
            queue_work_seconds: table.queue_work_seconds(rate),
            desired_workers: u32::try_from(table.desired_workers(TARGET, rate)).unwrap_or(u32::MAX),
            workers: u32::try_from(by_state[0] + by_state[1]).unwrap_or(u32::MAX),
            by_state,
        }
    }

    /// Sets the gauges; the store's counters since the last time are those of `before`.
    pub(super) fn sample(&self, before: &mut crate::store::Health) {
        let load = self.load();
        let metrics = &self.metrics;
        metrics.queue(load.queue_work_seconds, u64::from(load.desired_workers));
        let [ready, draining, lost] = load.by_state;
        metrics.workers(&[("ready", ready), ("draining", draining), ("lost", lost)]);
        metrics.units(&[("queued", load.queued), ("running", load.running)]);
        let health = self.records.health();
        metrics.store_size(StoreSize { used: health.database_bytes, free: health.free_bytes });
        metrics.store_evicted(health.evictions.saturating_sub(before.evictions));
        let (commits, syncs) = (health.commits - before.commits, health.syncs - before.syncs);
        metrics.store_committed(commits, syncs);
        *before = health;
    }
}
