//! What is done with a database that does not open, or that cannot be read through.

use std::fmt;
use std::path::{Path, PathBuf};

use super::StoreOptions;
use super::disk::{Syncer, create_dir, failed, sync_dir};
use super::engine::{Engine, Fault};
use super::export::{self, Record, Writer};
use super::keys;
use super::load::{Books, Loaded, load};
use super::lock::{seconds, utc};
use super::open::{BUILDING, DATABASE, EXPORTS, NEW, QUARANTINE, attempt, remove, rename, swap, unopened};
use super::plan::{Terms, plan};
use super::read::{self, Outer, outer};
use super::records::{Batch, Op, Space};
use crate::{Error, Result};

/// What sled writes into `conf` for a database of ours, before a checksum.
const CONF: &[u8] = b"segment_size: 524288\nuse_compression: false\nversion: 0.34\n";
/// Records are written in batches of this many bytes.
const PORTION: usize = 4 << 20;

/// An export that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The export.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// What was wrong with a database, and what was done. `Display` says it in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// What was wrong.
    pub problem: String,
    /// What was moved, and is now in this directory; `None` if there was nothing to move.
    pub quarantine: Option<PathBuf>,
    /// A new database was made. If not, moving single files was enough, and nothing was lost.
    pub rebuilt: bool,
    /// The export that the new database was filled from.
    pub restored_from: Option<PathBuf>,
    /// Records that came from it.
    pub restored: u64,
    /// Records that could still be read from the damaged database; they replace those of the export. A record that
    /// was deleted after the export was made is back if its deletion could not be read.
    pub salvaged: u64,
    /// Newer exports that could not be used.
    pub rejected: Vec<Rejected>,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the database was damaged ({})", self.problem)?;
        if let Some(quarantine) = &self.quarantine {
            let what = if self.rebuilt { "it" } else { "what was in its way" };
            write!(f, "; {what} was moved to {}", quarantine.display())?;
        }
        for rejected in &self.rejected {
            write!(f, "; the export {} is not sound: {}", rejected.path.display(), rejected.why)?;
        }
        if !self.rebuilt {
            return write!(f, "; it then opened, and nothing is missing");
        }
        match &self.restored_from {
            Some(path) => write!(f, "; {} records were restored from {}", self.restored, path.display())?,
            None => write!(f, "; there was no sound export to restore from")?,
        }
        write!(f, "; {} records were read from the damaged one", self.salvaged)
    }
}

/// Opens a database that did not open, having moved things out of its way or having built a new one.
pub(super) fn recover(
    dir: &Path,
    options: &StoreOptions,
    fault: &Fault,
) -> Result<(Engine, Loaded, Recovery)> {
    let database = dir.join(DATABASE);
    let suspects = suspects(&database);
    let mut moved = None;
    if !suspects.is_empty() {
        let quarantine = quarantine(dir)?;
        for path in &suspects {
            rename(path, &quarantine.join(path.file_name().unwrap_or_default()))?;
        }
        sync_dir(&quarantine)?;
        sync_dir(&database)?;
        moved = Some(quarantine);
        if let Ok((engine, loaded)) = attempt(&database, options, false) {
            let recovery = Recovery { rebuilt: false, ..empty(fault, moved) };
            return Ok((engine, loaded, recovery));
        }
    }
    if !matches!(fault, Fault::Damaged(_)) && moved.is_none() {
        return Err(unopened(&database, fault.clone()));
    }
    let recovery = rebuild(dir, options, fault, moved.into_iter().collect())?;
    let (engine, loaded) = attempt(&database, options, false).map_err(|fault| unopened(&database, fault))?;
    Ok((engine, loaded, recovery))
}

fn empty(fault: &Fault, quarantine: Option<PathBuf>) -> Recovery {
    Recovery {
        problem: fault.text().to_owned(),
        quarantine,
        rebuilt: true,
        restored_from: None,
        restored: 0,
        salvaged: 0,
        rejected: Vec::new(),
    }
}

/// Files that keep a sound database from opening: a snapshot that was being written when the process was killed (sled
/// takes it for the newest), and a `conf` that is not what it must be. sled makes both again.
fn suspects(database: &Path) -> Vec<PathBuf> {
    let Ok(list) = std::fs::read_dir(database) else { return Vec::new() };
    let paths = list.filter_map(std::result::Result::ok).map(|entry| entry.path());
    paths
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let torn = name.starts_with("snap.") && name.ends_with(".generating");
            let changed = || std::fs::read(path).is_ok_and(|bytes| !bytes.starts_with(CONF));
            torn || (name == "conf" && changed())
        })
        .collect()
}

/// A new directory below `quarantine/`, named by the time.
fn quarantine(dir: &Path) -> Result<PathBuf> {
    let parent = dir.join(QUARANTINE);
    let now = utc(seconds()).replace(':', "");
    for count in 1..10_000 {
        let path = parent.join(format!("{now}-{count}"));
        match std::fs::create_dir(&path) {
            Ok(()) => {
                sync_dir(&parent)?;
                return Ok(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("cannot create the directory", &path, &error)),
        }
    }
    Err(Error::invalid("too many directories of one second").in_file(parent.display().to_string()))
}

/// Builds a new database from the newest sound export and from what can still be read, then moves the damaged one
/// aside. Stopped at any moment, it begins again with nothing lost.
pub(super) fn rebuild(
    dir: &Path,
    options: &StoreOptions,
    fault: &Fault,
    moved: Vec<PathBuf>,
) -> Result<Recovery> {
    let database = dir.join(DATABASE);
    let quarantine = match moved.into_iter().next() {
        Some(path) => path,
        None => quarantine(dir)?,
    };
    let mut recovery = empty(fault, Some(quarantine.clone()));
    let mut sequence = 0;
    for path in export::list(&dir.join(EXPORTS))?.into_iter().rev() {
        match export::verify_export(&path) {
            Ok(report) => {
                sequence = report.sequence;
                recovery.restored_from = Some(path);
                break;
            }
            Err(error) => recovery.rejected.push(Rejected { path, why: error.message().to_owned() }),
        }
    }
    let salvaged = quarantine.join("salvaged.spx");
    recovery.salvaged = salvage(&database, options, &salvaged)?;
    let mut filler = Filler::open(dir, options, sequence)?;
    if let Some(path) = &recovery.restored_from {
        recovery.restored = export::each(path, &mut |record| filler.add(record))?;
    }
    if recovery.salvaged > 0 {
        export::each(&salvaged, &mut |record| filler.add(record))?;
    }
    filler.finish()?;
    swap(dir, &quarantine.join(DATABASE))?;
    sync_dir(&quarantine)?;
    Ok(recovery)
}

/// Writes what can be read of a damaged database to an export at `path`; gives the number of records.
fn salvage(database: &Path, options: &StoreOptions, path: &Path) -> Result<u64> {
    if !database.exists() {
        return Ok(0);
    }
    let Ok(engine) = Engine::open(database, options.tuning()) else { return Ok(0) };
    let mut writer = Writer::create(path, seconds(), 0)?;
    for space in Space::ALL {
        // From both ends up to what cannot be read.
        let mut last = None;
        for step in engine.walk_prefix(&[space.prefix()]) {
            let Ok((raw, stored)) = step else { break };
            salvage_one(&engine, &raw, &stored, &mut writer)?;
            last = Some(raw);
        }
        let low = last.map_or(vec![space.prefix()], |last| last.to_vec());
        let range = (std::ops::Bound::Excluded(low), std::ops::Bound::Excluded(vec![space.prefix() + 1]));
        for step in engine.walk(range.0, range.1, true) {
            let Ok((raw, stored)) = step else { break };
            salvage_one(&engine, &raw, &stored, &mut writer)?;
        }
    }
    engine.close();
    Ok(writer.finish()?.records)
}

fn salvage_one(engine: &Engine, raw: &[u8], stored: &[u8], writer: &mut Writer) -> Result<()> {
    let Some((space, key)) = keys::split(raw) else { return Ok(()) };
    let found = match outer(raw, stored) {
        Ok(Outer::Value(found)) => Some(found),
        Ok(Outer::Long { .. }) => read::get(engine, space, key).ok().flatten(),
        Err(_) => None,
    };
    match found {
        Some(found) => {
            writer.add(&Record { space, key: key.to_vec(), used: found.written, value: found.value })
        }
        None => Ok(()),
    }
}

/// Fills `db.building`, which becomes `db.new` when it is complete.
pub(super) struct Filler {
    dir: PathBuf,
    path: PathBuf,
    engine: Engine,
    books: Books,
    batch: Batch,
    bytes: usize,
    /// What the new database will say that it has.
    sequence: u64,
}

impl Filler {
    /// In the data directory `dir`; what is filled in has the commits up to the number `sequence`.
    pub(super) fn open(dir: &Path, options: &StoreOptions, sequence: u64) -> Result<Self> {
        let path = dir.join(BUILDING);
        remove(&path)?;
        create_dir(&path)?;
        let opened = Engine::open(&path, options.tuning());
        let loaded = opened.and_then(|engine| load(&engine).map(|loaded| (engine, loaded.books)));
        let (engine, books) = loaded.map_err(|fault| unopened(&path, fault))?;
        Ok(Self { dir: dir.to_owned(), path, engine, books, batch: Batch::new(), bytes: 0, sequence })
    }

    pub(super) fn add(&mut self, record: Record) -> Result<()> {
        self.bytes += record.key.len() + record.value.len();
        let Record { space, key, used, value } = record;
        self.batch.ops.push(Op { space, key, value: Some(value), used: Some(used) });
        if self.bytes >= PORTION { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let terms = Terms { now: seconds(), max_result_bytes: u64::MAX, sequence: self.sequence };
        let written = plan(&self.engine, &mut self.books, &[&batch], terms).and_then(|mut plan| {
            plan.apply(&self.engine)?;
            self.engine.flush().map(|()| plan)
        });
        self.books.enter(&written.map_err(|fault| unopened(&self.path, fault))?);
        Ok(())
    }

    /// Makes all of it durable, closes it, and calls it `db.new`.
    pub(super) fn finish(mut self) -> Result<()> {
        self.write()?;
        let syncer = Syncer::new(&self.path)?;
        syncer.sync()?;
        self.engine.close();
        // Closing writes as well.
        syncer.sync()?;
        let new = self.dir.join(NEW);
        remove(&new)?;
        rename(&self.path, &new)?;
        sync_dir(&self.dir)
    }
}
