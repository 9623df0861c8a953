//! From batches to what is written: which chunks, which records, which old chunks go, who is evicted.

use std::collections::BTreeMap;

use super::engine::{Engine, Faulty, Writes};
use super::envelope::{Head, Kind, MAX_PAYLOAD, seal};
use super::keys;
use super::load::Books;
use super::read::{Outer, outer};
use super::records::{Batch, Op, Space};

/// Chunks are applied in portions of this many bytes: nobody else writes or reads meanwhile.
const PORTION: usize = 256 << 10;
/// How many results one group may evict, and how many times of use it may save.
const MOST_EVICTED: usize = 4096;
const MOST_NOTES: usize = 256;

/// What becomes of one record.
pub(super) struct Change {
    space: Space,
    key: Vec<u8>,
    /// Bytes of key and value before; `None` if there was none.
    old: Option<u64>,
    /// Bytes of key and value after, with the time of last use; `None` if it goes.
    new: Option<(u64, u64)>,
}

/// All that a group writes.
#[derive(Default)]
pub(super) struct Plan {
    /// Chunks of long values, with the marks that say that they are not yet in use. Applied first.
    pub(super) chunks: Vec<Writes>,
    /// All the rest, applied as one.
    pub(super) rest: Writes,
    pub(super) changes: Vec<Change>,
    pub(super) notes: Vec<(Vec<u8>, u64)>,
    pub(super) evicted: u64,
    sequence: u64,
}

struct Old {
    bytes: u64,
    head: Option<Head>,
}

/// What a plan depends on besides the batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Seconds since 1970.
    pub(super) now: u64,
    pub(super) max_result_bytes: u64,
    /// The number of this group in the journal.
    pub(super) sequence: u64,
}

/// Plans the writing of `batches`. Changes nothing but the next generation's number.
pub(super) fn plan(engine: &Engine, books: &mut Books, batches: &[&Batch], terms: Terms) -> Faulty<Plan> {
    let mut finals: BTreeMap<(Space, &[u8]), &Op> = BTreeMap::new();
    for op in batches.iter().flat_map(|batch| &batch.ops) {
        finals.insert((op.space, &op.key), op);
    }
    let mut plan = Plan { sequence: terms.sequence, ..Plan::default() };
    for op in finals.values() {
        match &op.value {
            Some(value) => {
                let old = plan.drop_chunks(engine, &keys::record(op.space, &op.key))?;
                let bytes = (op.key.len() + value.len()) as u64;
                let written = op.used.unwrap_or(terms.now);
                plan.put(op, value, written, &mut books.next_generation);
                plan.changes.push(Change {
                    space: op.space,
                    key: op.key.clone(),
                    old: old.map(|old| old.bytes),
                    new: Some((bytes, written)),
                });
            }
            None => plan.remove(engine, op.space, &op.key)?,
        }
    }
    let in_group = |key: &[u8]| finals.contains_key(&(Space::Result, key));
    evict(&mut plan, engine, books, terms.max_result_bytes, &in_group)?;
    for (key, used) in books.lru.stale(MOST_NOTES) {
        if in_group(&key) || plan.changes.iter().any(|change| change.key == *key) {
            continue;
        }
        let raw = keys::used(&key);
        let note = seal(&raw, Kind::Note, terms.now, &used.to_be_bytes());
        plan.rest.put(raw, note);
        plan.notes.push((key.to_vec(), used));
    }
    let count = plan.count_after(books.count());
    plan.rest.put(keys::SEQUENCE_KEY.to_vec(), tally(terms.sequence, count, terms.now));
    Ok(plan)
}

/// The record of the last group that was applied, and of how many records there were then: what sled loses in silence
/// is missed by the count.
pub(super) fn tally(sequence: u64, count: u64, now: u64) -> Vec<u8> {
    let mut payload = sequence.to_be_bytes().to_vec();
    payload.extend_from_slice(&count.to_be_bytes());
    seal(keys::SEQUENCE_KEY, Kind::Note, now, &payload)
}

fn evict(
    plan: &mut Plan,
    engine: &Engine,
    books: &Books,
    max: u64,
    in_group: &dyn Fn(&[u8]) -> bool,
) -> Faulty<()> {
    let results = plan.changes.iter().filter(|change| change.space == Space::Result);
    let grown = results.fold(books.lru.bytes(), |sum, change| {
        (sum + change.new.map_or(0, |(bytes, _)| bytes)).saturating_sub(change.old.unwrap_or(0))
    });
    let mut excess = grown.saturating_sub(max);
    let mut keys = books.lru.oldest().filter(|key| !in_group(key)).take(MOST_EVICTED);
    while excess > 0
        && let Some(key) = keys.next()
    {
        excess = excess.saturating_sub(books.lru.bytes_of(key));
        plan.remove(engine, Space::Result, key)?;
        plan.evicted += 1;
    }
    Ok(())
}

impl Plan {
    /// How many records there are once it is applied, if there are `before` now.
    fn count_after(&self, before: u64) -> u64 {
        self.changes.iter().fold(before, |count, change| {
            (count + u64::from(change.new.is_some())).saturating_sub(u64::from(change.old.is_some()))
        })
    }

    /// Applies it: the chunks in portions, then all the rest as one.
    pub(super) fn apply(&mut self, engine: &Engine) -> Faulty<()> {
        let chunks = std::mem::take(&mut self.chunks);
        for writes in chunks.into_iter().chain([std::mem::take(&mut self.rest)]) {
            engine.apply(writes)?;
        }
        Ok(())
    }

    fn put(&mut self, op: &Op, value: &[u8], written: u64, next_generation: &mut u64) {
        let raw = keys::record(op.space, &op.key);
        if value.len() <= MAX_PAYLOAD {
            let sealed = seal(&raw, Kind::Inline, written, value);
            self.rest.put(raw, sealed);
            return;
        }
        let generation = *next_generation;
        *next_generation += 1;
        self.put_chunks(generation, value, written);
        let head = Head::of(generation, value);
        let sealed = seal(&raw, Kind::Head, written, &head.to_bytes());
        self.rest.put(raw, sealed);
        self.rest.remove(keys::pending(generation));
    }

    fn put_chunks(&mut self, generation: u64, value: &[u8], written: u64) {
        let mark = keys::pending(generation);
        let sealed = seal(&mark, Kind::Note, written, &[]);
        self.portion().put(mark, sealed);
        for (index, piece) in value.chunks(MAX_PAYLOAD).enumerate() {
            let key = keys::chunk(generation, index as u32);
            let sealed = seal(&key, Kind::Chunk, written, piece);
            self.portion().put(key, sealed);
        }
    }

    /// The last portion of chunks that has room.
    fn portion(&mut self) -> &mut Writes {
        if self.chunks.last().is_none_or(|last| last.bytes >= PORTION) {
            self.chunks.push(Writes::default());
        }
        let last = self.chunks.len() - 1;
        &mut self.chunks[last]
    }

    fn remove(&mut self, engine: &Engine, space: Space, key: &[u8]) -> Faulty<()> {
        let raw = keys::record(space, key);
        let Some(old) = self.drop_chunks(engine, &raw)? else { return Ok(()) };
        self.rest.remove(raw);
        if space == Space::Result {
            self.rest.remove(keys::used(key));
        }
        self.changes.push(Change { space, key: key.to_vec(), old: Some(old.bytes), new: None });
        Ok(())
    }

    /// Removes the chunks of what `raw` holds now, and says what that was.
    fn drop_chunks(&mut self, engine: &Engine, raw: &[u8]) -> Faulty<Option<Old>> {
        let Some(stored) = engine.get(raw)? else { return Ok(None) };
        let key_bytes = raw.len() as u64 - 1;
        let old = match outer(raw, &stored) {
            Ok(Outer::Value(found)) => Old { bytes: key_bytes + found.value.len() as u64, head: None },
            Ok(Outer::Long { head, .. }) => Old { bytes: key_bytes + head.length, head: Some(head) },
            // Its chunks, if it had any, stay behind: `verify` names them.
            Err(_) => Old { bytes: key_bytes, head: None },
        };
        if let Some(head) = &old.head {
            for index in 0..head.count {
                self.rest.remove(keys::chunk(head.generation, index));
            }
        }
        Ok(Some(old))
    }
}

impl Books {
    /// How many records there are.
    pub(super) fn count(&self) -> u64 {
        self.usage().iter().map(|usage| usage.entries).sum()
    }

    /// What `plan` wrote is now so.
    pub(super) fn enter(&mut self, plan: &Plan) {
        for change in &plan.changes {
            if change.space == Space::Result {
                match change.new {
                    Some((bytes, used)) => self.lru.insert(&change.key, bytes, used),
                    None => self.lru.remove(&change.key),
                }
                continue;
            }
            let Some(usage) = self.usage.get_mut(change.space.index()) else { continue };
            if let Some(old) = change.old {
                usage.entries = usage.entries.saturating_sub(1);
                usage.bytes = usage.bytes.saturating_sub(old);
            }
            if let Some((bytes, _)) = change.new {
                usage.entries += 1;
                usage.bytes += bytes;
            }
        }
        self.sequence = plan.sequence;
        for (key, used) in &plan.notes {
            self.lru.saved(key, *used);
        }
    }
}
