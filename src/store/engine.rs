//! sled behind a guard: no call of it panics out of here, and each error says what it means for the store.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind};

/// What went wrong inside sled.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// The files are not what sled wrote: opening elsewhere or restoring helps.
    Damaged(String),
    /// The disk is full: waiting for space, then opening again, helps.
    Full(String),
    /// Another error of the operating system, or of how sled was called.
    Io(String),
}

impl Fault {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Damaged(text) | Self::Full(text) | Self::Io(text) => text,
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Damaged(text) => Error::malformed(format!("the database is damaged: {text}")),
            Fault::Full(text) => Error::new(ErrorKind::TooLarge, format!("the disk is full: {text}")),
            Fault::Io(text) => Error::new(ErrorKind::Internal, format!("the database failed: {text}")),
        }
    }
}

/// The result of a call into sled.
pub(super) type Faulty<T> = std::result::Result<T, Fault>;

fn of_sled(error: sled::Error) -> Fault {
    use std::io::ErrorKind as Io;
    match error {
        sled::Error::Corruption { at, .. } => match at {
            Some(at) => Fault::Damaged(format!("corruption at {at:?}")),
            None => Fault::Damaged("corruption".to_owned()),
        },
        sled::Error::ReportableBug(text) => Fault::Damaged(text),
        sled::Error::CollectionNotFound(_) => Fault::Damaged("the tree does not exist".to_owned()),
        sled::Error::Unsupported(text) => Fault::Io(text),
        sled::Error::Io(error) => match error.kind() {
            Io::StorageFull | Io::QuotaExceeded => Fault::Full(error.to_string()),
            // A file that sled expects is missing or too short.
            Io::NotFound | Io::UnexpectedEof | Io::InvalidData => Fault::Damaged(error.to_string()),
            _ => Fault::Io(error.to_string()),
        },
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    // sled's messages may hold a whole page.
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Runs a call into sled; a panic is damage.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Faulty<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(outcome) => outcome.map_err(of_sled),
        Err(panic) => Err(Fault::Damaged(format!("panic: {}", panic_text(&*panic)))),
    }
}

/// How sled is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tuning {
    pub(super) cache_bytes: u64,
    pub(super) limit: Duration,
}

/// An open database. Clones are handles of the same one.
#[derive(Clone)]
pub(super) struct Engine {
    db: sled::Db,
}

/// One database changed at once.
#[derive(Default)]
pub(super) struct Writes {
    batch: sled::Batch,
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl Writes {
    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.count += 1;
        self.bytes += key.len() + value.len();
        self.batch.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.count += 1;
        self.bytes += key.len();
        self.batch.remove(key);
    }
}

/// An ascending or descending walk over raw keys and values.
pub(super) struct Walk {
    iter: sled::Iter,
    backwards: bool,
    broken: bool,
}

impl Iterator for Walk {
    type Item = Faulty<(sled::IVec, sled::IVec)>;

    fn next(&mut self) -> Option<Self::Item> {
        // After an error sled would give the same one for ever.
        if self.broken {
            return None;
        }
        let (iter, backwards) = (&mut self.iter, self.backwards);
        let step = guarded(|| if backwards { iter.next_back() } else { iter.next() }.transpose()).transpose();
        self.broken = matches!(step, Some(Err(_)));
        step
    }
}

impl Engine {
    /// Opens or creates the database in `path`, in a thread of its own, for a damaged one may panic or hang.
    pub(super) fn open(path: &Path, tuning: Tuning) -> Faulty<Self> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(tuning.cache_bytes)
            .mode(sled::Mode::HighThroughput)
            // The committer flushes. sled's own thread gives up for good on the first error, and only logs it.
            .flush_every_ms(None);
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let spawned = std::thread::Builder::new().name("store open".to_owned()).spawn(move || {
            // Where nobody waits any longer the database is closed again.
            let _ = sender.send(guarded(|| open_unlocked(&config)));
        });
        let thread = spawned.map_err(|error| Fault::Io(format!("no thread to open with: {error}")))?;
        match receiver.recv_timeout(tuning.limit) {
            Ok(outcome) => {
                let _ = thread.join();
                outcome.map(|db| Self { db })
            }
            Err(RecvTimeoutError::Timeout) => {
                let seconds = tuning.limit.as_secs_f64();
                Err(Fault::Io(format!("it was not open after {seconds} s; allow more time, or see the disk")))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Fault::Damaged("the opening thread died".to_owned())),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Faulty<Option<sled::IVec>> {
        guarded(|| self.db.get(key))
    }

    /// Keys from `low` on, below `end`.
    pub(super) fn walk(&self, low: Bound<Vec<u8>>, end: Bound<Vec<u8>>, backwards: bool) -> Walk {
        Walk { iter: self.db.range((low, end)), backwards, broken: false }
    }

    /// Keys that begin with `prefix`, ascending.
    pub(super) fn walk_prefix(&self, prefix: &[u8]) -> Walk {
        let end = super::keys::end_of(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        self.walk(Bound::Included(prefix.to_vec()), end, false)
    }

    /// Applies all or, after a crash, nothing. Not durable before [`Engine::flush`] and a sync of the files.
    pub(super) fn apply(&self, writes: Writes) -> Faulty<()> {
        if writes.count == 0 {
            return Ok(());
        }
        guarded(|| self.db.apply_batch(writes.batch))
    }

    /// Hands everything to the operating system.
    pub(super) fn flush(&self) -> Faulty<()> {
        guarded(|| self.db.flush()).map(|_| ())
    }

    pub(super) fn bytes_on_disk(&self) -> Faulty<u64> {
        guarded(|| self.db.size_on_disk())
    }

    /// Closes this handle. sled unwraps errors when the last one goes.
    pub(super) fn close(self) {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.db)));
    }
}

/// A database that was just closed may hold its lock a moment longer: sled frees memory late.
fn open_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
    let started = Instant::now();
    loop {
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock")
                    && started.elapsed() < Duration::from_secs(5) =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
}
