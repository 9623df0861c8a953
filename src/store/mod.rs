//! What the coordinator remembers: results by content key, object identities, jobs, their rows, and audits.
//!
//! The only module that knows sled. Values are opaque bytes; everything here is synchronous. Three promises:
//!
//! - **Durable before acknowledged.** [`Records::submit`] calls back after a flush *and* a sync of the file system.
//! - **Whole or absent.** A batch is applied as one; a long value is cut in chunks that no one sees before their head
//!   is written; each stored value carries a checksum over itself and its key.
//! - **It opens.** A damaged database is moved aside, never deleted, and what can be had is restored: from the newest
//!   sound export, and from what is still readable. [`Opened`] says what was done.
//!
//! - **Nothing is lost in silence.** Every commit is also in a journal until the exports have it; commits that the
//!   database turns out to lack are applied again.
//!
//! Layout of a data directory: `db/` (sled), `journal/`, `exports/`, `quarantine/`, `LOCK`.

mod commit;
mod compact;
mod disk;
mod engine;
mod envelope;
mod export;
mod journal;
mod keys;
mod load;
mod lock;
mod lru;
mod memory;
mod open;
mod plan;
mod read;
mod records;
mod restore;
mod verify;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

pub use compact::{Compacted, compact};
pub use export::{ExportReport, verify_export};
pub use load::BadRecord;
pub use memory::{Memory, Sync};
pub use open::Opened;
pub use records::{
    Batch, Done, Health, MAX_KEY, MAX_PAGE, MAX_VALUE, Pairs, Records, Space, Usage, commit, is_corrupt,
};
pub use restore::{Recovery, Rejected};
pub use verify::Verified;

use self::commit::{Shared, locked};
use self::read::{Found, From};
use crate::Result;

/// How a store is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Memory for pages of the database, in bytes.
    pub cache_bytes: u64,
    /// Results (keys and values) are kept below this many bytes; the least recently used are evicted. The files on
    /// disk are larger, by up to a factor of two.
    pub max_result_bytes: u64,
    /// The journal holds what the oldest export has not, but no more than this many bytes.
    pub max_journal_bytes: u64,
    /// Below this many free bytes, or 5 % of the file system if that is less, [`Health::low_on_disk`] is set.
    pub min_free_bytes: u64,
    /// Whether opening reads every record as its readers would, and so finds (and mends, where there is a copy) all
    /// damage. Takes as long as [`Store::verify`]; done anyway after a run in which damage was met.
    pub thorough: bool,
    /// How long the opening of the database may take.
    pub open_limit: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            max_result_bytes: 8 << 30,
            max_journal_bytes: 1 << 30,
            min_free_bytes: 1 << 30,
            thorough: false,
            open_limit: Duration::from_secs(600),
        }
    }
}

impl StoreOptions {
    fn tuning(&self) -> engine::Tuning {
        engine::Tuning { cache_bytes: self.cache_bytes, limit: self.open_limit }
    }
}

/// A store on disk. Dropping it writes what is queued and closes the database.
pub struct Store {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Released last.
    lock: Arc<lock::Lock>,
}

/// What a store has and had, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Counters.
    pub health: Health,
    /// Corrupt records that were set aside when the store was opened, ever.
    pub set_aside: u64,
    /// Exports, oldest first.
    pub exports: Vec<PathBuf>,
    /// Bytes in `quarantine/`: nothing there is needed, and nothing there is ever removed by this program.
    pub quarantine_bytes: u64,
}

impl Store {
    /// Opens or creates the store in `dir`; repairs it if it is damaged, and says so. `Unavailable`, naming the
    /// holder, while another process has it; `Internal` where the database does not open in time.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<(Self, Opened)> {
        let (lock, engine, books, opened) = open::open(dir, options)?;
        Ok((Self::start(dir, options, lock, (engine, books))?, opened))
    }

    fn start(
        dir: &Path,
        options: &StoreOptions,
        lock: Arc<lock::Lock>,
        (engine, books): (engine::Engine, load::Books),
    ) -> Result<Self> {
        let shared = Arc::new(Shared::new(dir.to_owned(), options.clone(), engine, books)?);
        let committer = Arc::clone(&shared);
        let spawned =
            std::thread::Builder::new().name("store commit".to_owned()).spawn(move || committer.run());
        let thread = spawned.map_err(|error| disk::failed("no thread for the store", dir, &error))?;
        Ok(Self { shared, thread: Some(thread), lock })
    }

    /// Writes every record to a new file in `exports/`, reads it back and checks it. Each record is as of the moment
    /// at which it is reached; a batch that is committed meanwhile may be in the file in part. Corrupt records are
    /// left out and named.
    pub fn export(&self) -> Result<ExportReport> {
        export::to_dir(self, &self.exports(), lock::seconds())
    }

    /// As [`Store::export`], to a file of the caller's, which must not exist.
    pub fn export_to(&self, path: &Path) -> Result<ExportReport> {
        export::to_file(self, path, lock::seconds())
    }

    /// Exports if the newest export is `every` old, then removes all but the newest `keep`. After an export that
    /// left corrupt records out none is removed.
    pub fn export_if_due(
        &self,
        now: SystemTime,
        every: Duration,
        keep: usize,
    ) -> Result<Option<ExportReport>> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let dir = self.exports();
        if !export::due(&dir, now, every)? {
            return Ok(None);
        }
        let report = export::to_dir(self, &dir, now)?;
        if report.bad.is_empty() {
            export::prune(&dir, keep.max(1))?;
            export::prune_journal(&dir, &self.shared.dir.join(open::JOURNAL))?;
        }
        Ok(Some(report))
    }

    /// Writes every record of an export into this store, over what is there. The whole file is checked first.
    pub fn import(&self, path: &Path) -> Result<ExportReport> {
        export::import(self, path)
    }

    /// Reads every record with its chunks and checks it.
    pub fn verify(&self) -> Result<Verified> {
        verify::verify(self)
    }

    /// What the store has and had.
    pub fn stats(&self) -> Result<Stats> {
        let set_aside = self.shared.with(|engine| verify::count(engine, keys::ASIDE))?;
        let exports = export::list(&self.exports())?;
        let quarantine_bytes = disk::size_below(&self.shared.dir.join(open::QUARANTINE));
        Ok(Stats { health: self.health(), set_aside, exports, quarantine_bytes })
    }

    fn exports(&self) -> PathBuf {
        self.shared.dir.join(open::EXPORTS)
    }

    fn page(&self, space: Space, from: From<'_>, limit: usize) -> Result<Vec<(Vec<u8>, Result<Found>)>> {
        self.noted(self.shared.with(|engine| read::page(engine, space, from, limit)))
    }

    /// Sound records only: the first that is not is the error.
    fn pairs(&self, space: Space, from: From<'_>, limit: usize) -> Result<Pairs> {
        let page = self.page(space, from, limit)?;
        let pairs = page.into_iter().map(|(key, found)| Ok((key, found?.value)));
        self.noted(pairs.collect())
    }

    fn noted<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.as_ref().is_err_and(is_corrupt) {
            self.shared.counters.corrupt_reads.fetch_add(1, Relaxed);
        }
        outcome
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has already been printed.
            let _ = thread.join();
        }
        let closed = commit::Slot::Failed("it was closed".to_owned());
        let mut slot = self.shared.slot.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let commit::Slot::Open(engine) = std::mem::replace(&mut *slot, closed) {
            engine.close();
        }
    }
}

impl Records for Store {
    fn submit(&self, batch: Batch, done: Done) {
        self.shared.submit(batch, done);
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.noted(self.shared.with(|engine| read::get(engine, space, key)))?;
        if space == Space::Result && found.is_some() {
            locked(&self.shared.books).lru.touch(key, lock::seconds());
        }
        Ok(found.map(|found| found.value))
    }

    fn contains(&self, space: Space, key: &[u8]) -> Result<bool> {
        if space == Space::Result {
            return Ok(locked(&self.shared.books).lru.used(key).is_some());
        }
        let raw = keys::record(space, key);
        self.shared.with(|engine| Ok(engine.get(&raw)?.is_some()))
    }

    fn scan(&self, space: Space, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Pairs> {
        self.pairs(space, From { prefix, edge: after, backwards: false }, limit)
    }

    fn scan_back(&self, space: Space, prefix: &[u8], before: Option<&[u8]>, limit: usize) -> Result<Pairs> {
        self.pairs(space, From { prefix, edge: before, backwards: true }, limit)
    }

    fn health(&self) -> Health {
        let (free_bytes, total_bytes) = disk::space(&self.shared.dir);
        let counters = &self.shared.counters;
        // New jobs are refused well before writes are.
        let limit = self.shared.options.min_free_bytes.min(total_bytes / 20);
        let limit = limit.max(2 * Shared::reserve(total_bytes));
        let size = self.shared.with(|engine| Ok(engine.bytes_on_disk()?));
        Health {
            free_bytes,
            total_bytes,
            database_bytes: size.unwrap_or(0),
            spaces: locked(&self.shared.books).usage(),
            low_on_disk: total_bytes > 0 && free_bytes < limit,
            failed: self.shared.failure(),
            evictions: counters.evictions.load(Relaxed),
            commits: counters.commits.load(Relaxed),
            syncs: counters.syncs.load(Relaxed),
            corrupt_reads: counters.corrupt_reads.load(Relaxed),
        }
    }
}
