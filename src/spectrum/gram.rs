//! G = WᵀW, lower triangle, summed over blocks of rows.

use super::team::join;
use crate::Result;
use crate::tensor::{Block, Blocks, Layout};
use faer::linalg::matmul::{
    matmul,
    triangular::{self, BlockStructure},
};
use faer::{Accum, Mat, MatMut, MatRef, Par};

/// Order from which the sum is cut in two parts, for two threads if there are. A function of the shape alone.
const SHARED: usize = 256;

/// The Gram matrix of one matrix: M × M, of which only the lower triangle is kept.
pub struct Gram {
    lower: Mat<f64>,
    transposed: Vec<f64>,
    nonzero: bool,
}

impl Gram {
    /// Zero.
    pub fn new(m: usize) -> Self {
        Self { lower: Mat::zeros(m, m), transposed: Vec::new(), nonzero: false }
    }

    /// From a packed lower triangle; `nonzero`: whether any element of W was not zero.
    pub(super) fn from_packed(m: usize, packed: &[f64], nonzero: bool) -> Self {
        let mut gram = Self { nonzero, ..Self::new(m) };
        gram.unpack(packed);
        gram
    }

    /// The lower triangle column by column.
    pub(super) fn packed(&self) -> Vec<f64> {
        let m = self.lower.nrows();
        let mut packed = Vec::with_capacity(m * (m + 1) / 2);
        (0..m).for_each(|j| packed.extend_from_slice(&self.lower.col_as_slice(j)[j..]));
        packed
    }

    fn unpack(&mut self, mut packed: &[f64]) {
        let m = self.lower.nrows();
        for j in 0..m {
            let (column, rest) = packed.split_at((m - j).min(packed.len()));
            for (to, &from) in self.lower.col_as_slice_mut(j)[j..].iter_mut().zip(column) {
                *to = from;
            }
            packed = rest;
        }
    }

    /// Adds the lower triangle to a packed one and begins anew from zero.
    fn move_to(&mut self, packed: &mut [f64]) {
        let m = self.lower.nrows();
        let mut sums = packed.iter_mut();
        for j in 0..m {
            for (x, sum) in self.lower.col_as_slice_mut(j)[j..].iter_mut().zip(&mut sums) {
                *sum += *x;
                *x = 0.0;
            }
        }
    }

    /// Adds BᵀB of a block of rows, on one thread or two: the sum's bits depend on the blocks and their order alone.
    pub fn add(&mut self, block: Block<'_>, threads: usize) {
        let m = self.lower.nrows();
        self.nonzero = self.nonzero || block.values.iter().any(|&x| x != 0.0);
        let transposed = &mut self.transposed;
        // two layouts of the block: faer's kernel wants contiguous columns in both factors
        let (left, right) = match block.layout {
            Layout::RowMajor => {
                transpose(block.values, (block.rows, m), transposed);
                (block.values, transposed.as_slice())
            }
            Layout::ColumnMajor => {
                transpose(block.values, (m, block.rows), transposed);
                (transposed.as_slice(), block.values)
            }
        };
        let left = MatRef::from_column_major_slice(left, m, block.rows);
        let right = MatRef::from_column_major_slice(right, block.rows, m);
        if m < SHARED {
            add_triangle(self.lower.as_mut(), left, right);
            return;
        }
        // two parts of equal area: the columns left of 0.29·m, and the triangle right of them
        let middle = (m * 29 / 100).next_multiple_of(16);
        let (head, _, rest, tail) = self.lower.as_mut().split_at_mut(middle, middle);
        let (left_head, left_tail) = left.split_at_row(middle);
        let (right_head, right_tail) = right.split_at_col(middle);
        join(
            threads,
            || {
                add_triangle(head, left_head, right_head);
                matmul(rest, Accum::Add, left_tail, right_head, 1.0, Par::Seq);
            },
            || add_triangle(tail, left_tail, right_tail),
        );
    }

    /// tr G and ‖G‖_F.
    pub fn check_sums(&self) -> (f64, f64) {
        let m = self.lower.nrows();
        let (mut trace, mut below) = (0.0, 0.0);
        let mut diagonal = 0.0;
        for j in 0..m {
            let column = self.lower.col_as_slice(j);
            trace += column[j];
            diagonal += column[j] * column[j];
            below += column[j + 1..].iter().map(|x| x * x).sum::<f64>();
        }
        (trace, (diagonal + 2.0 * below).sqrt())
    }

    /// Whether any element of W was not zero.
    pub fn saw_nonzero(&self) -> bool {
        self.nonzero
    }

    /// The lower triangle; what is above the diagonal has no meaning.
    pub fn into_lower(self) -> Mat<f64> {
        self.lower
    }
}

/// lower += left·right on and below the diagonal.
fn add_triangle(lower: MatMut<'_, f64>, left: MatRef<'_, f64>, right: MatRef<'_, f64>) {
    triangular::matmul(
        lower,
        BlockStructure::TriangularLower,
        Accum::Add,
        left,
        BlockStructure::Rectangular,
        right,
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
}

/// The Gram matrix of every matrix of `blocks`.
pub(super) fn grams(blocks: &mut dyn Blocks, threads: usize) -> Result<Vec<Gram>> {
    if let Some(rows) = blocks.shard_rows() {
        return Ok(vec![of_shards(blocks, rows, threads)?]);
    }
    let mut grams: Vec<Gram> = (0..blocks.count()).map(|_| Gram::new(blocks.m())).collect();
    blocks.stream(&mut |matrix, block| {
        grams[matrix].add(block, threads);
        Ok(())
    })?;
    Ok(grams)
}

/// The sum of the Gram matrices of the shards, in their order: what they come to wherever each is computed.
fn of_shards(blocks: &mut dyn Blocks, shard: usize, threads: usize) -> Result<Gram> {
    let (n, m) = (blocks.n(), blocks.m());
    let mut part = Gram::new(m);
    let mut sum = vec![0.0; m * (m + 1) / 2];
    let mut row = 0;
    blocks.stream(&mut |_, block| {
        part.add(block, threads);
        row += block.rows;
        if row.is_multiple_of(shard) || row == n {
            part.move_to(&mut sum);
        }
        Ok(())
    })?;
    part.unpack(&sum);
    Ok(part)
}

/// Row-major rows × cols → row-major cols × rows, in tiles that stay in cache.
fn transpose(from: &[f64], (rows, cols): (usize, usize), to: &mut Vec<f64>) {
    const TILE: usize = 16;
    to.resize(rows * cols, 0.0);
    for r0 in (0..rows).step_by(TILE) {
        for c0 in (0..cols).step_by(TILE) {
            for c in c0..(c0 + TILE).min(cols) {
                for r in r0..(r0 + TILE).min(rows) {
                    to[c * rows + r] = from[r * cols + c];
                }
            }
        }
    }
}
