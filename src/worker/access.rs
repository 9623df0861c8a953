//! Who uses an open model: leases that vouch for reads through the coordinator, and units whose progress is counted.

use super::link::Passport;
use crate::Result;
use crate::source::{ObjectIdentity, ReadAt};
use bytes::Bytes;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The users of one model at this time.
#[derive(Default)]
pub(super) struct Access {
    leases: Mutex<Vec<(Passport, Arc<AtomicBool>)>>,
    watches: Mutex<Vec<Watch>>,
}

struct Watch {
    file: usize,
    range: Range<u64>,
    progress: Arc<AtomicU64>,
}

impl Access {
    /// The leases that use the model and are not cancelled, the last to come last.
    pub(super) fn passports(&self) -> Vec<Passport> {
        let leases = lock(&self.leases);
        let wanted = leases.iter().filter(|(_, cancel)| !cancel.load(Ordering::Relaxed));
        wanted.map(|(passport, _)| passport.clone()).collect()
    }

    /// Whether any lease that uses the model is not cancelled.
    pub(super) fn is_wanted(&self) -> bool {
        lock(&self.leases).iter().any(|(_, cancel)| !cancel.load(Ordering::Relaxed))
    }

    fn moved(&self, file: usize, at: u64, bytes: u64) {
        for watch in lock(&self.watches).iter().filter(|w| w.file == file && w.range.contains(&at)) {
            watch.progress.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lease uses the model until this is dropped.
pub(super) struct Use {
    access: Arc<Access>,
    passport: Passport,
}

impl Use {
    /// Enters the lease.
    pub(super) fn new(access: &Arc<Access>, passport: Passport, cancel: &Arc<AtomicBool>) -> Self {
        lock(&access.leases).push((passport.clone(), Arc::clone(cancel)));
        Self { access: Arc::clone(access), passport }
    }

    /// Counts what is read in `range` of a file as progress, until what it gives is dropped.
    pub(super) fn watch(&self, file: usize, range: Range<u64>, progress: &Arc<AtomicU64>) -> Watching {
        let watch = Watch { file, range, progress: Arc::clone(progress) };
        lock(&self.access.watches).push(watch);
        Watching { access: Arc::clone(&self.access), progress: Arc::clone(progress) }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        lock(&self.access.leases).retain(|(passport, _)| *passport != self.passport);
    }
}

/// See [`Use::watch`].
pub(super) struct Watching {
    access: Arc<Access>,
    progress: Arc<AtomicU64>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        lock(&self.access.watches).retain(|watch| !Arc::ptr_eq(&watch.progress, &self.progress));
    }
}

/// A file whose bytes are counted as they are read.
pub(super) struct Metered {
    /// The file.
    pub(super) inner: Arc<dyn ReadAt>,
    /// Its place among the catalog's files.
    pub(super) file: usize,
    /// Who uses it.
    pub(super) access: Arc<Access>,
    /// Bytes read of all models.
    pub(super) total: Arc<AtomicU64>,
}

impl ReadAt for Metered {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn identity(&self) -> &ObjectIdentity {
        self.inner.identity()
    }

    fn read_at(&self, range: Range<u64>) -> Result<Bytes> {
        let start = range.start;
        let bytes = self.inner.read_at(range)?;
        self.total.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.access.moved(self.file, start, bytes.len() as u64);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::testing::MemoryFile;

    fn passport(attempt: u64) -> Passport {
        Passport { attempt, analysis: "a".to_owned() }
    }

    #[test]
    fn reads_move_the_unit_whose_bytes_they_are_and_no_other() {
        let access = Arc::new(Access::default());
        let total = Arc::new(AtomicU64::new(0));
        let inner: Arc<dyn ReadAt> = Arc::new(MemoryFile::new("m", vec![0; 100]));
        let file = |file| Metered {
            inner: Arc::clone(&inner),
            file,
            access: Arc::clone(&access),
            total: Arc::clone(&total),
        };
        let used = Use::new(&access, passport(1), &Arc::default());
        let (one, two) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let first = used.watch(0, 0..50, &one);
        let _second = used.watch(0, 50..100, &two);
        file(0).read_at(10..20).unwrap();
        file(0).read_at(50..53).unwrap();
        file(1).read_at(10..20).unwrap();
        let counts = || [&one, &two, &total].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counts(), [10, 3, 23]);
        drop(first);
        file(0).read_at(10..20).unwrap();
        assert_eq!(counts(), [10, 3, 33]);
    }

    #[test]
    fn a_lease_that_is_cancelled_or_gone_vouches_for_nothing() {
        let access = Arc::new(Access::default());
        let cancel = Arc::new(AtomicBool::new(false));
        let _first = Use::new(&access, passport(1), &cancel);
        let second = Use::new(&access, passport(2), &Arc::default());
        assert_eq!(access.passports(), [passport(1), passport(2)]);
        cancel.store(true, Ordering::Relaxed);
        assert_eq!(access.passports(), [passport(2)]);
        drop(second);
        assert!(!access.is_wanted());
    }
}
