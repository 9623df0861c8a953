//! The file system below the store: how full it is, and how what was written to it is made durable.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result};

/// An error of the operating system with the path that it is about.
pub(super) fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    let kind = match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => ErrorKind::TooLarge,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        Io::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("{what}: {error}")).in_file(path.display().to_string())
}

/// Free bytes (for this user) and all bytes of the file system of `path`; zeros where that cannot be known.
#[cfg(unix)]
pub(super) fn space(path: &Path) -> (u64, u64) {
    rustix::fs::statvfs(path).map_or((0, 0), |stat| {
        (stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize))
    })
}

/// Free bytes and all bytes of the file system of `path`; zeros where that cannot be known.
#[cfg(not(unix))]
pub(super) fn space(_path: &Path) -> (u64, u64) {
    (0, 0)
}

/// Makes the entries of a directory durable. Elsewhere than on Unix a directory cannot be opened, nor need it be.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(|error| failed("cannot sync the directory", path, &error))
}

/// Makes a directory of files durable.
///
/// sled's `flush` does not: on Linux it ends in `sync_file_range`, which neither orders the device's cache nor saves
/// the length of a file, and it never touches the files in `blobs/`. One `syncfs` covers them all.
pub(super) struct Syncer {
    path: PathBuf,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    dir: File,
}

impl Syncer {
    pub(super) fn new(path: &Path) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            dir: File::open(path).map_err(|error| failed("cannot open the directory", path, &error))?,
        })
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.dir).map_err(|error| failed("cannot sync", &self.path, &error.into()))
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) fn sync(&self) -> Result<()> {
        sync_files(&self.path)
    }
}

/// Every file below `path`, one by one, then their directories.
#[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
fn sync_files(path: &Path) -> Result<()> {
    let list = std::fs::read_dir(path).map_err(|error| failed("cannot list", path, &error))?;
    for entry in list {
        let entry = entry.map_err(|error| failed("cannot list", path, &error))?.path();
        if entry.is_dir() {
            sync_files(&entry)?;
            continue;
        }
        match std::fs::OpenOptions::new().write(true).open(&entry).and_then(|file| file.sync_all()) {
            // sled removes a blob once nothing needs it.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("cannot sync", &entry, &error));
            }
            _ => {}
        }
    }
    sync_dir(path)
}

/// Writes, syncs and removes a file of `bytes` in `dir`: whether the disk takes writes again.
pub(super) fn probe(dir: &Path, bytes: usize) -> Result<()> {
    let path = dir.join("probe");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0x5a; bytes])?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    written.and(removed).map_err(|error| failed("a probe write failed", &path, &error))
}

/// The size of every file below `path`.
pub(super) fn size_below(path: &Path) -> u64 {
    let Ok(list) = std::fs::read_dir(path) else { return 0 };
    let sizes = list.filter_map(std::result::Result::ok).map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// Makes a directory durable with its parents' entries for it.
pub(super) fn create_dir(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(|error| failed("cannot create the directory", path, &error))?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent),
        None => sync_dir(Path::new(".")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_syncing_accept_a_directory_of_files() {
        let dir = tempfile::tempdir().unwrap();
        create_dir(&dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/file"), b"x").unwrap();
        Syncer::new(dir.path()).unwrap().sync().unwrap();
        sync_files(dir.path()).unwrap();
        assert_eq!(size_below(dir.path()), 1);
    }

    #[test]
    fn the_file_system_has_a_size_and_takes_a_probe() {
        let dir = tempfile::tempdir().unwrap();
        let (free, total) = space(dir.path());
        assert!(free > 0 && total >= free, "{free} of {total}");
        probe(dir.path(), 10_000).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let missing = dir.path().join("missing");
        assert_eq!(probe(&missing, 1).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
