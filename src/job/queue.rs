//! Which unit goes next: the order between jobs, the order inside a job, and what fits.
//!
//! Units of a job never change, so their order is fixed at submission. A tree over that order holds the memory of
//! those that are queued; the first that fits a worker is found by going down it once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::work::{JobSeq, WorkId};

/// Memory of a unit that is not queued: fits nowhere.
const ABSENT: u64 = u64::MAX;

/// The queues of all jobs that have not ended, and their indexes, which are changed together, here alone.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: BTreeMap<JobSeq, JobQueue>,
    /// Jobs that have something queued: priority, then least work leased, then oldest.
    order: BTreeSet<(Reverse<i32>, u128, JobSeq)>,
    /// Every queued work by its memory.
    by_memory: BTreeSet<(u64, WorkId)>,
}

#[derive(Debug)]
struct JobQueue {
    priority: i32,
    /// Flops leased so far, counted from the level of its rivals when it came.
    served: u128,
    /// Place of each unit in the order, and the unit of each place.
    rank: Vec<u32>,
    unit: Vec<u32>,
    /// A binary tree of minima: leaves are the places from `rank.len()` rounded up on.
    tree: Vec<u64>,
    queued: usize,
}

impl Queue {
    /// A job whose units are to be considered in this order.
    pub(super) fn add_job(&mut self, seq: JobSeq, priority: i32, order: Vec<u32>) {
        // A newcomer shares with its rivals; if it started from nothing, a stream of small jobs would starve a large one.
        let first_rival = (Reverse(priority), 0, 0);
        let served =
            self.order.range(first_rival..).next().filter(|(p, ..)| p.0 == priority).map_or(0, |j| j.1);
        let leaves = order.len().next_power_of_two();
        let mut rank = vec![0; order.len()];
        for (place, unit) in order.iter().enumerate() {
            rank[*unit as usize] = u32::try_from(place).unwrap_or(u32::MAX);
        }
        let tree = vec![ABSENT; 2 * leaves];
        self.jobs.insert(seq, JobQueue { priority, served, rank, unit: order, tree, queued: 0 });
    }

    /// Forgets a job whose units have all been taken out.
    pub(super) fn remove_job(&mut self, seq: JobSeq) {
        if let Some(job) = self.jobs.remove(&seq) {
            self.order.remove(&(Reverse(job.priority), job.served, seq));
        }
    }

    /// Queues a unit, with its work. `memory` is below `u64::MAX`.
    pub(super) fn push(&mut self, (seq, unit): (JobSeq, u32), work: WorkId, memory: u64) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        job.set(unit, memory);
        job.queued += 1;
        self.order.insert((Reverse(job.priority), job.served, seq));
        self.by_memory.insert((memory, work));
    }

    /// Takes a queued unit out.
    pub(super) fn take(&mut self, (seq, unit): (JobSeq, u32), work: WorkId, memory: u64) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        job.set(unit, ABSENT);
        job.queued -= 1;
        if job.queued == 0 {
            self.order.remove(&(Reverse(job.priority), job.served, seq));
        }
        self.by_memory.remove(&(memory, work));
    }

    /// Notes that this much work of a job was leased.
    pub(super) fn serve(&mut self, seq: JobSeq, cost: u64) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let listed = self.order.remove(&(Reverse(job.priority), job.served, seq));
        job.served = job.served.saturating_add(u128::from(cost));
        if listed {
            self.order.insert((Reverse(job.priority), job.served, seq));
        }
    }

    /// The next unit that needs at most `room` bytes. Goes through the jobs in their order; inside a job it costs O(log n).
    pub(super) fn first(&self, room: u64) -> Option<(JobSeq, u32)> {
        // A full worker reports as often as an empty one.
        self.by_memory.first().filter(|(least, _)| *least <= room)?;
        self.order.iter().find_map(|(.., seq)| Some((*seq, self.first_of(*seq, room)?)))
    }

    /// The next unit of a job that needs at most `room` bytes.
    pub(super) fn first_of(&self, seq: JobSeq, room: u64) -> Option<u32> {
        self.jobs.get(&seq)?.first(room)
    }

    /// Queued units of a job, under whose name they are.
    pub(super) fn queued(&self, seq: JobSeq) -> usize {
        self.jobs.get(&seq).map_or(0, |job| job.queued)
    }

    /// Queued works that need more than `low` and at most `high` bytes, the smallest first.
    pub(super) fn needing(&self, low: u64, high: u64) -> impl DoubleEndedIterator<Item = (u64, WorkId)> {
        use std::ops::Bound::{Excluded, Included};
        let low = low.min(high);
        self.by_memory.range((Excluded((low, WorkId::MAX)), Included((high, WorkId::MAX)))).copied()
    }

    #[cfg(test)]
    pub(super) fn check(&self, expected: &BTreeMap<(JobSeq, u32), (WorkId, u64)>) {
        let mut queued: BTreeMap<JobSeq, usize> = BTreeMap::new();
        for (seq, _) in expected.keys() {
            *queued.entry(*seq).or_default() += 1;
        }
        for (seq, job) in &self.jobs {
            assert_eq!(job.queued, queued.get(seq).copied().unwrap_or(0));
            for (place, unit) in job.unit.iter().enumerate() {
                let memory = expected.get(&(*seq, *unit)).map_or(ABSENT, |(_, memory)| *memory);
                assert_eq!(job.tree[job.tree.len() / 2 + place], memory);
            }
            for node in 1..job.tree.len() / 2 {
                assert_eq!(job.tree[node], job.tree[2 * node].min(job.tree[2 * node + 1]));
            }
        }
        let key = |seq: &JobSeq| (Reverse(self.jobs[seq].priority), self.jobs[seq].served, *seq);
        assert_eq!(self.order, queued.keys().map(key).collect());
        assert_eq!(self.by_memory, expected.values().map(|(work, memory)| (*memory, *work)).collect());
    }
}

impl JobQueue {
    fn set(&mut self, unit: u32, memory: u64) {
        let Some(rank) = self.rank.get(unit as usize) else { return };
        let mut node = self.tree.len() / 2 + *rank as usize;
        self.tree[node] = memory;
        while node > 1 {
            node /= 2;
            let least = self.tree[2 * node].min(self.tree[2 * node + 1]);
            if self.tree[node] == least {
                return;
            }
            self.tree[node] = least;
        }
    }

    fn first(&self, room: u64) -> Option<u32> {
        let room = room.min(ABSENT - 1);
        if *self.tree.get(1)? > room {
            return None;
        }
        let mut node = 1;
        while node < self.tree.len() / 2 {
            node = if self.tree[2 * node] <= room { 2 * node } else { 2 * node + 1 };
        }
        self.unit.get(node - self.tree.len() / 2).copied()
    }
}
