//! Exports: every record of a store in one file of our own format, which does not depend on sled.
//!
//! `"SPXEXP\r\n" | version u32 | created u64 | sequence u64`, then records, each `length u32 | checksum [16] | body`, then
//! `0xffffffff | count u64 | BLAKE3 of all before it [32]`, and nothing after. A body is
//! `space u8 | used u64 | key length u32 | key | value`. Numbers are big-endian. The checksum of a record is the
//! beginning of BLAKE3 over its number (from 0, u64) and its body.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::{failed, space, sync_dir};
use super::envelope::Reader;
use super::journal::Journal;
use super::load::BadRecord;
use super::read::From;
use super::records::{Batch, MAX_KEY, MAX_VALUE, Op, Records as _, Space, commit, is_corrupt};
use super::{Store, locked};
use crate::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"SPXEXP\r\n";
const VERSION: u32 = 1;
const END: u32 = u32::MAX;
const FIXED: usize = 1 + 8 + 4;
const LONGEST: usize = FIXED + MAX_KEY + MAX_VALUE;
/// Records are imported in batches of this many bytes.
const PORTION: usize = 4 << 20;

/// One record of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) space: Space,
    pub(super) key: Vec<u8>,
    /// Seconds since 1970 of its last use, or of its writing.
    pub(super) used: u64,
    pub(super) value: Vec<u8>,
}

/// What an export holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportReport {
    /// The file.
    pub path: PathBuf,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The number of the last commit that it has for certain; a later one may be there in part.
    pub sequence: u64,
    /// Records in it.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Corrupt records, which are not in it.
    pub bad: Vec<BadRecord>,
}

/// Writes an export under a name of its own; [`Writer::finish`] gives it its name.
pub(super) struct Writer {
    path: PathBuf,
    partial: PathBuf,
    out: BufWriter<File>,
    hasher: blake3::Hasher,
    created: u64,
    sequence: u64,
    records: u64,
    bytes: u64,
}

impl Writer {
    pub(super) fn create(path: &Path, created: u64, sequence: u64) -> Result<Self> {
        if path.exists() {
            return Err(Error::invalid("the file exists").in_file(path.display().to_string()));
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|error| failed("cannot create", &partial, &error))?;
        let out = BufWriter::with_capacity(1 << 20, file);
        let hasher = blake3::Hasher::new();
        let mut writer =
            Self { path: path.to_owned(), partial, out, hasher, created, sequence, records: 0, bytes: 0 };
        writer.write(MAGIC)?;
        writer.write(&VERSION.to_be_bytes())?;
        writer.write(&created.to_be_bytes())?;
        writer.write(&sequence.to_be_bytes())?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|error| failed("cannot write", &self.partial, &error))
    }

    pub(super) fn add(&mut self, record: &Record) -> Result<()> {
        let mut front = Vec::with_capacity(FIXED + record.key.len());
        front.push(record.space.prefix());
        front.extend_from_slice(&record.used.to_be_bytes());
        front.extend_from_slice(&(record.key.len() as u32).to_be_bytes());
        front.extend_from_slice(&record.key);
        self.write(&((front.len() + record.value.len()) as u32).to_be_bytes())?;
        self.write(&checksum(self.records, &[&front, &record.value]))?;
        self.write(&front)?;
        self.write(&record.value)?;
        self.records += 1;
        Ok(())
    }

    /// Syncs the file, reads it back, and only then gives it its name.
    pub(super) fn finish(mut self) -> Result<ExportReport> {
        self.write(&END.to_be_bytes())?;
        self.write(&self.records.to_be_bytes())?;
        let hash = *self.hasher.finalize().as_bytes();
        self.write(&hash)?;
        let synced = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        synced.map_err(|error| failed("cannot write", &self.partial, &error))?;
        let read = each(&self.partial, &mut |_| Ok(()))?;
        if read != self.records {
            let message = format!("{} records were written and {read} read back", self.records);
            return Err(Error::new(ErrorKind::Internal, message).in_file(self.partial.display().to_string()));
        }
        std::fs::rename(&self.partial, &self.path)
            .map_err(|error| failed("cannot rename", &self.partial, &error))?;
        sync_dir(self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        Ok(ExportReport {
            path: self.path.clone(),
            created: self.created,
            sequence: self.sequence,
            records: self.records,
            bytes: self.bytes,
            bad: Vec::new(),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It is gone if it has its name.
        let _ = std::fs::remove_file(&self.partial);
    }
}

fn checksum(number: u64, parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_be_bytes());
    for part in parts {
        hasher.update(part);
    }
    let mut short = [0; 16];
    hasher.finalize_xof().fill(&mut short);
    short
}

/// Reads bytes and hashes them.
struct Source {
    from: BufReader<File>,
    hasher: blake3::Hasher,
}

impl Source {
    fn take<const N: usize>(&mut self) -> std::result::Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> std::result::Result<(), String> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
            _ => error.to_string(),
        })?;
        self.hasher.update(bytes);
        Ok(())
    }
}

/// Calls `use_it` with each record that is sound, in order; gives their number. An error, after records have been
/// given, if any of the file is not what was written: call it twice where that matters. `Malformed`.
pub(super) fn each(path: &Path, use_it: &mut dyn FnMut(Record) -> Result<()>) -> Result<u64> {
    let place = path.display().to_string();
    let file = File::open(path).map_err(|error| failed("cannot open", path, &error))?;
    let left = file.metadata().map_err(|error| failed("cannot read", path, &error))?.len();
    let mut source = Source { from: BufReader::with_capacity(1 << 20, file), hasher: blake3::Hasher::new() };
    let bad = |why: String| Error::malformed(why).in_file(place.clone());
    begin(&mut source).map_err(bad)?;
    let mut count = 0;
    while let Some(record) = next(&mut source, count, left).map_err(bad)? {
        use_it(record)?;
        count += 1;
    }
    end(&mut source, count).map_err(bad)?;
    Ok(count)
}

/// When it was made, and its sequence number.
fn begin(source: &mut Source) -> std::result::Result<(u64, u64), String> {
    if source.take::<8>()? != *MAGIC {
        return Err("it is not an export: the magic is missing".to_owned());
    }
    let version = u32::from_be_bytes(source.take()?);
    if version != VERSION {
        return Err(format!("it has version {version}, this program reads version {VERSION}"));
    }
    Ok((u64::from_be_bytes(source.take()?), u64::from_be_bytes(source.take()?)))
}

fn next(source: &mut Source, number: u64, left: u64) -> std::result::Result<Option<Record>, String> {
    let length = u32::from_be_bytes(source.take()?);
    if length == END {
        return Ok(None);
    }
    let length = length as usize;
    if !(FIXED..=LONGEST).contains(&length) || length as u64 > left {
        return Err(format!("record {number} has an impossible length of {length} bytes"));
    }
    let sum = source.take::<16>()?;
    let mut body = vec![0; length];
    source.fill(&mut body)?;
    if sum != checksum(number, &[&body]) {
        return Err(format!("the checksum of record {number} is wrong"));
    }
    let mut reader = Reader(&body);
    let parsed = (|| {
        let space = Space::of_prefix(reader.byte()?)?;
        let used = reader.u64()?;
        let key_length = reader.u32()? as usize;
        let key = reader.take(key_length)?.to_vec();
        (key_length > 0 && key_length <= MAX_KEY).then(|| Record {
            space,
            key,
            used,
            value: reader.0.to_vec(),
        })
    })();
    parsed.map(Some).ok_or_else(|| format!("record {number} has an unknown space or a wrong key"))
}

fn end(source: &mut Source, count: u64) -> std::result::Result<(), String> {
    let promised = u64::from_be_bytes(source.take()?);
    if promised != count {
        return Err(format!("it promises {promised} records and holds {count}"));
    }
    let hash = *source.hasher.finalize().as_bytes();
    if source.take::<32>()? != hash {
        return Err("the checksum of the file is wrong".to_owned());
    }
    match source.from.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err("bytes follow its end".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Checks a whole export and says what is in it. `Malformed`, saying where, if any of it is not what was written.
pub fn verify_export(path: &Path) -> Result<ExportReport> {
    let records = each(path, &mut |_| Ok(()))?;
    let file = File::open(path).map_err(|error| failed("cannot open", path, &error))?;
    let bytes = file.metadata().map_err(|error| failed("cannot read", path, &error))?.len();
    let mut source = Source { from: BufReader::new(file), hasher: blake3::Hasher::new() };
    let (created, sequence) =
        begin(&mut source).map_err(|why| Error::malformed(why).in_file(path.display().to_string()))?;
    Ok(ExportReport { path: path.to_owned(), created, sequence, records, bytes, bad: Vec::new() })
}

/// The time and number in the name of an export.
fn parse_name(path: &Path) -> Option<(u64, u64)> {
    let name = path.file_name()?.to_str()?;
    let (time, number) = name.strip_prefix("export-")?.strip_suffix(".spx")?.split_once('-')?;
    Some((time.parse().ok()?, number.parse().ok()?))
}

/// The exports in `dir`, oldest first.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(|error| failed("cannot list", dir, &error))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed("cannot list", dir, &error))?.path();
        if let Some((time, number)) = parse_name(&path) {
            // By number: times jump with the clock.
            found.push((number, time, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

/// Whether the newest export is `every` old, or from the future, or there is none.
pub(super) fn due(dir: &Path, now: u64, every: Duration) -> Result<bool> {
    let newest = list(dir)?.last().and_then(|path| parse_name(path));
    Ok(newest.is_none_or(|(time, _)| time > now || now - time >= every.as_secs()))
}

/// Removes all but the newest `keep`.
pub(super) fn prune(dir: &Path, keep: usize) -> Result<()> {
    let exports = list(dir)?;
    for path in exports.iter().take(exports.len().saturating_sub(keep)) {
        std::fs::remove_file(path).map_err(|error| failed("cannot remove", path, &error))?;
    }
    sync_dir(dir)
}

/// Removes the journal of what the oldest export has.
pub(super) fn prune_journal(dir: &Path, journal: &Path) -> Result<()> {
    let Some(oldest) = list(dir)?.into_iter().next() else { return Ok(()) };
    let file = File::open(&oldest).map_err(|error| failed("cannot open", &oldest, &error))?;
    let mut source = Source { from: BufReader::new(file), hasher: blake3::Hasher::new() };
    match begin(&mut source) {
        Ok((_, sequence)) => Journal::prune(journal, sequence),
        Err(why) => Err(Error::malformed(why).in_file(oldest.display().to_string())),
    }
}

/// Exports to a new file in `dir`.
pub(super) fn to_dir(store: &Store, dir: &Path, now: u64) -> Result<ExportReport> {
    let number = list(dir)?.last().and_then(|path| parse_name(path)).map_or(1, |(_, number)| number + 1);
    to_file(store, &dir.join(format!("export-{now:010}-{number:06}.spx")), now)
}

/// Exports to `path`.
pub(super) fn to_file(store: &Store, path: &Path, now: u64) -> Result<ExportReport> {
    let held: u64 = store.health().spaces.iter().map(|usage| usage.bytes + usage.entries * 64).sum();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (free, total) = space(dir);
    if total > 0 && free < held.saturating_add(64 << 20) {
        let message = format!("an export needs about {held} bytes, {free} are free");
        return Err(Error::new(ErrorKind::TooLarge, message).in_file(path.display().to_string()));
    }
    // What is committed from here on is in the journal's next segment.
    locked(&store.shared.journal).rotate()?;
    let sequence = locked(&store.shared.books).sequence;
    let mut writer = Writer::create(path, now, sequence)?;
    let mut bad = Vec::new();
    for space in Space::ALL {
        let mut edge: Option<Vec<u8>> = None;
        loop {
            let from = From { prefix: &[], edge: edge.as_deref(), backwards: false };
            let page = store.page(space, from, 1000)?;
            let Some((last, _)) = page.last() else { break };
            edge = Some(last.clone());
            for (key, found) in page {
                match found {
                    Ok(found) => {
                        let used = store.used(space, &key).unwrap_or(found.written);
                        writer.add(&Record { space, key, used, value: found.value })?;
                    }
                    Err(error) if is_corrupt(&error) => {
                        bad.push(BadRecord { space, key, why: error.message().to_owned() });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(ExportReport { bad, ..writer.finish()? })
}

/// Writes the records of an export into a store, after all of it was checked.
pub(super) fn import(store: &Store, path: &Path) -> Result<ExportReport> {
    let report = verify_export(path)?;
    let mut batch = Batch::new();
    let mut bytes = 0;
    each(path, &mut |record| {
        let Record { space, key, used, value } = record;
        bytes += key.len() + value.len();
        batch.ops.push(Op { space, key, value: Some(value), used: Some(used) });
        if bytes < PORTION {
            return Ok(());
        }
        bytes = 0;
        commit(store, std::mem::take(&mut batch))
    })?;
    commit(store, batch)?;
    Ok(report)
}

impl Store {
    fn used(&self, space: Space, key: &[u8]) -> Option<u64> {
        (space == Space::Result).then(|| locked(&self.shared.books).lru.used(key))?
    }
}
