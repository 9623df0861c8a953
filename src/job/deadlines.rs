//! All time-outs in one index: at most one deadline a subject.

use std::collections::{BTreeMap, BTreeSet};

use super::work::WorkId;
use super::worker::WorkerIx;
use super::{Attempt, Time};

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A worker that must report, or be forgotten.
    Worker(WorkerIx),
    /// A lease whose progress must rise.
    Progress(Attempt),
    /// A work that may be tried again.
    BackOff(WorkId),
    /// A work that no worker has memory for.
    Unplaceable(WorkId),
}

/// Deadlines by time and by subject; the two are changed together, here alone.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: BTreeSet<(Time, Subject)>,
    by_subject: BTreeMap<Subject, Time>,
}

impl Deadlines {
    /// Sets or moves the deadline of a subject.
    pub(super) fn set(&mut self, subject: Subject, at: Time) {
        if let Some(old) = self.by_subject.insert(subject, at) {
            self.by_time.remove(&(old, subject));
        }
        self.by_time.insert((at, subject));
    }

    pub(super) fn clear(&mut self, subject: Subject) {
        if let Some(old) = self.by_subject.remove(&subject) {
            self.by_time.remove(&(old, subject));
        }
    }

    /// Takes out the earliest deadline that has come.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<Subject> {
        let &(at, subject) = self.by_time.first().filter(|(at, _)| *at <= now)?;
        self.by_time.remove(&(at, subject));
        self.by_subject.remove(&subject);
        Some(subject)
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }

    pub(super) fn get(&self, subject: Subject) -> Option<Time> {
        self.by_subject.get(&subject).copied()
    }

    #[cfg(test)]
    pub(super) fn check(&self) -> BTreeMap<Subject, Time> {
        let twin: BTreeMap<Subject, Time> =
            self.by_time.iter().map(|(at, subject)| (*subject, *at)).collect();
        assert_eq!(twin, self.by_subject);
        assert_eq!(self.by_time.len(), twin.len());
        twin
    }
}
