//! Results come in.

use super::deadlines::Subject;
use super::transitions::End;
use super::units::UnitState;
use super::work::{Work, WorkId, WorkState};
use super::{Attempt, Finished, JobId, JobState, Outcome, Requeue, Table, Time, Verdict};

impl Table {
    /// What [`finish`](Self::finish) would say now. Changes nothing. Between the two the caller makes an accepted
    /// result durable; if the attempt has gone stale meanwhile, `finish` says so, and the stored result is simply one that
    /// the next attempt will find.
    pub fn check(&self, result: &Finished) -> Verdict {
        match self.judge(result) {
            Ok(work) => Verdict::Accepted { also: self.also(work, result) },
            Err(verdict) => verdict,
        }
    }

    /// Counts a result, once.
    pub fn finish(&mut self, result: &Finished, now: Time) -> Verdict {
        let work = match self.judge(result) {
            Ok(work) => work,
            Err(verdict) => return verdict,
        };
        let also = self.also(work, result);
        if self.leases.contains_key(&result.attempt) {
            // A result is progress, too.
            let until = now.plus(self.config.progress_timeout);
            self.deadlines.set(Subject::Progress(result.attempt), until);
        }
        self.withdraw(work);
        if let Some(work) = self.works.get_mut(work) {
            // An attempt of before a restart may be heard of first by its result.
            work.last_attempt = work.last_attempt.max(result.attempt);
        }
        match &result.outcome {
            Outcome::Done => self.end_work(work, &End::Done { from_cache: false }, result.attempt, now),
            Outcome::Task(reason) => self.end_work(work, &End::Failed(reason.clone()), result.attempt, now),
            Outcome::World(reason) => self.world_failed(work, reason, result.attempt, now),
            Outcome::Model(reason) => self.model_failed(work, result, reason, now),
        }
        Verdict::Accepted { also }
    }

    /// Ends a unit whose result is in the cache, and all that need the same work.
    pub fn complete(&mut self, job: &JobId, unit: u32, now: Time) -> Verdict {
        let found = self.job(job).and_then(|(seq, job)| Some((job.member(seq, unit), job.unit(unit)?)));
        let Some((member, entry)) = found else { return Verdict::Unknown };
        match entry.state {
            UnitState::Open => {}
            UnitState::Done => return Verdict::Duplicate,
            _ => return Verdict::Stale,
        }
        let work = entry.work;
        let also = self.members(work, |other| other != (member.job, unit));
        self.end_work(work, &End::Done { from_cache: true }, Attempt::default(), now);
        Verdict::Accepted { also }
    }

    /// The work that a result is for, if it counts.
    fn judge(&self, result: &Finished) -> std::result::Result<WorkId, Verdict> {
        if let Some(lease) = self.leases.get(&result.attempt) {
            let worker = self.workers.get(&lease.worker).is_some_and(|worker| worker.id == result.worker);
            let item = lease.items.iter().find(|item| item.unit == result.unit);
            if let Some(item) = item.filter(|_| worker && lease.job == result.job) {
                return Ok(item.work);
            }
        }
        let unit = self.job(&result.job).and_then(|(_, job)| job.unit(result.unit));
        let unit = unit.ok_or(Verdict::Unknown)?;
        let ended = matches!(unit.state, UnitState::Done | UnitState::Failed);
        if ended && unit.by == result.attempt && result.attempt != Attempt::default() {
            return Err(Verdict::Duplicate);
        }
        #[cfg(test)]
        if self.fencing_off && unit.state == UnitState::Open {
            return Ok(unit.work);
        }
        let work = self.works.get(unit.work).filter(|_| unit.state == UnitState::Open);
        match work {
            Some(work) if self.adoptable(work, result.attempt) => Ok(unit.work),
            _ => Err(Verdict::Stale),
        }
    }

    /// An attempt from before the restart may go on if nobody else has the work, and none later was ever in force.
    pub(super) fn adoptable(&self, work: &Work, attempt: Attempt) -> bool {
        let waits = matches!(work.state, WorkState::Queued { .. } | WorkState::BackOff { .. });
        waits && attempt.epoch() < u64::from(self.epoch) && attempt > work.last_attempt
    }

    /// Units other than the named one that end by a result.
    fn also(&self, work: WorkId, result: &Finished) -> Vec<(JobId, u32)> {
        if !matches!(result.outcome, Outcome::Done | Outcome::Task(_)) {
            return Vec::new();
        }
        let named = self.job_ids.get(&result.job).map(|seq| (*seq, result.unit));
        self.members(work, |member| Some(member) != named)
    }

    fn members(&self, work: WorkId, keep: impl Fn((u64, u32)) -> bool) -> Vec<(JobId, u32)> {
        let members = self.works.get(work).into_iter().flat_map(|work| &work.members);
        let kept = members.filter(|member| keep((member.job, member.unit)));
        kept.filter_map(|member| Some((self.jobs.get(&member.job)?.id.clone(), member.unit))).collect()
    }

    fn world_failed(&mut self, id: WorkId, reason: &str, attempt: Attempt, now: Time) {
        let Some(work) = self.works.get_mut(id) else { return };
        work.world_failures += 1;
        let times = work.world_failures;
        let until =
            now.plus(back_off(&work.key, times, self.config.backoff_first, self.config.backoff_longest));
        if times >= self.config.max_world_failures {
            let reason = format!("tried {times} times: {reason}");
            return self.end_work(id, &End::Failed(reason), attempt, now);
        }
        work.state = WorkState::BackOff { until };
        self.deadlines.set(Subject::BackOff(id), until);
        self.requeue(id, attempt, &Requeue::World(reason.to_owned()), now);
    }

    /// The model of the named job is to blame: the job fails, and what other jobs need waits again under their name.
    fn model_failed(&mut self, work: WorkId, result: &Finished, reason: &str, now: Time) {
        if let Some(seq) = self.job_ids.get(&result.job).copied().filter(|seq| self.active.contains(seq)) {
            self.end_job(seq, JobState::Failed(reason.to_owned()), now);
        }
        self.requeue(work, result.attempt, &Requeue::Model(reason.to_owned()), now);
    }
}

/// Doubles with each failure up to the longest, less up to half of it: works that failed together come back apart.
/// The jitter follows from the key, so that a history can be repeated.
pub(super) fn back_off(key: &[u8], times: u32, first: u64, longest: u64) -> u64 {
    let doubled = first.checked_shl(times.saturating_sub(1)).filter(|_| times <= 32).unwrap_or(longest);
    let whole = doubled.min(longest);
    // FNV-1a.
    let hash = key.iter().chain(&times.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    whole - hash % (whole / 2 + 1)
}
