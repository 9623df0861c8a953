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

/// All eigenvalues, ascending; rounding below zero is cut to zero, as G is positive semidefinite.
///
/// # Errors
/// `NonFinite` if an element on or below the diagonal is NaN or infinite.
pub fn eigenvalues(lower: Mat<f64>, threads: usize) -> Result<Vec<f64>> {
    let mut values = symmetric_eigenvalues(lower, threads)?;
    values.iter_mut().for_each(|x| *x = x.max(0.0));
    Ok(values)
}

/// All eigenvalues, ascending, of any symmetric matrix, on one thread or two with the same bits. Error at most
/// 32·ε·max|λ| on the spectra of its tests (64 for an identity).
///
/// # Errors
/// `NonFinite` if an element on or below the diagonal is NaN or infinite.
pub fn symmetric_eigenvalues(mut lower: Mat<f64>, threads: usize) -> Result<Vec<f64>> {
    let n = lower.nrows();
    let Some(exponent) = scale_to_one(&mut lower)? else { return Ok(vec![0.0; n]) };
    let width = band_width(n);
    let band = band::reduce(lower, width, threads);
    let (diagonal, off_diagonal) = chase::tridiagonal(band);
    let mut values = sturm::eigenvalues(&diagonal, &off_diagonal, threads);
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
fn scale_to_one(lower: &mut Mat<f64>) -> Result<Option<i32>> {
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
        return Ok(None);
    }
    let exponent = exponent_of(largest);
    for j in 0..n {
        lower.col_as_slice_mut(j)[j..].iter_mut().for_each(|x| *x = times_power_of_two(*x, -exponent));
    }
    Ok(Some(exponent))
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

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Q·diag(values)·Qᵀ for a product Q of random reflections, built one after the other from both sides.
    fn with_spectrum(values: &[f64], seed: u64) -> Mat<f64> {
        let n = values.len();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut a = Mat::from_fn(n, n, |i, j| if i == j { values[i] } else { 0.0 });
        for _ in 0..3 {
            let v: Vec<f64> = (0..n).map(|_| rng.random::<f64>() - 0.5).collect();
            let norm: f64 = v.iter().map(|x| x * x).sum();
            // H A H = A − 2/|v|² (v (Av)ᵀ + (Av) vᵀ) + 4 vᵀAv/|v|⁴ v vᵀ
            let av: Vec<f64> = (0..n).map(|i| (0..n).map(|j| a[(i, j)] * v[j]).sum()).collect();
            let vav: f64 = v.iter().zip(&av).map(|(x, y)| x * y).sum();
            let w: Vec<f64> = av.iter().zip(&v).map(|(y, x)| (y - vav / norm * x) * 2.0 / norm).collect();
            for j in 0..n {
                for i in 0..n {
                    a[(i, j)] -= v[i] * w[j] + w[i] * v[j];
                }
            }
        }
        a
    }

    /// Worst error in units of ε·max|λ|.
    fn error(values: &[f64], seed: u64) -> f64 {
        let mut expected = values.to_vec();
        expected.sort_by(f64::total_cmp);
        let found = symmetric_eigenvalues(with_spectrum(values, seed), 1).unwrap();
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(0.0f64, |a, x| a.max(x.abs())).max(f64::MIN_POSITIVE);
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        worst / (f64::EPSILON * largest)
    }

    fn spectra(n: usize) -> Vec<(&'static str, Vec<f64>)> {
        let at = |f: &dyn Fn(f64) -> f64| (0..n).map(|i| f(i as f64)).collect::<Vec<f64>>();
        vec![
            ("power law", at(&|i| (i + 1.0).powf(-1.5))),
            ("uniform", at(&|i| i / n as f64)),
            ("clusters", at(&|i| 1.0 + (i % 3.0) + 1e-13 * i)),
            ("half zero", at(&|i| if 2.0 * i < n as f64 { 0.0 } else { i })),
            ("geometric", at(&|i| 10f64.powf(-16.0 * i / n as f64))),
            ("signs", at(&|i| if i % 2.0 == 0.0 { i } else { -i })),
            ("one large", at(&|i| if i == 0.0 { 1e6 } else { 1.0 / (i + 1.0) })),
        ]
    }

    #[test]
    fn known_spectra_at_every_threshold() {
        // 24 and 48 are band widths, 8 the panel's base, 16 the lanes, 128 the tile, 384 the row tile
        for n in [
            1, 2, 3, 7, 8, 9, 15, 16, 17, 23, 24, 25, 26, 27, 47, 48, 49, 50, 51, 127, 128, 129, 153, 385,
            410,
        ] {
            for (name, values) in spectra(n) {
                // the test matrix itself carries a few roundings
                let limit = 32.0;
                let worst = error(&values, n as u64);
                assert!(worst <= limit, "{name}, n = {n}: {worst:.1} ε·λmax");
            }
        }
    }

    #[test]
    fn identity_zero_and_constant() {
        for n in [1, 2, 30, 130] {
            let identity = symmetric_eigenvalues(Mat::identity(n, n), 1).unwrap();
            assert!(identity.iter().all(|x| (x - 1.0).abs() <= 64.0 * f64::EPSILON), "{n}");
            assert!(symmetric_eigenvalues(Mat::zeros(n, n), 1).unwrap().iter().all(|x| *x == 0.0), "{n}");
            let ones = symmetric_eigenvalues(Mat::from_fn(n, n, |_, _| 1.0), 1).unwrap();
            let size = n as f64;
            let rest = ones[..n - 1].iter().fold(0.0f64, |a, x| a.max(x.abs()));
            let worst = (ones[n - 1] - size).abs().max(rest) / (f64::EPSILON * size);
            assert!(worst <= 32.0, "constant, n = {n}: {worst:.1} ε·λmax");
        }
        assert!(symmetric_eigenvalues(Mat::zeros(0, 0), 1).unwrap().is_empty());
    }

    #[test]
    fn scales_from_denormal_to_huge() {
        for scale in [5e-324, 1e-310, 1e-300, 1e-150, 1.0, 1e140, 1e300] {
            let a = Mat::from_fn(40, 40, |i, j| if i == j { scale } else { 0.0 });
            let found = symmetric_eigenvalues(a, 1).unwrap();
            assert!(found.iter().all(|x| (x / scale - 1.0).abs() <= 64.0 * f64::EPSILON), "{scale:e}");
        }
    }

    #[test]
    fn an_element_that_is_not_finite_is_refused() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut a = Mat::<f64>::identity(30, 30);
            a[(17, 5)] = bad;
            assert_eq!(symmetric_eigenvalues(a, 1).unwrap_err().kind(), ErrorKind::NonFinite);
        }
    }

    #[test]
    fn only_the_lower_triangle_is_read() {
        let a = with_spectrum(&(0..200).map(f64::from).collect::<Vec<_>>(), 5);
        let lower = Mat::from_fn(200, 200, |i, j| if i >= j { a[(i, j)] } else { f64::NAN });
        assert_eq!(symmetric_eigenvalues(a, 1).unwrap(), symmetric_eigenvalues(lower, 2).unwrap());
    }
}
