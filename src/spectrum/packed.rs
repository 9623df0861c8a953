//! Packed triangles and their bytes: the lower triangle of an M × M matrix, column by column, M(M+1)/2 numbers of 8
//! bytes, little endian.

use crate::{Error, Result};
use std::ops::Range;

/// Elements of the packed lower triangle of an M × M matrix; `None` beyond u64.
pub fn triangle(m: u64) -> Option<u64> {
    let twice = u128::from(m) * (u128::from(m) + 1);
    u64::try_from(twice / 2).ok()
}

/// Elements `range` (cut at the end) as bytes.
pub(super) fn bytes_of(lower: &[f64], range: Range<usize>) -> Vec<u8> {
    let piece = lower.get(range.start..range.end.min(lower.len())).unwrap_or_default();
    piece.iter().flat_map(|x| x.to_le_bytes()).collect()
}

pub(super) fn numbers_of(bytes: &[u8]) -> impl ExactSizeIterator<Item = f64> {
    bytes.as_chunks().0.iter().map(|raw| f64::from_le_bytes(*raw))
}

/// Reads fields of fixed length from the front of bytes.
pub(super) struct Fields<'a> {
    pub(super) rest: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8], magic: &[u8; 8], what: &'static str) -> Result<Self> {
        let mut fields = Self { rest: bytes, what };
        if fields.array()? != *magic {
            return Err(Error::malformed(format!("not a {what}")));
        }
        Ok(fields)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((field, rest)) = self.rest.split_first_chunk() else {
            return Err(Error::malformed(format!("a {} that is cut short", self.what)));
        };
        self.rest = rest;
        Ok(*field)
    }

    pub(super) fn number(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn flag(&mut self) -> Result<bool> {
        match self.number()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::malformed(format!("a {} with flag {other}", self.what))),
        }
    }

    pub(super) fn end(&self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::malformed(format!("{} bytes after a {}", self.rest.len(), self.what)))
    }
}
