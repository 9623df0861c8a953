//! Values in chunks, and envelopes that lie.

use super::envelope::{Head, Kind, MAX_PAYLOAD, MAX_STORED, seal};
use super::*;

#[test]
fn nothing_is_left_of_long_values_that_were_overwritten_or_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for size in [300_000, 5 << 20, 10_000, 10] {
        put(&store, Space::Result, b"k", &noise(1, size));
        let chunks = if size > MAX_PAYLOAD { size.div_ceil(MAX_PAYLOAD) as u64 } else { 0 };
        let found = store.verify().unwrap();
        assert_eq!((found.records, found.chunks, found.orphan_chunks), (1, chunks, 0), "{size}");
    }
    put(&store, Space::Result, b"k", &noise(1, 50_000));
    put(&store, Space::Row, b"k", &noise(2, 50_000));
    delete(&store, Space::Result, b"k");
    let found = store.verify().unwrap();
    assert_eq!((found.records, found.chunks, found.orphan_chunks), (1, 13, 0));
    delete(&store, Space::Row, b"k");
    drop(store);
    let engine = raw(dir.path());
    let left: Vec<_> = engine.walk_prefix(b"").map(|step| step.unwrap().0.to_vec()).collect();
    assert_eq!(left, [keys::SEQUENCE_KEY.to_vec(), keys::LAYOUT_KEY.to_vec()]);
    engine.close();
}

#[test]
fn nothing_stored_is_above_the_limit_and_sled_needs_no_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for i in 0..200_u64 {
        put(&store, Space::Result, &i.to_be_bytes(), &noise(i, 40_000));
    }
    drop(store);
    let engine = raw(dir.path());
    assert!(engine.walk_prefix(b"").all(|step| step.unwrap().1.len() <= MAX_STORED));
    engine.close();
    assert_eq!(std::fs::read_dir(dir.path().join("db/blobs")).unwrap().count(), 0);
}

#[test]
fn chunks_of_a_value_that_was_never_completed_are_removed_by_the_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    put(&store, Space::Job, b"k", &noise(1, 100_000));
    drop(store);
    // As a stop between the chunks and the head leaves it.
    let engine = raw(dir.path());
    let mut books = load::load(&engine).unwrap().books;
    let mut batch = Batch::new();
    batch.put(Space::Job, *b"k", noise(2, 600_000));
    let terms = plan::Terms { now: 0, max_result_bytes: u64::MAX, sequence: 9 };
    let plan = plan::plan(&engine, &mut books, &[&batch], terms).unwrap();
    assert!(plan.chunks.len() > 1, "in several portions");
    for writes in plan.chunks {
        engine.apply(writes).unwrap();
    }
    engine.flush().unwrap();
    engine.close();
    let (store, opened) = open(dir.path());
    assert_eq!(opened.orphan_chunks, 600_000_usize.div_ceil(MAX_PAYLOAD) as u64);
    assert_eq!(store.get(Space::Job, b"k").unwrap(), Some(noise(1, 100_000)), "the old value stands");
    let found = store.verify().unwrap();
    assert_eq!((found.chunks, found.orphan_chunks), (25, 0));
    drop(store);
    assert_eq!(open(dir.path()).1, Opened::default());
}

/// A store with one long record whose raw records are then replaced.
fn with_long(dir: &Path) -> u64 {
    let (store, _) = open(dir);
    put(&store, Space::Result, b"long", &noise(1, 10_000));
    put(&store, Space::Result, b"other", b"sound");
    drop(store);
    1
}

#[test]
fn a_wrong_chunk_is_an_error_that_names_the_record() {
    let generation = 1;
    let key = keys::chunk(generation, 1);
    let piece = noise(9, MAX_PAYLOAD);
    let mut torn = seal(&key, Kind::Chunk, 0, &piece);
    torn[2000] ^= 1;
    let missing = "chunk 1 of 3 is missing";
    for (value, why) in [
        (Some(torn), "chunk 1 of 3: the checksum is wrong"),
        (Some(seal(&key, Kind::Chunk, 0, &piece)), "the chunks are not those of the head"),
        (Some(seal(&keys::chunk(7, 1), Kind::Chunk, 0, &piece)), "chunk 1 of 3: the checksum is wrong"),
        (None, missing),
    ] {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(with_long(dir.path()), generation);
        match value {
            Some(value) => write_raw(dir.path(), key.clone(), value),
            None => {
                let engine = raw(dir.path());
                let mut writes = Writes::default();
                writes.remove(key.clone());
                engine.apply(writes).unwrap();
                engine.flush().unwrap();
                engine.close();
            }
        }
        let (store, _) = open(dir.path());
        let error = store.get(Space::Result, b"long").unwrap_err();
        let expected = format!("field 'result long': the stored record is corrupt: {why}");
        assert_eq!(error.to_string(), expected);
        assert!(is_corrupt(&error));
        assert_eq!(store.get(Space::Result, b"other").unwrap(), Some(b"sound".to_vec()));
        assert_eq!(store.health().corrupt_reads, 1);
        let found = store.verify().unwrap();
        assert_eq!((found.records, found.bad.len()), (1, 1));
        assert_eq!((found.bad[0].space, &found.bad[0].key[..]), (Space::Result, &b"long"[..]));
        // It is computed again and written over.
        put(&store, Space::Result, b"long", &noise(3, 10_000));
        assert_eq!(store.get(Space::Result, b"long").unwrap(), Some(noise(3, 10_000)));
        assert!(store.verify().unwrap().bad.is_empty());
    }
}

#[test]
fn a_wrong_envelope_is_set_aside_by_the_next_opening_which_says_so() {
    let raw_key = keys::record(Space::Job, b"k");
    let mut flipped = seal(&raw_key, Kind::Inline, 0, b"value");
    *flipped.last_mut().unwrap() ^= 1;
    let lying = Head { generation: 1, count: 9, length: 10, hash: [0; 32] };
    for (value, why) in [
        (flipped, "the checksum is wrong"),
        (b"foreign".to_vec(), "7 bytes are too few for an envelope"),
        (seal(b"other", Kind::Inline, 0, b"value"), "the checksum is wrong"),
        (seal(&raw_key, Kind::Note, 0, b"value"), "the envelope holds another kind of payload"),
        (seal(&raw_key, Kind::Head, 0, &lying.to_bytes()), "the head promises 10 bytes in 9 chunks"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        put(&store, Space::Job, b"j", b"sound");
        put(&store, Space::Job, b"k", b"value");
        drop(store);
        write_raw(dir.path(), raw_key.clone(), value);
        let (store, opened) = open(dir.path());
        let bad = BadRecord { space: Space::Job, key: b"k".to_vec(), why: why.to_owned() };
        assert_eq!(opened, Opened { bad: vec![bad], ..Opened::default() });
        assert_eq!(store.get(Space::Job, b"k").unwrap(), None);
        assert_eq!(everything(&store), [(Space::Job, b"j".to_vec(), b"sound".to_vec())]);
        assert_eq!(store.stats().unwrap().set_aside, 1);
    }
}
