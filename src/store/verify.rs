//! Reading a store through.

use std::collections::HashSet;

use super::engine::Engine;
use super::envelope::{self, Kind};
use super::keys;
use super::load::BadRecord;
use super::read::{From, Outer, outer};
use super::records::{Space, is_corrupt};
use super::{Store, locked};
use crate::{Error, Result};

/// What reading every record of a store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Sound records.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Sound chunks of long values.
    pub chunks: u64,
    /// Chunks that no record has. They only take up space; compaction is rid of them.
    pub orphan_chunks: u64,
    /// Records that are not what was stored.
    pub bad: Vec<BadRecord>,
    /// Where the database itself could not be read, so that what lies there is in none of the numbers above.
    pub unreadable: Vec<String>,
}

impl Verified {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.bad.is_empty() && self.unreadable.is_empty()
    }
}

pub(super) fn verify(store: &Store) -> Result<Verified> {
    let mut found = Verified::default();
    // What is written from here on is not judged.
    let newest = locked(&store.shared.books).next_generation;
    for space in Space::ALL {
        let mut edge: Option<Vec<u8>> = None;
        loop {
            let from = From { prefix: &[], edge: edge.as_deref(), backwards: false };
            let page = match store.page(space, from, 1000) {
                Err(error) if is_corrupt(&error) => {
                    found.unreadable.push(error.to_string());
                    break;
                }
                page => page?,
            };
            let Some((last, _)) = page.last() else { break };
            edge = Some(last.clone());
            for (key, record) in page {
                match record {
                    Ok(record) => {
                        found.records += 1;
                        found.bytes += (key.len() + record.value.len()) as u64;
                    }
                    Err(error) if is_corrupt(&error) => {
                        found.bad.push(BadRecord { space, key, why: error.message().to_owned() });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    let suspects = store.shared.with(|engine| chunks(engine, newest, &mut found))?;
    if !suspects.is_empty() {
        // A value that was written meanwhile has its head by now, one that was overwritten no chunks.
        let live = store.shared.with(|engine| Ok(generations(engine)))?;
        for (generation, key) in suspects {
            let there = || store.shared.with(|engine| Ok(engine.get(&key)?.is_some()));
            if !live.contains(&generation) && there().unwrap_or(false) {
                found.orphan_chunks += 1;
            }
        }
    }
    Ok(found)
}

/// Generations that a head or a mark names, as far as they can be read.
fn generations(engine: &Engine) -> HashSet<u64> {
    let mut live = HashSet::new();
    for (raw, _) in engine.walk_prefix(&[keys::PENDING]).flatten() {
        live.extend(keys::generation(&raw));
    }
    for space in Space::ALL {
        for (raw, stored) in engine.walk_prefix(&[space.prefix()]).flatten() {
            if let Ok(Outer::Long { head, .. }) = outer(&raw, &stored) {
                live.insert(head.generation);
            }
        }
    }
    live
}

/// Counts sound chunks; gives those that no head names.
fn chunks(engine: &Engine, newest: u64, found: &mut Verified) -> Result<Vec<(u64, Vec<u8>)>> {
    let live = generations(engine);
    let mut suspects = Vec::new();
    for step in engine.walk_prefix(&[keys::CHUNK]) {
        let (raw, stored) = match step {
            Ok(pair) => pair,
            Err(fault) => {
                found.unreadable.push(fault.text().to_owned());
                break;
            }
        };
        let sound = envelope::open(&raw, &stored).is_ok_and(|opened| opened.kind == Kind::Chunk);
        let generation = keys::generation(&raw).unwrap_or(0);
        if sound {
            found.chunks += 1;
        }
        if generation < newest && !live.contains(&generation) {
            suspects.push((generation, raw.to_vec()));
        }
    }
    Ok(suspects)
}

/// How many raw keys begin with this byte.
pub(super) fn count(engine: &Engine, first: u8) -> Result<u64> {
    let mut count = 0;
    for step in engine.walk_prefix(&[first]) {
        step.map_err(Error::from)?;
        count += 1;
    }
    Ok(count)
}
