//! The second copy: every commit, in order, beside the database, until the exports have it.
//!
//! sled loses what its log's end held when a byte there is wrong, and says nothing: it takes the rest for a write that
//! was cut off. So each group is first appended here under the next sequence number, and the database holds the number
//! of the last group that it has. What it lacks when it is opened is applied again.
//!
//! A segment `journal-<first number>.spj`: `"SPXJNL\r\n" | version u32`, then frames `length u32 | checksum [16] |
//! body`. A body is `sequence u64 | time u64`, then for each change `space u8 | puts u8 | key length u32 | key`,
//! followed by `value length u32 | value` if it puts. The last frame may be torn by a stop; no frame follows it.

use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::disk::failed;
use super::envelope::Reader;
use super::records::{Batch, Op, Space};
use crate::Result;

const MAGIC: &[u8; 12] = b"SPXJNL\r\n\0\0\0\x01";
/// A segment of so many bytes is followed by the next.
const SEGMENT: u64 = 64 << 20;

/// The journal that is being written.
pub(super) struct Journal {
    dir: PathBuf,
    max_bytes: u64,
    file: File,
    /// Bytes of the segment so far.
    length: u64,
    next: u64,
}

fn path_of(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("journal-{first:020}.spj"))
}

/// The segments in `dir` with their first sequence numbers, ascending.
pub(super) fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| failed("cannot list", dir, &error))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed("cannot list", dir, &error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix("journal-").and_then(|rest| rest.strip_suffix(".spj"));
        if let Some(first) = number.and_then(|number| number.parse().ok()) {
            found.push((first, path));
        }
    }
    found.sort();
    Ok(found)
}

impl Journal {
    /// Begins a segment whose first frame will have the number `next`. Never appends to an old one, whose end may be
    /// torn.
    pub(super) fn start(dir: &Path, next: u64, max_bytes: u64) -> Result<Self> {
        let path = path_of(dir, next);
        // One of that number holds no whole frame, or the next would have another number. It may be a damaged one.
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > MAGIC.len() as u64) {
            let torn = path.with_extension("torn");
            std::fs::rename(&path, &torn).map_err(|error| failed("cannot rename", &path, &error))?;
        }
        let file = File::create(&path).and_then(|mut file| file.write_all(MAGIC).map(|()| file));
        let file = file.map_err(|error| failed("cannot create", &path, &error))?;
        Ok(Self { dir: dir.to_owned(), max_bytes, file, length: MAGIC.len() as u64, next })
    }

    /// Appends a group as number [`Journal::next`]. It is durable after the next sync of the file system.
    pub(super) fn append(&mut self, batches: &[&Batch], now: u64) -> Result<()> {
        let frame = frame(self.next, now, batches);
        if let Err(error) = self.file.write_all(&frame) {
            // What comes after half a frame would never be read.
            let undone = self.file.set_len(self.length);
            let undone = undone.and_then(|()| {
                std::io::Seek::seek(&mut self.file, std::io::SeekFrom::Start(self.length)).map(|_| ())
            });
            let path = self.dir.as_path();
            return Err(match undone {
                Ok(()) => failed("cannot write the journal", path, &error),
                Err(undo) => failed("cannot write the journal, nor cut it off", path, &undo),
            });
        }
        self.length += frame.len() as u64;
        self.next += 1;
        if self.length >= SEGMENT {
            self.rotate()?;
        }
        Ok(())
    }

    /// Begins the next segment, and removes the oldest while all are above their bound.
    pub(super) fn rotate(&mut self) -> Result<()> {
        if self.length > MAGIC.len() as u64 {
            *self = Self::start(&self.dir, self.next, self.max_bytes)?;
        }
        let segments = segments(&self.dir)?;
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        let mut total: u64 = segments.iter().map(|(_, path)| size(path)).sum();
        for (first, path) in &segments {
            if total <= self.max_bytes || *first == self.next {
                break;
            }
            total -= size(path);
            std::fs::remove_file(path).map_err(|error| failed("cannot remove", path, &error))?;
        }
        Ok(())
    }

    /// Removes segments that hold nothing above the number `held`.
    pub(super) fn prune(dir: &Path, held: u64) -> Result<()> {
        let segments = segments(dir)?;
        for pair in segments.windows(2) {
            if let [(_, path), (following, _)] = pair
                && *following <= held.saturating_add(1)
            {
                std::fs::remove_file(path).map_err(|error| failed("cannot remove", path, &error))?;
            }
        }
        Ok(())
    }
}

fn checksum(body: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    blake3::Hasher::new().update(body).finalize_xof().fill(&mut short);
    short
}

fn frame(sequence: u64, now: u64, batches: &[&Batch]) -> Vec<u8> {
    let size: usize = batches.iter().map(|batch| batch.bytes() + 10 * batch.len()).sum();
    let mut out = Vec::with_capacity(size + 36);
    out.extend_from_slice(&[0; 20]);
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&now.to_be_bytes());
    for op in batches.iter().flat_map(|batch| &batch.ops) {
        out.extend_from_slice(&[op.space.prefix(), u8::from(op.value.is_some())]);
        out.extend_from_slice(&(op.key.len() as u32).to_be_bytes());
        out.extend_from_slice(&op.key);
        if let Some(value) = &op.value {
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend_from_slice(value);
        }
    }
    let (front, body) = out.split_at_mut(20);
    let (length, sum) = front.split_at_mut(4);
    length.copy_from_slice(&(body.len() as u32).to_be_bytes());
    sum.copy_from_slice(&checksum(body));
    out
}

/// The sequence number and the changes of a body.
fn parse(body: &[u8]) -> Option<(u64, Batch)> {
    let mut reader = Reader(body);
    let (sequence, now) = (reader.u64()?, reader.u64()?);
    let mut batch = Batch::new();
    while !reader.0.is_empty() {
        let space = Space::of_prefix(reader.byte()?)?;
        let puts = reader.byte()? != 0;
        let length = reader.u32()? as usize;
        let key = reader.take(length)?.to_vec();
        let value = if puts {
            let length = reader.u32()? as usize;
            Some(reader.take(length)?.to_vec())
        } else {
            None
        };
        batch.ops.push(Op { space, key, value, used: Some(now) });
    }
    Some((sequence, batch))
}

/// What replaying found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    /// Groups that were applied.
    pub(super) groups: u64,
    /// Sequence numbers of which the journal has nothing: first and last.
    pub(super) missing: Vec<(u64, u64)>,
}

/// Calls `apply` with every group above the number `held`, in order.
pub(super) fn replay(
    dir: &Path,
    held: u64,
    apply: &mut dyn FnMut(u64, Batch) -> Result<()>,
) -> Result<Replayed> {
    let mut replayed = Replayed::default();
    let mut last = held;
    let segments = segments(dir)?;
    for (at, (first, path)) in segments.iter().enumerate() {
        // Nothing of interest before the next begins.
        if segments.get(at + 1).is_some_and(|(following, _)| *following <= last + 1) {
            continue;
        }
        if *first > last + 1 {
            replayed.missing.push((last + 1, first - 1));
            last = first - 1;
        }
        each(path, &mut |sequence, batch| {
            if sequence <= last {
                return Ok(());
            }
            if sequence > last + 1 {
                replayed.missing.push((last + 1, sequence - 1));
            }
            apply(sequence, batch)?;
            last = sequence;
            replayed.groups += 1;
            Ok(())
        })?;
    }
    Ok(replayed)
}

/// Every sound frame of a segment.
fn each(path: &Path, use_it: &mut dyn FnMut(u64, Batch) -> Result<()>) -> Result<()> {
    let file = File::open(path).map_err(|error| failed("cannot open", path, &error))?;
    let total = file.metadata().map_err(|error| failed("cannot read", path, &error))?.len();
    let mut from = BufReader::with_capacity(1 << 20, file);
    let mut magic = [0; 12];
    if from.read_exact(&mut magic).is_err() || magic != *MAGIC {
        return Ok(());
    }
    loop {
        let mut front = [0; 20];
        if from.read_exact(&mut front).is_err() {
            return Ok(());
        }
        let mut reader = Reader(&front);
        let length = reader.u32().unwrap_or(0);
        if u64::from(length) > total {
            return Ok(());
        }
        let mut body = vec![0; length as usize];
        if from.read_exact(&mut body).is_err() {
            return Ok(());
        }
        // A damaged frame is missed by its number, once the next sound one is read.
        if checksum(&body) == reader.0
            && let Some((sequence, batch)) = parse(&body)
        {
            use_it(sequence, batch)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(i: u64) -> Batch {
        let mut batch = Batch::new();
        batch.put(Space::Job, i.to_be_bytes(), vec![i as u8; 100]).delete(Space::Row, *b"gone");
        batch
    }

    fn read(dir: &Path, held: u64) -> (Vec<u64>, Replayed) {
        let mut numbers = Vec::new();
        let replayed = replay(dir, held, &mut |sequence, found| {
            let mut expected = batch(sequence);
            expected.ops.iter_mut().for_each(|op| op.used = Some(7));
            assert_eq!(found, expected);
            numbers.push(sequence);
            Ok(())
        });
        (numbers, replayed.unwrap())
    }

    fn write(dir: &Path, max_bytes: u64) {
        let mut journal = Journal::start(dir, 1, max_bytes).unwrap();
        for i in 1..=9 {
            journal.append(&[&batch(i)], 7).unwrap();
            if i % 3 == 0 {
                journal.rotate().unwrap();
            }
        }
    }

    fn starts(dir: &Path) -> Vec<u64> {
        segments(dir).unwrap().into_iter().map(|(first, _)| first).collect()
    }

    #[test]
    fn what_the_database_lacks_is_given_again_in_order() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), u64::MAX);
        assert_eq!(starts(dir.path()), [1, 4, 7, 10]);
        for held in 0..=9 {
            let (numbers, replayed) = read(dir.path(), held);
            assert_eq!(numbers, (held + 1..=9).collect::<Vec<_>>());
            assert_eq!(replayed, Replayed { groups: 9 - held, missing: vec![] });
        }
        Journal::prune(dir.path(), 5).unwrap();
        assert_eq!(starts(dir.path()), [4, 7, 10]);
        Journal::prune(dir.path(), 6).unwrap();
        assert_eq!(read(dir.path(), 4).1, Replayed { groups: 3, missing: vec![(5, 6)] });
    }

    #[test]
    fn the_oldest_segments_go_when_there_are_too_many_bytes() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1100);
        assert_eq!(starts(dir.path()), [4, 7, 10]);
    }

    #[test]
    fn a_damaged_frame_is_missed_and_a_torn_end_is_the_end() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), u64::MAX);
        let path = path_of(dir.path(), 4);
        let mut bytes = std::fs::read(&path).unwrap();
        let frame = (bytes.len() - MAGIC.len()) / 3;
        bytes[MAGIC.len() + frame + 60] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (numbers, replayed) = read(dir.path(), 3);
        assert_eq!((numbers, replayed.missing), (vec![4, 6, 7, 8, 9], vec![(5, 5)]));
        let path = path_of(dir.path(), 7);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        std::fs::remove_file(path_of(dir.path(), 10)).unwrap();
        assert_eq!(read(dir.path(), 6), (vec![7, 8], Replayed { groups: 2, missing: vec![] }));
    }

    #[test]
    fn a_segment_that_is_in_the_way_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), 5);
        std::fs::write(&path, b"something that was damaged").unwrap();
        Journal::start(dir.path(), 5, u64::MAX).unwrap();
        assert_eq!(std::fs::read(path.with_extension("torn")).unwrap(), b"something that was damaged");
    }
}
