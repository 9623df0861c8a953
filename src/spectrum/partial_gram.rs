//! The Gram matrix of one shard, as it is kept and sent: a head and a packed triangle, whole or in pieces. A triangle
//! is large (67 MB for M = 4096).

use super::gram::Gram;
use super::packed::{Fields, bytes_of, numbers_of, triangle};
use crate::tensor::NonFinite;
use crate::{Error, Result};
use std::ops::Range;

/// What is known of one shard beside its Gram matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialHead {
    /// M of the layer.
    pub m: u64,
    /// The shard: rows of the layer.
    pub rows: Range<u64>,
    /// Whether any element is not zero.
    pub nonzero: bool,
    /// Elements that are not finite. If there are any, the Gram matrix has no meaning.
    pub non_finite: NonFinite,
    /// BLAKE3 of the shard's stored bytes.
    pub digest: [u8; 32],
}

/// The Gram matrix of one shard of a tall layer, summed over its blocks in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct PartialGram {
    /// What it is of.
    pub head: PartialHead,
    /// The lower triangle, packed.
    pub lower: Vec<f64>,
}

const MAGIC: &[u8; 8] = b"sdPGram1";

impl PartialHead {
    /// Length of [`PartialHead::to_bytes`].
    pub const BYTES: usize = 88;

    /// As [`PartialGram::to_bytes`] begins.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let NonFinite { nan, infinite } = self.non_finite;
        for n in [self.m, self.rows.start, self.rows.end, u64::from(self.nonzero), nan, infinite] {
            bytes.extend(n.to_le_bytes());
        }
        bytes.extend(self.digest);
        bytes
    }

    /// Reads what [`PartialHead::to_bytes`] wrote.
    ///
    /// # Errors
    /// `Malformed` if the bytes are of another kind, length or meaning.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(bytes, MAGIC, "partial Gram matrix")?;
        let head = Self {
            m: fields.number()?,
            rows: fields.number()?..fields.number()?,
            nonzero: fields.flag()?,
            non_finite: NonFinite { nan: fields.number()?, infinite: fields.number()? },
            digest: fields.array()?,
        };
        fields.end()?;
        if head.m == 0 || head.rows.is_empty() {
            let message = format!(
                "a partial Gram matrix of order {} of rows {} to {}",
                head.m, head.rows.start, head.rows.end
            );
            return Err(Error::malformed(message));
        }
        Ok(head)
    }
}

impl PartialGram {
    /// Packs `gram`.
    pub fn new(head: PartialHead, gram: &Gram) -> Self {
        Self { head, lower: gram.packed() }
    }

    /// A piece of the triangle as bytes, for elements `range` (cut at its end).
    pub fn piece(&self, range: Range<usize>) -> Vec<u8> {
        bytes_of(&self.lower, range)
    }

    /// Head and triangle.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.to_bytes();
        bytes.extend(self.piece(0..self.lower.len()));
        bytes
    }

    /// Reads what [`PartialGram::to_bytes`] wrote.
    ///
    /// # Errors
    /// `Malformed`, also if the length is not that of a triangle of order M.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (head, rest) = bytes.split_at(PartialHead::BYTES.min(bytes.len()));
        let head = PartialHead::from_bytes(head)?;
        let wanted = triangle(head.m).and_then(|n| n.checked_mul(8));
        if wanted != Some(rest.len() as u64) {
            let message =
                format!("{} bytes are not the triangle of a matrix of order {}", rest.len(), head.m);
            return Err(Error::malformed(message));
        }
        Ok(Self { head, lower: numbers_of(rest).collect() })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ErrorKind;

    pub(in crate::spectrum) fn part(m: u64, rows: Range<u64>, first: f64) -> PartialGram {
        let len = triangle(m).unwrap() as usize;
        let digest = [rows.start as u8; 32];
        let non_finite = NonFinite { nan: rows.start, infinite: 1 };
        let head = PartialHead { m, rows, nonzero: true, non_finite, digest };
        PartialGram { head, lower: (0..len).map(|i| first / (i + 1) as f64).collect() }
    }

    #[test]
    fn a_part_is_read_back_from_its_bytes_and_from_no_others() {
        let one = part(5, 0..10, 1.0);
        let bytes = one.to_bytes();
        assert_eq!(bytes.len(), PartialHead::BYTES + 15 * 8);
        assert_eq!(PartialGram::from_bytes(&bytes).unwrap(), one);
        for len in 0..bytes.len() {
            assert_eq!(PartialGram::from_bytes(&bytes[..len]).unwrap_err().kind(), ErrorKind::Malformed);
        }
        let mut longer = bytes.clone();
        longer.extend([0; 8]);
        let error = PartialGram::from_bytes(&longer).unwrap_err();
        assert_eq!(error.to_string(), "128 bytes are not the triangle of a matrix of order 5");
        let mut huge = bytes.clone();
        huge[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(PartialGram::from_bytes(&huge).unwrap_err().kind(), ErrorKind::Malformed);
        let mut other = bytes.clone();
        other[0] = b'x';
        assert_eq!(PartialGram::from_bytes(&other).unwrap_err().to_string(), "not a partial Gram matrix");
        let mut flag = bytes;
        flag[32] = 7;
        let error = PartialGram::from_bytes(&flag).unwrap_err();
        assert_eq!(error.to_string(), "a partial Gram matrix with flag 7");
    }
}
