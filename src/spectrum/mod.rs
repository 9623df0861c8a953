//! A layer's matrices → the eigenvalues of X = WᵀW, the ESD, with what is known of their error.
//!
//! The ordinary way is the Gram matrix: G = WᵀW is summed over blocks of rows in f64 and its eigenvalues are found
//! ([`eigen`]). It costs N·M² + 4/3·M³ flops and O(M²) memory, and it cannot see eigenvalues below about ε·λmax, the
//! *noise floor*. A matrix whose smallest eigenvalue reaches down there is done again by the singular values of W
//! ([`svd`]), whose floor is about ε²·λmax.

pub mod eigen;
mod gram;
mod svd;

pub use gram::Gram;

use crate::tensor::Blocks;
use crate::{Error, ErrorKind, Result};
use faer::Mat;
use serde::Serialize;

/// How eigenvalues were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Eigenvalues of the Gram matrix.
    Gram,
    /// Squares of the singular values of W.
    Svd,
}

/// Which way may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MethodChoice {
    /// The Gram matrix, and the SVD where the Gram matrix cannot tell.
    #[default]
    Auto,
    /// Always the SVD.
    Svd,
}

/// What to compute.
#[derive(Debug, Clone, Copy)]
pub struct SpectrumOptions {
    /// Which way.
    pub method: MethodChoice,
    /// The SVD takes over when λmin < this · λmax · M · ε. 64 keeps every eigenvalue above the noise; a larger value
    /// keeps the small ones accurate too.
    pub floor_factor: f64,
}

/// Eigenvalues of one matrix.
#[derive(Debug, Clone)]
pub struct MatrixSpectrum {
    /// The M eigenvalues of WᵀW, ascending, none negative.
    pub eigenvalues: Vec<f64>,
    /// How they were found.
    pub method: Method,
    /// Absolute error to expect of each; what lies below is noise.
    pub noise_floor: f64,
}

/// Eigenvalues of all matrices of one layer.
#[derive(Debug, Clone)]
pub struct Spectrum {
    /// One a matrix, in the layer's order.
    pub matrices: Vec<MatrixSpectrum>,
}

impl Spectrum {
    /// All eigenvalues of all matrices, ascending: the ESD.
    pub fn pooled(&self) -> Vec<f64> {
        let mut all: Vec<f64> = self.matrices.iter().flat_map(|m| m.eigenvalues.iter().copied()).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// The largest noise floor of its matrices.
    pub fn noise_floor(&self) -> f64 {
        self.matrices.iter().map(|m| m.noise_floor).fold(0.0, f64::max)
    }

    /// `Svd` if any matrix needed it.
    pub fn method(&self) -> Method {
        if self.matrices.iter().any(|m| m.method == Method::Svd) { Method::Svd } else { Method::Gram }
    }
}

/// The spectrum of every matrix of `blocks`.
///
/// # Errors
/// What streaming gives; `NonFinite` if the eigenvalues leave the range of f64; `Internal` if a solver fails or a
/// result does not keep the trace of G.
pub fn spectrum(blocks: &mut dyn Blocks, options: &SpectrumOptions) -> Result<Spectrum> {
    let mut found: Vec<Option<MatrixSpectrum>> = vec![None; blocks.count()];
    if options.method == MethodChoice::Auto {
        for (slot, gram) in found.iter_mut().zip(gram::grams(blocks)?) {
            *slot = by_gram(gram, blocks.m(), options.floor_factor)?;
        }
    }
    if found.iter().any(Option::is_none) {
        svd::fill(blocks, &mut found)?;
    }
    Ok(Spectrum { matrices: found.into_iter().flatten().collect() })
}

/// `None` if the smallest eigenvalue is lost in the noise.
fn by_gram(gram: Gram, m: usize, floor_factor: f64) -> Result<Option<MatrixSpectrum>> {
    let (trace, frobenius) = gram.check_sums();
    if !frobenius.is_finite() || (trace < f64::MIN_POSITIVE && gram.saw_nonzero()) {
        return Err(Error::new(ErrorKind::NonFinite, "the eigenvalues leave the range of f64"));
    }
    if trace == 0.0 {
        let eigenvalues = vec![0.0; m]; // the solver would give denormals
        return Ok(Some(MatrixSpectrum { eigenvalues, method: Method::Gram, noise_floor: 0.0 }));
    }
    let eigenvalues = eigen::eigenvalues(gram.into_lower())?;
    check_sums(&eigenvalues, trace, frobenius)?;
    let largest = eigenvalues.last().copied().unwrap_or(0.0);
    let smallest = eigenvalues.first().copied().unwrap_or(0.0);
    let noise_floor = noise_floor(m, largest);
    if smallest < floor_factor * noise_floor && largest > 0.0 {
        return Ok(None);
    }
    Ok(Some(MatrixSpectrum { eigenvalues, method: Method::Gram, noise_floor }))
}

/// Error to expect of an eigenvalue of the Gram matrix: M·ε·λmax covers the rounding of the sum over rows and of the
/// solver (backward stable; measured at most 0.7·M·ε·λmax for one-stage tridiagonalisation).
fn noise_floor(m: usize, largest: f64) -> f64 {
    m as f64 * f64::EPSILON * largest
}

/// Σλ = tr G and Σλ² = ‖G‖_F²: a cheap proof that the solver did not lose or invent anything large.
fn check_sums(eigenvalues: &[f64], trace: f64, frobenius: f64) -> Result<()> {
    let sum: f64 = eigenvalues.iter().sum();
    let squares = eigenvalues.iter().map(|x| x * x).sum::<f64>().sqrt();
    let tolerance = 1e-10 * trace.max(frobenius);
    if (sum - trace).abs() <= tolerance && (squares - frobenius).abs() <= tolerance {
        return Ok(());
    }
    let message = format!("eigenvalues do not keep the trace: {sum:e} against {trace:e}");
    Err(Error::new(ErrorKind::Internal, message))
}

/// Eigenvectors of one matrix's WᵀW.
pub struct Eigenvectors {
    /// Ascending.
    pub eigenvalues: Vec<f64>,
    /// M × M, column j belongs to eigenvalue j.
    pub vectors: Mat<f64>,
}

/// Eigenvalues and eigenvectors of every matrix, by the Gram matrix. `visit` gets one matrix at a time.
///
/// # Errors
/// As [`spectrum`].
pub fn eigenvectors(blocks: &mut dyn Blocks, visit: &mut dyn FnMut(Eigenvectors)) -> Result<()> {
    for gram in gram::grams(blocks)? {
        visit(eigen::eigenvectors(gram.into_lower())?);
    }
    Ok(())
}

/// Peak memory in bytes of [`spectrum`] for `count` matrices of N × M beside the streamed blocks: the Gram matrices,
/// and the solver's copies.
pub fn bytes_needed(count: u64, n: u64, m: u64, method: MethodChoice) -> u64 {
    let square = m.saturating_mul(m).saturating_mul(8);
    let gram = count.saturating_mul(square).saturating_add(square.saturating_mul(eigen::COPIES));
    let svd = svd::bytes_needed(n, m);
    match method {
        MethodChoice::Auto => gram,
        MethodChoice::Svd => svd,
    }
}

/// Flops of [`spectrum`] by the Gram matrix: N·M² for the lower triangle of each, 4/3·M³ for its eigenvalues.
pub fn flops(count: u64, n: u64, m: u64) -> f64 {
    let (count, n, m) = (count as f64, n as f64, m as f64);
    count * (n * m * m + 4.0 / 3.0 * m * m * m)
}
