//! The steps that works and units go through. Each keeps the counts, the indexes and the events in step.

use super::deadlines::Subject;
use super::units::UnitState;
use super::work::{JobSeq, Member, Work, WorkId, WorkState};
use super::{Attempt, Counts, Event, JobState, Requeue, Table, Time};

/// How a unit ends.
#[derive(Debug, Clone)]
pub(super) enum End {
    Done { from_cache: bool },
    Failed(String),
    SetAside(String),
}

/// A unit that has just ended, for those that wait for it.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) job: JobSeq,
    pub(super) unit: u32,
    /// The reason, if it is not done.
    pub(super) failed: Option<String>,
}

impl End {
    /// Counts the unit, and gives its new state.
    pub(super) fn count(&self, counts: &mut Counts, bytes: u64) -> UnitState {
        match self {
            Self::Done { from_cache } => {
                counts.done += 1;
                counts.from_cache += u64::from(*from_cache);
                counts.bytes_done = counts.bytes_done.saturating_add(bytes);
                UnitState::Done
            }
            Self::Failed(_) => {
                counts.failed += 1;
                UnitState::Failed
            }
            Self::SetAside(_) => {
                counts.set_aside += 1;
                UnitState::SetAside
            }
        }
    }

    /// Why it is not done.
    pub(super) fn reason(&self) -> Option<String> {
        match self {
            Self::Done { .. } => None,
            Self::Failed(reason) | Self::SetAside(reason) => Some(reason.clone()),
        }
    }
}

/// Queues and their owners.
impl Table {
    fn is_ready(&self, member: Member) -> bool {
        self.jobs.get(&member.job).and_then(|job| job.unit(member.unit)).is_some_and(|unit| unit.pending == 0)
    }

    /// Chooses the owner: the first member that waits for nothing. Puts the work into its queue, or out of any.
    pub(super) fn settle(&mut self, id: WorkId, now: Time) {
        let Some(work) = self.works.get(id) else { return };
        let (state, old, memory) = (work.state, work.owner, work.memory);
        let ready = work.members.iter().copied().find(|member| self.is_ready(*member));
        let Some(owner) = ready.or_else(|| work.members.first().copied()) else { return };
        match (state, ready) {
            (WorkState::Blocked, Some(_)) => self.enqueue(id, owner, now),
            (WorkState::Queued { .. }, None) => self.unqueue(id),
            (WorkState::Queued { .. }, Some(_)) if owner != old => {
                self.queue.take((old.job, old.unit), id, memory);
                self.queue.push((owner.job, owner.unit), id, memory);
            }
            _ => {}
        }
        if let Some(work) = self.works.get_mut(id) {
            work.owner = owner;
        }
    }

    fn enqueue(&mut self, id: WorkId, owner: Member, now: Time) {
        let Some(work) = self.works.get_mut(id) else { return };
        work.state = WorkState::Queued { since: now };
        let memory = work.memory;
        self.queue.push((owner.job, owner.unit), id, memory);
        if self.ceiling.is_some_and(|ceiling| memory > ceiling) {
            self.deadlines.set(Subject::Unplaceable(id), now.plus(self.config.unplaceable_timeout));
        }
    }

    /// Out of the queue: the work is blocked until something else is said.
    fn unqueue(&mut self, id: WorkId) {
        let Some(work) = self.works.get_mut(id) else { return };
        work.state = WorkState::Blocked;
        let (owner, memory, reserved) = (work.owner, work.memory, work.reserved_by.take());
        self.queue.take((owner.job, owner.unit), id, memory);
        self.deadlines.clear(Subject::Unplaceable(id));
        if let Some(worker) = reserved.and_then(|ix| self.workers.get_mut(&ix)) {
            worker.reserving = None;
        }
    }

    /// From wherever it is to blocked.
    pub(super) fn withdraw(&mut self, id: WorkId) {
        match self.works.get(id).map(|work| work.state) {
            Some(WorkState::Queued { .. }) => self.unqueue(id),
            Some(WorkState::BackOff { .. }) => {
                self.deadlines.clear(Subject::BackOff(id));
                self.set_state(id, WorkState::Blocked);
            }
            Some(WorkState::Leased { attempt }) => {
                self.take_from_lease(attempt, id);
                self.unlease(id);
            }
            Some(WorkState::Blocked) | None => {}
        }
    }

    pub(super) fn set_state(&mut self, id: WorkId, state: WorkState) {
        if let Some(work) = self.works.get_mut(id) {
            work.state = state;
        }
    }
}

/// Leases.
impl Table {
    /// Queued → leased. The caller puts the work into the lease.
    pub(super) fn lease_work(&mut self, id: WorkId, attempt: Attempt) {
        self.withdraw(id);
        let Some(work) = self.works.get_mut(id) else { return };
        work.state = WorkState::Leased { attempt };
        work.last_attempt = attempt;
        let cost = u128::from(work.cost);
        self.totals.waiting_flops -= cost;
        self.totals.leased_flops += cost;
        for member in work.members.clone() {
            self.note_started(member, attempt);
        }
    }

    /// A unit is in the hands of a worker from now on.
    pub(super) fn note_started(&mut self, member: Member, attempt: Attempt) {
        let worker = self.leases.get(&attempt).and_then(|lease| self.workers.get(&lease.worker));
        let Some(worker) = worker.map(|worker| worker.id.clone()) else { return };
        let Some(job) = self.jobs.get_mut(&member.job) else { return };
        job.counts.running += 1;
        if let Some(unit) = job.unit_mut(member.unit) {
            unit.starts = unit.starts.saturating_add(1);
            if unit.starts == 2 {
                job.counts.retried += 1;
            }
        }
        let job_id = job.id.clone();
        self.note_running(member.job);
        self.events.push(Event::UnitStarted { job: job_id, unit: member.unit, worker, attempt });
    }

    fn note_running(&mut self, seq: JobSeq) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        if job.state == JobState::Queued {
            job.state = JobState::Running;
            self.events.push(Event::JobChanged { job: job.id.clone(), state: JobState::Running });
        }
    }

    /// Leased → blocked. The caller takes the work out of the lease.
    pub(super) fn unlease(&mut self, id: WorkId) {
        let Some(work) = self.works.get_mut(id) else { return };
        work.state = WorkState::Blocked;
        let cost = u128::from(work.cost);
        self.totals.waiting_flops += cost;
        self.totals.leased_flops -= cost;
        for member in &work.members {
            if let Some(job) = self.jobs.get_mut(&member.job) {
                job.counts.running -= 1;
            }
        }
    }

    /// A lease without a unit left is over.
    pub(super) fn take_from_lease(&mut self, attempt: Attempt, id: WorkId) {
        let Some(lease) = self.leases.get_mut(&attempt) else { return };
        lease.items.retain(|item| item.work != id);
        if lease.items.is_empty() {
            self.drop_lease(attempt);
        }
    }

    pub(super) fn drop_lease(&mut self, attempt: Attempt) {
        self.deadlines.clear(Subject::Progress(attempt));
        let Some(lease) = self.leases.remove(&attempt) else { return };
        if let Some(worker) = self.workers.get_mut(&lease.worker) {
            worker.leases.remove(&attempt);
            worker.held = worker.held.saturating_sub(lease.memory);
        }
    }

    /// A work that is blocked after its attempt waits again.
    pub(super) fn requeue(&mut self, id: WorkId, attempt: Attempt, cause: &Requeue, now: Time) {
        let Some(work) = self.works.get(id) else { return };
        for member in &work.members {
            if let Some(job) = self.jobs.get(&member.job) {
                let (job, unit, cause) = (job.id.clone(), member.unit, cause.clone());
                self.events.push(Event::UnitRequeued { job, unit, attempt, cause });
            }
        }
        self.settle(id, now);
    }

    /// Notes that a worker had spent time on a work for nothing.
    pub(super) fn note_again(&mut self, id: WorkId) {
        let Some(work) = self.works.get(id) else { return };
        self.totals.again_units += 1;
        self.totals.again_flops += u128::from(work.cost);
        if let Some(job) = self.jobs.get_mut(&work.owner.job) {
            job.counts.again_units += 1;
            job.counts.again_flops += u128::from(work.cost);
        }
    }
}

/// Ends.
impl Table {
    /// Ends a work, and with it every unit that needs it.
    pub(super) fn end_work(&mut self, id: WorkId, end: &End, by: Attempt, now: Time) {
        self.withdraw(id);
        let Some(work) = self.forget_work(id) else { return };
        let mut ended = Vec::new();
        for member in work.members {
            self.end_unit(member, end, by);
            ended.push(Ended { job: member.job, unit: member.unit, failed: end.reason() });
        }
        self.resolve(ended, now);
    }

    /// Removes a work that is blocked.
    fn forget_work(&mut self, id: WorkId) -> Option<Work> {
        let work = self.works.remove(id)?;
        self.totals.waiting_flops -= u128::from(work.cost);
        Some(work)
    }

    fn end_unit(&mut self, member: Member, end: &End, by: Attempt) {
        self.note_running(member.job);
        let Some(job) = self.jobs.get_mut(&member.job) else { return };
        let Some(unit) = job.units.get_mut(member.unit as usize) else { return };
        unit.state = end.count(&mut job.counts, unit.bytes);
        unit.by = by;
        let (job, unit) = (job.id.clone(), member.unit);
        self.events.push(match end.clone() {
            End::Done { from_cache } => Event::UnitFinished { job, unit, from_cache },
            End::Failed(reason) => Event::UnitFailed { job, unit, reason },
            End::SetAside(reason) => Event::UnitSetAside { job, unit, reason },
        });
    }

    /// Lets those go on that waited for units, or fail with them; ends the jobs that have nothing left.
    pub(super) fn resolve(&mut self, mut ended: Vec<Ended>, now: Time) {
        while let Some(Ended { job: seq, unit, failed }) = ended.pop() {
            let Some(job) = self.jobs.get_mut(&seq) else { continue };
            for dependent in job.dependents.get(&unit).cloned().unwrap_or_default() {
                let Some(job) = self.jobs.get_mut(&seq) else { continue };
                let member = job.member(seq, dependent);
                let Some(waiting) = job.unit_mut(dependent) else { continue };
                waiting.pending -= u32::from(failed.is_none());
                let (work, pending) = (waiting.work, waiting.pending);
                if waiting.state != UnitState::Open {
                    continue;
                }
                if let Some(reason) = &failed {
                    let reason = Some(format!("unit {unit}, which it needs: {reason}"));
                    self.drop_member(work, member, now);
                    self.end_unit(
                        member,
                        &End::Failed(reason.clone().unwrap_or_default()),
                        Attempt::default(),
                    );
                    ended.push(Ended { job: seq, unit: dependent, failed: reason });
                } else if pending == 0 {
                    self.settle(work, now);
                }
            }
            self.end_if_complete(seq);
        }
    }

    /// A unit does not need its work any more; the work goes on if another does.
    pub(super) fn drop_member(&mut self, id: WorkId, member: Member, now: Time) {
        let Some(work) = self.works.get_mut(id) else { return };
        if work.members.len() == 1 {
            self.withdraw(id);
            self.forget_work(id);
            return;
        }
        work.members.retain(|other| *other != member);
        if matches!(work.state, WorkState::Leased { .. })
            && let Some(job) = self.jobs.get_mut(&member.job)
        {
            job.counts.running -= 1;
        }
        self.settle(id, now);
    }

    pub(super) fn end_if_complete(&mut self, seq: JobSeq) {
        if self.jobs.get(&seq).is_some_and(|job| job.open() == 0 && !job.state.is_final()) {
            self.set_final(seq, JobState::Done);
        }
    }

    /// Ends a job before its time. What no other job needs is withdrawn.
    pub(super) fn end_job(&mut self, seq: JobSeq, state: JobState, now: Time) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let mut dropped = Vec::new();
        for (unit, entry) in (0..).zip(&mut job.units).filter(|(_, entry)| entry.state == UnitState::Open) {
            entry.state = UnitState::Dropped;
            job.counts.dropped += 1;
            dropped.push((entry.work, unit));
        }
        let members: Vec<_> = dropped.into_iter().map(|(work, unit)| (work, job.member(seq, unit))).collect();
        for (work, member) in members {
            self.drop_member(work, member, now);
        }
        self.set_final(seq, state);
    }

    fn set_final(&mut self, seq: JobSeq, state: JobState) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        job.state = state.clone();
        // What the ended job held for its own work is not needed for the views that are left.
        job.dependents = std::collections::BTreeMap::new();
        self.queue.remove_job(seq);
        self.active.remove(&seq);
        self.events.push(Event::JobChanged { job: job.id.clone(), state });
    }
}
