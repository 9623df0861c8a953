//! What holds of every implementation of [`Records`].

use super::*;
use crate::ErrorKind;

type Check = fn(&dyn Records);

/// Each check has a store of its own.
const CHECKS: [Check; 9] = [
    values_of_every_size,
    overwriting_and_deleting,
    a_batch_is_one,
    spaces_are_separate,
    scans_are_ordered_and_bounded,
    prefixes_of_ff,
    a_page_ends_at_its_bytes,
    bad_keys_are_refused,
    usage_is_counted,
];

#[test]
fn on_disk() {
    for check in CHECKS {
        let dir = tempfile::tempdir().unwrap();
        check(&open(dir.path()).0);
    }
}

#[test]
fn in_memory() {
    for check in CHECKS {
        check(&Memory::new(Sync::Thread));
    }
}

fn values_of_every_size(records: &dyn Records) {
    let edge = envelope::MAX_PAYLOAD;
    let sizes = [0, 1, 100, edge - 1, edge, edge + 1, 4096, 2 * edge, 2 * edge + 1, 300_000, 5 << 20];
    for (seed, size) in sizes.into_iter().enumerate() {
        put(records, Space::Result, format!("k{size}").as_bytes(), &noise(seed as u64, size));
    }
    for (seed, size) in sizes.into_iter().enumerate() {
        let key = format!("k{size}");
        assert!(records.contains(Space::Result, key.as_bytes()).unwrap(), "{size}");
        let value = records.get(Space::Result, key.as_bytes()).unwrap();
        assert_eq!(value, Some(noise(seed as u64, size)), "{size}");
    }
    assert_eq!(records.get(Space::Result, b"k").unwrap(), None);
    assert!(!records.contains(Space::Object, b"k1").unwrap());
}

fn overwriting_and_deleting(records: &dyn Records) {
    for size in [10_usize, 100_000, 20, 200_000, 300_000] {
        put(records, Space::Job, b"k", &noise(size as u64, size));
        assert_eq!(records.get(Space::Job, b"k").unwrap(), Some(noise(size as u64, size)));
    }
    delete(records, Space::Job, b"k");
    assert_eq!(records.get(Space::Job, b"k").unwrap(), None);
    delete(records, Space::Job, b"k");
    put(records, Space::Job, b"k", b"again");
    assert_eq!(records.get(Space::Job, b"k").unwrap(), Some(b"again".to_vec()));
}

fn a_batch_is_one(records: &dyn Records) {
    let mut batch = Batch::new();
    batch.put(Space::Job, *b"a", b"1".to_vec()).put(Space::Row, *b"b", noise(1, 10_000));
    batch.delete(Space::Job, *b"a").put(Space::Meta, *b"c", b"3".to_vec()).put(
        Space::Meta,
        *b"c",
        b"4".to_vec(),
    );
    assert_eq!((batch.len(), batch.is_empty()), (5, false));
    commit(records, batch).unwrap();
    // The last change of a key counts.
    assert_eq!(records.get(Space::Job, b"a").unwrap(), None);
    assert_eq!(records.get(Space::Row, b"b").unwrap(), Some(noise(1, 10_000)));
    assert_eq!(records.get(Space::Meta, b"c").unwrap(), Some(b"4".to_vec()));
    commit(records, Batch::new()).unwrap();
}

fn spaces_are_separate(records: &dyn Records) {
    for (i, space) in Space::ALL.into_iter().enumerate() {
        put(records, space, b"k", &[i as u8]);
    }
    for (i, space) in Space::ALL.into_iter().enumerate() {
        assert_eq!(records.get(space, b"k").unwrap(), Some(vec![i as u8]));
        assert_eq!(records.scan(space, b"", None, 9).unwrap(), [(b"k".to_vec(), vec![i as u8])]);
        assert_eq!(records.scan_back(space, b"", None, 9).unwrap(), [(b"k".to_vec(), vec![i as u8])]);
    }
}

fn scans_are_ordered_and_bounded(records: &dyn Records) {
    let mut batch = Batch::new();
    for i in (0..50_u8).rev() {
        batch.put(Space::Row, [b'a', i], if i % 7 == 0 { noise(i.into(), 9000) } else { vec![i] });
    }
    batch.put(Space::Row, *b"b", b"b".to_vec()).put(Space::Row, *b"A", b"A".to_vec());
    commit(records, batch).unwrap();
    let keys = |page: Pairs| page.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let row = |range: std::ops::Range<u8>| range.map(|i| vec![b'a', i]).collect::<Vec<_>>();
    let back = |range: std::ops::Range<u8>| range.rev().map(|i| vec![b'a', i]).collect::<Vec<_>>();
    let scan = |prefix: &[u8], after: Option<&[u8]>, limit| {
        keys(records.scan(Space::Row, prefix, after, limit).unwrap())
    };
    let scan_back = |prefix: &[u8], before: Option<&[u8]>, limit| {
        keys(records.scan_back(Space::Row, prefix, before, limit).unwrap())
    };
    assert_eq!(scan(b"a", None, 99), row(0..50));
    assert_eq!(scan(b"a", None, 3), row(0..3));
    assert_eq!(scan(b"a", Some(b"a\x05"), 3), row(6..9));
    assert_eq!(scan(b"a", Some(b"a\x31"), 3), row(0..0));
    assert_eq!(scan(b"a", Some(b"A"), 2), row(0..2), "an edge before the prefix bounds nothing");
    assert_eq!(scan(b"a", Some(b"b"), 2), row(0..0), "an edge behind the prefix leaves nothing");
    assert_eq!(scan(b"", None, 0), row(0..0));
    assert_eq!(scan(b"", None, 2), [b"A".to_vec(), vec![b'a', 0]]);
    assert_eq!(scan_back(b"a", None, 3), back(47..50));
    assert_eq!(scan_back(b"a", Some(b"a\x05"), 3), back(2..5));
    assert_eq!(scan_back(b"a", Some(b"a\x00"), 3), row(0..0));
    assert_eq!(scan_back(b"a", Some(b"A"), 3), row(0..0));
    assert_eq!(scan_back(b"a", Some(b"b"), 2), back(48..50));
    assert_eq!(scan_back(b"", None, 1), [b"b".to_vec()]);
    let page = records.scan(Space::Row, b"a", None, 99).unwrap();
    assert_eq!(page[7].1, noise(7, 9000));
}

fn prefixes_of_ff(records: &dyn Records) {
    for key in [&b"\xff"[..], b"\xff\xff", b"\xff\xffx", b"\xfe"] {
        put(records, Space::Object, key, key);
    }
    assert_eq!(records.scan(Space::Object, b"\xff\xff", None, 9).unwrap().len(), 2);
    assert_eq!(records.scan_back(Space::Object, b"\xff", None, 9).unwrap().len(), 3);
    assert_eq!(records.scan_back(Space::Object, b"\xff", Some(b"\xff\xff"), 9).unwrap().len(), 1);
}

fn a_page_ends_at_its_bytes(records: &dyn Records) {
    for i in 0..3 {
        put(records, Space::Meta, &[i], &vec![i; MAX_PAGE / 2]);
    }
    assert_eq!(records.scan(Space::Meta, b"", None, 9).unwrap().len(), 2);
    assert_eq!(records.scan(Space::Meta, b"", Some(&[1]), 9).unwrap().len(), 1);
}

fn bad_keys_are_refused(records: &dyn Records) {
    for key in [vec![], vec![0; MAX_KEY + 1]] {
        let mut batch = Batch::new();
        let expected = format!("field 'job': a key has {} bytes; 1 to {MAX_KEY} are allowed", key.len());
        batch.put(Space::Job, *b"good", vec![]).put(Space::Job, key, vec![]);
        let error = commit(records, batch).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidArgument, expected));
    }
    let mut batch = Batch::new();
    batch.put(Space::Job, *b"big", vec![0; MAX_VALUE + 1]);
    let error = commit(records, batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(
        error.to_string(),
        "field 'job big': a value has 67108865 bytes; at most 67108864 are allowed"
    );
    assert!(!records.contains(Space::Job, b"good").unwrap(), "nothing of a refused batch is kept");
    put(records, Space::Job, &[7; MAX_KEY], b"longest");
    assert_eq!(records.get(Space::Job, &[7; MAX_KEY]).unwrap(), Some(b"longest".to_vec()));
}

fn usage_is_counted(records: &dyn Records) {
    for space in [Space::Result, Space::Job] {
        put(records, space, b"ab", &noise(1, 100));
        put(records, space, b"cd", &noise(1, 10_000));
        put(records, space, b"ef", &noise(1, 50));
        put(records, space, b"ab", &noise(2, 20_000));
        put(records, space, b"cd", &noise(2, 7));
        delete(records, space, b"ef");
        assert_eq!(records.health().space(space), Usage { entries: 2, bytes: 20_000 + 7 + 4 });
    }
    assert_eq!(records.health().space(Space::History), Usage::default());
    assert_eq!(records.health().commits, 12);
}

#[test]
fn a_crash_loses_what_was_not_synced_and_only_that() {
    let memory = Memory::new(Sync::Step);
    let acknowledged = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let submit = |key: u8, value: u8| {
        let mut batch = Batch::new();
        batch.put(Space::Job, [key], vec![value]);
        let acknowledged = std::sync::Arc::clone(&acknowledged);
        memory.submit(
            batch,
            Box::new(move |outcome| acknowledged.lock().unwrap().push((key, outcome.is_ok()))),
        );
    };
    submit(1, 1);
    submit(2, 2);
    assert_eq!(memory.get(Space::Job, &[1]).unwrap(), Some(vec![1]), "visible before it is durable");
    assert!(acknowledged.lock().unwrap().is_empty());
    assert_eq!(memory.sync(), 2);
    submit(2, 9);
    submit(3, 3);
    assert_eq!(memory.waiting(), 2);
    memory.crash();
    assert_eq!(*acknowledged.lock().unwrap(), [(1, true), (2, true)]);
    let left = memory.scan(Space::Job, b"", None, 9).unwrap();
    assert_eq!(left, [(vec![1], vec![1]), (vec![2], vec![2])]);
    assert_eq!(memory.sync(), 0);
    // The control: acknowledged without a sync is lost.
    memory.set_sync_enabled(false);
    submit(4, 4);
    memory.sync();
    memory.crash();
    assert_eq!(acknowledged.lock().unwrap().last(), Some(&(4, true)));
    assert_eq!(memory.get(Space::Job, &[4]).unwrap(), None);
}
