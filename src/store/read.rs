//! Reading records: envelopes opened, long values put together again from their chunks.

use std::ops::Bound;

use super::engine::{Engine, Fault};
use super::envelope::{self, Head, Kind};
use super::keys;
use super::records::{MAX_PAGE, Space, named};
use crate::{Error, ErrorKind, Result};

/// How often a record that changes while it is read is read again.
const TRIES: usize = 100;

/// A record as its caller wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) value: Vec<u8>,
    /// Seconds since 1970.
    pub(super) written: u64,
}

/// The error of a record that is not what was stored.
pub(super) fn corrupt(space: Space, key: &[u8], why: &str) -> Error {
    Error::malformed(format!("the stored record is corrupt: {why}")).in_field(named(space, key))
}

fn placed(fault: Fault, space: Space, key: &[u8]) -> Error {
    match fault {
        Fault::Damaged(why) => corrupt(space, key, &why),
        other => Error::from(other).in_field(named(space, key)),
    }
}

/// What stands in the record itself.
pub(super) enum Outer {
    Value(Found),
    Long { head: Head, written: u64 },
}

/// Opens a record without reading its chunks.
pub(super) fn outer(raw: &[u8], stored: &[u8]) -> std::result::Result<Outer, String> {
    let opened = envelope::open(raw, stored)?;
    match opened.kind {
        Kind::Inline => Ok(Outer::Value(Found { value: opened.payload.to_vec(), written: opened.written })),
        Kind::Head => Ok(Outer::Long { head: Head::parse(opened.payload)?, written: opened.written }),
        Kind::Chunk | Kind::Note => Err("the envelope holds another kind of payload".to_owned()),
    }
}

enum Unread {
    Fault(Fault),
    Corrupt(String),
}

fn whole(engine: &Engine, raw: &[u8], stored: &[u8]) -> std::result::Result<Found, Unread> {
    match outer(raw, stored).map_err(Unread::Corrupt)? {
        Outer::Value(found) => Ok(found),
        Outer::Long { head, written } => Ok(Found { value: join(engine, &head)?, written }),
    }
}

fn join(engine: &Engine, head: &Head) -> std::result::Result<Vec<u8>, Unread> {
    // The head's checksum held, so its length is one that was written: at most MAX_VALUE.
    let mut value = Vec::with_capacity(head.length as usize);
    for index in 0..head.count {
        let key = keys::chunk(head.generation, index);
        let Some(stored) = engine.get(&key).map_err(Unread::Fault)? else {
            return Err(Unread::Corrupt(format!("chunk {index} of {} is missing", head.count)));
        };
        let opened = envelope::open(&key, &stored);
        let opened =
            opened.map_err(|why| Unread::Corrupt(format!("chunk {index} of {}: {why}", head.count)))?;
        value.extend_from_slice(opened.payload);
    }
    if value.len() as u64 != head.length || blake3::hash(&value) != head.hash {
        return Err(Unread::Corrupt("the chunks are not those of the head".to_owned()));
    }
    Ok(value)
}

/// Reads one record. Where it is overwritten or removed meanwhile, it is read again.
pub(super) fn get(engine: &Engine, space: Space, key: &[u8]) -> Result<Option<Found>> {
    let raw = keys::record(space, key);
    let ask = || engine.get(&raw).map_err(|fault| placed(fault, space, key));
    let mut stored = ask()?;
    for _ in 0..TRIES {
        let Some(now) = stored else { return Ok(None) };
        let why = match whole(engine, &raw, &now) {
            Ok(found) => return Ok(Some(found)),
            Err(Unread::Fault(fault)) => return Err(placed(fault, space, key)),
            Err(Unread::Corrupt(why)) => why,
        };
        stored = ask()?;
        if stored.as_ref() == Some(&now) {
            return Err(corrupt(space, key, &why));
        }
    }
    Err(Error::new(ErrorKind::Unavailable, "the record changes faster than it can be read")
        .in_field(named(space, key)))
}

/// Where a page begins and which way it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct From<'a> {
    pub(super) prefix: &'a [u8],
    /// Exclusive.
    pub(super) edge: Option<&'a [u8]>,
    pub(super) backwards: bool,
}

/// Up to `limit` records, each sound or with what is wrong with it.
pub(super) fn page(
    engine: &Engine,
    space: Space,
    from: From<'_>,
    limit: usize,
) -> Result<Vec<(Vec<u8>, Result<Found>)>> {
    let prefix = keys::record(space, from.prefix);
    let edge = from.edge.map(|edge| keys::record(space, edge));
    let (mut low, mut end) =
        (Bound::Included(prefix.clone()), keys::end_of(&prefix).map_or(Bound::Unbounded, Bound::Excluded));
    match edge {
        Some(edge) if from.backwards => {
            if edge <= prefix {
                return Ok(Vec::new());
            }
            if matches!(&end, Bound::Excluded(end) if edge < *end) || end == Bound::Unbounded {
                end = Bound::Excluded(edge);
            }
        }
        Some(edge) if edge >= prefix => low = Bound::Excluded(edge),
        _ => {}
    }
    if let (Bound::Excluded(low), Bound::Excluded(end)) = (&low, &end)
        && low >= end
    {
        return Ok(Vec::new());
    }
    let mut page = Vec::new();
    let mut bytes = 0;
    for step in engine.walk(low, end, from.backwards).take(limit) {
        let (raw, stored) = step.map_err(|fault| Error::from(fault).in_field(space.name()))?;
        let Some((_, key)) = keys::split(&raw) else { continue };
        let found = match outer(&raw, &stored) {
            Ok(Outer::Value(found)) => Ok(found),
            // Removed since the walk came by: no longer a record.
            Ok(Outer::Long { .. }) => match get(engine, space, key) {
                Ok(None) => continue,
                Ok(Some(found)) => Ok(found),
                Err(error) => Err(error),
            },
            Err(why) => Err(corrupt(space, key, &why)),
        };
        bytes += found.as_ref().map_or(0, |found| found.value.len());
        page.push((key.to_vec(), found));
        if bytes >= MAX_PAGE {
            break;
        }
    }
    Ok(page)
}
