//! All that happens because time has passed.

use super::deadlines::Subject;
use super::transitions::End;
use super::work::{WorkId, WorkState};
use super::worker::WorkerIx;
use super::{Attempt, Event, JobState, Requeue, Table, Time, WorkerState};

impl Table {
    /// Does what is due, and gives what changed, here and since the last time it was asked. Nothing else looks at
    /// time-outs: a coordinator that was stopped for a while itself takes the reports that are waiting first, lest it
    /// hold its own silence against the workers.
    pub fn expire(&mut self, now: Time) -> Vec<Event> {
        while let Some(subject) = self.deadlines.pop_due(now) {
            match subject {
                Subject::Worker(ix) => self.worker_due(ix, now),
                Subject::Progress(attempt) => self.end_lease(attempt, &Requeue::NoProgress, now),
                Subject::BackOff(work) => {
                    self.set_state(work, WorkState::Blocked);
                    self.settle(work, now);
                }
                Subject::Unplaceable(work) => self.fail_unplaceable(work, now),
            }
        }
        while let Some((at, seq)) = self.next_abandoned()
            && at <= now
        {
            let since = now.since(at).saturating_add(self.config.no_worker_timeout.unwrap_or(0)) / 1000;
            self.end_job(seq, JobState::Failed(format!("no worker for {since} s")), now);
        }
        self.take_events()
    }

    /// When [`expire`](Self::expire) has something to do next.
    pub fn next_deadline(&self) -> Option<Time> {
        let abandoned = self.next_abandoned().map(|(at, _)| at);
        self.deadlines.next().into_iter().chain(abandoned).min()
    }

    /// Without a worker: the job that has waited longest, and when it fails. Jobs come in the order of their waiting.
    fn next_abandoned(&self) -> Option<(Time, u64)> {
        let timeout = self.config.no_worker_timeout.filter(|_| self.live_workers == 0)?;
        let seq = *self.active.first()?;
        let submitted = self.jobs.get(&seq)?.submitted;
        Some((submitted.max(self.no_worker_since).plus(timeout), seq))
    }

    fn worker_due(&mut self, ix: WorkerIx, now: Time) {
        let Some(worker) = self.workers.get(&ix) else { return };
        if worker.state == WorkerState::Lost {
            let id = worker.id.clone();
            self.worker_ids.remove(&id);
            self.workers.remove(&ix);
            self.events.push(Event::WorkerChanged { worker: id, state: None });
            return;
        }
        self.set_worker_state(ix, WorkerState::Lost, now);
        self.lose_leases(ix, now);
        self.deadlines.set(Subject::Worker(ix), now.plus(self.config.forget_after));
    }

    /// The process that held them is gone.
    pub(super) fn lose_leases(&mut self, ix: WorkerIx, now: Time) {
        let Some(worker) = self.workers.get_mut(&ix) else { return };
        let leases: Vec<Attempt> = worker.leases.iter().copied().collect();
        for attempt in leases {
            self.end_lease(attempt, &Requeue::WorkerLost, now);
        }
    }

    /// Ends a lease without results. To blame is the unit that was being worked on, not those behind it: the worker's last
    /// word on it counts, and for a lost worker that never spoke of the lease, the first.
    fn end_lease(&mut self, attempt: Attempt, cause: &Requeue, now: Time) {
        let Some(lease) = self.leases.get_mut(&attempt) else { return };
        let items = std::mem::take(&mut lease.items);
        let reported = lease.reported;
        self.drop_lease(attempt);
        let worked_on = items.iter().find(|item| !item.kept).map(|item| item.work);
        let blamed = worked_on.filter(|_| reported || *cause == Requeue::WorkerLost);
        for item in items {
            if item.kept || (reported && worked_on == Some(item.work)) {
                self.note_again(item.work);
            }
            self.unlease(item.work);
            if blamed == Some(item.work) && self.is_poison(item.work) {
                let what = if *cause == Requeue::WorkerLost { "was lost" } else { "made no progress" };
                let reason = format!("its worker {what}, {} times in all", self.config.max_kills);
                self.end_work(item.work, &End::SetAside(reason), attempt, now);
            } else {
                self.requeue(item.work, attempt, cause, now);
            }
        }
    }

    /// Counts a kill; true if it is one too many.
    fn is_poison(&mut self, id: WorkId) -> bool {
        let Some(work) = self.works.get_mut(id) else { return false };
        work.kills += 1;
        work.kills >= self.config.max_kills
    }

    fn fail_unplaceable(&mut self, id: WorkId, now: Time) {
        let Some(needs) = self.works.get(id).map(|work| work.memory) else { return };
        let largest = self.ceiling.unwrap_or(0);
        let reason = format!("needs {needs} bytes of memory, the largest worker has {largest}");
        self.end_work(id, &End::Failed(reason), Attempt::default(), now);
    }

    /// Changes the state of a worker, and what follows from it: how many live, and how much memory there is.
    pub(super) fn set_worker_state(&mut self, ix: WorkerIx, state: WorkerState, now: Time) {
        let Some(worker) = self.workers.get_mut(&ix) else { return };
        let (old, memory) = (worker.state, worker.memory);
        worker.state = state;
        let reserved = worker.reserving.take_if(|_| state != WorkerState::Ready);
        if old != state {
            self.events.push(Event::WorkerChanged { worker: worker.id.clone(), state: Some(state) });
        }
        if let Some(work) = reserved.and_then(|id| self.works.get_mut(id)) {
            work.reserved_by = None;
        }
        self.live_workers += usize::from(old == WorkerState::Lost && state != WorkerState::Lost);
        if old != WorkerState::Lost && state == WorkerState::Lost {
            self.live_workers -= 1;
            self.no_worker_since = now;
        }
        if state == WorkerState::Ready {
            self.ready_memory.insert((memory, ix));
        } else {
            self.ready_memory.remove(&(memory, ix));
        }
        self.move_ceiling(now);
    }

    /// Starts and stops the clocks of works that no ready worker has memory for. Without any ready worker none runs.
    /// Costs as much as there are works whose clock starts or stops.
    pub(super) fn move_ceiling(&mut self, now: Time) {
        let new = self.ready_memory.last().map(|(memory, _)| *memory);
        let old = std::mem::replace(&mut self.ceiling, new);
        let (old, new) = (old.unwrap_or(u64::MAX), new.unwrap_or(u64::MAX));
        let until = now.plus(self.config.unplaceable_timeout);
        for (_, work) in self.queue.needing(new, old.max(new)) {
            self.deadlines.set(Subject::Unplaceable(work), until);
        }
        for (_, work) in self.queue.needing(old, new.max(old)) {
            self.deadlines.clear(Subject::Unplaceable(work));
        }
    }
}
