//! A value made of files, made again when they change.

use crate::Result;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// What tells two versions of a file apart. Opening through symbolic links, as mounted secrets are, is followed.
type Stamp = Vec<Option<(Option<SystemTime>, u64, u64)>>;

/// How a value is made from its files.
type Make<T> = dyn Fn() -> Result<T> + Send + Sync;

/// A value made of files. A new version that is broken leaves the old one in force and is logged once.
pub(super) struct Watched<T> {
    what: &'static str,
    files: Vec<PathBuf>,
    make: Box<Make<T>>,
    every: Duration,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamp: Stamp,
    checked: Instant,
}

impl<T> Watched<T> {
    /// Makes the value for the first time. `what` names it in logs; files are looked at no more often than `every`.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn new(
        what: &'static str,
        files: Vec<PathBuf>,
        every: Duration,
        make: impl Fn() -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        // The stamp is older than the value: a change in between is seen as a change.
        let stamp = stamp(&files);
        let value = Arc::new(make()?);
        let state = Mutex::new(State { value, stamp, checked: Instant::now() });
        Ok(Self { what, files, make: Box::new(make), every, state })
    }

    /// The value, made again if its files changed.
    pub(super) fn get(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.checked.elapsed() < self.every {
            return Arc::clone(&state.value);
        }
        state.checked = Instant::now();
        let now = stamp(&self.files);
        if now != state.stamp {
            state.stamp = now;
            match (self.make)() {
                Ok(value) => {
                    state.value = Arc::new(value);
                    tracing::info!(what = self.what, "files changed: read again");
                }
                Err(error) => {
                    let mistakes = error.message();
                    tracing::error!(what = self.what, %mistakes, "files changed, and the new ones are broken: the old ones stay in force");
                }
            }
        }
        Arc::clone(&state.value)
    }
}

fn stamp(files: &[PathBuf]) -> Stamp {
    let of = |path: &PathBuf| {
        let data = std::fs::metadata(path).ok()?;
        Some((data.modified().ok(), data.len(), inode(&data)))
    };
    files.iter().map(of).collect()
}

#[cfg(unix)]
fn inode(data: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(data)
}

#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}
