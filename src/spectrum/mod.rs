//! A layer's matrices → the eigenvalues of X = WᵀW, the ESD, with what is known of their error.
//!
//! The ordinary way is the Gram matrix: G = WᵀW is summed over blocks of rows in f64 and its eigenvalues are found
//! ([`eigen`]). It costs N·M² + 4/3·M³ flops and O(M²) memory, and it cannot see eigenvalues below about ε·λmax, the
//! *noise floor*. A matrix whose smallest eigenvalue reaches down there is done again by the singular values of W
//! ([`svd`]), whose floor is about ε²·λmax.
//!
//! A convolution taken as an [`operator`] has a complex matrix for each frequency of its input grid.

mod choice;
pub mod eigen;
mod gram;
mod gram_sum;
pub mod operator;
mod packed;
mod partial_gram;
pub mod randomized;
mod svd;
mod team;

pub use choice::MethodChoice;
pub use gram::Gram;
pub use gram_sum::GramSum;
pub use packed::triangle;
pub use partial_gram::{PartialGram, PartialHead};
pub use randomized::Partial;

use crate::tensor::{Blocks, block_rows};
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
    /// The largest eigenvalues alone, by randomized block Krylov iteration.
    Randomized,
}

/// What to compute.
#[derive(Debug, Clone, Copy)]
pub struct SpectrumOptions {
    /// Which way.
    pub method: MethodChoice,
    /// The SVD takes over when λmin < this · λmax · M · ε. 64 keeps every eigenvalue above the noise; a larger value
    /// keeps the small ones accurate too.
    pub floor_factor: f64,
    /// Threads that may work on one matrix: 1 or 2. The result has the same bits.
    pub threads: usize,
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
    /// What is known of the rest, if these are the largest eigenvalues alone.
    pub partial: Option<Partial>,
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
        if self.partial.is_some() {
            return Method::Randomized;
        }
        if self.matrices.iter().any(|m| m.method == Method::Svd) { Method::Svd } else { Method::Gram }
    }
}

/// The whole spectrum of every matrix of `blocks`: with [`MethodChoice::Randomized`] too, see [`largest`].
///
/// # Errors
/// What streaming gives; `NonFinite` if the eigenvalues leave the range of f64; `Internal` if a solver fails or a
/// result does not keep the trace of G.
pub fn spectrum(blocks: &mut dyn Blocks, options: &SpectrumOptions) -> Result<Spectrum> {
    let mut found: Vec<Option<MatrixSpectrum>> = vec![None; blocks.count()];
    if options.method != MethodChoice::Svd {
        for (slot, gram) in found.iter_mut().zip(gram::grams(blocks, options.threads)?) {
            *slot = by_gram(gram, options)?;
        }
    }
    complete(blocks, found)
}

/// The spectrum of the one matrix of `blocks`, whose Gram matrix is known: [`spectrum`] gives the same bits. `blocks`
/// are streamed only if the SVD takes over.
///
/// # Errors
/// As [`spectrum`]; `InvalidArgument` if a part of the sum is half added.
pub fn spectrum_of_sum(blocks: &mut dyn Blocks, sum: GramSum, options: &SpectrumOptions) -> Result<Spectrum> {
    let found = by_gram(sum.into_gram()?, options)?;
    complete(blocks, vec![found])
}

/// The SVD of those that the Gram matrix could not tell.
fn complete(blocks: &mut dyn Blocks, mut found: Vec<Option<MatrixSpectrum>>) -> Result<Spectrum> {
    if found.iter().any(Option::is_none) {
        svd::fill(blocks, &mut found)?;
    }
    Ok(Spectrum { matrices: found.into_iter().flatten().collect(), partial: None })
}

/// At most `count` of the largest eigenvalues of the one matrix of `blocks`. The same bits for any number of threads.
///
/// # Errors
/// As [`randomized::largest`].
pub fn largest(blocks: &mut dyn Blocks, count: usize, seed: u64, threads: usize) -> Result<Spectrum> {
    let (eigenvalues, partial) = randomized::largest(blocks, count, seed, threads)?;
    let noise_floor = noise_floor(partial.order, partial.lambda_max);
    let matrices = vec![MatrixSpectrum { eigenvalues, method: Method::Randomized, noise_floor }];
    Ok(Spectrum { matrices, partial: Some(partial) })
}

#[cfg(test)]
thread_local! {
    /// Solvers that this thread has called, for tests that none was.
    pub(crate) static SOLVED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

fn count_solver() {
    #[cfg(test)]
    SOLVED.with(|solved| solved.set(solved.get() + 1));
}

/// `None` if the smallest eigenvalue is lost in the noise.
fn by_gram(gram: Gram, options: &SpectrumOptions) -> Result<Option<MatrixSpectrum>> {
    let (trace, frobenius) = gram.check_sums();
    if !frobenius.is_finite() || (trace < f64::MIN_POSITIVE && gram.saw_nonzero()) {
        return Err(Error::new(ErrorKind::NonFinite, "the eigenvalues leave the range of f64"));
    }
    count_solver();
    let eigenvalues = eigen::eigenvalues(gram.into_lower(), options.threads)?;
    check_sums(&eigenvalues, trace, frobenius)?;
    let largest = eigenvalues.last().copied().unwrap_or(0.0);
    let smallest = eigenvalues.first().copied().unwrap_or(0.0);
    let noise_floor = noise_floor(eigenvalues.len(), largest);
    if smallest < options.floor_factor * noise_floor && largest > 0.0 {
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
    for gram in gram::grams(blocks, 1)? {
        visit(eigen::eigenvectors(gram.into_lower())?);
    }
    Ok(())
}

/// Peak memory in bytes while the Gram matrix of a layer that is cut in shards is summed, beside the streamed blocks:
/// that of a shard, a block transposed, and the sum.
pub fn sharded_gram_bytes(m: u64) -> u64 {
    let square = m.saturating_mul(m).saturating_mul(8);
    let block = (block_rows(usize::try_from(m).unwrap_or(usize::MAX), 1) as u64).saturating_mul(m);
    let sum = triangle(m).unwrap_or(u64::MAX);
    square.saturating_add(block.saturating_add(sum).saturating_mul(8))
}

/// Peak memory in bytes of [`spectrum`] or [`largest`], whichever `method` leads to, for `count` matrices of N × M
/// beside the streamed blocks: the Gram matrices (the solver works in place), or, since any layer may turn out to need
/// it, the SVD.
pub fn bytes_needed(count: u64, n: u64, m: u64, method: MethodChoice) -> u64 {
    let gram = count.saturating_mul(m).saturating_mul(m).saturating_mul(8);
    let svd = svd::bytes_needed(count, n, m);
    let exact = if method == MethodChoice::Svd { svd } else { gram.max(svd) };
    let partial = method.counts(count, n, m).into_iter().map(|k| randomized::bytes_needed(m, k)).max();
    match (partial, method.ends_exact(count, m)) {
        (Some(partial), true) => partial.max(exact),
        (Some(partial), false) => partial,
        (None, _) => exact,
    }
}

/// Flops of [`spectrum`] by the Gram matrix: N·M² for the lower triangle of each, 4/3·M³ for its eigenvalues.
pub fn flops(count: u64, n: u64, m: u64) -> f64 {
    let (count, n, m) = (count as f64, n as f64, m as f64);
    count * (n * m * m + 4.0 / 3.0 * m * m * m)
}

/// Flops of what `method` leads to.
pub fn flops_of(count: u64, n: u64, m: u64, method: MethodChoice) -> f64 {
    match method.counts(count, n, m).first() {
        Some(&k) if !method.ends_exact(count, m) => randomized::flops(n, m, k),
        _ => flops(count, n, m),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Block, Layout};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// One N × M matrix in memory, row-major, cut in shards or not.
    struct Dense {
        n: usize,
        m: usize,
        values: Vec<f64>,
        shard: Option<usize>,
    }

    impl Dense {
        fn random(n: usize, m: usize, seed: u64) -> Self {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let values = (0..n * m).map(|_| rng.random::<f64>() - 0.5).collect();
            Self { n, m, values, shard: None }
        }

        /// A product of n × rank and rank × m.
        fn of_rank(n: usize, m: usize, rank: usize) -> Self {
            let (a, b) = (Self::random(n, rank, 3), Self::random(rank, m, 4));
            let entry =
                |i: usize, j: usize| (0..rank).map(|k| a.values[i * rank + k] * b.values[k * m + j]).sum();
            let values = (0..n * m).map(|at| entry(at / m, at % m)).collect();
            Self { n, m, values, shard: None }
        }

        fn spectrum(&mut self, method: MethodChoice) -> MatrixSpectrum {
            let options = SpectrumOptions { method, floor_factor: 64.0, threads: 1 };
            spectrum(self, &options).unwrap().matrices.remove(0)
        }
    }

    impl Blocks for Dense {
        fn count(&self) -> usize {
            1
        }
        fn n(&self) -> usize {
            self.n
        }
        fn m(&self) -> usize {
            self.m
        }
        fn shard_rows(&self) -> Option<usize> {
            self.shard
        }
        fn stream(&mut self, visit: &mut dyn FnMut(usize, Block<'_>) -> Result<()>) -> Result<()> {
            for rows in self.values.chunks(block_rows(self.m, 1) * self.m) {
                visit(0, Block { values: rows, rows: rows.len() / self.m, layout: Layout::RowMajor })?;
            }
            Ok(())
        }
    }

    const SHAPES: [(usize, usize); 14] = [
        (1, 1),
        (5, 1),
        (2, 2),
        (9, 8),
        (17, 16),
        (40, 25),
        (64, 64),
        (100, 49),
        (130, 129),
        (385, 384),
        (800, 24),
        (1000, 130),
        (3000, 7),
        (500, 200),
    ];

    #[test]
    fn gram_and_svd_agree_with_faers_singular_values() {
        for (n, m) in SHAPES {
            let mut dense = Dense::random(n, m, (n * m) as u64);
            let reference =
                faer::MatRef::from_row_major_slice(&dense.values, n, m).singular_values().unwrap();
            let reference: Vec<f64> = reference.iter().rev().map(|s| s * s).collect();
            let largest = reference[m - 1];
            for method in [MethodChoice::Auto, MethodChoice::Svd] {
                let found = dense.spectrum(method);
                for (a, b) in found.eigenvalues.iter().zip(&reference) {
                    // faer's own error counts as well
                    assert!((a - b).abs() <= 1e-13 * largest, "{n} × {m}, {method:?}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn rank_deficient_matrices_are_done_by_svd() {
        for (n, m, rank) in [(60, 50, 20), (400, 50, 20), (50, 50, 49), (700, 30, 1)] {
            let mut dense = Dense::of_rank(n, m, rank);
            let found = dense.spectrum(MethodChoice::Auto);
            assert_eq!(found.method, Method::Svd, "{n} × {m} of rank {rank}");
            let largest = found.eigenvalues[m - 1];
            let tolerance = (n as f64 * f64::EPSILON).powi(2) * largest;
            let above = found.eigenvalues.iter().filter(|x| **x > tolerance).count();
            assert_eq!(above, rank, "{n} × {m}");
            assert!(found.noise_floor <= 1e-24 * largest, "the floor is that of the SVD");
        }
    }

    /// `ones` ones among n × m zeros.
    fn sparse(n: usize, m: usize, ones: usize, seed: u64) -> Dense {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values = vec![0.0; n * m];
        for _ in 0..ones {
            values[rng.random_range(0..n * m)] = 1.0;
        }
        Dense { n, m, values, shard: None }
    }

    /// Exact, by elimination modulo a prime.
    fn rank(dense: &Dense) -> usize {
        const P: u64 = 1_000_003;
        let mut rows: Vec<Vec<u64>> =
            dense.values.chunks(dense.m).map(|row| row.iter().map(|x| *x as u64).collect()).collect();
        let mut rank = 0;
        for col in 0..dense.m {
            let Some(pivot) = (rank..rows.len()).find(|&i| rows[i][col] != 0) else { continue };
            rows.swap(rank, pivot);
            let inverse = (0..20).rev().fold(1, |power, bit| {
                let square = power * power % P;
                if (P - 2) >> bit & 1 == 1 { square * rows[rank][col] % P } else { square }
            });
            let top = rows[rank].clone();
            for row in rows.iter_mut().skip(rank + 1).filter(|row| row[col] != 0) {
                let factor = row[col] * inverse % P;
                row.iter_mut().zip(&top).for_each(|(x, t)| *x = (*x + (P - factor) * t) % P);
            }
            rank += 1;
        }
        rank
    }

    #[test]
    fn sparse_matrices_keep_their_sums_and_have_their_exact_rank() {
        for (n, m, ones) in [(80, 120, 80), (200, 200, 200), (200, 200, 120), (300, 260, 300)] {
            for seed in 0..30 {
                let mut dense = sparse(n.max(m), n.min(m), ones, seed);
                let exact = rank(&dense);
                let found = dense.spectrum(MethodChoice::Auto).eigenvalues;
                let largest = found[found.len() - 1];
                let tolerance = (dense.n as f64 * f64::EPSILON).powi(2) * largest;
                let counted = found.iter().filter(|x| **x > tolerance).count();
                assert_eq!(counted, exact, "{n} × {m}, {ones} ones, seed {seed}");
                let sum: f64 = dense.values.iter().sum();
                assert!((found.iter().sum::<f64>() - sum).abs() < 1e-12 * sum, "{n} × {m}, seed {seed}");
            }
        }
    }

    #[test]
    fn full_rank_matrices_are_done_by_gram() {
        let found = Dense::random(300, 100, 9).spectrum(MethodChoice::Auto);
        assert_eq!(found.method, Method::Gram);
        assert!(found.eigenvalues[0] > 64.0 * found.noise_floor);
    }

    #[test]
    fn permuting_rows_changes_rounding_alone() {
        let mut dense = Dense::random(500, 60, 11);
        let before = dense.spectrum(MethodChoice::Auto).eigenvalues;
        let mut rows: Vec<Vec<f64>> = dense.values.chunks(60).map(<[f64]>::to_vec).collect();
        rows.reverse();
        dense.values = rows.concat();
        let after = dense.spectrum(MethodChoice::Auto).eigenvalues;
        let largest = before[59];
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() <= 16.0 * f64::EPSILON * largest));
    }

    #[test]
    fn squares_that_overflow_or_vanish_are_refused() {
        let options = SpectrumOptions { method: MethodChoice::Auto, floor_factor: 64.0, threads: 1 };
        for scale in [1e200, 1e-200] {
            let mut dense = Dense::random(20, 10, 1);
            dense.values.iter_mut().for_each(|x| *x *= scale);
            assert_eq!(spectrum(&mut dense, &options).unwrap_err().kind(), ErrorKind::NonFinite);
        }
    }

    #[test]
    fn two_threads_give_the_bits_of_one() {
        for (n, m) in [(50, 40), (700, 600), (1100, 1030)] {
            let mut dense = Dense::random(n, m, 21);
            let mut bits = |threads| {
                let options = SpectrumOptions { method: MethodChoice::Auto, floor_factor: 64.0, threads };
                spectrum(&mut dense, &options).unwrap().pooled()
            };
            assert_eq!(bits(1), bits(2), "{n} × {m}");
        }
    }

    /// The Gram matrix of some rows of a matrix, as whoever has a shard computes it.
    fn part_of(dense: &Dense, rows: std::ops::Range<usize>, threads: usize) -> PartialGram {
        let values = dense.values[rows.start * dense.m..rows.end * dense.m].to_vec();
        let mut shard = Dense { n: rows.len(), m: dense.m, values, shard: None };
        let gram = gram::grams(&mut shard, threads).unwrap().remove(0);
        let head = PartialHead {
            m: dense.m as u64,
            rows: rows.start as u64..rows.end as u64,
            nonzero: gram.saw_nonzero(),
            non_finite: Default::default(),
            digest: [0; 32],
        };
        PartialGram::new(head, &gram)
    }

    #[test]
    fn shards_computed_apart_give_the_bits_of_one_pass() {
        for (n, m, shard) in [(3300, 300, 768), (2304, 40, 768), (1000, 257, 384), (769, 5, 768)] {
            let mut dense = Dense { shard: Some(shard), ..Dense::random(n, m, 31) };
            let options = SpectrumOptions { method: MethodChoice::Auto, floor_factor: 64.0, threads: 1 };
            let whole = gram::grams(&mut dense, 1).unwrap().remove(0).packed();
            assert_eq!(whole, gram::grams(&mut dense, 2).unwrap().remove(0).packed(), "{n} × {m}");
            let starts: Vec<usize> = (0..n).step_by(shard).collect();
            let mut parts: Vec<PartialGram> = starts
                .iter()
                .rev()
                .map(|&start| part_of(&dense, start..(start + shard).min(n), 1 + start / shard % 2))
                .collect();
            parts.reverse();
            let mut sum = GramSum::new(m as u64).unwrap();
            parts.iter().for_each(|part| sum.add(part).unwrap());
            assert_eq!(whole, sum.clone().into_gram().unwrap().packed(), "{n} × {m}");
            let found = spectrum_of_sum(&mut dense, sum, &options).unwrap().pooled();
            assert_eq!(found, spectrum(&mut dense, &options).unwrap().pooled(), "{n} × {m}");
        }
    }

    #[test]
    fn a_sum_that_cannot_tell_is_done_again_by_svd() {
        let mut dense = Dense { shard: Some(384), ..Dense::of_rank(900, 50, 20) };
        let mut sum = GramSum::new(50).unwrap();
        for rows in [0..384, 384..768, 768..900] {
            sum.add(&part_of(&dense, rows, 1)).unwrap();
        }
        let options = SpectrumOptions { method: MethodChoice::Auto, floor_factor: 64.0, threads: 1 };
        let found = spectrum_of_sum(&mut dense, sum, &options).unwrap();
        assert_eq!(found.method(), Method::Svd);
        assert_eq!(found.pooled(), spectrum(&mut dense, &options).unwrap().pooled());
    }

    #[test]
    fn vectors_are_eigenvectors() {
        let mut dense = Dense::random(80, 30, 2);
        let w = faer::Mat::from_fn(80, 30, |i, j| dense.values[i * 30 + j]);
        let gram = w.transpose() * &w;
        eigenvectors(&mut dense, &mut |found| {
            let left = &gram * &found.vectors;
            for j in 0..30 {
                for i in 0..30 {
                    let right = found.eigenvalues[j] * found.vectors[(i, j)];
                    assert!((left[(i, j)] - right).abs() < 1e-12 * found.eigenvalues[29]);
                }
            }
        })
        .unwrap();
    }
}
