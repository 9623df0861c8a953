//! The one thread that writes: what is queued when it looks is one group, made durable by one flush and one sync.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::disk::{self, Syncer};
use super::engine::{Engine, Fault, panic_text};
use super::journal::Journal;
use super::load::{Books, load};
use super::lock::seconds;
use super::plan::{Terms, plan};
use super::records::{Batch, Done};
use super::{StoreOptions, open};
use crate::{Error, ErrorKind, Result};

/// A group ends at so many batches, or so many bytes.
const MOST_BATCHES: usize = 256;
const MOST_BYTES: usize = 8 << 20;
/// What may wait to be written.
const MOST_WAITING: usize = 1 << 16;
const MOST_WAITING_BYTES: usize = 256 << 20;
/// Left free on the disk, on top of what a group may take: sled itself does not survive a full disk.
const RESERVE: u64 = 32 << 20;
/// sled writes a changed node as a whole, and a node of values of 4 KiB may be split or merged.
const AMPLIFICATION: u64 = 4;
/// Bytes of the write that says whether a disk that was full takes writes again.
const PROBE: usize = 1 << 20;

struct Waiting {
    batch: Batch,
    done: Done,
    bytes: usize,
}

/// A batch that was never queued, with the reason.
type Refused = (Done, Error);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    refused: Vec<Refused>,
    closing: bool,
}

/// The database, or why there is none.
pub(super) enum Slot {
    Open(Engine),
    /// Opened again once there is space.
    Full(String),
    Failed(String),
}

/// Numbers for [`super::Health`].
#[derive(Default)]
pub(super) struct Counters {
    pub(super) evictions: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) corrupt_reads: AtomicU64,
}

/// What the callers' threads and the committing thread share.
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) options: StoreOptions,
    pub(super) slot: RwLock<Slot>,
    pub(super) books: Mutex<Books>,
    pub(super) counters: Counters,
    queue: Mutex<Queue>,
    wake: Condvar,
    syncer: Syncer,
    pub(super) journal: Mutex<Journal>,
    /// The last group was refused for want of space.
    full: AtomicBool,
}

/// What a poisoned lock guards is still whole: nothing panics half-way through a change.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(dir: PathBuf, options: StoreOptions, engine: Engine, books: Books) -> Result<Self> {
        let segments = dir.join(open::JOURNAL);
        let journal = Journal::start(&segments, books.sequence + 1, options.max_journal_bytes)?;
        let syncer = Syncer::new(&dir)?;
        syncer.sync()?;
        Ok(Self {
            dir,
            options,
            slot: RwLock::new(Slot::Open(engine)),
            books: Mutex::new(books),
            counters: Counters::default(),
            queue: Mutex::default(),
            wake: Condvar::new(),
            syncer,
            journal: Mutex::new(journal),
            full: AtomicBool::new(false),
        })
    }

    pub(super) fn slot(&self) -> RwLockReadGuard<'_, Slot> {
        self.slot.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `read` on the open database.
    pub(super) fn with<T>(&self, read: impl FnOnce(&Engine) -> Result<T>) -> Result<T> {
        match &*self.slot() {
            Slot::Open(engine) => read(engine),
            Slot::Full(why) => Err(full(why)),
            Slot::Failed(why) => Err(dead(why)),
        }
    }

    pub(super) fn submit(&self, batch: Batch, done: Done) {
        let bytes = batch.bytes();
        let checked = batch.check();
        let mut queue = locked(&self.queue);
        let busy = queue.waiting.len() >= MOST_WAITING
            || (queue.bytes.saturating_add(bytes) > MOST_WAITING_BYTES && !queue.waiting.is_empty());
        match checked {
            Err(error) => queue.refused.push((done, error)),
            Ok(()) if busy => {
                let message = format!(
                    "the store is behind: {} batches of {} bytes wait to be written",
                    queue.waiting.len(),
                    queue.bytes
                );
                queue.refused.push((done, Error::new(ErrorKind::Unavailable, message)));
            }
            Ok(()) => {
                queue.bytes += bytes;
                queue.waiting.push_back(Waiting { batch, done, bytes });
            }
        }
        drop(queue);
        self.wake.notify_one();
    }

    pub(super) fn close(&self) {
        locked(&self.queue).closing = true;
        self.wake.notify_one();
    }

    /// The committing thread. Ends once the store is closing and nothing waits.
    pub(super) fn run(&self) {
        while let Some((group, refused)) = self.next_group() {
            for (done, error) in refused {
                call(done, Err(error));
            }
            if group.is_empty() {
                continue;
            }
            let outcomes = self.write(&group);
            for (waiting, outcome) in group.into_iter().zip(outcomes) {
                call(waiting.done, outcome);
            }
        }
        self.save_uses();
    }

    /// Waits for work. No time is spent on gathering: what comes while one group is written is the next.
    fn next_group(&self) -> Option<(Vec<Waiting>, Vec<Refused>)> {
        let mut queue = locked(&self.queue);
        while queue.waiting.is_empty() && queue.refused.is_empty() {
            if queue.closing {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while group.len() < MOST_BATCHES
            && bytes < MOST_BYTES
            && let Some(next) = queue.waiting.pop_front()
        {
            bytes += next.bytes;
            queue.bytes -= next.bytes;
            group.push(next);
        }
        Some((group, std::mem::take(&mut queue.refused)))
    }

    /// An outcome for each of the group.
    fn write(&self, group: &[Waiting]) -> Vec<Result<()>> {
        let batches: Vec<&Batch> = group.iter().map(|waiting| &waiting.batch).collect();
        match self.write_batches(&batches) {
            // A record that one of them overwrites cannot be read: the others need not suffer for it.
            Err(Unwritten::Untouched(_)) if batches.len() > 1 => {
                batches.iter().map(|batch| self.write_batches(&[*batch]).map_err(Error::from)).collect()
            }
            outcome => vec![outcome.map_err(Error::from); batches.len()],
        }
    }

    fn write_batches(&self, batches: &[&Batch]) -> std::result::Result<(), Unwritten> {
        let bytes: usize = batches.iter().map(|batch| batch.bytes()).sum();
        self.check_space(bytes as u64)?;
        self.reopen()?;
        let outcome = catch_unwind(AssertUnwindSafe(|| self.apply(batches)));
        let outcome = outcome.unwrap_or_else(|panic| {
            Err(Unwritten::Broken(Fault::Damaged(format!("panic: {}", panic_text(&*panic)))))
        });
        if let Err(Unwritten::Broken(fault)) = &outcome {
            self.fail(fault);
        }
        outcome
    }

    fn apply(&self, batches: &[&Batch]) -> std::result::Result<(), Unwritten> {
        let slot = self.slot();
        let engine = match &*slot {
            Slot::Open(engine) => engine,
            Slot::Full(why) => return Err(Unwritten::Refused(full(why))),
            Slot::Failed(why) => return Err(Unwritten::Refused(dead(why))),
        };
        let mut planned = {
            let mut books = locked(&self.books);
            let changes = batches.iter().any(|batch| !batch.is_empty());
            let terms = Terms {
                now: seconds(),
                max_result_bytes: self.options.max_result_bytes,
                sequence: books.sequence + u64::from(changes),
            };
            let planned = plan(engine, &mut books, batches, terms).map_err(Unwritten::Untouched)?;
            if changes {
                // Before the database: what it has, the journal has.
                let appended = locked(&self.journal).append(batches, terms.now);
                appended.map_err(|error| Unwritten::Broken(journal_fault(&error)))?;
            }
            planned
        };
        planned.apply(engine).map_err(Unwritten::Broken)?;
        // Readers see the records now, so the counts follow now.
        locked(&self.books).enter(&planned);
        engine.flush().map_err(Unwritten::Broken)?;
        // After a failed sync the kernel may take lost pages for written ones: never try again.
        self.syncer.sync().map_err(|error| Unwritten::Broken(Fault::Io(error.to_string())))?;
        self.counters.syncs.fetch_add(1, Relaxed);
        self.counters.commits.fetch_add(batches.len() as u64, Relaxed);
        self.counters.evictions.fetch_add(planned.evicted, Relaxed);
        Ok(())
    }

    /// Bytes that writes leave free on a file system of `total` bytes.
    pub(super) fn reserve(total: u64) -> u64 {
        RESERVE.min(total / 8)
    }

    /// Refuses while the group might fill the disk; after that, not before a probe was written.
    fn check_space(&self, bytes: u64) -> std::result::Result<(), Unwritten> {
        let (free, total) = disk::space(&self.dir);
        let needed = Self::reserve(total) + bytes.saturating_mul(AMPLIFICATION);
        if total > 0 && free < needed {
            self.full.store(true, Relaxed);
            let why = format!("{free} bytes are free, this write needs {needed}");
            return Err(Unwritten::Refused(full(&why)));
        }
        if self.full.load(Relaxed) {
            disk::probe(&self.dir, PROBE).map_err(Unwritten::Refused)?;
            self.full.store(false, Relaxed);
        }
        Ok(())
    }

    /// Opens the database again if the disk was full when it was closed, and no longer is.
    fn reopen(&self) -> std::result::Result<(), Unwritten> {
        if !matches!(&*self.slot(), Slot::Full(_)) {
            return Ok(());
        }
        disk::probe(&self.dir, PROBE).map_err(Unwritten::Refused)?;
        let opened = Engine::open(&self.dir.join(open::DATABASE), self.options.tuning());
        let (engine, loaded) = opened
            .and_then(|engine| load(&engine).map(|loaded| (engine, loaded)))
            .map_err(|fault| Unwritten::Refused(Error::from(fault)))?;
        let segments = self.dir.join(open::JOURNAL);
        let (mut books, mut applied) = (loaded.books, 0);
        let caught_up = open::catch_up(&engine, &mut books, &segments, &mut applied);
        let journal = caught_up
            .and_then(|_| Journal::start(&segments, books.sequence + 1, self.options.max_journal_bytes));
        *locked(&self.journal) = journal.map_err(Unwritten::Refused)?;
        *locked(&self.books) = books;
        *self.slot.write().unwrap_or_else(PoisonError::into_inner) = Slot::Open(engine);
        Ok(())
    }

    /// Nothing is written any more: at once if the disk was full until there is space, else until a restart.
    fn fail(&self, fault: &Fault) {
        if matches!(fault, Fault::Damaged(_)) {
            // Without it the next opening may not look where the damage is. It is no more than a hint.
            let _ = std::fs::File::create(self.dir.join(open::SUSPECT));
        }
        let next = match fault {
            Fault::Full(why) => Slot::Full(why.clone()),
            other => Slot::Failed(other.text().to_owned()),
        };
        let old = std::mem::replace(&mut *self.slot.write().unwrap_or_else(PoisonError::into_inner), next);
        if let Slot::Open(engine) = old {
            engine.close();
        }
    }

    /// Why writes are refused, if they are.
    pub(super) fn failure(&self) -> Option<String> {
        match &*self.slot() {
            Slot::Open(_) => self.full.load(Relaxed).then(|| "the disk is full".to_owned()),
            Slot::Full(why) => Some(full(why).to_string()),
            Slot::Failed(why) => Some(dead(why).to_string()),
        }
    }

    /// The times of use that no commit has taken along yet. They order evictions: losing them is no error.
    fn save_uses(&self) {
        for _ in 0..64 {
            let before = locked(&self.books).lru.stale(1);
            if before.is_empty() || self.write_batches(&[&Batch::new()]).is_err() {
                return;
            }
            if locked(&self.books).lru.stale(1) == before {
                return;
            }
        }
    }
}

fn journal_fault(error: &Error) -> Fault {
    match error.kind() {
        ErrorKind::TooLarge => Fault::Full(error.to_string()),
        _ => Fault::Io(error.to_string()),
    }
}

fn full(why: &str) -> Error {
    Error::new(ErrorKind::TooLarge, format!("the disk is full: {why}"))
}

fn dead(why: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the store has failed and must be opened again: {why}"))
}

/// A caller's panic is not ours.
fn call(done: Done, outcome: Result<()>) {
    let _ = catch_unwind(AssertUnwindSafe(|| done(outcome)));
}

enum Unwritten {
    /// Not tried.
    Refused(Error),
    /// Nothing was written, for something could not be read.
    Untouched(Fault),
    /// It is unknown what was written.
    Broken(Fault),
}

impl From<Unwritten> for Error {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::Refused(error) => error,
            Unwritten::Untouched(fault) => Self::from(fault),
            Unwritten::Broken(Fault::Full(why)) => full(&why),
            Unwritten::Broken(fault) => dead(fault.text()),
        }
    }
}
