//! Works: what units of equal key share.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::worker::WorkerIx;
use super::{Attempt, Time};

/// Place of a work in [`Works`]; used again after the work has ended.
pub(super) type WorkId = u32;
/// Number of a job, rising with submission.
pub(super) type JobSeq = u64;

/// A unit that needs a work. They are ordered as they are considered for ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub(super) priority: Reverse<i32>,
    pub(super) job: JobSeq,
    pub(super) unit: u32,
}

/// Where a work stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkState {
    /// No member has all that it waits for.
    Blocked,
    /// In the queue of its owner's job.
    Queued { since: Time },
    /// To be queued again later.
    BackOff { until: Time },
    /// In the hands of a worker.
    Leased { attempt: Attempt },
}

/// A work: cost and memory are those of the first unit that needed it.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) key: Arc<[u8]>,
    pub(super) memory: u64,
    pub(super) cost: u64,
    /// Sorted, never empty.
    pub(super) members: Vec<Member>,
    pub(super) owner: Member,
    pub(super) state: WorkState,
    pub(super) kills: u32,
    pub(super) world_failures: u32,
    /// The highest attempt that was ever in force; the next one is above it.
    pub(super) last_attempt: Attempt,
    pub(super) reserved_by: Option<WorkerIx>,
}

/// All works that have not ended, by place and by key.
#[derive(Debug, Default)]
pub(super) struct Works {
    slots: Vec<Option<Work>>,
    free: Vec<WorkId>,
    by_key: HashMap<Arc<[u8]>, WorkId>,
}

impl Works {
    pub(super) fn get(&self, id: WorkId) -> Option<&Work> {
        self.slots.get(id as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: WorkId) -> Option<&mut Work> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<WorkId> {
        self.by_key.get(key).copied()
    }

    /// Stores a work whose key is not there yet.
    pub(super) fn insert(&mut self, work: Work) -> WorkId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // Units are limited to u32::MAX at submission, and there are no more works than units.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.by_key.insert(work.key.clone(), id);
        if let Some(slot) = self.slots.get_mut(id as usize) {
            *slot = Some(work);
        }
        id
    }

    pub(super) fn remove(&mut self, id: WorkId) -> Option<Work> {
        let work = self.slots.get_mut(id as usize)?.take()?;
        self.by_key.remove(&work.key);
        self.free.push(id);
        Some(work)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkId, &Work)> {
        self.slots.iter().enumerate().filter_map(|(id, work)| Some((id as WorkId, work.as_ref()?)))
    }
}
