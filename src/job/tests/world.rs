//! A world for random histories: workers, a network that loses, repeats and delays, a coordinator that restarts; and
//! the model, which judges the table by what it says alone.

use std::collections::BTreeMap;

use super::*;

/// Numbers from a seed (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

pub(super) type Key = Vec<u8>;
pub(super) type Check = std::result::Result<(), String>;

/// What the coordinator has made durable of a job, and what was asked for.
#[derive(Clone)]
pub(super) struct Known {
    units: Vec<NewUnit>,
    priority: i32,
    ends: BTreeMap<u32, Event>,
    state: JobState,
}

/// What must hold, by jobs, events, replies and verdicts; knows nothing of the table's insides.
#[derive(Default)]
pub(super) struct Model {
    pub(super) jobs: BTreeMap<JobId, Known>,
    /// Keys of all units that ever were: a lease may outlive the job that it names.
    keys: BTreeMap<(JobId, u32), Key>,
    /// The attempt in force for a key.
    force: BTreeMap<Key, Attempt>,
    /// Units of each lease of this epoch, by the name that it was given under.
    granted: BTreeMap<Attempt, (WorkerId, JobId, Vec<u32>)>,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) adopted: u64,
}

impl Model {
    fn key(&self, job: &JobId, unit: u32) -> Option<Key> {
        self.keys.get(&(job.clone(), unit)).cloned()
    }

    fn done(&self, job: &JobId, unit: u32) -> bool {
        matches!(self.jobs[job].ends.get(&unit), Some(Event::UnitFinished { .. }))
    }

    /// Units of jobs that go on which need this key and have not ended.
    fn needs(&self, key: &[u8]) -> bool {
        let mut active = self.jobs.values().filter(|known| !known.state.is_final());
        active.any(|known| (0..).zip(&known.units).any(|(n, u)| u.key == key && !known.ends.contains_key(&n)))
    }

    pub(super) fn events(&mut self, events: Vec<Event>) -> Check {
        for event in events {
            match &event {
                Event::UnitStarted { job, unit, attempt, .. } => {
                    let key = self.key(job, *unit).ok_or("an unknown unit has started")?;
                    let old = self.force.insert(key, *attempt);
                    if old.is_some_and(|old| old != *attempt) {
                        return Err(format!("{job}/{unit}: {attempt:?} started while {old:?} is in force"));
                    }
                }
                Event::UnitRequeued { job, unit, .. } => {
                    let key = self.key(job, *unit).ok_or("an unknown unit was requeued")?;
                    self.force.remove(&key);
                }
                Event::UnitFinished { job, unit, .. }
                | Event::UnitFailed { job, unit, .. }
                | Event::UnitSetAside { job, unit, .. } => {
                    let known = self.jobs.get_mut(job).ok_or("an unknown job's unit has ended")?;
                    if known.state.is_final() || known.ends.insert(*unit, event.clone()).is_some() {
                        return Err(format!("{job}/{unit} has ended twice: {event:?}"));
                    }
                    let (job, unit) = (job.clone(), *unit);
                    self.force_ends(&job, unit);
                }
                Event::JobChanged { job, state } => {
                    let known = self.jobs.get_mut(job).ok_or("an unknown job has changed")?;
                    if known.state.is_final() {
                        return Err(format!("{job} has changed after its end"));
                    }
                    known.state = state.clone();
                    if *state == JobState::Done && known.ends.len() != known.units.len() {
                        return Err(format!("{job} is done, but units have not ended"));
                    }
                }
                Event::WorkerChanged { .. } => {}
            }
        }
        let unneeded: Vec<Key> = self.force.keys().filter(|key| !self.needs(key)).cloned().collect();
        for key in unneeded {
            self.force.remove(&key);
        }
        Ok(())
    }

    /// A result ends the attempt; a failure for what a unit needs does not, if another needs the work.
    fn force_ends(&mut self, job: &JobId, unit: u32) {
        if let Some(key) = self.key(job, unit).filter(|key| !self.needs(key)) {
            self.force.remove(&key);
        }
    }

    pub(super) fn leases(&mut self, worker: &WorkerId, leases: &[Lease]) -> Check {
        for lease in leases {
            for unit in &lease.units {
                let spec = &self.jobs[&lease.job].units[*unit as usize];
                if let Some(need) = spec.after.iter().find(|need| !self.done(&lease.job, **need)) {
                    return Err(format!("{}/{unit} has started before {need}", lease.job));
                }
                if spec.memory > lease.memory {
                    return Err(format!("{}/{unit} needs more than its lease says", lease.job));
                }
                if self.force.get(&spec.key) != Some(&lease.attempt) {
                    return Err(format!("{}/{unit} was given without an event", lease.job));
                }
            }
            let given = (worker.clone(), lease.job.clone(), lease.units.clone());
            if self.granted.insert(lease.attempt, given).is_some() {
                return Err(format!("{:?} was given twice", lease.attempt));
            }
        }
        Ok(())
    }

    /// Before the events of a result: was the verdict right?
    fn judge(&mut self, result: &Finished, verdict: &Verdict, epoch: u32) -> Check {
        let what = format!("{}/{} under {:?}: {verdict:?}", result.job, result.unit, result.attempt);
        let key = self.key(&result.job, result.unit);
        let force = key.as_ref().and_then(|key| self.force.get(key)).copied();
        let in_force = force == Some(result.attempt);
        let old = force.is_none() && result.attempt.epoch() < u64::from(epoch);
        let given = self.granted.get(&result.attempt);
        let given = given.is_some_and(|(worker, job, units)| {
            *worker == result.worker && *job == result.job && units.contains(&result.unit)
        });
        match verdict {
            Verdict::Accepted { .. } if !in_force && !old => Err(format!("stale result taken: {what}")),
            Verdict::Accepted { .. } => {
                self.accepted += 1;
                self.adopted += u64::from(result.attempt.epoch() < u64::from(epoch));
                Ok(())
            }
            _ if in_force && given => Err(format!("valid result refused: {what}")),
            _ => {
                self.refused += 1;
                Ok(())
            }
        }
    }
}

/// A worker's process.
struct Sim {
    report: Report,
    leases: BTreeMap<Attempt, Lease>,
    alive: bool,
}

impl Sim {
    fn start(name: u64, session: u64, memory: u64) -> Self {
        let report = Report {
            worker: WorkerId(format!("w{name}")),
            session,
            seen: 0,
            cores: 2,
            memory,
            free_cores: 2,
            free_memory: memory,
            draining: false,
            running: Vec::new(),
            want: true,
        };
        Self { report, leases: BTreeMap::new(), alive: true }
    }

    fn hear(&mut self, reply: &Reply) -> Check {
        if reply.seq <= self.report.seen {
            return Ok(());
        }
        self.report.seen = reply.seq;
        self.report.running.retain(|running| !reply.cancelled.contains(&running.attempt));
        for (attempt, job, unit) in &reply.skip {
            for running in self.report.running.iter_mut().filter(|running| running.attempt == *attempt) {
                running.units.retain(|named| named != &(job.clone(), *unit));
            }
        }
        for lease in &reply.leases {
            let units = lease.units.iter().map(|unit| (lease.job.clone(), *unit)).collect();
            let running = Running { attempt: lease.attempt, units, kept: Vec::new(), progress: 0 };
            self.report.running.push(running);
            self.leases.insert(lease.attempt, lease.clone());
        }
        self.tidy()
    }

    /// Leases with nothing left are over; what is free follows from the others.
    fn tidy(&mut self) -> Check {
        self.report.running.retain(|running| !running.units.is_empty() || !running.kept.is_empty());
        let held: u64 = self.report.running.iter().map(|running| self.leases[&running.attempt].memory).sum();
        let cores = self.report.running.len() as u32;
        if held > self.report.memory || cores > self.report.cores {
            return Err(format!("{} has {held} bytes and {cores} cores in use", self.report.worker));
        }
        self.report.free_memory = self.report.memory - held;
        self.report.free_cores = self.report.cores - cores;
        Ok(())
    }
}

pub(super) struct World {
    pub(super) table: Table,
    pub(super) model: Model,
    random: Random,
    now: Time,
    epoch: u32,
    sims: Vec<Sim>,
    results: Vec<Finished>,
    old_results: Vec<Finished>,
    old_reports: Vec<Report>,
    jobs: u64,
    sessions: u64,
    fencing_off: bool,
}

fn config() -> Config {
    Config {
        batch_flops: 3.0,
        batch_units: 3,
        max_leases_per_report: 2,
        lease_timeout: 30,
        progress_timeout: 100,
        report_interval: 5,
        adoption_grace: 10,
        starve_after: 40,
        max_kills: 2,
        max_world_failures: 4,
        backoff_first: 8,
        backoff_longest: 50,
        unplaceable_timeout: 60,
        no_worker_timeout: Some(400),
        forget_after: 90,
        max_jobs_queued: 6,
        max_units: 60,
    }
}

impl World {
    pub(super) fn new(seed: u64, fencing_off: bool) -> Self {
        let mut table = Table::new(config(), 1, Time(0));
        table.fencing_off = fencing_off;
        let sims = (0..3).map(|n| Sim::start(n, 1, [4, 8, 16][n as usize])).collect();
        Self {
            table,
            model: Model::default(),
            random: Random(seed),
            now: Time(0),
            epoch: 1,
            sims,
            results: Vec::new(),
            old_results: Vec::new(),
            old_reports: Vec::new(),
            jobs: 0,
            sessions: 1,
            fencing_off,
        }
    }

    /// One operation, and what must hold after it.
    pub(super) fn step(&mut self) -> Check {
        match self.random.below(32) {
            0..3 => self.submit(),
            3..12 => self.report(),
            12..18 => self.compute(),
            18..23 => self.deliver(),
            23 => self.repeat_result()?,
            24 => self.repeat_report()?,
            25 => self.crash(),
            26..28 => self.pass(),
            28 => self.cancel(),
            29 => self.complete(),
            30 => self.drain(),
            _ => self.restart(),
        }?;
        let events = self.table.take_events();
        self.model.events(events)?;
        self.recount()
    }
}

/// The operations.
impl World {
    fn pick(&mut self) -> usize {
        self.random.below(self.sims.len() as u64) as usize
    }

    fn pick_job(&mut self) -> Option<JobId> {
        let n = self.random.below(self.model.jobs.len().max(1) as u64) as usize;
        self.model.jobs.keys().nth(n).cloned()
    }

    fn submit(&mut self) -> Check {
        let id = JobId(format!("j{}", self.jobs));
        let count = 1 + self.random.below(5);
        let mut units = Vec::new();
        for unit in 0..count {
            // Few keys: jobs share work. Cost and memory follow from the key.
            let key = self.random.below(12);
            let mut after = Vec::new();
            if unit > 0 && self.random.one_in(3) {
                after.push(self.random.below(unit) as u32);
            }
            let memory = [1, 1, 2, 3, 4, 6, 8, 12, 16, 20, 2, 3][key as usize];
            units.push(NewUnit { key: vec![key as u8], memory, cost: (key % 5) as f64, bytes: key, after });
        }
        let priority = self.random.below(3) as i32;
        let new = NewJob { id: id.clone(), units: units.clone(), priority, model: "m".into(), restore: None };
        if self.table.submit(new, self.now).is_ok() {
            self.jobs += 1;
            let keys = (0..).zip(&units).map(|(unit, new)| ((id.clone(), unit), new.key.clone()));
            self.model.keys.extend(keys);
            let known = Known { units, priority, ends: BTreeMap::new(), state: JobState::Queued };
            self.model.jobs.insert(id, known);
        }
        Ok(())
    }

    fn report(&mut self) -> Check {
        let ix = self.pick();
        self.report_of(ix, 6)
    }

    /// A report of a worker; one reply in `lost` is lost.
    fn report_of(&mut self, ix: usize, lost: u64) -> Check {
        if !self.sims[ix].alive {
            return Ok(());
        }
        if self.random.one_in(2) {
            for running in &mut self.sims[ix].report.running {
                running.progress += 1;
            }
        }
        let report = self.sims[ix].report.clone();
        let reply = self.table.report(&report, self.now);
        self.old_reports.push(report);
        let worker = self.sims[ix].report.worker.clone();
        let events = self.table.take_events();
        self.model.events(events)?;
        self.model.leases(&worker, &reply.leases)?;
        if self.random.one_in(lost) {
            return Ok(());
        }
        self.sims[ix].hear(&reply)
    }

    /// A worker ends the unit that it is working on, or gives it back.
    fn compute(&mut self) -> Check {
        let ix = self.pick();
        let outcome = match self.random.below(20) {
            0 => Outcome::Task("task".into()),
            1 | 2 => Outcome::World("world".into()),
            3 => Outcome::Model("model".into()),
            _ => Outcome::Done,
        };
        let give_back = self.random.one_in(20);
        self.compute_at(ix, outcome, give_back)
    }

    fn compute_at(&mut self, ix: usize, outcome: Outcome, give_back: bool) -> Check {
        let sim = &mut self.sims[ix];
        let Some(running) = sim.report.running.iter_mut().find(|running| !running.units.is_empty()) else {
            return Ok(());
        };
        let (job, unit) = running.units.remove(0);
        if sim.alive && !give_back {
            running.kept.push((job.clone(), unit));
            let worker = sim.report.worker.clone();
            self.results.push(Finished { worker, attempt: running.attempt, job, unit, outcome });
        }
        sim.tidy()
    }

    /// One of the results that workers hold reaches the coordinator; the acknowledgement may be lost.
    fn deliver(&mut self) -> Check {
        if self.results.is_empty() {
            return Ok(());
        }
        let n = self.random.below(self.results.len() as u64) as usize;
        let result = self.results[n].clone();
        self.finish(&result)?;
        if !self.random.one_in(5) {
            self.results.remove(n);
            self.old_results.push(result.clone());
            return self.acknowledge(&result);
        }
        Ok(())
    }

    fn acknowledge(&mut self, result: &Finished) -> Check {
        let named = (result.job.clone(), result.unit);
        for sim in self.sims.iter_mut().filter(|sim| sim.report.worker == result.worker) {
            for running in sim.report.running.iter_mut().filter(|running| running.attempt == result.attempt) {
                running.kept.retain(|other| *other != named);
            }
            sim.tidy()?;
        }
        Ok(())
    }

    fn finish(&mut self, result: &Finished) -> Check {
        let checked = self.table.check(result);
        let verdict = self.table.finish(result, self.now);
        if checked != verdict {
            return Err(format!("check says {checked:?}, finish {verdict:?}"));
        }
        self.model.judge(result, &verdict, self.epoch)?;
        let events = self.table.take_events();
        if let Verdict::Accepted { also } = &verdict {
            for (job, unit) in also {
                let ended = events.iter().any(|event| match event {
                    Event::UnitFinished { job: j, unit: u, .. }
                    | Event::UnitFailed { job: j, unit: u, .. } => (j, u) == (job, unit),
                    _ => false,
                });
                if !ended {
                    return Err(format!("follower {job}/{unit} did not end with its owner"));
                }
            }
        }
        self.model.events(events)
    }

    fn repeat_result(&mut self) -> std::result::Result<Check, String> {
        if self.old_results.is_empty() {
            return Ok(Ok(()));
        }
        let n = self.random.below(self.old_results.len() as u64) as usize;
        let result = self.old_results[n].clone();
        Ok(self.finish(&result))
    }

    /// A report of long ago arrives; nobody listens to the reply.
    fn repeat_report(&mut self) -> std::result::Result<Check, String> {
        if self.old_reports.is_empty() {
            return Ok(Ok(()));
        }
        let n = self.random.below(self.old_reports.len() as u64) as usize;
        let report = self.old_reports[n].clone();
        let reply = self.table.report(&report, self.now);
        let events = self.table.take_events();
        self.model.events(events)?;
        Ok(self.model.leases(&report.worker, &reply.leases))
    }

    /// A worker dies, or a dead one comes back as a new process.
    fn crash(&mut self) -> Check {
        let ix = self.pick();
        self.crash_of(ix)
    }

    fn crash_of(&mut self, ix: usize) -> Check {
        self.sessions += 1;
        let worker = self.sims[ix].report.worker.clone();
        let (lost, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.results).into_iter().partition(|result| result.worker == worker);
        self.results = kept;
        // They may still be on their way.
        self.old_results.extend(lost);
        let alive = !self.sims[ix].alive || self.random.one_in(2);
        self.sims[ix] = Sim::start(ix as u64, self.sessions, [4, 8, 16][ix]);
        self.sims[ix].alive = alive;
        Ok(())
    }

    fn pass(&mut self) -> Check {
        let ms = [1, 5, 10, 31, 101, 401][self.random.below(6) as usize];
        self.pass_ms(ms)
    }

    fn pass_ms(&mut self, ms: u64) -> Check {
        self.now = self.now.plus(ms);
        let events = self.table.expire(self.now);
        if self.table.next_deadline().is_some_and(|next| next <= self.now) {
            return Err("something due was left undone".into());
        }
        self.model.events(events)
    }

    fn cancel(&mut self) -> Check {
        if let Some(id) = self.pick_job().filter(|_| self.random.one_in(2)) {
            self.table.cancel(&id, self.now);
        } else if let Some(id) = self.pick_job() {
            let removed = self.table.remove(&id);
            if removed != self.model.jobs[&id].state.is_final() {
                return Err(format!("{id}: removed {removed}"));
            }
            if removed {
                self.model.jobs.remove(&id);
            }
        }
        Ok(())
    }

    fn complete(&mut self) -> Check {
        if let Some(id) = self.pick_job() {
            let unit = self.random.below(5) as u32;
            self.table.complete(&id, unit, self.now);
        }
        Ok(())
    }

    fn drain(&mut self) -> Check {
        let ix = self.pick();
        if self.random.one_in(2) {
            self.sims[ix].report.draining ^= true;
        } else {
            let worker = self.sims[ix].report.worker.clone();
            self.table.drain(&worker, self.now);
        }
        Ok(())
    }

    /// The coordinator dies and starts with what was durable.
    fn restart(&mut self) -> Check {
        self.epoch += 1;
        self.table = Table::new(config(), self.epoch, self.now);
        self.table.fencing_off = self.fencing_off;
        self.model.force.clear();
        self.model.granted.clear();
        self.model.jobs.retain(|_, known| !known.state.is_final());
        for (id, known) in &mut self.model.jobs {
            let mut restore = Restore::default();
            for (unit, end) in &known.ends {
                match end {
                    Event::UnitFailed { reason, .. } => restore.failed.push((*unit, reason.clone())),
                    Event::UnitSetAside { reason, .. } => restore.set_aside.push((*unit, reason.clone())),
                    _ => restore.done.push(*unit),
                }
            }
            known.state = JobState::Queued;
            let new = NewJob {
                id: id.clone(),
                units: known.units.clone(),
                priority: known.priority,
                model: "m".into(),
                restore: Some(restore),
            };
            self.table.submit(new, self.now).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// What must hold at any time, and at the end.
impl World {
    fn recount(&self) -> Check {
        for (id, known) in &self.model.jobs {
            let view = self.table.job_view(id).ok_or_else(|| format!("{id} is gone"))?;
            let counts = view.counts;
            let of = |is: fn(&Event) -> bool| known.ends.values().filter(|event| is(event)).count() as u64;
            let done = of(|event| matches!(event, Event::UnitFinished { .. }));
            let failed = of(|event| matches!(event, Event::UnitFailed { .. }));
            let set_aside = of(|event| matches!(event, Event::UnitSetAside { .. }));
            let open = known.units.len() as u64 - known.ends.len() as u64;
            let open = if known.state.is_final() { (0, open) } else { (open, 0) };
            let of_table = (counts.queued + counts.running, counts.dropped);
            if (view.state != known.state)
                || (counts.done, counts.failed, counts.set_aside) != (done, failed, set_aside)
            {
                return Err(format!(
                    "{id}: {view:?} but {done} done, {failed} failed, {set_aside} set aside"
                ));
            }
            let units = (0..).zip(&known.units).filter(|(unit, _)| !known.ends.contains_key(unit));
            let running = units.filter(|(_, unit)| self.model.force.contains_key(&unit.key)).count() as u64;
            if of_table != open || (!known.state.is_final() && counts.running != running) {
                return Err(format!("{id}: {counts:?} but {open:?} open, {running} running"));
            }
        }
        Ok(())
    }

    /// From here on all goes well: workers live, answer and compute. Every job must end.
    pub(super) fn settle(&mut self) -> Check {
        for ix in 0..self.sims.len() {
            // An operator's drain lasts until the process ends.
            self.crash_of(ix)?;
            self.sims[ix].alive = true;
        }
        self.results.clear();
        for _ in 0..200 {
            if self.model.jobs.values().all(|known| known.state.is_final()) {
                return Ok(());
            }
            for ix in 0..self.sims.len() {
                self.sims[ix].alive = true;
                for _ in 0..6 {
                    self.compute_at(ix, Outcome::Done, false)?;
                }
                for result in std::mem::take(&mut self.results) {
                    self.finish(&result)?;
                    self.acknowledge(&result)?;
                }
                self.report_of(ix, 1_000_000)?;
            }
            self.pass_ms(5)?;
            self.recount()?;
        }
        let left = self.table.jobs().filter(|job| !job.state.is_final());
        let left: Vec<_> = left.map(|job| (self.table.waiting(&job.id, self.now), job)).collect();
        Err(format!("jobs that never end: {left:?}, {:?}", self.table.workers().collect::<Vec<_>>()))
    }
}
