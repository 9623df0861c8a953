//! Committing from many threads, and the end of a store.

use std::sync::mpsc::channel;

use super::*;
use crate::{Error, ErrorKind};

#[test]
fn many_threads_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..64_u64 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..20_u64 {
                    let key = [thread.to_be_bytes(), i.to_be_bytes()].concat();
                    put(store, Space::Result, &key, &noise(thread * 1000 + i, 200));
                }
            });
        }
    });
    let health = store.health();
    assert_eq!(health.commits, 1280);
    assert!(health.syncs * 2 < health.commits, "{} syncs", health.syncs);
    drop(store);
    let (store, opened) = open(dir.path());
    assert_eq!(opened, Opened::default());
    for thread in 0..64_u64 {
        for i in 0..20_u64 {
            let key = [thread.to_be_bytes(), i.to_be_bytes()].concat();
            let value = store.get(Space::Result, &key).unwrap();
            assert_eq!(value, Some(noise(thread * 1000 + i, 200)));
        }
    }
}

#[test]
fn every_done_is_called_once_even_when_the_store_is_dropped_or_a_caller_panics() {
    let dir = tempfile::tempdir().unwrap();
    let (store, opened) = open(dir.path());
    assert!(opened.created);
    let (sender, receiver) = channel();
    for i in 0..500_u32 {
        let mut batch = Batch::new();
        batch.put(Space::Row, i.to_be_bytes(), i.to_be_bytes().to_vec());
        let sender = sender.clone();
        store.submit(
            batch,
            Box::new(move |outcome| {
                sender.send((i, outcome)).unwrap();
                // What a callback does is its own affair.
                assert!(i != 3, "a panic on purpose");
            }),
        );
    }
    drop(store);
    drop(sender);
    let mut called: Vec<(u32, crate::Result<()>)> = receiver.iter().collect();
    called.sort_by_key(|(i, _)| *i);
    assert_eq!(called.len(), 500);
    assert!(called.iter().enumerate().all(|(at, (i, outcome))| at as u32 == *i && outcome.is_ok()));
    let (store, _) = open(dir.path());
    assert_eq!(store.health().space(Space::Row).entries, 500);
}

#[test]
fn later_batches_win_in_the_order_of_submission() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for i in 0..300_u32 {
        let mut batch = Batch::new();
        batch.put(Space::Row, *b"k", i.to_be_bytes().to_vec());
        store.submit(batch, Box::new(|outcome| outcome.unwrap()));
    }
    commit(&store, Batch::new()).unwrap();
    assert_eq!(store.get(Space::Row, b"k").unwrap(), Some(299_u32.to_be_bytes().to_vec()));
}

#[test]
fn a_second_store_on_the_directory_is_told_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let error = Store::open(dir.path(), &options()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let holder = format!("the data directory is in use by process {} since ", std::process::id());
    assert!(error.to_string().contains(&holder), "{error}");
    assert!(compact(dir.path(), &options()).unwrap_err().to_string().contains(&holder));
    drop(store);
    open(dir.path());
}

#[test]
fn a_directory_that_cannot_be_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let error = Store::open(&file.join("data"), &options()).err().unwrap();
    assert!(error.to_string().contains("cannot create the directory"), "{error}");
}

#[test]
fn readers_see_old_or_new_while_a_long_value_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    put(&store, Space::Job, b"k", &noise(0, 30_000));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Relaxed) || reads < 100 {
                let value = store.get(Space::Job, b"k")?.expect("it is never deleted");
                let seed = (value.len() - 30_000) as u64;
                assert!(value == noise(seed, 30_000 + seed as usize), "a mixture was read");
                reads += 1;
            }
            Ok::<_, Error>(reads)
        });
        for seed in 1..200_u64 {
            put(&store, Space::Job, b"k", &noise(seed, 30_000 + seed as usize));
        }
        stop.store(true, Relaxed);
        assert!(reader.join().unwrap().unwrap() >= 100);
    });
    let found = store.verify().unwrap();
    assert_eq!((found.records, found.orphan_chunks), (1, 0));
}
