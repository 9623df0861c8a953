//! A worker reports, and gets leases.

use std::collections::{BTreeMap, BTreeSet};

use super::deadlines::Subject;
use super::lease::{Held, Item};
use super::work::{JobSeq, WorkId, WorkState};
use super::worker::{Worker, WorkerIx};
use super::{Attempt, JobId, Lease, Reply, Report, Requeue, Running, Table, Time, WorkerId, WorkerState};

impl Table {
    /// Takes note of a report and answers it. The results that came with it have been given to
    /// [`finish`](Self::finish) before.
    pub fn report(&mut self, report: &Report, now: Time) -> Reply {
        let ix = self.find_worker(report, now);
        let Some(worker) = self.workers.get(&ix) else { return Reply::default() };
        if is_outdated(worker, report) {
            let older = report.session < worker.session;
            let cancelled = report.running.iter().filter(|_| older).map(|running| running.attempt).collect();
            return Reply { cancelled, ..Reply::default() };
        }
        if worker.session != report.session {
            self.lose_leases(ix, now);
        }
        self.note_worker(ix, report, now);
        let mut reply = Reply { seq: self.next_reply(), ..Reply::default() };
        for running in &report.running {
            self.note_lease(ix, running, &mut reply, now);
        }
        self.miss_leases(ix, report, now);
        let held_back = self.hold_until.is_some_and(|until| now < until);
        let ready = self.workers.get(&ix).is_some_and(|worker| worker.state == WorkerState::Ready);
        if report.want && ready && !held_back {
            reply.leases = self.give_leases(ix, reply.seq, now);
        }
        reply
    }

    /// Lets a worker finish what it has and gives it nothing new. False if it is not known. It lasts until the worker's
    /// process ends.
    pub fn drain(&mut self, id: &WorkerId, now: Time) -> bool {
        let Some(ix) = self.worker_ids.get(id).copied() else { return false };
        let Some(worker) = self.workers.get_mut(&ix) else { return false };
        worker.drain = true;
        if worker.state == WorkerState::Ready {
            self.set_worker_state(ix, WorkerState::Draining, now);
        }
        true
    }

    fn find_worker(&mut self, report: &Report, now: Time) -> WorkerIx {
        if let Some(ix) = self.worker_ids.get(&report.worker) {
            return *ix;
        }
        let ix = self.next_worker;
        self.next_worker += 1;
        self.worker_ids.insert(report.worker.clone(), ix);
        let worker = Worker {
            id: report.worker.clone(),
            state: WorkerState::Lost,
            session: report.session,
            seen: 0,
            cores: 0,
            memory: 0,
            free_cores: 0,
            free_memory: 0,
            last_report: now,
            drain: false,
            leases: BTreeSet::new(),
            held: 0,
            in_flight: Vec::new(),
            reserving: None,
        };
        self.workers.insert(ix, worker);
        ix
    }

    fn note_worker(&mut self, ix: WorkerIx, report: &Report, now: Time) {
        let Some(worker) = self.workers.get_mut(&ix) else { return };
        if worker.session != report.session {
            worker.session = report.session;
            worker.in_flight.clear();
            worker.drain = false;
        }
        worker.seen = report.seen;
        worker.in_flight.retain(|(seq, _)| *seq > report.seen);
        self.ready_memory.remove(&(worker.memory, ix));
        worker.cores = report.cores;
        worker.memory = report.memory;
        worker.free_cores = report.free_cores;
        worker.free_memory = report.free_memory;
        worker.last_report = now;
        let draining = report.draining || worker.drain;
        let state = if draining { WorkerState::Draining } else { WorkerState::Ready };
        self.set_worker_state(ix, state, now);
        self.deadlines.set(Subject::Worker(ix), now.plus(self.config.lease_timeout));
    }

    /// What the worker says of one lease.
    fn note_lease(&mut self, ix: WorkerIx, running: &Running, reply: &mut Reply, now: Time) {
        let attempt = running.attempt;
        if self.leases.get(&attempt).is_none_or(|lease| lease.worker != ix) && !self.adopt(ix, running, now) {
            reply.cancelled.push(attempt);
            return;
        }
        let Some(lease) = self.leases.get_mut(&attempt) else { return };
        lease.reported = true;
        if running.progress > lease.progress {
            lease.progress = running.progress;
            let until = now.plus(self.config.progress_timeout);
            self.deadlines.set(Subject::Progress(attempt), until);
        }
        let (places, foreign) = places(&lease.job, running);
        let mut items = std::mem::take(&mut lease.items);
        for item in &mut items {
            item.kept = places.get(&item.unit).is_some_and(|(kept, _)| *kept);
        }
        items.sort_by_key(|item| places.get(&item.unit).copied());
        let known: BTreeSet<u32> = items.iter().map(|item| item.unit).collect();
        let done = places.iter().filter(|(unit, (kept, _))| !kept && !known.contains(unit));
        reply.skip.extend(done.map(|(unit, _)| (attempt, lease.job.clone(), *unit)));
        reply.skip.extend(foreign.into_iter().map(|(job, unit)| (attempt, job, unit)));
        let (here, missing): (Vec<Item>, Vec<Item>) =
            items.into_iter().partition(|item| places.contains_key(&item.unit));
        lease.items = here;
        if lease.items.is_empty() {
            self.drop_lease(attempt);
        }
        for item in missing {
            self.unlease(item.work);
            self.requeue(item.work, attempt, &Requeue::HandedBack, now);
        }
    }

    /// Leases that the worker does not have although it could have received them wait again, without blame.
    fn miss_leases(&mut self, ix: WorkerIx, report: &Report, now: Time) {
        let Some(worker) = self.workers.get(&ix) else { return };
        let named: BTreeSet<Attempt> = report.running.iter().map(|running| running.attempt).collect();
        let received = |attempt: &Attempt| {
            self.leases.get(attempt).is_some_and(|lease| lease.granted <= report.seen)
                && !named.contains(attempt)
        };
        let missing: Vec<Attempt> = worker.leases.iter().copied().filter(received).collect();
        for attempt in missing {
            let Some(lease) = self.leases.get_mut(&attempt) else { continue };
            let items = std::mem::take(&mut lease.items);
            self.drop_lease(attempt);
            for item in items {
                self.unlease(item.work);
                self.requeue(item.work, attempt, &Requeue::HandedBack, now);
            }
        }
    }

    /// Takes over a lease that was given before the coordinator's restart. False if nothing of it can be.
    fn adopt(&mut self, ix: WorkerIx, running: &Running, now: Time) -> bool {
        let attempt = running.attempt;
        let mut listed = running.units.iter().chain(&running.kept);
        let Some(job) = listed.clone().next().map(|(job, _)| job.clone()) else { return false };
        let Some((_, entry)) = self.job(&job).filter(|_| !self.leases.contains_key(&attempt)) else {
            return false;
        };
        let mut items: Vec<Item> = Vec::new();
        let mut memory = 0;
        for (_, unit) in listed.by_ref().filter(|(other, _)| *other == job) {
            let Some(id) = entry.unit(*unit).filter(|unit| unit.is_open()).map(|unit| unit.work) else {
                continue;
            };
            let Some(work) = self.works.get(id).filter(|work| self.adoptable(work, attempt)) else {
                continue;
            };
            if items.iter().all(|item| item.work != id) {
                memory = work.memory.max(memory);
                items.push(Item { unit: *unit, work: id, kept: false });
            }
        }
        if items.is_empty() {
            return false;
        }
        self.insert_lease(attempt, Held::new(ix, job, items, memory), now);
        true
    }

    /// Puts a lease into force.
    fn insert_lease(&mut self, attempt: Attempt, lease: Held, now: Time) {
        if let Some(worker) = self.workers.get_mut(&lease.worker) {
            worker.leases.insert(attempt);
            worker.held = worker.held.saturating_add(lease.memory);
        }
        let works: Vec<WorkId> = lease.items.iter().map(|item| item.work).collect();
        self.leases.insert(attempt, lease);
        self.deadlines.set(Subject::Progress(attempt), now.plus(self.config.progress_timeout));
        for work in works {
            self.lease_work(work, attempt);
        }
    }
}

/// Choosing what to give.
impl Table {
    fn give_leases(&mut self, ix: WorkerIx, seq: u64, now: Time) -> Vec<Lease> {
        let mut leases = Vec::new();
        while leases.len() < self.config.max_leases_per_report {
            let Some((room, cores)) = self.workers.get(&ix).map(Worker::room) else { break };
            if cores == 0 {
                break;
            }
            let Some((job, unit)) = self.choose(ix, room, now) else { break };
            let Some(attempt) = self.next_attempt() else { break };
            let Some(lease) = self.give_lease(ix, (attempt, seq), (job, unit), now) else { break };
            leases.push(lease);
        }
        leases
    }

    /// The unit to give next. None if nothing fits, or what fits must let a starving one go first.
    fn choose(&mut self, ix: WorkerIx, room: u64, now: Time) -> Option<(JobSeq, u32)> {
        let worker = self.workers.get_mut(&ix)?;
        let when_empty = room.saturating_add(worker.held).min(worker.memory);
        if let Some(id) = worker.reserving {
            let work = self.works.get_mut(id)?;
            if work.memory <= room {
                return Some((work.owner.job, work.owner.unit));
            }
            if work.memory <= when_empty {
                return None;
            }
            work.reserved_by = None;
            worker.reserving = None;
        }
        let head = self.queue.first(when_empty)?;
        let id = self.jobs.get(&head.0)?.unit(head.1)?.work;
        let work = self.works.get_mut(id)?;
        if work.memory <= room {
            return Some(head);
        }
        let WorkState::Queued { since } = work.state else { return None };
        if now.since(since) >= self.config.starve_after && work.reserved_by.is_none() {
            work.reserved_by = Some(ix);
            self.workers.get_mut(&ix)?.reserving = Some(id);
            return None;
        }
        self.queue.first(room)
    }

    /// A lease that begins with this unit; small ones of the same job go along.
    fn give_lease(
        &mut self,
        ix: WorkerIx,
        (attempt, seq): (Attempt, u64),
        (job, first): (JobSeq, u32),
        now: Time,
    ) -> Option<Lease> {
        let (room, _) = self.workers.get(&ix)?.room();
        let enough = self.config.batch_flops;
        let mut items: Vec<Item> = Vec::new();
        let (mut memory, mut cost) = (0u64, 0u64);
        let mut next = Some(first);
        while let Some(unit) = next {
            let id = self.jobs.get(&job)?.unit(unit)?.work;
            let work = self.works.get(id)?;
            if !items.is_empty() && work.cost as f64 >= enough {
                break;
            }
            memory = memory.max(work.memory);
            cost = cost.saturating_add(work.cost);
            items.push(Item { unit, work: id, kept: false });
            // Out of the queue now, so that the next is found.
            self.withdraw(id);
            let full = cost as f64 >= enough || items.len() >= self.config.batch_units;
            next = if full { None } else { self.queue.first_of(job, room) };
        }
        self.queue.serve(job, cost);
        let entry = self.jobs.get(&job)?;
        let (job_id, model) = (entry.id.clone(), entry.model.clone());
        let units = items.iter().map(|item| item.unit).collect();
        let mut held = Held::new(ix, job_id.clone(), items, memory);
        held.granted = seq;
        self.workers.get_mut(&ix)?.in_flight.push((seq, memory));
        self.insert_lease(attempt, held, now);
        Some(Lease { attempt, job: job_id, model, units, memory, cost })
    }
}

/// A report that was overtaken by a later one of the same worker. Of a lost worker anything is welcome: its clock
/// may have gone back between two sessions.
fn is_outdated(worker: &Worker, report: &Report) -> bool {
    let order = (report.session, report.seen) < (worker.session, worker.seen);
    worker.state != WorkerState::Lost && order
}

/// Place of each unit in a worker's list: whether it is being kept, and the number.
type Places = BTreeMap<u32, (bool, usize)>;

/// Where each unit of a lease stands in the worker's list, those being kept last; and what is not of the lease's job.
fn places(job: &JobId, running: &Running) -> (Places, Vec<(JobId, u32)>) {
    let mut places = BTreeMap::new();
    let mut foreign = Vec::new();
    let todo = running.units.iter().map(|unit| (unit, false));
    for (place, ((named, unit), kept)) in todo.chain(running.kept.iter().map(|unit| (unit, true))).enumerate()
    {
        if named == job {
            places.insert(*unit, (kept, place));
        } else {
            foreign.push((named.clone(), *unit));
        }
    }
    (places, foreign)
}
