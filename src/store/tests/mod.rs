//! Tests of the store as a whole, each on a directory of its own.

mod conformance;
mod damage;
mod evict;
mod exports;
mod groups;
mod long;
mod properties;

use std::path::Path;

use super::engine::{Engine, Writes};
use super::*;

/// Small caches, and no results evicted.
fn options() -> StoreOptions {
    StoreOptions { cache_bytes: 8 << 20, ..StoreOptions::default() }
}

fn open(dir: &Path) -> (Store, Opened) {
    Store::open(dir, &options()).unwrap()
}

fn put(records: &dyn Records, space: Space, key: &[u8], value: &[u8]) {
    let mut batch = Batch::new();
    batch.put(space, key, value.to_vec());
    commit(records, batch).unwrap();
}

fn delete(records: &dyn Records, space: Space, key: &[u8]) {
    let mut batch = Batch::new();
    batch.delete(space, key);
    commit(records, batch).unwrap();
}

/// Bytes that differ with the seed, and at each place.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Opens the database below a closed store.
fn raw(dir: &Path) -> Engine {
    Engine::open(&dir.join(open::DATABASE), options().tuning()).unwrap()
}

/// Writes one raw key of a closed store.
fn write_raw(dir: &Path, key: Vec<u8>, value: Vec<u8>) {
    let engine = raw(dir);
    let mut writes = Writes::default();
    writes.put(key, value);
    engine.apply(writes).unwrap();
    engine.flush().unwrap();
    engine.close();
}

/// Every record of a store.
fn everything(records: &dyn Records) -> Vec<(Space, Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for space in Space::ALL {
        let mut edge: Option<Vec<u8>> = None;
        loop {
            let page = records.scan(space, b"", edge.as_deref(), 7).unwrap();
            let Some((last, _)) = page.last() else { break };
            edge = Some(last.clone());
            all.extend(page.into_iter().map(|(key, value)| (space, key, value)));
        }
    }
    all
}
