//! Exports, imports and compaction.

use super::*;
use crate::ErrorKind;

fn filled(dir: &Path) -> Store {
    let (store, _) = open(dir);
    for (i, space) in Space::ALL.into_iter().enumerate() {
        for (j, size) in [0, 10, 4062, 4063, 100_000].into_iter().enumerate() {
            put(&store, space, format!("k{j}").as_bytes(), &noise(i as u64 * 9 + j as u64, size));
        }
    }
    store
}

#[test]
fn an_export_that_is_imported_elsewhere_is_the_same_store() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = filled(from.path());
    let report = store.export().unwrap();
    assert_eq!((report.records, report.bad.len()), (30, 0));
    assert_eq!(report.bytes, std::fs::metadata(&report.path).unwrap().len());
    assert_eq!(verify_export(&report.path).unwrap(), report);
    let (other, _) = open(to.path());
    put(&other, Space::Meta, b"own", b"stays");
    put(&other, Space::Meta, b"k1", b"is replaced");
    assert_eq!(other.import(&report.path).unwrap(), report);
    delete(&other, Space::Meta, b"own");
    assert_eq!(everything(&other), everything(&store));
    let again = store.export_to(&report.path).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::InvalidArgument);
    let names = std::fs::read_dir(from.path().join("exports")).unwrap().count();
    assert_eq!(names, 1, "no partial file is left");
}

#[test]
fn any_damage_to_an_export_is_found_before_a_record_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for i in 0..20_u64 {
        put(&store, Space::Job, &i.to_be_bytes(), &noise(i, 300));
    }
    let good = std::fs::read(store.export().unwrap().path).unwrap();
    for i in 0..20_u64 {
        delete(&store, Space::Job, &i.to_be_bytes());
    }
    let path = dir.path().join("damaged.spx");
    let mut versions: Vec<(String, Vec<u8>)> = Vec::new();
    for at in (0..good.len()).step_by(7) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        versions.push((format!("byte {at}"), bytes));
        versions.push((format!("cut at {at}"), good[..at].to_vec()));
    }
    versions.push(("longer".to_owned(), [&good[..], b"x"].concat()));
    versions.push(("empty".to_owned(), Vec::new()));
    for (what, bytes) in versions {
        // The time at which it was made is covered by the last checksum, like all the rest.
        std::fs::write(&path, bytes).unwrap();
        let error = store.import(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{what}: {error}");
        assert!(error.to_string().contains("damaged.spx: "), "{error}");
        assert_eq!(store.health().space(Space::Job).entries, 0, "{what}");
    }
    std::fs::write(&path, good).unwrap();
    assert_eq!(store.import(&path).unwrap().records, 20);
}

#[test]
fn exports_are_made_when_they_are_due_and_the_newest_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    put(&store, Space::Job, b"k", b"v");
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let hour = Duration::from_secs(3600);
    let due = |seconds| store.export_if_due(at(seconds), hour, 2).unwrap().map(|report| report.created);
    assert_eq!(due(1_000_000), Some(1_000_000));
    assert_eq!(due(1_003_599), None);
    assert_eq!(due(1_003_600), Some(1_003_600));
    assert_eq!(due(1_007_200), Some(1_007_200));
    // A clock that went back.
    assert_eq!(due(1_000_500), Some(1_000_500));
    let names: Vec<_> = store.stats().unwrap().exports;
    let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["export-0001007200-000003.spx", "export-0001000500-000004.spx"]);
}

#[test]
fn a_corrupt_record_is_left_out_and_named_and_no_older_export_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    store.export().unwrap();
    drop(store);
    let chunk = raw(dir.path()).walk_prefix(&[keys::CHUNK]).next().unwrap().unwrap().0.to_vec();
    write_raw(dir.path(), chunk, b"torn".to_vec());
    let (store, _) = open(dir.path());
    let later = SystemTime::now() + Duration::from_secs(9);
    let report = store.export_if_due(later, Duration::ZERO, 1).unwrap().unwrap();
    assert_eq!((report.records, report.bad.len()), (29, 1));
    assert_eq!(report.bad[0].key, b"k3");
    assert_eq!(store.stats().unwrap().exports.len(), 2);
    drop(store);
    let error = compact(dir.path(), &options()).unwrap_err();
    assert!(error.to_string().contains("1 records are corrupt; compacting would drop them"), "{error}");
    assert_eq!(open(dir.path()).0.verify().unwrap().records, 29);
}

#[test]
fn compaction_keeps_every_record_and_gives_back_space() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    for i in 0..400_u64 {
        put(&store, Space::Row, b"churn", &noise(i, 40_000));
    }
    let before = everything(&store);
    drop(store);
    let done = compact(dir.path(), &options()).unwrap();
    assert_eq!(done.records, 31);
    assert!(done.after < done.before, "{} to {} bytes", done.before, done.after);
    let (store, opened) = open(dir.path());
    assert_eq!(opened, Opened::default());
    assert_eq!(everything(&store), before);
    assert!(!dir.path().join("db.old").exists() && !dir.path().join("db.new").exists());
}

#[test]
fn a_compaction_that_was_stopped_anywhere_leaves_a_whole_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let before = everything(&store);
    drop(store);
    let (db, new, old) = (dir.path().join("db"), dir.path().join("db.new"), dir.path().join("db.old"));
    let same = || {
        let (store, opened) = open(dir.path());
        assert_eq!(opened, Opened::default());
        assert_eq!(everything(&store), before);
        drop(store);
        assert!(!new.exists() && !old.exists());
    };
    // While the new one was being built.
    std::fs::create_dir(&new).unwrap();
    std::fs::write(new.join("db"), b"half").unwrap();
    same();
    // Between the two renames: the new one is complete.
    std::fs::rename(&db, &new).unwrap();
    std::fs::create_dir(&old).unwrap();
    same();
    // After both, before the old one was removed.
    std::fs::create_dir(&old).unwrap();
    same();
    // With only the old one left.
    std::fs::rename(&db, &old).unwrap();
    same();
}
