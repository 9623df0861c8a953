//! The sum of the Gram matrices of a layer's shards. A part may be added piece by piece where it arrives, and the sum
//! is itself sent or spilled as a head and pieces.

use super::gram::Gram;
use super::packed::{Fields, bytes_of, numbers_of, triangle};
use super::partial_gram::{PartialGram, PartialHead};
use crate::tensor::NonFinite;
use crate::{Error, ErrorKind, Result};
use std::ops::Range;

/// ((P₀ + P₁) + P₂) + …: the Gram matrix of a layer from those of its shards, added in their order.
///
/// A part may be added whole ([`GramSum::add`]) or piece by piece ([`GramSum::begin`], [`GramSum::add_piece`]). A part
/// that was begun changes the sum at once: if the rest of it does not come, the sum is lost and must be done again.
#[derive(Debug, Clone, PartialEq)]
pub struct GramSum {
    m: u64,
    lower: Vec<f64>,
    parts: Vec<Part>,
    nonzero: bool,
    non_finite: NonFinite,
    /// Elements of the last part that have been added, while some are missing.
    filled: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    end: u64,
    digest: [u8; 32],
}

const SUM_MAGIC: &[u8; 8] = b"sdGSum_1";

impl GramSum {
    /// Zero, for a layer with this M.
    ///
    /// # Errors
    /// `TooLarge` if the triangle does not fit the address space.
    pub fn new(m: u64) -> Result<Self> {
        let len = triangle(m).and_then(|n| usize::try_from(n).ok()).filter(|n| n.checked_mul(8).is_some());
        let Some(len) = len else {
            let message = format!("a Gram matrix of order {m} is too large");
            return Err(Error::new(ErrorKind::TooLarge, message));
        };
        Ok(Self {
            m,
            lower: vec![0.0; len],
            parts: Vec::new(),
            nonzero: false,
            non_finite: NonFinite::default(),
            filled: None,
        })
    }

    /// M.
    pub fn m(&self) -> u64 {
        self.m
    }

    /// Rows added so far; the next shard starts here.
    pub fn rows(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// Elements of the triangle.
    pub fn elements(&self) -> usize {
        self.lower.len()
    }

    /// The shards added so far.
    pub fn shards(&self) -> Vec<Range<u64>> {
        let starts = std::iter::once(0).chain(self.parts.iter().map(|part| part.end));
        starts.zip(&self.parts).map(|(start, part)| start..part.end).collect()
    }

    /// The digests of the shards added so far.
    pub fn digests(&self) -> Vec<[u8; 32]> {
        self.parts.iter().map(|part| part.digest).collect()
    }

    /// Elements that are not finite, over all shards so far.
    pub fn non_finite(&self) -> NonFinite {
        self.non_finite
    }

    /// Whether no part is half added.
    pub fn is_complete(&self) -> bool {
        self.filled.is_none()
    }

    /// Adds the next shard.
    ///
    /// # Errors
    /// As [`GramSum::begin`].
    pub fn add(&mut self, part: &PartialGram) -> Result<()> {
        if part.lower.len() != self.lower.len() {
            return Err(self.of_another_order(part.head.m));
        }
        self.begin(&part.head)?;
        self.add_piece(0, &part.lower)
    }

    /// Begins to add the next shard; its triangle follows by [`GramSum::add_piece`].
    ///
    /// # Errors
    /// `InvalidArgument` if it is not the shard that follows, is of another M, or another part is half added; the sum
    /// is as it was.
    pub fn begin(&mut self, head: &PartialHead) -> Result<()> {
        self.check_complete()?;
        if head.m != self.m {
            return Err(self.of_another_order(head.m));
        }
        if head.rows.start != self.rows() || head.rows.is_empty() {
            let message = format!(
                "rows {} to {} do not follow the {} rows that were added",
                head.rows.start,
                head.rows.end,
                self.rows()
            );
            return Err(Error::invalid(message));
        }
        self.parts.push(Part { end: head.rows.end, digest: head.digest });
        self.nonzero |= head.nonzero;
        self.non_finite.add(head.non_finite);
        self.filled = Some(0);
        Ok(())
    }

    /// Adds elements from `offset` on of the triangle of the part that was begun. Pieces come in order.
    ///
    /// # Errors
    /// `InvalidArgument` if no part was begun, or the piece does not follow the one before or is too long; nothing of
    /// it is added.
    pub fn add_piece(&mut self, offset: usize, piece: &[f64]) -> Result<()> {
        self.add_numbers(offset, piece.iter().copied())
    }

    /// As [`GramSum::add_piece`], from the bytes of [`PartialGram::piece`] or [`GramSum::piece`].
    ///
    /// # Errors
    /// As [`GramSum::add_piece`]; `Malformed` if the bytes are not whole numbers of 8 bytes.
    pub fn add_piece_bytes(&mut self, offset: usize, piece: &[u8]) -> Result<()> {
        if !piece.len().is_multiple_of(8) {
            return Err(Error::malformed(format!("a piece of {} bytes is not of f64", piece.len())));
        }
        self.add_numbers(offset, numbers_of(piece))
    }

    fn add_numbers(&mut self, offset: usize, piece: impl ExactSizeIterator<Item = f64>) -> Result<()> {
        let end = offset.saturating_add(piece.len());
        if self.filled != Some(offset) || end > self.lower.len() {
            let expected = match self.filled {
                Some(filled) => format!("{filled} of {} elements were added", self.lower.len()),
                None => "no part was begun".to_owned(),
            };
            return Err(Error::invalid(format!("a piece at {offset} to {end}: {expected}")));
        }
        self.lower[offset..end].iter_mut().zip(piece).for_each(|(sum, x)| *sum += x);
        self.filled = (end < self.lower.len()).then_some(end);
        Ok(())
    }

    fn check_complete(&self) -> Result<()> {
        let Some(filled) = self.filled else { return Ok(()) };
        let message = format!("{filled} of {} elements of a part were added", self.lower.len());
        Err(Error::invalid(message))
    }

    fn of_another_order(&self, m: u64) -> Error {
        Error::invalid(format!("a Gram matrix of order {m} cannot be added to one of order {}", self.m))
    }

    /// The head: all but the triangle.
    ///
    /// # Errors
    /// `InvalidArgument` if a part is half added.
    pub fn head_bytes(&self) -> Result<Vec<u8>> {
        self.check_complete()?;
        let mut bytes = SUM_MAGIC.to_vec();
        let NonFinite { nan, infinite } = self.non_finite;
        for n in [self.m, u64::from(self.nonzero), nan, infinite] {
            bytes.extend(n.to_le_bytes());
        }
        for part in &self.parts {
            bytes.extend(part.end.to_le_bytes());
            bytes.extend(part.digest);
        }
        Ok(bytes)
    }

    /// A sum from its head, for a layer with this M; its triangle follows by [`GramSum::add_piece`].
    ///
    /// # Errors
    /// `Malformed`, also if M is another one: nothing is allocated on the word of the bytes alone.
    pub fn from_head(bytes: &[u8], m: u64) -> Result<Self> {
        let mut fields = Fields::new(bytes, SUM_MAGIC, "sum of Gram matrices")?;
        let found = fields.number()?;
        if found != m {
            return Err(Error::malformed(format!("a sum of Gram matrices of order {found}, not {m}")));
        }
        let mut sum = Self { nonzero: fields.flag()?, ..Self::new(m)? };
        sum.non_finite = NonFinite { nan: fields.number()?, infinite: fields.number()? };
        while !fields.rest.is_empty() {
            let part = Part { end: fields.number()?, digest: fields.array()? };
            if part.end <= sum.rows() {
                return Err(Error::malformed("a sum of Gram matrices whose shards do not ascend"));
            }
            sum.parts.push(part);
        }
        sum.filled = (!sum.lower.is_empty()).then_some(0);
        Ok(sum)
    }

    /// A piece of the triangle as bytes, for elements `range` (cut at its end).
    pub fn piece(&self, range: Range<usize>) -> Vec<u8> {
        bytes_of(&self.lower, range)
    }

    /// The length of the head, the head and the triangle.
    ///
    /// # Errors
    /// As [`GramSum::head_bytes`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let head = self.head_bytes()?;
        let mut bytes = (head.len() as u64).to_le_bytes().to_vec();
        bytes.extend(head);
        bytes.extend(self.piece(0..self.lower.len()));
        Ok(bytes)
    }

    /// Reads what [`GramSum::to_bytes`] wrote, for a layer with this M.
    ///
    /// # Errors
    /// `Malformed`, also if a length is not as it must be.
    pub fn from_bytes(bytes: &[u8], m: u64) -> Result<Self> {
        let short = || Error::malformed(format!("{} bytes are not a sum of Gram matrices", bytes.len()));
        let (length, rest) = bytes.split_first_chunk().ok_or_else(short)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| short())?;
        let (head, rest) = rest.split_at_checked(length).ok_or_else(short)?;
        let wanted = triangle(m).and_then(|n| n.checked_mul(8));
        if wanted != Some(rest.len() as u64) {
            return Err(short());
        }
        let mut sum = Self::from_head(head, m)?;
        sum.add_piece_bytes(0, rest)?;
        Ok(sum)
    }

    /// The Gram matrix.
    ///
    /// # Errors
    /// `InvalidArgument` if a part is half added.
    pub(crate) fn into_gram(self) -> Result<Gram> {
        self.check_complete()?;
        Ok(Gram::from_packed(self.m as usize, &self.lower, self.nonzero))
    }
}

#[cfg(test)]
mod tests {
    use super::super::partial_gram::tests::part;
    use super::*;

    #[test]
    fn parts_are_added_in_their_order_alone() {
        let mut sum = GramSum::new(5).unwrap();
        let parts = [part(5, 0..10, 1.0), part(5, 10..20, 1e-3), part(5, 20..25, -1.0)];
        let error = sum.add(&parts[1]).unwrap_err();
        assert_eq!(error.to_string(), "rows 10 to 20 do not follow the 0 rows that were added");
        for part in &parts {
            sum.add(part).unwrap();
        }
        assert!(sum.add(&parts[2]).is_err(), "twice");
        let error = sum.add(&part(6, 25..30, 1.0)).unwrap_err();
        assert_eq!(error.to_string(), "a Gram matrix of order 6 cannot be added to one of order 5");
        let expected: Vec<f64> =
            (0..15).map(|i| (parts[0].lower[i] + parts[1].lower[i]) + parts[2].lower[i]).collect();
        assert_eq!(sum.lower, expected);
        assert_eq!((sum.rows(), sum.shards()), (25, vec![0..10, 10..20, 20..25]));
        assert_eq!(sum.non_finite(), NonFinite { nan: 30, infinite: 3 });
        assert_eq!(sum.digests(), [[0; 32], [10; 32], [20; 32]]);
    }

    #[test]
    fn pieces_give_the_sum_of_whole_parts_and_come_in_order() {
        let parts = [part(5, 0..10, 1.0), part(5, 10..20, 0.3)];
        let (mut whole, mut pieces) = (GramSum::new(5).unwrap(), GramSum::new(5).unwrap());
        for part in &parts {
            whole.add(part).unwrap();
            pieces.begin(&PartialHead::from_bytes(&part.head.to_bytes()).unwrap()).unwrap();
            pieces.add_piece(0, &part.lower[..4]).unwrap();
            for (offset, len) in [(0, 4), (5, 4), (4, 12)] {
                let error = pieces.add_piece(offset, &vec![1.0; len]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "at {offset}");
            }
            assert!(!pieces.is_complete() && pieces.to_bytes().is_err());
            assert!(pieces.begin(&part.head).is_err() && pieces.clone().into_gram().is_err());
            assert_eq!(pieces.add_piece_bytes(4, &[0; 9]).unwrap_err().kind(), ErrorKind::Malformed);
            pieces.add_piece_bytes(4, &part.piece(4..100)).unwrap();
            assert!(pieces.is_complete());
        }
        assert_eq!(whole, pieces);
        let error = pieces.add_piece(0, &[1.0]).unwrap_err();
        assert_eq!(error.to_string(), "a piece at 0 to 1: no part was begun");
    }

    #[test]
    fn a_sum_is_read_back_from_its_bytes_and_goes_on() {
        let mut sum = GramSum::new(5).unwrap();
        sum.add(&part(5, 0..10, 1.0)).unwrap();
        let bytes = sum.to_bytes().unwrap();
        let mut read = GramSum::from_bytes(&bytes, 5).unwrap();
        assert_eq!(read, sum);
        for next in [&mut sum, &mut read] {
            next.add(&part(5, 10..20, 0.3)).unwrap();
        }
        assert_eq!(read, sum);
        let mut sent = GramSum::from_head(&sum.head_bytes().unwrap(), 5).unwrap();
        for start in (0..15).step_by(4) {
            assert!(!sent.is_complete());
            sent.add_piece_bytes(start, &sum.piece(start..start + 4)).unwrap();
        }
        assert_eq!(sent, sum);
        assert_eq!(
            GramSum::from_bytes(&bytes, 6).unwrap_err().kind(),
            ErrorKind::Malformed,
            "of another layer"
        );
        for len in 0..bytes.len() {
            assert_eq!(GramSum::from_bytes(&bytes[..len], 5).unwrap_err().kind(), ErrorKind::Malformed);
        }
    }

    #[test]
    fn what_cannot_be_held_is_refused() {
        assert_eq!(triangle(u64::MAX), None);
        assert_eq!(GramSum::new(u64::MAX).unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(GramSum::new(1 << 32).unwrap_err().kind(), ErrorKind::TooLarge);
    }
}
