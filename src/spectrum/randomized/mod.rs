//! The largest eigenvalues of X = WᵀW by randomized block Krylov iteration, with a bound on the error of each and on
//! the chance that one was missed.
//!
//! 1. A seeded random block and its powers under X span a space ([`krylov`]), which grows until its largest Ritz
//!    values have small residuals. X is the Gram matrix, or is never formed, and each product streams W once
//!    ([`is_streamed`]).
//! 2. With V the best Ritz vectors, R = XV − VΘ is computed anew, by one more product.
//! 3. What V leaves of X, (I − VVᵀ)X(I − VVᵀ), gets a fresh random block of its own: its largest eigenvalue is at
//!    most `rest_below`, except with probability [`MISS`] over the seed (Kuczyński & Woźniakowski, SIAM J. Matrix Anal.
//!    Appl. 13, 1992, theorem 4.2). Ritz values above that are therefore the largest eigenvalues of VΘVᵀ + (I − VVᵀ)X(I − VVᵀ),
//!    multiplicities included, and those of X differ from them by at most 2ρ²/(η + √(η² + 4ρ²)), with ρ = ‖R‖_F and
//!    η their distance from `rest_below` (Li & Li, Linear Algebra Appl. 395, 2005). They are kept; others are not.

mod krylov;
mod operator;

use super::{gram, noise_floor};
use crate::tensor::Blocks;
use crate::{Error, ErrorKind, Result};
use faer::Mat;
use krylov::{Basis, norm};
use operator::{Deflated, Formed, Operator, Streamed};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Columns of X at most for which it is formed. The rule depends on the shape alone, so that numbers do not depend on
/// the memory at hand. At the limit, X takes 512 MiB.
const FORMED: u64 = 8192;
/// Block and steps of the search for what was missed.
const CHECK_BLOCK: usize = 16;
const CHECK_STEPS: usize = 20;
/// Chance that one column of that block fails.
const CHECK_COLUMN_MISS: f64 = 0.25;
/// Chance that all of them do, and a larger eigenvalue was missed: 0.25¹⁶ = 2.3·10⁻¹⁰.
pub const MISS: f64 = 2.4e-10;
/// The space grows until ‖R‖_F is this much of the smallest Ritz value wanted.
const TOLERANCE: f64 = 1e-6;
/// Eigenvalues whose relative error may be more are not kept.
const WORST_ERROR: f64 = 1e-6;

/// The largest eigenvalues of one matrix.
#[derive(Debug, Clone)]
pub struct Partial {
    /// M: how many eigenvalues the matrix has.
    pub order: usize,
    /// Bound on the absolute error of each of the eigenvalues that were found, in their (ascending) order.
    pub errors: Vec<f64>,
    /// Largest ‖Xv − θv‖ of them.
    pub residual_max: f64,
    /// No other eigenvalue is larger than this, except with probability [`MISS`].
    pub rest_below: f64,
    /// ‖W‖_F² = Σλ over all M eigenvalues.
    pub trace: f64,
    /// Largest Ritz value, kept or not.
    pub lambda_max: f64,
    /// Seed of the random blocks.
    pub seed: u64,
}

/// Whether products with X stream W instead of forming X.
pub fn is_streamed(m: u64) -> bool {
    m > FORMED
}

/// Seed from the shape, for when none was given: the content digest is known only after a pass.
pub fn seed_of(n: usize, m: usize) -> u64 {
    ((n as u64) << 21 ^ m as u64) & ((1 << 53) - 1)
}

/// At most `count` largest eigenvalues of the one matrix of `blocks`, ascending, with what is known of them.
///
/// # Errors
/// What streaming gives; `NonFinite` if the eigenvalues leave the range of f64; `Internal` if there are several
/// matrices or a solver fails.
pub fn largest(
    blocks: &mut dyn Blocks,
    count: usize,
    seed: u64,
    threads: usize,
) -> Result<(Vec<f64>, Partial)> {
    if blocks.count() != 1 {
        return Err(Error::new(ErrorKind::Internal, "randomized spectra are of one matrix"));
    }
    if is_streamed(blocks.m() as u64) {
        let mut operator = Streamed::new(blocks, threads);
        let found = of_operator(&mut operator, count, seed)?;
        return Ok(found.finish(operator.trace, seed));
    }
    let gram = gram::grams(blocks, threads)?.remove(0);
    let mut operator = Formed::new(gram, threads)?;
    let found = of_operator(&mut operator, count, seed)?;
    Ok(found.finish(operator.trace, seed))
}

struct Found {
    order: usize,
    /// Descending.
    values: Vec<f64>,
    errors: Vec<f64>,
    residuals: Vec<f64>,
    rest_below: f64,
    lambda_max: f64,
}

impl Found {
    fn finish(self, trace: f64, seed: u64) -> (Vec<f64>, Partial) {
        let ascending = |mut x: Vec<f64>| {
            x.reverse();
            x
        };
        let partial = Partial {
            order: self.order,
            errors: ascending(self.errors),
            residual_max: self.residuals.iter().copied().fold(0.0, f64::max),
            rest_below: self.rest_below,
            trace,
            lambda_max: self.lambda_max,
            seed,
        };
        (ascending(self.values), partial)
    }
}

/// Sizes for `count` eigenvalues of a matrix of order `m`.
struct Sizes {
    /// Ritz pairs to converge: more than wanted, since those near `rest_below` are lost.
    wanted: usize,
    block: usize,
    /// Most columns of the basis.
    most: usize,
}

fn sizes(count: usize, m: usize) -> Sizes {
    let wanted = (count + count / 4 + 16).min(m);
    Sizes { wanted, block: (wanted / 8).clamp(16, 64), most: (4 * wanted).min(m) }
}

fn of_operator(operator: &mut dyn Operator, count: usize, seed: u64) -> Result<Found> {
    let m = operator.order();
    let sizes = sizes(count, m);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let start = ChaCha8Rng::from_rng(&mut rng);
    let v = converge(operator, &sizes, Basis::random(m, sizes.block, sizes.most, start))?;
    let mut pairs = residuals(operator, v)?;
    pairs.lock();
    let rest_below = pairs.rest_below(operator, rng)?;
    Ok(pairs.keep(count, rest_below, m))
}

/// Ritz vectors of the `wanted` largest Ritz values.
fn converge(operator: &mut dyn Operator, sizes: &Sizes, mut basis: Basis) -> Result<Mat<f64>> {
    let mut look_at = (2 * sizes.wanted).min(sizes.most);
    loop {
        while basis.len() < look_at && !basis.is_complete() {
            basis.step(operator)?;
        }
        let ritz = basis.ritz(sizes.wanted)?;
        let smallest = ritz.values.last().copied().unwrap_or(0.0);
        let done = norm(&ritz.residuals) <= TOLERANCE * smallest;
        if done || basis.len() >= sizes.most || basis.is_complete() {
            return Ok(basis.vectors(&ritz, ritz.values.len()));
        }
        look_at = (basis.len() + (sizes.wanted / 4).max(1)).min(sizes.most);
    }
}

/// Orthonormal vectors, their Rayleigh quotients, descending, and residual norms.
struct Pairs {
    v: Mat<f64>,
    values: Vec<f64>,
    residuals: Vec<f64>,
}

/// By a product of its own, so that nothing of the iteration needs trust. Departures of V from orthonormality count
/// as residual.
fn residuals(operator: &mut dyn Operator, v: Mat<f64>) -> Result<Pairs> {
    let xv = operator.apply(v.as_ref())?;
    let gram = v.transpose() * &v;
    let quotient = |j: usize| (0..v.nrows()).map(|i| v[(i, j)] * xv[(i, j)]).sum::<f64>() / gram[(j, j)];
    let values: Vec<f64> = (0..v.ncols()).map(quotient).collect();
    let largest = values.iter().copied().fold(0.0, f64::max);
    let residual = |(j, theta): (usize, &f64)| {
        let leak: Vec<f64> = (0..v.nrows()).map(|i| xv[(i, j)] - theta * v[(i, j)]).collect();
        let skew: Vec<f64> = (0..v.ncols()).map(|i| gram[(i, j)] - if i == j { 1.0 } else { 0.0 }).collect();
        norm(&leak) + largest * norm(&skew)
    };
    let residuals = values.iter().enumerate().map(residual).collect();
    Ok(Pairs { v, values, residuals })
}

impl Pairs {
    /// Drops the last pairs as long as their residuals spoil those before, if any are good.
    fn lock(&mut self) {
        let good = |len: usize| norm(&self.residuals[..len]) <= TOLERANCE * self.values[len - 1];
        let kept = (1..=self.values.len()).rev().find(|&len| good(len)).unwrap_or(self.values.len());
        self.values.truncate(kept);
        self.residuals.truncate(kept);
        self.v = self.v.as_ref().get(.., ..kept).to_owned();
    }

    /// A bound on every eigenvalue of X beside these pairs. A start that is uniform on the sphere gives after p steps
    /// of Lanczos a Ritz value ξ with P(ξ < (1 − ε)·λ) ≤ 1.648·√m·exp(−√ε·(2p − 1)); a block does at least as well as
    /// each of its columns.
    fn rest_below(&self, operator: &mut dyn Operator, rng: ChaCha8Rng) -> Result<f64> {
        let m = operator.order();
        if self.values.len() == m {
            return Ok(0.0);
        }
        let mut rest = Deflated { operator, v: self.v.as_ref() };
        let mut basis = Basis::random(m, CHECK_BLOCK, CHECK_BLOCK * CHECK_STEPS, rng);
        for _ in 0..CHECK_STEPS {
            if !basis.is_complete() {
                basis.step(&mut rest)?;
            }
        }
        let found = basis.ritz(1)?.values.first().copied().unwrap_or(0.0);
        let root = (1.648 * (m as f64).sqrt() / CHECK_COLUMN_MISS).ln() / (2 * CHECK_STEPS - 1) as f64;
        let epsilon = if basis.is_complete() { 0.0 } else { root * root };
        let largest = self.values.first().copied().unwrap_or(0.0);
        Ok(found / (1.0 - epsilon) + noise_floor(m, largest.max(found)))
    }

    /// Keeps the pairs that are proven.
    fn keep(self, count: usize, rest_below: f64, m: usize) -> Found {
        let rho = norm(&self.residuals);
        let lambda_max = self.values.first().copied().unwrap_or(0.0).max(0.0);
        let noise = noise_floor(m, lambda_max);
        let error = |theta: f64| {
            let eta = theta - rest_below;
            2.0 * rho * rho / (eta + (eta * eta + 4.0 * rho * rho).sqrt()) + noise
        };
        let proven = |theta: f64| theta > rest_below && error(theta) <= WORST_ERROR * theta;
        let kept = self.values.iter().take(count).take_while(|theta| proven(**theta)).count();
        let mut values = self.values;
        values.truncate(kept);
        // the quotients come in order but for rounding
        values.sort_by(|a, b| b.total_cmp(a));
        let errors = values.iter().map(|theta| error(*theta)).collect();
        let mut residuals = self.residuals;
        residuals.truncate(kept);
        Found { order: m, values, errors, residuals, rest_below, lambda_max }
    }
}

/// Peak memory in bytes of [`largest`] beside the streamed blocks: X if it is formed, the basis and its projection,
/// and a few blocks of vectors. Without X there is nothing of order M².
pub fn bytes_needed(m: u64, count: u64) -> u64 {
    let sizes = sizes(
        usize::try_from(count).unwrap_or(usize::MAX / 8).min(1 << 40),
        usize::try_from(m).unwrap_or(usize::MAX / 8),
    );
    let (wanted, most) = (sizes.wanted as u64, (sizes.most + 2 * sizes.block) as u64);
    let x = if is_streamed(m) { 0 } else { m.saturating_mul(m) };
    let vectors = m.saturating_mul(most + 4 * wanted);
    let projection = most.saturating_mul(most).saturating_mul(8);
    let product = 384 * wanted;
    x.saturating_add(vectors).saturating_add(projection).saturating_add(product).saturating_mul(8)
}

/// Flops of [`largest`] if the space grows to two and a half times what is wanted: products with X, and keeping the
/// basis orthonormal.
pub fn flops(n: u64, m: u64, count: u64) -> f64 {
    let (n, m, k) = (n as f64, m as f64, (count + count / 4 + 16) as f64);
    let basis = (2.5 * k).min(m);
    let columns = basis + k + (CHECK_BLOCK * CHECK_STEPS) as f64;
    let product = if is_streamed(m as u64) { 4.0 * n * m } else { 2.0 * m * m };
    let forming = if is_streamed(m as u64) { 0.0 } else { n * m * m };
    forming + product * columns + 4.0 * m * basis * basis + 10.0 * basis * basis * basis
}

#[cfg(test)]
mod tests;
