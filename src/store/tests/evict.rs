//! Results are bounded, the rest is not.

use super::*;

fn bounded(max_result_bytes: u64) -> StoreOptions {
    StoreOptions { max_result_bytes, ..options() }
}

fn keys_of(store: &Store) -> Vec<u8> {
    store.scan(Space::Result, b"", None, 99).unwrap().iter().map(|(key, _)| key[0]).collect()
}

#[test]
fn the_least_recently_used_result_goes_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &bounded(10_000)).unwrap();
    for space in [Space::Object, Space::Job, Space::Row, Space::History, Space::Meta] {
        put(&store, space, b"k", &noise(1, 20_000));
    }
    for key in 0..10_u8 {
        put(&store, Space::Result, &[key], &noise(key.into(), 999));
    }
    assert_eq!((keys_of(&store), store.health().evictions), ((0..10).collect(), 0));
    // A read is a use; a question whether it is there is not.
    store.get(Space::Result, &[0]).unwrap().unwrap();
    assert!(store.contains(Space::Result, &[1]).unwrap());
    put(&store, Space::Result, &[20], &noise(20, 1999));
    assert_eq!(keys_of(&store), [0, 3, 4, 5, 6, 7, 8, 9, 20]);
    assert!(!store.contains(Space::Result, &[1]).unwrap());
    let health = store.health();
    assert_eq!(health.evictions, 2);
    assert_eq!(health.space(Space::Result), Usage { entries: 9, bytes: 10_000 });
    for space in [Space::Object, Space::Job, Space::Row, Space::History, Space::Meta] {
        assert_eq!(store.get(space, b"k").unwrap(), Some(noise(1, 20_000)));
    }
    let found = store.verify().unwrap();
    assert_eq!((found.records, found.orphan_chunks), (14, 0));
}

#[test]
fn evicted_long_results_leave_no_chunks_and_the_bound_holds_all_along() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &bounded(200_000)).unwrap();
    for i in 0..40_u64 {
        put(&store, Space::Result, &i.to_be_bytes(), &noise(i, 1000 + 1700 * i as usize));
        let held = store.health().space(Space::Result).bytes;
        assert!(held <= 200_000, "{held} bytes after {i}");
    }
    assert!(store.health().evictions > 30);
    let found = store.verify().unwrap();
    assert_eq!((found.orphan_chunks, found.bytes <= 200_000), (0, true));
    drop(store);
    // A smaller bound is reached with the next commit.
    let (store, _) = Store::open(dir.path(), &bounded(70_000)).unwrap();
    put(&store, Space::Job, b"j", b"x");
    assert!(store.health().space(Space::Result).bytes <= 70_000);
    assert_eq!(store.get(Space::Job, b"j").unwrap(), Some(b"x".to_vec()));
}

#[test]
fn the_order_of_use_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    // Results that were written long ago, as an import brings them.
    let mut batch = Batch::new();
    for key in 0..4_u8 {
        batch.put(Space::Result, [key], noise(1, 999));
        batch.ops.last_mut().unwrap().used = Some(1_000_000 + u64::from(key));
    }
    commit(&store, batch).unwrap();
    let syncs = store.health().syncs;
    store.get(Space::Result, &[0]).unwrap().unwrap();
    store.get(Space::Result, &[2]).unwrap().unwrap();
    assert_eq!(store.health().syncs, syncs, "reading waits for no disk");
    drop(store);
    let (store, _) = Store::open(dir.path(), &bounded(3000)).unwrap();
    put(&store, Space::Result, &[9], &noise(1, 999));
    assert_eq!(keys_of(&store), [0, 2, 9]);
}

#[test]
fn a_result_above_the_bound_is_kept_until_the_next_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &bounded(1000)).unwrap();
    put(&store, Space::Result, b"a", &noise(1, 5000));
    assert_eq!(store.get(Space::Result, b"a").unwrap(), Some(noise(1, 5000)));
    put(&store, Space::Job, b"j", b"x");
    assert_eq!(store.get(Space::Result, b"a").unwrap(), None);
}
