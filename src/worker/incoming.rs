//! A sum of Gram matrices read from a stream, piece by piece: it is large, and is never held twice.

use crate::spectrum::GramSum;
use crate::{Error, Result};

/// Longest head of a sum of Gram matrices: 40 bytes a shard.
const SUM_HEAD: u64 = 16 << 20;

/// A sum of Gram matrices as it arrives: 8 bytes with the length of the head, the head, the triangle.
pub(super) struct Incoming {
    m: u64,
    /// What was announced, and what came.
    length: Option<u64>,
    came: u64,
    /// Bytes that are not yet taken: of the head, then of the element that is cut.
    rest: Vec<u8>,
    sum: Option<(GramSum, usize)>,
}

impl Incoming {
    /// Of a layer with this M.
    pub(super) fn new(m: u64) -> Self {
        Self { m, length: None, came: 0, rest: Vec::new(), sum: None }
    }

    /// The next piece; `length` is that of the whole.
    pub(super) fn take(&mut self, length: u64, data: &[u8]) -> Result<()> {
        self.length.get_or_insert(length);
        self.came += data.len() as u64;
        self.rest.extend_from_slice(data);
        if self.sum.is_none() {
            let Some((head, rest)) = self.rest.split_first_chunk() else { return Ok(()) };
            let head = u64::from_le_bytes(*head);
            if head > SUM_HEAD {
                return Err(Error::malformed(format!("a head of {head} bytes in a sum of Gram matrices")));
            }
            let Some((head, rest)) = rest.split_at_checked(head as usize) else { return Ok(()) };
            self.sum = Some((GramSum::from_head(head, self.m)?, 0));
            self.rest = rest.to_vec();
        }
        let Some((sum, elements)) = &mut self.sum else { return Ok(()) };
        let whole = self.rest.len() / 8;
        if whole > 0 {
            sum.add_piece_bytes(*elements, self.rest.get(..8 * whole).unwrap_or_default())?;
            *elements += whole;
            self.rest.drain(..8 * whole);
        }
        Ok(())
    }

    /// The sum, if it came whole.
    pub(super) fn finish(self) -> Result<GramSum> {
        let announced = self.length.unwrap_or(0);
        match self.sum {
            Some((sum, _)) if sum.is_complete() && self.rest.is_empty() && announced == self.came => Ok(sum),
            _ => {
                let message = format!("{} of {announced} bytes of a sum of Gram matrices came", self.came);
                Err(Error::malformed(message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spectrum::{PartialGram, PartialHead};
    use crate::tensor::NonFinite;

    fn sum() -> GramSum {
        let mut sum = GramSum::new(5).unwrap();
        let head = PartialHead {
            m: 5,
            rows: 0..10,
            nonzero: true,
            non_finite: NonFinite::default(),
            digest: [7; 32],
        };
        sum.add(&PartialGram { head, lower: (0..15).map(f64::from).collect() }).unwrap();
        sum
    }

    #[test]
    fn a_sum_arrives_whole_however_it_is_cut() {
        let bytes = sum().to_bytes().unwrap();
        for piece in [1, 7, 8, 50, bytes.len()] {
            let mut incoming = Incoming::new(5);
            bytes.chunks(piece).for_each(|data| incoming.take(bytes.len() as u64, data).unwrap());
            assert_eq!(incoming.finish().unwrap(), sum(), "pieces of {piece}");
        }
    }

    #[test]
    fn a_sum_that_is_short_long_or_of_another_layer_is_refused() {
        let bytes = sum().to_bytes().unwrap();
        let fed = |data: &[u8], length: usize| {
            let mut incoming = Incoming::new(5);
            incoming.take(length as u64, data)?;
            incoming.finish()
        };
        for end in 0..bytes.len() {
            assert!(fed(&bytes[..end], bytes.len()).is_err(), "{end} bytes");
        }
        assert!(fed(&[bytes.clone(), vec![0; 8]].concat(), bytes.len() + 8).is_err());
        let error = fed(&bytes, bytes.len() - 1).unwrap_err();
        let expected = format!("{} of {} bytes of a sum of Gram matrices came", bytes.len(), bytes.len() - 1);
        assert_eq!(error.to_string(), expected);
        assert!(Incoming::new(6).take(bytes.len() as u64, &bytes).is_err());
        let error = fed(&u64::MAX.to_le_bytes(), 8).unwrap_err();
        assert!(error.to_string().starts_with("a head of 18446744073709551615 bytes"), "{error}");
    }
}
