//! A layer whose elements are permuted at random: the baseline without correlations.

use super::{Block, Blocks, Layout, block_rows};
use crate::Result;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A copy of a layer in memory, each matrix's elements permuted among themselves by a seeded permutation.
///
/// Elements are held as f32 where that is exact, so that a copy takes at most the bytes of an F32 tensor.
pub struct Shuffled {
    elements: Elements,
    count: usize,
    n: usize,
    m: usize,
}

enum Elements {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

impl Shuffled {
    /// Copies a layer as it is; [`Shuffled::shuffle`] permutes it. `exact_in_f32`: every element is an f32 value.
    ///
    /// # Errors
    /// What streaming `blocks` gives.
    pub fn copy(blocks: &mut dyn Blocks, exact_in_f32: bool) -> Result<Self> {
        let (count, n, m) = (blocks.count(), blocks.n(), blocks.m());
        let total = count * n * m;
        let mut elements = if exact_in_f32 {
            Elements::Single(vec![0.0; total])
        } else {
            Elements::Double(vec![0.0; total])
        };
        let mut filled = vec![0; count];
        blocks.stream(&mut |matrix, block| {
            // the order of elements does not matter: they are permuted
            let start = matrix * n * m + filled[matrix];
            let end = start + block.values.len();
            filled[matrix] += block.values.len();
            match &mut elements {
                Elements::Single(all) => {
                    for (to, &from) in all[start..end].iter_mut().zip(block.values) {
                        *to = from as f32;
                    }
                }
                Elements::Double(all) => all[start..end].copy_from_slice(block.values),
            }
            Ok(())
        })?;
        Ok(Self { elements, count, n, m })
    }

    /// Permutes each matrix by Fisher and Yates with ChaCha8 seeded by `seed`; the stream of matrix k starts where
    /// that of matrix k − 1 ended. Shuffling again goes on from the present order.
    pub fn shuffle(&mut self, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let size = self.n * self.m;
        match &mut self.elements {
            Elements::Single(all) => all.chunks_exact_mut(size.max(1)).for_each(|w| permute(w, &mut rng)),
            Elements::Double(all) => all.chunks_exact_mut(size.max(1)).for_each(|w| permute(w, &mut rng)),
        }
    }

    /// Permutes the elements of all matrices together, for a layer whose matrices are one thing: a kernel's slices.
    pub fn shuffle_together(&mut self, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        match &mut self.elements {
            Elements::Single(all) => permute(all, &mut rng),
            Elements::Double(all) => permute(all, &mut rng),
        }
    }

    /// Bytes that a copy of this many elements takes.
    pub fn bytes_needed(elements: u64, exact_in_f32: bool) -> u64 {
        elements.saturating_mul(if exact_in_f32 { 4 } else { 8 })
    }
}

/// Fisher-Yates. An index below i + 1 is the high half of a 64-bit product (Lemire 2019, without rejection: the bias
/// is at most (i + 1) / 2^64 per draw), so that the permutation is the same on every platform and version.
fn permute<T>(values: &mut [T], rng: &mut ChaCha8Rng) {
    for i in (1..values.len()).rev() {
        let draw: u64 = rng.random();
        let j = ((u128::from(draw) * (i as u128 + 1)) >> 64) as usize;
        values.swap(i, j);
    }
}

impl Blocks for Shuffled {
    fn count(&self) -> usize {
        self.count
    }

    fn n(&self) -> usize {
        self.n
    }

    fn m(&self) -> usize {
        self.m
    }

    fn stream(&mut self, visit: &mut dyn FnMut(usize, Block<'_>) -> Result<()>) -> Result<()> {
        let (size, m, step) = (self.n * self.m, self.m, block_rows(self.m, 1));
        let mut wide = vec![0.0; step.min(self.n) * m];
        for matrix in 0..self.count {
            let mut row = 0;
            while row < self.n {
                let rows = step.min(self.n - row);
                let at = matrix * size + row * m;
                let values = match &self.elements {
                    Elements::Double(all) => &all[at..at + rows * m],
                    Elements::Single(all) => {
                        let values = &mut wide[..rows * m];
                        for (to, &from) in values.iter_mut().zip(&all[at..at + rows * m]) {
                            *to = f64::from(from);
                        }
                        &*values
                    }
                };
                visit(matrix, Block { values, rows, layout: Layout::RowMajor })?;
                row += rows;
            }
        }
        Ok(())
    }
}
