//! A job comes, is cancelled, is forgotten.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::transitions::{End, Ended};
use super::units::{Job, Unit, UnitState};
use super::work::{JobSeq, Work, WorkState};
use super::{Attempt, Counts, Event, JobId, JobState, NewJob, NewUnit, Table, Time};
use crate::{Error, ErrorKind, Result};

impl Table {
    /// Takes a job in. Units whose result is in the cache are then reported with [`complete`](Self::complete).
    ///
    /// # Errors
    /// `InvalidArgument`: the job is in the table already, or its units make no sense. `TooLarge`: it has more units
    /// than the table may hold. `Unavailable`: there is no room now. A restored job is always taken in.
    pub fn submit(&mut self, new: NewJob, now: Time) -> Result<()> {
        if self.job_ids.contains_key(&new.id) {
            return Err(Error::invalid(format!("job '{}' is there already", new.id)).in_field("id"));
        }
        if new.restore.is_none() {
            self.check_room(new.units.len())?;
        }
        let waits = Waits::new(&new.units)?;
        let restored = restored_ends(&new)?;
        let seq = self.next_job;
        self.next_job += 1;
        if new.restore.is_some() {
            self.hold_until = Some(self.started.plus(self.config.adoption_grace));
        }
        self.totals.units += new.units.len() as u64;
        self.job_ids.insert(new.id.clone(), seq);
        self.active.insert(seq);
        self.queue.add_job(seq, new.priority, order(&new.units, &waits.dependents));
        self.jobs.insert(seq, job_entry(&new, waits, &restored, now));
        self.events.push(Event::JobChanged { job: new.id, state: JobState::Queued });
        for (unit, new_unit) in (0..).zip(new.units) {
            if !restored.contains_key(&unit) {
                self.join(seq, unit, new_unit, now);
            }
        }
        let lost = restored.into_iter().filter(|(_, end)| !matches!(end, End::Done { .. }));
        self.resolve(lost.map(|(unit, end)| Ended { job: seq, unit, failed: end.reason() }).collect(), now);
        self.end_if_complete(seq);
        Ok(())
    }

    fn check_room(&self, units: usize) -> Result<()> {
        let (max_units, max_jobs) = (self.config.max_units, self.config.max_jobs_queued);
        if units > max_units {
            let message = format!("the job has {units} units, the limit is {max_units}");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        if self.active.len() >= max_jobs {
            let message = format!("{} jobs are queued, the limit is {max_jobs}", self.active.len());
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        if self.totals.units.saturating_add(units as u64) > max_units as u64 {
            let held = self.totals.units;
            let message = format!("the job has {units} units and {held} are held, the limit is {max_units}");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(())
    }

    /// Lets a unit need its work, which may be there already.
    fn join(&mut self, seq: JobSeq, unit: u32, new: NewUnit, now: Time) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let member = job.member(seq, unit);
        let found = self.works.find(&new.key);
        let id = found.unwrap_or_else(|| {
            self.works.insert(Work {
                key: new.key.into(),
                // The largest number marks units that are not queued.
                memory: new.memory.min(u64::MAX - 1),
                cost: whole_flops(new.cost),
                members: vec![member],
                owner: member,
                state: WorkState::Blocked,
                kills: 0,
                world_failures: 0,
                last_attempt: Attempt::default(),
                reserved_by: None,
            })
        });
        if let Some(unit) = job.unit_mut(unit) {
            unit.work = id;
        }
        let Some(work) = self.works.get_mut(id) else { return };
        if found.is_none() {
            self.totals.waiting_flops += u128::from(work.cost);
        } else if let Err(place) = work.members.binary_search(&member) {
            work.members.insert(place, member);
        }
        if let WorkState::Leased { attempt } = work.state {
            self.note_started(member, attempt);
        }
        self.settle(id, now);
    }

    /// Ends a job; what others do not need is not computed any more. False if there is no such job or it had ended.
    pub fn cancel(&mut self, job: &JobId, now: Time) -> bool {
        let Some((seq, found)) = self.job(job) else { return false };
        if found.state.is_final() {
            return false;
        }
        self.end_job(seq, JobState::Cancelled, now);
        true
    }

    /// Forgets a job that has ended. False if there is no such job or it has not ended.
    pub fn remove(&mut self, job: &JobId) -> bool {
        let Some((seq, found)) = self.job(job) else { return false };
        if !found.state.is_final() {
            return false;
        }
        self.totals.units -= found.counts.units;
        self.jobs.remove(&seq);
        self.job_ids.remove(job);
        true
    }
}

/// How the restored units of a job ended.
fn restored_ends(new: &NewJob) -> Result<BTreeMap<u32, End>> {
    let mut ends = BTreeMap::new();
    let Some(restore) = &new.restore else { return Ok(ends) };
    let done = restore.done.iter().map(|unit| (*unit, End::Done { from_cache: false }));
    let failed = restore.failed.iter().map(|(unit, reason)| (*unit, End::Failed(reason.clone())));
    let set_aside = restore.set_aside.iter().map(|(unit, reason)| (*unit, End::SetAside(reason.clone())));
    for (unit, end) in done.chain(failed).chain(set_aside) {
        if unit as usize >= new.units.len() {
            return Err(Error::invalid(format!("unit {unit} is not in the job")).in_field("restore"));
        }
        if ends.insert(unit, end).is_some() {
            return Err(Error::invalid(format!("unit {unit} ended twice")).in_field("restore"));
        }
    }
    Ok(ends)
}

fn job_entry(new: &NewJob, waits: Waits, restored: &BTreeMap<u32, End>, now: Time) -> Job {
    let mut counts = Counts { units: new.units.len() as u64, ..Counts::default() };
    let mut units: Vec<Unit> = Vec::with_capacity(new.units.len());
    for (unit, pending) in (0..).zip(waits.pending) {
        let bytes = new.units.get(unit as usize).map_or(0, |new| new.bytes);
        let state = restored.get(&unit).map_or(UnitState::Open, |end| end.count(&mut counts, bytes));
        units.push(Unit { state, work: 0, pending, starts: 0, bytes, by: Attempt::default() });
    }
    for (needed, dependents) in &waits.dependents {
        if matches!(restored.get(needed), Some(End::Done { .. })) {
            for dependent in dependents {
                if let Some(unit) = units.get_mut(*dependent as usize) {
                    unit.pending -= 1;
                }
            }
        }
    }
    Job {
        id: new.id.clone(),
        model: new.model.clone(),
        priority: new.priority,
        state: JobState::Queued,
        submitted: now,
        units,
        dependents: waits.dependents,
        counts,
    }
}

/// Who waits for whom in a job.
struct Waits {
    /// For each unit, how many it waits for.
    pending: Vec<u32>,
    /// For each unit that others wait for, which.
    dependents: BTreeMap<u32, Vec<u32>>,
}

impl Waits {
    fn new(units: &[NewUnit]) -> Result<Self> {
        if u32::try_from(units.len()).is_err() {
            return Err(Error::new(ErrorKind::TooLarge, "a job has at most 4294967295 units"));
        }
        let mut waits = Self { pending: vec![0; units.len()], dependents: BTreeMap::new() };
        for (unit, new) in (0..).zip(units) {
            if !new.cost.is_finite() || new.cost < 0.0 {
                let message = format!("unit {unit} costs {} flops", new.cost);
                return Err(Error::invalid(message).in_field("cost"));
            }
            for needed in new.after.iter().copied().collect::<BTreeSet<u32>>() {
                if needed as usize >= units.len() {
                    let message = format!("unit {unit} waits for unit {needed}, which is not in the job");
                    return Err(Error::invalid(message).in_field("after"));
                }
                waits.pending[unit as usize] += 1;
                waits.dependents.entry(needed).or_default().push(unit);
            }
        }
        waits.check_no_circle()?;
        Ok(waits)
    }

    /// Takes away units that wait for nothing until none is left.
    fn check_no_circle(&self) -> Result<()> {
        let mut pending = self.pending.clone();
        let mut free: Vec<u32> =
            (0..).zip(&pending).filter(|(_, n)| **n == 0).map(|(unit, _)| unit).collect();
        let mut taken = 0;
        while let Some(unit) = free.pop() {
            taken += 1;
            for dependent in self.dependents.get(&unit).into_iter().flatten() {
                pending[*dependent as usize] -= 1;
                if pending[*dependent as usize] == 0 {
                    free.push(*dependent);
                }
            }
        }
        match pending.iter().position(|n| *n > 0) {
            Some(unit) if taken < pending.len() => {
                Err(Error::invalid(format!("unit {unit} waits for itself in a circle")).in_field("after"))
            }
            _ => Ok(()),
        }
    }
}

/// The order inside a job: finishes (they free what shards hold), shards, the rest; the most work first.
fn order(units: &[NewUnit], dependents: &BTreeMap<u32, Vec<u32>>) -> Vec<u32> {
    let class = |unit: u32| match units.get(unit as usize) {
        Some(new) if !new.after.is_empty() => 0,
        _ if dependents.contains_key(&unit) => 1,
        _ => 2,
    };
    let cost = |unit: u32| units.get(unit as usize).map_or(0, |new| whole_flops(new.cost));
    let mut order: Vec<u32> = (0..).take(units.len()).collect();
    order.sort_by_cached_key(|unit| (class(*unit), Reverse(cost(*unit)), *unit));
    order
}

/// Whole flops, so that sums are exact whatever their order. The conversion saturates.
fn whole_flops(cost: f64) -> u64 {
    cost.ceil() as u64
}
