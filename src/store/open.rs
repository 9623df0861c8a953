//! The guarded opening of a data directory.

use std::path::Path;
use std::sync::Arc;

use super::StoreOptions;
use super::disk::{Syncer, create_dir, failed, sync_dir};
use super::engine::{Engine, Fault, Faulty};
use super::export;
use super::journal;
use super::load::{BadRecord, Books, Loaded, load, read_all};
use super::lock::{Lock, seconds};
use super::plan::{Terms, plan};
use super::records::{is_corrupt, named};
use super::restore::{self, Recovery};
use crate::{Error, Result};

/// Names in a data directory.
pub(super) const DATABASE: &str = "db";
pub(super) const EXPORTS: &str = "exports";
pub(super) const JOURNAL: &str = "journal";
pub(super) const QUARANTINE: &str = "quarantine";
/// A database that is being built.
pub(super) const BUILDING: &str = "db.building";
/// A database that is complete, and is to take the place of `db`.
pub(super) const NEW: &str = "db.new";
/// A file that says that the database was seen to be damaged: the next opening reads all of it.
pub(super) const SUSPECT: &str = "SUSPECT";
/// The database that a compaction replaced.
pub(super) const OLD: &str = "db.old";

/// What the opening of a store found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// There was no database: a new one was made.
    pub created: bool,
    /// The database was damaged, and this was done.
    pub recovered: Option<Recovery>,
    /// Records that were corrupt and have been set aside: they are not there any more for readers.
    pub bad: Vec<BadRecord>,
    /// Chunks that were removed, for a stop came before their value was complete (and so before it was acknowledged).
    pub orphan_chunks: u64,
    /// Commits that the database lacked and that were applied again from the journal. One is usual after a kill.
    pub replayed: u64,
    /// Numbers (first and last) of commits of which neither the database nor an export nor the journal has anything.
    pub missing: Vec<(u64, u64)>,
}

impl Opened {
    /// What people must be told, a line each; empty after an ordinary opening.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.recovered.iter().map(ToString::to_string).collect();
        if self.replayed > 1 {
            let count = self.replayed;
            lines.push(format!(
                "the database lacked {count} commits, which were applied again from the journal"
            ));
        }
        for (first, last) in &self.missing {
            let left = match &self.recovered {
                Some(recovery) if recovery.salvaged > 0 => {
                    "what could be read of the damaged database is left"
                }
                _ => "nothing is left",
            };
            lines.push(format!("of the commits {first} to {last} {left}"));
        }
        for bad in &self.bad {
            lines.push(format!("{} is corrupt and was set aside: {}", named(bad.space, &bad.key), bad.why));
        }
        lines
    }
}

/// Opens `dir`, whoever calls it holding nothing yet.
pub(super) fn open(dir: &Path, options: &StoreOptions) -> Result<(Arc<Lock>, Engine, Books, Opened)> {
    for path in [dir.to_owned(), dir.join(EXPORTS), dir.join(JOURNAL), dir.join(QUARANTINE)] {
        create_dir(&path)?;
    }
    let lock = Arc::new(Lock::take(dir)?);
    let (engine, books, opened) = under_lock(dir, options)?;
    Ok((lock, engine, books, opened))
}

/// Opens the database of `dir`, repairing it if need be.
pub(super) fn under_lock(dir: &Path, options: &StoreOptions) -> Result<(Engine, Books, Opened)> {
    finish_swap(dir)?;
    let path = dir.join(DATABASE);
    let mut opened = Opened::default();
    let missing = !path.exists();
    let journal = dir.join(JOURNAL);
    let had = !export::list(&dir.join(EXPORTS))?.is_empty() || !journal::segments(&journal)?.is_empty();
    if missing && had {
        let fault = Fault::Damaged("it is missing, though there are copies of it".to_owned());
        opened.recovered = Some(restore::rebuild(dir, options, &fault, Vec::new())?);
    }
    opened.created = missing && opened.recovered.is_none();
    let thorough = options.thorough || dir.join(SUSPECT).exists();
    let first = attempt(&path, options, thorough).and_then(|(engine, loaded)| {
        match gap(&journal, loaded.books.sequence) {
            Some(text) if opened.recovered.is_none() => {
                engine.close();
                Err(Fault::Damaged(text))
            }
            _ => Ok((engine, loaded)),
        }
    });
    let (engine, mut loaded) = match first {
        Ok(found) => found,
        Err(fault) => {
            let (engine, loaded, recovery) = restore::recover(dir, options, &fault)?;
            opened.recovered = Some(recovery);
            (engine, loaded)
        }
    };
    let caught_up = catch_up(&engine, &mut loaded.books, &journal, &mut opened.replayed);
    let (engine, caught_up) = match caught_up {
        // What a commit of the journal changes lies where the database cannot be read.
        Err(error) if is_corrupt(&error) && opened.recovered.is_none() => {
            engine.close();
            let fault = Fault::Damaged(error.message().to_owned());
            opened.recovered = Some(restore::rebuild(dir, options, &fault, Vec::new())?);
            let again = attempt(&path, options, false).map_err(|fault| unopened(&path, fault))?;
            loaded = again.1;
            (again.0, None)
        }
        other => (engine, Some(other?)),
    };
    opened.missing = match caught_up {
        Some(missing) => missing,
        None => catch_up(&engine, &mut loaded.books, &journal, &mut opened.replayed)?,
    };
    let _ = std::fs::remove_file(dir.join(SUSPECT));
    sync_dir(dir)?;
    opened.bad = loaded.bad;
    opened.orphan_chunks = loaded.orphans;
    Ok((engine, loaded.books, opened))
}

/// Opens and reads a database; with its chunks if `thorough`.
pub(super) fn attempt(path: &Path, options: &StoreOptions, thorough: bool) -> Faulty<(Engine, Loaded)> {
    let engine = Engine::open(path, options.tuning())?;
    let read = if thorough { read_all(&engine) } else { Ok(()) };
    match read.and_then(|()| load(&engine)) {
        Ok(loaded) => Ok((engine, loaded)),
        Err(fault) => {
            engine.close();
            Err(fault)
        }
    }
}

/// Whether commits are gone that the journal no longer has, so that an export must help.
fn gap(journal: &Path, held: u64) -> Option<String> {
    let (first, _) = journal::segments(journal).ok()?.into_iter().next()?;
    (first > held + 1).then(|| format!("it lacks its commits {} to {}", held + 1, first - 1))
}

/// Applies what the journal has and the database has not, and makes it durable. Gives the numbers of which the journal
/// has nothing.
pub(super) fn catch_up(
    engine: &Engine,
    books: &mut Books,
    journal: &Path,
    applied: &mut u64,
) -> Result<Vec<(u64, u64)>> {
    let replayed = journal::replay(journal, books.sequence, &mut |sequence, batch| {
        let terms = Terms { now: seconds(), max_result_bytes: u64::MAX, sequence };
        let written =
            plan(engine, books, &[&batch], terms).and_then(|mut plan| plan.apply(engine).map(|()| plan));
        books.enter(&written.map_err(|fault| unopened(journal, fault))?);
        Ok(())
    })?;
    if replayed.groups > 0 {
        engine.flush().map_err(|fault| unopened(journal, fault))?;
        Syncer::new(journal)?.sync()?;
    }
    *applied = replayed.groups;
    Ok(replayed.missing)
}

/// Puts `db.new` in the place of `db`, which goes to `aside`.
pub(super) fn swap(dir: &Path, aside: &Path) -> Result<()> {
    let (database, new) = (dir.join(DATABASE), dir.join(NEW));
    if database.exists() {
        rename(&database, aside)?;
    }
    rename(&new, &database)?;
    sync_dir(dir)
}

/// Completes a swap that a stop interrupted, and removes what only an interrupted one leaves.
fn finish_swap(dir: &Path) -> Result<()> {
    let (database, new, old) = (dir.join(DATABASE), dir.join(NEW), dir.join(OLD));
    if !database.exists() {
        // The old one goes aside only after the new one is complete.
        if new.exists() {
            rename(&new, &database)?;
        } else if old.exists() {
            rename(&old, &database)?;
        }
        sync_dir(dir)?;
    }
    for leftover in [new, old, dir.join(BUILDING)] {
        remove(&leftover)?;
    }
    Ok(())
}

/// Renames, with both paths in the error.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to)
        .map_err(|error| failed(&format!("cannot move it to {}", to.display()), from, &error))
}

/// Removes a directory of ours, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("cannot remove", path, &error))
        }
        _ => Ok(()),
    }
}

/// The error of a database that cannot be opened, named by its path.
pub(super) fn unopened(path: &Path, fault: Fault) -> Error {
    Error::from(fault).in_file(path.display().to_string())
}
