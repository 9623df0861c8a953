//! Partial Gram matrices of tall layers, kept as files until all of a layer are there, then added in the order of the
//! shards. A file a shard: memory holds one sum at a time, within a budget.
//!
//! Files do not outlive the process: after a restart row blocks that were not summed up are computed again.

use super::keys::Key;
use crate::spectrum::{GramSum, PartialHead};
use crate::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Elements added at once.
const PIECE: usize = 128 << 10;

/// The parts and sums of all layers under way, by the key of the layer's work: analyses that need the same share them.
pub(super) struct GramSums {
    folder: PathBuf,
    state: Mutex<BTreeMap<Key, Layer>>,
    budget: Budget,
}

#[derive(Default)]
struct Layer {
    /// Analyses that need it.
    wanted_by: BTreeSet<String>,
    parts: BTreeSet<u32>,
    summed: bool,
}

/// Bytes of sums in memory.
struct Budget {
    free: Mutex<u64>,
    all: u64,
    changed: Condvar,
}

struct Taken<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl GramSums {
    /// Keeps parts in `folder` and at most `memory` bytes of sums in memory, one sum at least.
    pub(super) fn new(memory: u64, folder: PathBuf) -> Self {
        let budget = Budget { free: Mutex::new(memory), all: memory, changed: Condvar::new() };
        Self { folder, state: Mutex::default(), budget }
    }

    /// Removes what a process before this one has left.
    pub(super) fn clear(&self) -> Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(self.disk(&self.folder, &error))
            }
            _ => fs::create_dir_all(&self.folder).map_err(|error| self.disk(&self.folder, &error)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Layer>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an analysis needs a layer.
    pub(super) fn want(&self, key: &Key, analysis: &str) {
        self.lock().entry(*key).or_default().wanted_by.insert(analysis.to_owned());
    }

    /// Whether a part is there already, by itself or in the sum.
    pub(super) fn has(&self, key: &Key, shard: u32) -> bool {
        self.lock().get(key).is_some_and(|layer| layer.summed || layer.parts.contains(&shard))
    }

    /// An empty file for a part that arrives; [`GramSums::put`] takes it.
    pub(super) fn arriving(&self) -> Result<(PathBuf, File)> {
        let path = self.folder.join(format!("{}.arriving", uuid::Uuid::new_v4()));
        let file = File::create_new(&path).map_err(|error| self.disk(&path, &error))?;
        Ok((path, file))
    }

    /// Takes a part that has arrived whole. One that nobody needs, or that is there, is dropped.
    pub(super) fn put(&self, key: &Key, shard: u32, arrived: &Path) -> Result<()> {
        let mut state = self.lock();
        let known = state.get_mut(key).filter(|layer| !layer.summed && !layer.parts.contains(&shard));
        let Some(layer) = known else {
            return fs::remove_file(arrived).map_err(|error| self.disk(arrived, &error));
        };
        let path = self.part(key, shard);
        fs::rename(arrived, &path).map_err(|error| self.disk(&path, &error))?;
        layer.parts.insert(shard);
        Ok(())
    }

    /// The file of the sum of `shards` parts of a layer with this M, made if it is not there yet.
    ///
    /// # Errors
    /// `Unavailable` if a part is missing, as after a restart; `Internal` if the disk fails.
    pub(super) fn sum(&self, key: &Key, m: u64, shards: u32) -> Result<File> {
        let path = self.folder.join(format!("{}.sum", hex(key)));
        if !self.lock().get(key).is_some_and(|layer| layer.summed) {
            let _taken = self.budget.take(m.saturating_mul(m + 1).saturating_mul(4));
            // Another call may have made it while this one waited.
            if !self.lock().get(key).is_some_and(|layer| layer.summed) {
                self.add_up(key, m, shards, &path)?;
                if let Some(layer) = self.lock().get_mut(key) {
                    layer.summed = true;
                    layer.parts.clear();
                }
                for shard in 0..shards {
                    // What is left behind goes with the folder.
                    let _ = fs::remove_file(self.part(key, shard));
                }
            }
        }
        File::open(&path).map_err(|error| self.disk(&path, &error))
    }

    fn add_up(&self, key: &Key, m: u64, shards: u32, path: &Path) -> Result<()> {
        let mut sum = GramSum::new(m)?;
        for shard in 0..shards {
            let part = self.part(key, shard);
            let file = File::open(&part).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    Error::new(ErrorKind::Unavailable, format!("row block {shard} is not there"))
                }
                _ => self.disk(&part, &error),
            })?;
            self.add_part(&mut sum, file, &part)?;
        }
        let write = || -> std::io::Result<()> {
            let mut file = BufWriter::new(File::create(path)?);
            let head = sum.head_bytes().map_err(std::io::Error::other)?;
            file.write_all(&(head.len() as u64).to_le_bytes())?;
            file.write_all(&head)?;
            for start in (0..sum.elements()).step_by(PIECE) {
                file.write_all(&sum.piece(start..start + PIECE))?;
            }
            file.flush()
        };
        write().map_err(|error| self.disk(path, &error))
    }

    fn add_part(&self, sum: &mut GramSum, file: File, path: &Path) -> Result<()> {
        let mut file = BufReader::new(file);
        let mut head = [0; PartialHead::BYTES];
        file.read_exact(&mut head).map_err(|error| self.disk(path, &error))?;
        sum.begin(&PartialHead::from_bytes(&head)?)?;
        let mut bytes = vec![0; PIECE * 8];
        let elements = sum.elements();
        for start in (0..elements).step_by(PIECE) {
            let count = PIECE.min(elements - start);
            let piece = bytes.get_mut(..count * 8).unwrap_or_default();
            file.read_exact(piece).map_err(|error| self.disk(path, &error))?;
            sum.add_piece_bytes(start, piece)?;
        }
        Ok(())
    }

    /// An analysis has ended: what nobody else needs goes.
    pub(super) fn release(&self, analysis: &str, keys: &[Key]) {
        let mut state = self.lock();
        for key in keys {
            let Some(layer) = state.get_mut(key) else { continue };
            layer.wanted_by.remove(analysis);
            if !layer.wanted_by.is_empty() {
                continue;
            }
            let parts = std::mem::take(&mut layer.parts);
            state.remove(key);
            // What cannot be removed goes with the next start.
            for shard in parts {
                let _ = fs::remove_file(self.part(key, shard));
            }
            let _ = fs::remove_file(self.folder.join(format!("{}.sum", hex(key))));
        }
    }

    fn part(&self, key: &Key, shard: u32) -> PathBuf {
        self.folder.join(format!("{}.{shard}", hex(key)))
    }

    fn disk(&self, path: &Path, error: &std::io::Error) -> Error {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
            _ => ErrorKind::Internal,
        };
        Error::new(kind, format!("partial Gram matrices: {error}")).in_file(path.to_string_lossy())
    }
}

impl Budget {
    /// Waits for room; what exceeds the whole budget waits until it has it alone.
    fn take(&self, bytes: u64) -> Taken<'_> {
        let bytes = bytes.min(self.all);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            self.changed.wait_while(free, |free| *free < bytes).unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Taken { budget: self, bytes }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.budget.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.budget.changed.notify_all();
    }
}

fn hex(key: &Key) -> String {
    blake3::Hash::from_bytes(*key).to_hex().to_string()
}

/// Length in bytes of a partial Gram matrix of order M as it is sent.
pub(super) fn part_bytes(m: u64) -> u64 {
    (PartialHead::BYTES as u64).saturating_add(m.saturating_mul(m.saturating_add(1)).saturating_mul(4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spectrum::PartialGram;

    fn part(m: u64, rows: std::ops::Range<u64>, value: f64) -> PartialGram {
        let head =
            PartialHead { m, rows, nonzero: true, non_finite: Default::default(), digest: [value as u8; 32] };
        PartialGram { head, lower: vec![value; (m * (m + 1) / 2) as usize] }
    }

    fn send(sums: &GramSums, key: &Key, shard: u32, part: &PartialGram) {
        let (path, mut file) = sums.arriving().unwrap();
        file.write_all(&part.to_bytes()).unwrap();
        sums.put(key, shard, &path).unwrap();
    }

    #[test]
    fn parts_in_any_order_sum_in_order_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let sums = GramSums::new(1, folder.path().join("grams"));
        sums.clear().unwrap();
        let (key, m) = ([7; 32], 600);
        let parts: Vec<PartialGram> = (0..4).map(|i| part(m, i * 10..i * 10 + 10, 0.1 + i as f64)).collect();
        sums.want(&key, "a");
        sums.want(&key, "b");
        for shard in [2, 0, 3] {
            send(&sums, &key, shard, &parts[shard as usize]);
        }
        assert_eq!(sums.sum(&key, m, 4).unwrap_err().kind(), ErrorKind::Unavailable);
        send(&sums, &key, 1, &parts[1]);
        send(&sums, &key, 1, &parts[3]); // there already: dropped
        let mut bytes = Vec::new();
        sums.sum(&key, m, 4).unwrap().read_to_end(&mut bytes).unwrap();
        let mut expected = GramSum::new(m).unwrap();
        parts.iter().for_each(|part| expected.add(part).unwrap());
        assert_eq!(bytes, expected.to_bytes().unwrap());
        sums.release("a", &[key]);
        assert!(sums.has(&key, 0), "b needs it");
        sums.release("b", &[key]);
        assert_eq!(fs::read_dir(folder.path().join("grams")).unwrap().count(), 0);
    }
}
