//! Eigenvalues (and eigenvectors) of a symmetric matrix given by its lower triangle.
//!
//! Values alone are found in two stages, which do nearly all their work in matrix products (Bischof, Lang, Sun, *A
//! framework for symmetric band reduction*, ACM TOMS 26, 2000; Luszczek, Ltaief, Dongarra, IPDPS 2011):
//!
//! 1. [`band`]: dense → band by blocked Householder reflections applied from both sides;
//! 2. [`chase`]: band → tridiagonal, one column at a time, the bulge chased down the band in cache;
//! 3. [`sturm`]: eigenvalues of the tridiagonal matrix by bisection on Sturm counts, several shifts in step.
//!
//! Every sum has a fixed order, so that the bits depend on the matrix, the instruction set and nothing else.
//! Eigenvectors, which few ask for, are faer's.

mod band;
mod chase;
mod panel;
mod simd;
mod sturm;

use super::Eigenvectors;
use crate::{Error, ErrorKind, Result};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::{Mat, Par};

/// M × M copies of the matrix that the solver takes beside its argument. The reduction works in place.
pub const COPIES: u64 = 0;

/// All eigenvalues, ascending; rounding below zero is cut to zero, as G is positive semidefinite.
///
/// # Errors
/// `NonFinite` if an element on or below the diagonal is NaN or infinite.
pub fn eigenvalues(lower: Mat<f64>) -> Result<Vec<f64>> {
    let mut values = symmetric_eigenvalues(lower)?;
    values.iter_mut().for_each(|x| *x = x.max(0.0));
    Ok(values)
}

/// All eigenvalues, ascending, of any symmetric matrix. Error at most about 16·ε·max|λ|.
///
/// # Errors
/// `NonFinite` if an element on or below the diagonal is NaN or infinite.
pub fn symmetric_eigenvalues(mut lower: Mat<f64>) -> Result<Vec<f64>> {
    let n = lower.nrows();
    let exponent = scale_to_one(&mut lower)?;
    let width = band_width(n);
    let band = band::reduce(lower, width);
    let (diagonal, off_diagonal) = chase::tridiagonal(band);
    let mut values = sturm::eigenvalues(&diagonal, &off_diagonal);
    values.iter_mut().for_each(|x| *x = times_power_of_two(*x, exponent));
    Ok(values)
}

/// Width of the band between the stages: wide enough for matrix products, narrow enough that chasing, 6·b·n² flops
/// at a lower rate, stays cheap. Multiples of 8 suit every vector width.
fn band_width(n: usize) -> usize {
    let width = if n <= 2048 { 24 } else { 48 };
    width.min(n.saturating_sub(1)).max(1)
}

/// Scales by a power of two, which is exact, so that the largest element lies in [½, 1); gives the exponent that was
/// taken out. Unscaled squares would overflow or vanish.
fn scale_to_one(lower: &mut Mat<f64>) -> Result<i32> {
    let n = lower.nrows();
    let mut largest = 0.0f64;
    for j in 0..n {
        for &x in &lower.col_as_slice(j)[j..] {
            if !x.is_finite() {
                return Err(Error::new(ErrorKind::NonFinite, "the matrix has elements that are not finite"));
            }
            largest = largest.max(x.abs());
        }
    }
    if largest == 0.0 {
        return Ok(0);
    }
    let exponent = exponent_of(largest);
    for j in 0..n {
        lower.col_as_slice_mut(j)[j..].iter_mut().for_each(|x| *x = times_power_of_two(*x, -exponent));
    }
    Ok(exponent)
}

/// e such that |x| lies in [2^(e−1), 2^e); x is finite and not zero.
fn exponent_of(x: f64) -> i32 {
    let exponent = |x: f64| ((x.to_bits() >> 52) & 0x7ff) as i32 - 1022;
    if x.abs() < f64::MIN_POSITIVE { exponent(x * 2f64.powi(64)) - 64 } else { exponent(x) }
}

/// x·2^e, in two steps since 2^e alone may leave the range of f64.
fn times_power_of_two(x: f64, e: i32) -> f64 {
    let half = e / 2;
    x * 2f64.powi(half) * 2f64.powi(e - half)
}

/// All eigenvalues, ascending, with their eigenvectors.
///
/// # Errors
/// `Internal` if the solver does not converge; `TooLarge` if there is no memory for it.
pub fn eigenvectors(lower: Mat<f64>) -> Result<Eigenvectors> {
    let n = lower.nrows();
    let (mut values, mut vectors) = (Diag::<f64>::zeros(n), Mat::zeros(n, n));
    let scratch = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, Par::Seq, Default::default());
    let mut buffer = MemBuffer::try_new(scratch).map_err(|_| {
        Error::new(ErrorKind::TooLarge, format!("no memory for the eigenvectors' work space, n = {n}"))
    })?;
    let stack = MemStack::new(&mut buffer);
    let (s, u) = (values.as_mut(), Some(vectors.as_mut()));
    self_adjoint_evd(lower.as_ref(), s, u, Par::Seq, stack, Default::default()).map_err(|_| {
        Error::new(ErrorKind::Internal, format!("the eigenvector solver did not converge, n = {n}"))
    })?;
    let eigenvalues = values.column_vector().iter().map(|x| x.max(0.0)).collect();
    Ok(Eigenvectors { eigenvalues, vectors })
}
