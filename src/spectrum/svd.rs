//! Squares of the singular values of W itself, for matrices whose small eigenvalues the Gram matrix cannot show.
//!
//! A tall matrix is reduced to its triangular factor first, block by block (sequential TSQR: R ← qr([R; B])), which
//! keeps memory at O(M²) and is backward stable (Demmel, Grigori, Hoemmen, Langou, SIAM J. Sci. Comput. 34, 2012).

use super::{MatrixSpectrum, Method};
use crate::tensor::{Blocks, Layout};
use crate::{Error, ErrorKind, Result};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack, StackReq};
use faer::linalg::qr::no_pivoting::factor::{qr_in_place, qr_in_place_scratch, recommended_block_size};
use faer::linalg::svd::{ComputeSvdVectors, SvdParams, svd, svd_scratch};
use faer::{Auto, Mat, Par, Spec};

/// Fills the matrices that are still missing.
pub(super) fn fill(blocks: &mut dyn Blocks, found: &mut [Option<MatrixSpectrum>]) -> Result<()> {
    let (n, m) = (blocks.n(), blocks.m());
    let mut factors: Vec<Option<Factor>> =
        found.iter().map(|slot| slot.is_none().then(|| Factor::new(n, m))).collect();
    blocks.stream(&mut |matrix, block| {
        if let Some(Some(factor)) = factors.get_mut(matrix) {
            factor.push(block.values, block.rows, block.layout);
        }
        Ok(())
    })?;
    for (slot, factor) in found.iter_mut().zip(factors) {
        if let Some(factor) = factor {
            *slot = Some(factor.finish()?);
        }
    }
    Ok(())
}

/// Rows of W gathered below the triangular factor of those before.
struct Factor {
    /// capacity × M; the first `filled` rows count.
    stack: Mat<f64>,
    filled: usize,
    n: usize,
}

impl Factor {
    fn new(n: usize, m: usize) -> Self {
        Self { stack: Mat::zeros(capacity(n, m), m), filled: 0, n }
    }

    fn push(&mut self, values: &[f64], rows: usize, layout: Layout) {
        let m = self.stack.ncols();
        let mut done = 0;
        while done < rows {
            if self.filled == self.stack.nrows() {
                self.reduce();
            }
            let take = (rows - done).min(self.stack.nrows() - self.filled);
            for j in 0..m {
                let column = &mut self.stack.col_as_slice_mut(j)[self.filled..self.filled + take];
                match layout {
                    Layout::RowMajor => {
                        column.iter_mut().enumerate().for_each(|(i, x)| *x = values[(done + i) * m + j]);
                    }
                    Layout::ColumnMajor => column.copy_from_slice(&values[j * rows + done..][..take]),
                }
            }
            self.filled += take;
            done += take;
        }
    }

    /// Replaces the rows gathered so far by their triangular factor.
    fn reduce(&mut self) {
        let m = self.stack.ncols();
        let block = recommended_block_size::<f64>(self.filled, m);
        let mut coefficients = Mat::zeros(block, m.min(self.filled));
        let scratch = qr_in_place_scratch::<f64>(self.filled, m, block, Par::Seq, Default::default());
        let mut buffer = MemBuffer::new(scratch);
        let stack = MemStack::new(&mut buffer);
        let rows = self.stack.as_mut().subrows_mut(0, self.filled);
        qr_in_place(rows, coefficients.as_mut(), Par::Seq, stack, Default::default());
        for j in 0..m {
            self.stack.col_as_slice_mut(j)[j + 1..].fill(0.0);
        }
        self.filled = m;
    }

    fn finish(mut self) -> Result<MatrixSpectrum> {
        let m = self.stack.ncols();
        if self.filled > 2 * m {
            self.reduce();
        }
        let w = self.stack.as_ref().subrows(0, self.filled);
        let mut values = Diag::<f64>::zeros(m.min(self.filled));
        let mut buffer = MemBuffer::new(values_scratch(self.filled, m));
        let stack = MemStack::new(&mut buffer);
        super::count_solver();
        svd(w, values.as_mut(), None, None, Par::Seq, stack, params()).map_err(|_| {
            Error::new(ErrorKind::Internal, format!("the SVD did not converge for {} × {m}", self.filled))
        })?;
        let mut eigenvalues: Vec<f64> = values.column_vector().iter().map(|s| s * s).collect();
        eigenvalues.resize(m, 0.0);
        eigenvalues.sort_by(f64::total_cmp);
        let largest = eigenvalues.last().copied().unwrap_or(0.0);
        if !largest.is_finite() {
            return Err(Error::new(ErrorKind::NonFinite, "the eigenvalues leave the range of f64"));
        }
        let relative = self.n as f64 * f64::EPSILON;
        Ok(MatrixSpectrum { eigenvalues, method: Method::Svd, noise_floor: relative * relative * largest })
    }
}

/// Rows held at a time: all of a matrix that is at most twice as tall as wide, else M + 2·M.
fn capacity(n: usize, m: usize) -> usize {
    n.min(3 * m.max(128))
}

/// The QR algorithm at every size: faer's divide and conquer (from 128 on) gives one singular value of 2⁻¹³ too many
/// on some sparse matrices of missing rank.
fn params() -> Spec<SvdParams, f64> {
    Spec::new(SvdParams { recursion_threshold: usize::MAX, ..<SvdParams as Auto<f64>>::auto() })
}

fn values_scratch(rows: usize, cols: usize) -> StackReq {
    let no = ComputeSvdVectors::No;
    svd_scratch::<f64>(rows, cols, no, no, Par::Seq, params())
}

/// Peak memory in bytes when all of `count` matrices need the SVD: the gathered rows of each, and the work space of
/// one.
pub(super) fn bytes_needed(count: u64, n: u64, m: u64) -> u64 {
    let (Ok(rows), Ok(cols)) = (usize::try_from(n), usize::try_from(m)) else { return u64::MAX };
    if cols.checked_mul(cols).and_then(|square| square.checked_mul(64)).is_none() {
        return u64::MAX;
    }
    let held = capacity(rows, cols);
    let scratch = values_scratch(held.min(2 * cols), cols).unaligned_bytes_required() as u64;
    count.saturating_mul(held as u64).saturating_mul(m).saturating_mul(8).saturating_add(scratch)
}
