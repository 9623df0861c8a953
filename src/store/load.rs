//! What is read of a database when it is opened: counts, the order of use, and what a stop left behind.

use std::collections::HashMap;

use super::engine::{Engine, Fault, Faulty, Writes};
use super::envelope::{self, Kind, Reader};
use super::keys;
use super::lru::Lru;
use super::read::{self, Outer, outer};
use super::records::{Space, Usage};

/// A record that is not what was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// Its space.
    pub space: Space,
    /// Its key.
    pub key: Vec<u8>,
    /// What is wrong with it.
    pub why: String,
}

/// What the store keeps in memory of its records.
#[derive(Default)]
pub(super) struct Books {
    pub(super) lru: Lru,
    /// Without [`Space::Result`], which `lru` counts.
    pub(super) usage: [Usage; 6],
    pub(super) next_generation: u64,
    /// Of the last group that was applied.
    pub(super) sequence: u64,
}

impl Books {
    pub(super) fn usage(&self) -> [Usage; 6] {
        let mut usage = self.usage;
        if let Some(results) = usage.get_mut(Space::Result.index()) {
            *results = Usage { entries: self.lru.len(), bytes: self.lru.bytes() };
        }
        usage
    }
}

/// A database that was read once.
pub(super) struct Loaded {
    pub(super) books: Books,
    /// Corrupt records, now set aside.
    pub(super) bad: Vec<BadRecord>,
    /// Chunks that were removed, for the program stopped before their head was written.
    pub(super) orphans: u64,
}

/// Walks over every record but the chunks. Corrupt records are set aside, so that scans do not stumble over them
/// again; chunks whose head was never written are removed.
pub(super) fn load(engine: &Engine) -> Faulty<Loaded> {
    check_layout(engine)?;
    let mut repairs = Writes::default();
    let (mut books, mut bad, mut results) = (Books::default(), Vec::new(), Vec::new());
    let used = used_times(engine)?;
    for space in Space::ALL {
        for step in engine.walk_prefix(&[space.prefix()]) {
            let (raw, stored) = step?;
            let Some((_, key)) = keys::split(&raw) else { continue };
            let (length, written) = match outer(&raw, &stored) {
                Ok(Outer::Value(found)) => (found.value.len() as u64, found.written),
                Ok(Outer::Long { head, written }) => (head.length, written),
                Err(why) => {
                    repairs.put(keys::aside(&raw), stored.to_vec());
                    repairs.remove(raw.to_vec());
                    bad.push(BadRecord { space, key: key.to_vec(), why });
                    continue;
                }
            };
            let bytes = length + key.len() as u64;
            if space == Space::Result {
                let last = used.get(key).copied().unwrap_or(0).max(written);
                results.push((key.to_vec(), bytes, last));
            } else if let Some(usage) = books.usage.get_mut(space.index()) {
                usage.entries += 1;
                usage.bytes += bytes;
            }
        }
    }
    books.lru = Lru::new(results);
    let orphans = remove_orphans(engine, &mut repairs)?;
    books.next_generation = next_generation(engine)?;
    let (sequence, count) = tally(engine)?;
    books.sequence = sequence;
    let found = books.count() + bad.len() as u64;
    if let Some(count) = count.filter(|count| *count != found) {
        return Err(Fault::Damaged(format!("{found} of its {count} records are there")));
    }
    if !bad.is_empty() {
        let now = super::lock::seconds();
        repairs.put(keys::SEQUENCE_KEY.to_vec(), super::plan::tally(sequence, books.count(), now));
    }
    if repairs.count > 0 {
        engine.apply(repairs)?;
        engine.flush()?;
    }
    Ok(Loaded { books, bad, orphans })
}

/// The number of the last group that was applied, and how many records there were then.
fn tally(engine: &Engine) -> Faulty<(u64, Option<u64>)> {
    let Some(stored) = engine.get(keys::SEQUENCE_KEY)? else { return Ok((0, None)) };
    let opened = envelope::open(keys::SEQUENCE_KEY, &stored);
    let opened = opened.map_err(|why| Fault::Damaged(format!("its sequence number: {why}")))?;
    let mut reader = Reader(opened.payload);
    let short = || Fault::Damaged("its sequence number is too short".to_owned());
    Ok((reader.u64().ok_or_else(short)?, reader.u64()))
}

/// Reads every record with its chunks, for the fault that a damaged one gives. By its key: a walk does not need all
/// of the index, and does not see what is wrong with the rest.
pub(super) fn read_all(engine: &Engine) -> Faulty<()> {
    for space in Space::ALL {
        for step in engine.walk_prefix(&[space.prefix()]) {
            let (raw, _) = step?;
            let Some((_, key)) = keys::split(&raw) else { continue };
            read::get(engine, space, key).map_err(|error| Fault::Damaged(error.to_string()))?;
        }
    }
    engine.walk_prefix(&[keys::CHUNK]).try_for_each(|step| step.map(|_| ()))
}

/// A new database gets the mark of its layout, an old one must have ours.
fn check_layout(engine: &Engine) -> Faulty<()> {
    match engine.get(keys::LAYOUT_KEY)? {
        Some(stored) => {
            let opened = envelope::open(keys::LAYOUT_KEY, &stored);
            let opened = opened.map_err(|why| Fault::Damaged(format!("its layout's record: {why}")))?;
            match Reader(opened.payload).u32() {
                Some(keys::LAYOUT) => Ok(()),
                Some(other) => Err(Fault::Io(format!(
                    "it has layout {other}, this program reads layout {}",
                    keys::LAYOUT
                ))),
                None => Err(Fault::Damaged("its layout's record is too short".to_owned())),
            }
        }
        None if engine.walk_prefix(&[]).next().transpose()?.is_some() => {
            Err(Fault::Damaged("records are there, but not that of their layout".to_owned()))
        }
        None => {
            let mut mark = Writes::default();
            let value = keys::LAYOUT.to_be_bytes();
            mark.put(keys::LAYOUT_KEY.to_vec(), envelope::seal(keys::LAYOUT_KEY, Kind::Note, 0, &value));
            engine.apply(mark)?;
            engine.flush()
        }
    }
}

/// When results were last used. A note that is not sound is ignored: it orders evictions, no more.
fn used_times(engine: &Engine) -> Faulty<HashMap<Vec<u8>, u64>> {
    let mut times = HashMap::new();
    for step in engine.walk_prefix(&[keys::USED]) {
        let (raw, stored) = step?;
        let note = envelope::open(&raw, &stored).ok();
        let time = note.and_then(|note| Reader(note.payload).u64());
        if let (Some(time), Some((_, key))) = (time, raw.split_first()) {
            times.insert(key.to_vec(), time);
        }
    }
    Ok(times)
}

fn remove_orphans(engine: &Engine, repairs: &mut Writes) -> Faulty<u64> {
    let mut orphans = 0;
    for step in engine.walk_prefix(&[keys::PENDING]) {
        let (raw, _) = step?;
        if let Some(generation) = keys::generation(&raw) {
            let mut prefix = vec![keys::CHUNK];
            prefix.extend_from_slice(&generation.to_be_bytes());
            for step in engine.walk_prefix(&prefix) {
                repairs.remove(step?.0.to_vec());
                orphans += 1;
            }
        }
        repairs.remove(raw.to_vec());
    }
    Ok(orphans)
}

/// Above every generation that was ever given to a chunk that is still there.
fn next_generation(engine: &Engine) -> Faulty<u64> {
    use std::ops::Bound::{Excluded, Included};
    let mut next = 1;
    for first in [keys::CHUNK, keys::PENDING] {
        let last = engine.walk(Included(vec![first]), Excluded(vec![first + 1]), true).next();
        if let Some((raw, _)) = last.transpose()? {
            next = next.max(keys::generation(&raw).map_or(0, |generation| generation.saturating_add(1)));
        }
    }
    Ok(next)
}
