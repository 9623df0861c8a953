//! Compaction: sled's files never shrink, so a database is written anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::size_below;
use super::export::{self, ExportReport, each};
use super::open::{DATABASE, EXPORTS, NEW, OLD, remove, swap};
use super::restore::Filler;
use super::{Opened, Store, StoreOptions, lock};
use crate::{Error, ErrorKind, Result};

/// What a compaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// Records in the database.
    pub records: u64,
    /// Bytes of its files before.
    pub before: u64,
    /// Bytes of its files after.
    pub after: u64,
    /// The export that it went through; it stays.
    pub export: PathBuf,
    /// What opening the old database found.
    pub opened: Opened,
}

/// Writes the database of `dir` anew, by way of an export. No one else may have it open (`Unavailable`). The old
/// database is removed only after the new one was read through and found to hold the same; stopped at any moment, one
/// of the two is complete and is taken up by the next opening. Refuses (`Malformed`) to drop corrupt records.
pub fn compact(dir: &Path, options: &StoreOptions) -> Result<Compacted> {
    let (store, opened) = Store::open(dir, options)?;
    // No other process may come in between.
    let lock = Arc::clone(&store.lock);
    let database = dir.join(DATABASE);
    let before = size_below(&database);
    let report = store.export()?;
    drop(store);
    if let Some(bad) = report.bad.first() {
        let message = format!("{} records are corrupt; compacting would drop them", report.bad.len());
        return Err(
            Error::malformed(format!("{message}: {}", bad.why)).in_file(database.display().to_string())
        );
    }
    let mut filler = Filler::open(dir, options, report.sequence)?;
    each(&report.path, &mut |record| filler.add(record))?;
    filler.finish()?;
    same(dir, options, &report, &lock)?;
    swap(dir, &dir.join(OLD))?;
    remove(&dir.join(OLD))?;
    let after = size_below(&database);
    Ok(Compacted { records: report.records, before, after, export: report.path, opened })
}

/// Reads the new database through: its export must have the records of the one that it was made from.
fn same(dir: &Path, options: &StoreOptions, report: &ExportReport, lock: &Arc<lock::Lock>) -> Result<()> {
    let path = dir.join(NEW);
    let opened = super::open::attempt(&path, options, true);
    let (engine, loaded) = opened.map_err(|fault| super::open::unopened(&path, fault))?;
    let unbounded = StoreOptions { max_result_bytes: u64::MAX, ..options.clone() };
    let store = Store::start(dir, &unbounded, Arc::clone(lock), (engine, loaded.books))?;
    let check = dir.join(EXPORTS).join("compact-check.spx");
    // Of a check that was stopped.
    let _ = std::fs::remove_file(&check);
    let checked = store.export_to(&check);
    drop(store);
    let checked = checked?;
    let equal = checked.bad.is_empty() && digest(&check)? == digest(&report.path)?;
    let _ = std::fs::remove_file(&check);
    if equal {
        return Ok(());
    }
    let message = "the compacted database does not hold the records of the old one, which stays";
    Err(Error::new(ErrorKind::Internal, message).in_file(path.display().to_string()))
}

/// Of the records of an export, without the time at which it was made.
fn digest(path: &Path) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    export::each(path, &mut |record| {
        hasher.update(&[record.space.prefix()]);
        for part in [&record.key, &record.value] {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        Ok(())
    })?;
    Ok(hasher.finalize())
}
