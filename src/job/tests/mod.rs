//! A test for each rule and each time-out, just before and just after; random histories against a model.

mod histories;
mod invariants;
mod leasing;
mod rules;
mod sharing;
mod timeouts;
mod world;

use super::*;

pub(super) const GIB: u64 = 1 << 30;

/// A unit that fills a lease by itself.
pub(super) fn unit(key: &str) -> NewUnit {
    NewUnit { key: key.into(), memory: GIB, cost: 3e9, bytes: 100, after: Vec::new() }
}

/// A unit that travels with others.
pub(super) fn small(key: &str) -> NewUnit {
    NewUnit { cost: 1e6, ..unit(key) }
}

pub(super) fn job(id: &str, units: Vec<NewUnit>) -> NewJob {
    NewJob { id: JobId(id.into()), units, priority: 0, model: format!("model of {id}"), restore: None }
}

/// A table of epoch 1 at time 0, a worker `w`, and the shorthand that keeps tests short. Invariants are checked
/// after each step.
pub(super) struct Bench {
    pub(super) table: Table,
    pub(super) now: Time,
    pub(super) workers: std::collections::BTreeMap<String, Report>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(super) fn with(config: Config) -> Self {
        Self { table: Table::new(config, 1, Time(0)), now: Time(0), workers: Default::default() }
    }

    pub(super) fn submit(&mut self, job: NewJob) {
        self.table.submit(job, self.now).unwrap();
        self.table.check_invariants();
    }

    /// The report of a worker with 4 cores and 8 GiB, as it stands: to be changed by the test.
    pub(super) fn worker(&mut self, name: &str) -> &mut Report {
        self.workers.entry(name.into()).or_insert_with(|| Report {
            worker: WorkerId(name.into()),
            session: 1,
            seen: 0,
            cores: 4,
            memory: 8 * GIB,
            free_cores: 4,
            free_memory: 8 * GIB,
            draining: false,
            running: Vec::new(),
            want: true,
        })
    }

    /// The worker reports, gets the reply and takes up what it was given.
    pub(super) fn report(&mut self, name: &str) -> Reply {
        let reply = self.report_lost(name);
        let worker = self.worker(name);
        worker.seen = worker.seen.max(reply.seq);
        for lease in &reply.leases {
            worker.free_memory -= lease.memory;
            worker.free_cores -= 1;
            let units = lease.units.iter().map(|unit| (lease.job.clone(), *unit)).collect();
            worker.running.push(Running { attempt: lease.attempt, units, kept: Vec::new(), progress: 0 });
        }
        worker.running.retain(|running| !reply.cancelled.contains(&running.attempt));
        reply
    }

    /// The worker reports, and the reply is lost.
    pub(super) fn report_lost(&mut self, name: &str) -> Reply {
        let report = self.worker(name).clone();
        let reply = self.table.report(&report, self.now);
        self.table.check_invariants();
        reply
    }

    /// The worker takes one lease, and no more.
    pub(super) fn take(&mut self, name: &str) -> Lease {
        let max = std::mem::replace(&mut self.table.config.max_leases_per_report, 1);
        let reply = self.report(name);
        self.table.config.max_leases_per_report = max;
        reply.leases.into_iter().next().unwrap()
    }

    /// The worker ends a unit of its lease and gives the result.
    pub(super) fn finish(&mut self, name: &str, lease: &Lease, unit: u32, outcome: Outcome) -> Verdict {
        let result = finished(name, lease, unit, outcome);
        let checked = self.table.check(&result);
        let verdict = self.table.finish(&result, self.now);
        assert_eq!(checked, verdict);
        self.table.check_invariants();
        let worker = self.worker(name);
        for running in worker.running.iter_mut().filter(|running| running.attempt == lease.attempt) {
            running.units.retain(|(_, other)| *other != unit);
        }
        let over = |running: &Running| running.units.is_empty();
        let ended = worker.running.iter().filter(|running| over(running)).count();
        worker.running.retain(|running| !over(running));
        if ended > 0 {
            worker.free_cores += 1;
            worker.free_memory += lease.memory;
        }
        verdict
    }

    /// Time passes; gives what `expire` does then.
    pub(super) fn at(&mut self, ms: u64) -> Vec<Event> {
        assert!(Time(ms) >= self.now);
        self.now = Time(ms);
        let _ = self.table.take_events();
        let events = self.table.expire(self.now);
        self.table.check_invariants();
        assert!(self.table.next_deadline().is_none_or(|next| next > self.now));
        events
    }

    pub(super) fn counts(&self, id: &str) -> Counts {
        self.table.job_view(&JobId(id.into())).unwrap().counts
    }

    pub(super) fn state(&self, id: &str) -> JobState {
        self.table.job_view(&JobId(id.into())).unwrap().state
    }

    pub(super) fn waiting(&self, id: &str) -> Option<Waiting> {
        self.table.waiting(&JobId(id.into()), self.now)
    }
}

pub(super) fn finished(name: &str, lease: &Lease, unit: u32, outcome: Outcome) -> Finished {
    Finished { worker: WorkerId(name.into()), attempt: lease.attempt, job: lease.job.clone(), unit, outcome }
}

pub(super) fn accepted() -> Verdict {
    Verdict::Accepted { also: Vec::new() }
}

/// The causes for which units were requeued.
pub(super) fn causes(events: &[Event]) -> Vec<(u32, Requeue)> {
    let cause = |event: &Event| match event {
        Event::UnitRequeued { unit, cause, .. } => Some((*unit, cause.clone())),
        _ => None,
    };
    events.iter().filter_map(cause).collect()
}

/// The reasons for which units ended without a result.
pub(super) fn reasons(events: &[Event]) -> Vec<(u32, String)> {
    let reason = |event: &Event| match event {
        Event::UnitFailed { unit, reason, .. } | Event::UnitSetAside { unit, reason, .. } => {
            Some((*unit, reason.clone()))
        }
        _ => None,
    };
    events.iter().filter_map(reason).collect()
}
