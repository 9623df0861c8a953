//! What callers see: spaces, batches, the trait [`Records`] and what it says of its health.

use crate::{Error, ErrorKind, Result};

/// The longest key, in bytes.
pub const MAX_KEY: usize = 1024;
/// The longest value, in bytes.
pub const MAX_VALUE: usize = 64 << 20;
/// A page of a scan ends once its values reach this many bytes, whatever its limit.
pub const MAX_PAGE: usize = 16 << 20;

/// A kind of record. Spaces are separate: the same key may be in several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Results of layers by content key. The only space that is bounded: the least recently used go.
    Result,
    /// Object identities.
    Object,
    /// Jobs.
    Job,
    /// Rows of jobs.
    Row,
    /// Audits.
    History,
    /// What the coordinator notes of itself.
    Meta,
}

impl Space {
    /// Every space, in the order of exports.
    pub const ALL: [Self; 6] = [Self::Result, Self::Object, Self::Job, Self::Row, Self::History, Self::Meta];

    /// The name in messages and statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Object => "object",
            Self::Job => "job",
            Self::Row => "row",
            Self::History => "history",
            Self::Meta => "meta",
        }
    }

    /// The byte that stands for it on disk: never change one.
    pub(super) fn prefix(self) -> u8 {
        match self {
            Self::Result => b'r',
            Self::Object => b'o',
            Self::Job => b'j',
            Self::Row => b'w',
            Self::History => b'h',
            Self::Meta => b'm',
        }
    }

    pub(super) fn of_prefix(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|space| space.prefix() == byte)
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) space: Space,
    pub(super) key: Vec<u8>,
    /// `None` deletes.
    pub(super) value: Option<Vec<u8>>,
    /// Seconds since 1970 of the last use, where the record has a past (it comes from an export).
    pub(super) used: Option<u64>,
}

/// Changes that become visible and durable together, or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub(super) ops: Vec<Op>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key. Of several changes of one key in a batch the last one counts.
    pub fn put(&mut self, space: Space, key: impl Into<Vec<u8>>, value: Vec<u8>) -> &mut Self {
        self.ops.push(Op { space, key: key.into(), value: Some(value), used: None });
        self
    }

    /// Removes a key; removing one that is not there is no error.
    pub fn delete(&mut self, space: Space, key: impl Into<Vec<u8>>) -> &mut Self {
        self.ops.push(Op { space, key: key.into(), value: None, used: None });
        self
    }

    /// How many changes it has.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        self.ops.iter().map(|op| op.key.len() + op.value.as_ref().map_or(0, Vec::len)).sum()
    }

    /// `InvalidArgument` for a key that is empty or above [`MAX_KEY`], `TooLarge` for a value above [`MAX_VALUE`].
    pub(super) fn check(&self) -> Result<()> {
        for op in &self.ops {
            if op.key.is_empty() || op.key.len() > MAX_KEY {
                let length = op.key.len();
                return Err(Error::invalid(format!("a key has {length} bytes; 1 to {MAX_KEY} are allowed"))
                    .in_field(op.space.name()));
            }
            if let Some(length) = op.value.as_ref().map(Vec::len).filter(|length| *length > MAX_VALUE) {
                let message = format!("a value has {length} bytes; at most {MAX_VALUE} are allowed");
                return Err(Error::new(ErrorKind::TooLarge, message).in_field(named(op.space, &op.key)));
            }
        }
        Ok(())
    }
}

/// How a record is named in messages: its space and its key, as text where it is printable, else in hexadecimal.
pub(super) fn named(space: Space, key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => format!("{} {text}", space.name()),
        _ => format!("{} 0x{}", space.name(), hex(key)),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What is called when a batch is durable or has failed.
pub type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// Keys with their values, as a scan gives them.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// What the coordinator sees of a store.
///
/// A batch is visible to readers as soon as it is applied, which is before it is durable: act on `done`, not on what
/// can be read. A record that is stored but cannot be trusted gives an error for which [`is_corrupt`] holds.
pub trait Records: Send + Sync {
    /// Queues a batch. `done` is called exactly once, from another thread, when the batch is durable or has failed:
    /// `TooLarge` while the disk is full, `Unavailable` while too much is queued, `Internal` once the store has
    /// failed. It runs on the thread that commits, so it must be short.
    fn submit(&self, batch: Batch, done: Done);

    /// The value of a key. Counts as a use of it.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Whether a key is there; does not read a long value, and is no use of it.
    fn contains(&self, space: Space, key: &[u8]) -> Result<bool>;

    /// Keys that begin with `prefix` and are greater than `after`, ascending, with their values. At most `limit`; a
    /// page also ends at [`MAX_PAGE`] bytes of values, so only an empty page is the end.
    fn scan(&self, space: Space, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Pairs>;

    /// As [`Records::scan`], descending from the greatest key that is less than `before`.
    fn scan_back(&self, space: Space, prefix: &[u8], before: Option<&[u8]>, limit: usize) -> Result<Pairs>;

    /// How it stands. Cheap: counters, and one question to the file system.
    fn health(&self) -> Health;
}

/// Submits a batch and waits until it is durable.
pub fn commit(records: &dyn Records, batch: Batch) -> Result<()> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    records.submit(
        batch,
        Box::new(move |outcome| {
            // The receiver waits below.
            let _ = sender.send(outcome);
        }),
    );
    let gone = |_| Err(Error::new(ErrorKind::Unavailable, "the store stopped before the batch was durable"));
    receiver.recv().unwrap_or_else(gone)
}

/// Whether an error says that a stored record is not what was stored. A result that is corrupt may be computed again.
pub fn is_corrupt(error: &Error) -> bool {
    error.kind() == ErrorKind::Malformed
}

/// How much one space holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Records.
    pub entries: u64,
    /// Bytes of their keys and values, as callers gave them; the disk holds more.
    pub bytes: u64,
}

/// How a store stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Bytes of the file system that this user may still write; 0 where unknown.
    pub free_bytes: u64,
    /// Bytes of the file system; 0 where unknown.
    pub total_bytes: u64,
    /// Bytes of the database's files.
    pub database_bytes: u64,
    /// One for each of [`Space::ALL`], in that order.
    pub spaces: [Usage; 6],
    /// Free bytes are below the limit: take no new jobs.
    pub low_on_disk: bool,
    /// Why writes are refused, if they are.
    pub failed: Option<String>,
    /// Results evicted since the store was opened.
    pub evictions: u64,
    /// Batches made durable since the store was opened.
    pub commits: u64,
    /// Times that the disk was waited for. Fewer than commits where batches shared one.
    pub syncs: u64,
    /// Reads that met a corrupt record since the store was opened.
    pub corrupt_reads: u64,
}

impl Health {
    /// What one space holds.
    pub fn space(&self, space: Space) -> Usage {
        self.spaces.get(space.index()).copied().unwrap_or_default()
    }
}
