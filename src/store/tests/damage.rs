//! Damaged databases: each opens, and says what was done.

use super::*;

const RECORDS: u64 = 1500;

fn key(i: u64) -> Vec<u8> {
    noise(i, 16)
}

fn space(i: u64) -> Space {
    if i.is_multiple_of(2) { Space::Result } else { Space::Job }
}

fn value(i: u64) -> Vec<u8> {
    noise(i, if i.is_multiple_of(100) { 30_000 } else { 1500 })
}

/// A closed store of some 3 MB in several segments.
fn filled(dir: &Path) {
    let (store, _) = open(dir);
    for i in 0..RECORDS / 50 {
        let mut batch = Batch::new();
        for j in i * 50..(i + 1) * 50 {
            batch.put(space(j), key(j), value(j));
        }
        commit(&store, batch).unwrap();
    }
}

/// How many records are there; each that is must be right.
fn sound(store: &Store) -> u64 {
    (0..RECORDS)
        .filter(|&j| match store.get(space(j), &key(j)) {
            Ok(Some(found)) => {
                assert!(found == value(j), "record {j} is wrong");
                true
            }
            Ok(None) => false,
            Err(error) => {
                assert!(is_corrupt(&error), "{error}");
                false
            }
        })
        .count() as u64
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What is done to `db/`.
type Harm<'a> = &'a dyn Fn(&Path);

/// How the copies of the records lie beside the database.
#[derive(Clone, Copy, PartialEq)]
enum Copies {
    /// All in the journal.
    Journal,
    /// All in an export, and the journal is short.
    Export,
    /// Half in an older export, the newest is damaged, the rest is in the journal.
    OlderExport,
    /// None.
    Nothing,
}

fn prepare(dir: &Path, copies: Copies) {
    let later = |seconds| SystemTime::now() + Duration::from_secs(seconds);
    filled(dir);
    let (store, _) = open(dir);
    match copies {
        Copies::Journal => {}
        Copies::Export => {
            store.export_if_due(later(0), Duration::ZERO, 1).unwrap().unwrap();
        }
        Copies::OlderExport => {
            let mut batch = Batch::new();
            for j in 0..RECORDS / 2 {
                batch.delete(space(j), key(j));
            }
            commit(&store, batch).unwrap();
            store.export_if_due(later(0), Duration::ZERO, 2).unwrap().unwrap();
            let mut batch = Batch::new();
            for j in 0..RECORDS / 2 {
                batch.put(space(j), key(j), value(j));
            }
            commit(&store, batch).unwrap();
            let newest = store.export_if_due(later(9), Duration::ZERO, 2).unwrap().unwrap().path;
            let mut bytes = std::fs::read(&newest).unwrap();
            bytes[1000] ^= 1;
            std::fs::write(&newest, bytes).unwrap();
        }
        Copies::Nothing => {}
    }
    drop(store);
    if copies == Copies::Nothing {
        std::fs::remove_dir_all(dir.join("journal")).unwrap();
    }
}

fn thorough() -> StoreOptions {
    StoreOptions { thorough: true, ..options() }
}

/// Copies `base`, harms the copy, opens it; gives how many records it has and what was said.
fn harmed(base: &Path, harm: Harm) -> (u64, Opened) {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("data");
    copy(base, &victim);
    harm(&victim.join("db"));
    let (store, opened) = Store::open(&victim, &thorough()).unwrap();
    let count = sound(&store);
    assert!(store.verify().unwrap().is_sound());
    // It serves, and opens again without a word.
    put(&store, Space::Meta, b"after", b"x");
    drop(store);
    let (store, again) = open(&victim);
    assert_eq!((again, sound(&store)), (Opened::default(), count));
    (count, opened)
}

fn edit(path: &Path, change: &dyn Fn(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_byte_or_a_cut_anywhere_costs_no_record() {
    let mut told = 0;
    for copies in [Copies::Journal, Copies::Export, Copies::OlderExport] {
        let base = tempfile::tempdir().unwrap();
        prepare(base.path(), copies);
        let length = std::fs::metadata(base.path().join("db/db")).unwrap().len() as usize;
        for part in 0..9 {
            let at = length * part / 9 + 4321;
            let flip = |db: &Path| edit(&db.join("db"), &|bytes| bytes[at] ^= 0x08);
            let (count, opened) = harmed(base.path(), &flip);
            assert_eq!(count, RECORDS, "byte {at} of {length}: {opened:?}");
            told += usize::from(!opened.warnings().is_empty());
        }
        for cut in [0, 10, length / 2, length - 600_000, length - 1] {
            let (count, opened) =
                harmed(base.path(), &|db| edit(&db.join("db"), &|bytes| bytes.truncate(cut)));
            assert_eq!(count, RECORDS, "cut at {cut} of {length}");
            // What a cut near the end takes may be no more than a kill leaves undone: the journal has it.
            let told = !opened.warnings().is_empty();
            assert!(told || (cut > length / 2 && opened.replayed <= 1), "cut at {cut}: {opened:?}");
        }
        let gone = |db: &Path| std::fs::remove_dir_all(db).unwrap();
        let (count, opened) = harmed(base.path(), &gone);
        assert_eq!(count, RECORDS);
        let recovery = opened.recovered.unwrap();
        assert_eq!(recovery.problem, "it is missing, though there are copies of it");
        assert_eq!(recovery.restored_from.is_some(), copies != Copies::Journal);
        assert_eq!(recovery.rejected.len(), usize::from(copies == Copies::OlderExport));
        assert_eq!(opened.missing, []);
    }
    // The rest lie where nothing is any more.
    assert!(told >= 4, "{told} flips were told of");
}

#[test]
fn without_a_copy_what_can_be_read_is_kept_and_the_damaged_files_too() {
    let base = tempfile::tempdir().unwrap();
    prepare(base.path(), Copies::Nothing);
    let length = std::fs::metadata(base.path().join("db/db")).unwrap().len() as usize;
    let (mut rebuilt, mut salvaged) = (0, 0);
    for part in 0..11 {
        let at = length * part / 11 + 4321;
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        edit(&dir.path().join("db/db"), &|bytes| bytes[at] ^= 0x08);
        let damaged = std::fs::read(dir.path().join("db/db")).unwrap();
        let (store, opened) = open(dir.path());
        let count = sound(&store);
        let Some(recovery) = opened.recovered else { continue };
        assert!(recovery.to_string().contains("; there was no sound export to restore from; "), "{recovery}");
        let quarantine = recovery.quarantine.unwrap();
        let kept = std::fs::metadata(quarantine.join("db/db")).unwrap().len();
        assert!(kept as usize >= damaged.len());
        assert_eq!(count, recovery.salvaged);
        rebuilt += 1;
        salvaged = salvaged.max(count);
    }
    assert!(rebuilt > 0 && salvaged < RECORDS, "{rebuilt} were rebuilt, of up to {salvaged} records");
}

#[test]
fn files_in_the_way_of_a_sound_database_are_moved_and_nothing_is_lost() {
    let base = tempfile::tempdir().unwrap();
    prepare(base.path(), Copies::Nothing);
    let torn = |db: &Path| std::fs::write(db.join("snap.FFFFFFFFFFFFFFFF.generating"), b"torn").unwrap();
    let conf = |db: &Path| edit(&db.join("conf"), &|bytes| bytes[15] ^= 1);
    let harms: [(&str, Harm); 2] = [("snap.FFFFFFFFFFFFFFFF.generating", &torn), ("conf", &conf)];
    for (name, harm) in harms {
        let dir = tempfile::tempdir().unwrap();
        copy(base.path(), dir.path());
        harm(&dir.path().join("db"));
        let (store, opened) = open(dir.path());
        assert_eq!(sound(&store), RECORDS, "{name}");
        let recovery = opened.recovered.unwrap();
        assert!(!recovery.rebuilt);
        assert!(recovery.quarantine.clone().unwrap().join(name).exists(), "{name}");
        let said = recovery.to_string();
        assert!(
            said.starts_with("the database was damaged (") && said.ends_with("nothing is missing"),
            "{said}"
        );
        drop(store);
        assert_eq!(open(dir.path()).1, Opened::default());
    }
}

#[test]
fn a_damaged_export_is_passed_over_and_named() {
    let base = tempfile::tempdir().unwrap();
    prepare(base.path(), Copies::OlderExport);
    let (count, opened) = harmed(base.path(), &|db| std::fs::remove_dir_all(db).unwrap());
    assert_eq!(count, RECORDS);
    let recovery = opened.recovered.unwrap();
    assert_eq!(recovery.restored, RECORDS / 2);
    assert_eq!(recovery.rejected.len(), 1);
    assert!(recovery.rejected[0].path.to_string_lossy().ends_with("-000002.spx"));
    assert!(recovery.rejected[0].why.contains("checksum of record 0 is wrong"), "{recovery}");
    assert!(opened.replayed > 0);
}

#[test]
fn a_database_that_does_not_open_in_time_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let hasty = StoreOptions { open_limit: Duration::ZERO, ..options() };
    let error = Store::open(dir.path(), &hasty).err().unwrap();
    assert!(error.to_string().contains("it was not open after 0 s"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 0);
    let (store, opened) = open(dir.path());
    assert_eq!((opened, sound(&store)), (Opened::default(), RECORDS));
}

/// Flips a byte in the middle of the chunks of the first long value.
fn flip_a_chunk(db: &Path) {
    let piece = &value(0)[10_000..10_040];
    edit(&db.join("db"), &|bytes| {
        let places: Vec<usize> =
            (0..bytes.len() - piece.len()).filter(|&at| bytes[at..].starts_with(piece)).collect();
        assert!(!places.is_empty());
        for at in places {
            bytes[at] ^= 1;
        }
    });
}

#[test]
fn a_damaged_chunk_is_an_error_of_its_record_and_a_thorough_opening_restores_it() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), Copies::Export);
    flip_a_chunk(&dir.path().join("db"));
    let (store, opened) = open(dir.path());
    assert_eq!(opened, Opened::default());
    let error = store.get(Space::Result, &key(0)).unwrap_err();
    assert!(is_corrupt(&error), "{error}");
    let found = store.verify().unwrap();
    assert!(!found.bad.is_empty() && found.unreadable.len() == 1 && !found.is_sound(), "{found:?}");
    drop(store);
    let (store, opened) = Store::open(dir.path(), &thorough()).unwrap();
    assert!(opened.recovered.unwrap().rebuilt);
    assert_eq!(sound(&store), RECORDS);
}

#[test]
fn writing_over_damage_stops_the_store_and_the_next_opening_restores_all() {
    for copies in [Copies::Journal, Copies::Export] {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), copies);
        flip_a_chunk(&dir.path().join("db"));
        let (store, _) = open(dir.path());
        let mut batch = Batch::new();
        batch.put(space(0), key(0), value(0));
        // Whether a write needs the damaged page is for sled to say; if not, it takes the place of what was damaged.
        let written = commit(&store, batch.clone());
        if let Err(error) = &written {
            let said = error.to_string();
            assert!(said.starts_with("the store has failed and must be opened again: "), "{said}");
            assert_eq!(commit(&store, batch).unwrap_err().to_string(), said);
            assert_eq!(store.get(space(1), &key(1)).unwrap_err().to_string(), said);
            assert_eq!(store.health().failed, Some(said));
        }
        drop(store);
        let (store, opened) = open(dir.path());
        assert_eq!(opened.recovered.is_some_and(|recovery| recovery.rebuilt), written.is_err());
        assert_eq!(sound(&store), RECORDS);
        drop(store);
        assert_eq!(open(dir.path()).1, Opened::default());
    }
}

#[test]
fn a_rebuilding_that_was_stopped_begins_again() {
    let base = tempfile::tempdir().unwrap();
    prepare(base.path(), Copies::Export);
    let (count, opened) = harmed(base.path(), &|db| {
        // The damaged one is gone, the new one not complete.
        std::fs::remove_dir_all(db).unwrap();
        let building = db.with_file_name("db.building");
        std::fs::create_dir(&building).unwrap();
        std::fs::write(building.join("db"), b"half").unwrap();
    });
    assert_eq!((count, opened.recovered.unwrap().restored), (RECORDS, RECORDS));
}
