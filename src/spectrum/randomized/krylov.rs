//! The block Krylov space of a random start, with an orthonormal basis, and the Ritz pairs in it (Musco & Musco,
//! NeurIPS 2015; the recurrence with full reorthogonalisation is block Lanczos).

use super::operator::{Operator, project_out};
use crate::spectrum::eigen;
use crate::{Error, ErrorKind, Result};
use faer::linalg::matmul::matmul;
use faer::prelude::IntoConst;
use faer::{Accum, Mat, MatMut, Par};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A column that orthogonalisation leaves shorter than this share of itself adds nothing: another is drawn for it.
const DEPENDENT: f64 = 1e-10;

/// An orthonormal basis Q that grows by a block at a time, and T = QᵀXQ on the columns that X was applied to.
pub(super) struct Basis {
    q: Mat<f64>,
    /// Upper triangle of T.
    t: Mat<f64>,
    /// Columns of Q.
    filled: usize,
    /// Columns of Q that X was applied to; the block from here to `filled` comes next.
    applied: usize,
    /// X·(last applied block) = Q·T + (next block)·coupling.
    coupling: Mat<f64>,
    rng: ChaCha8Rng,
}

/// The largest Ritz pairs of a basis, largest first.
pub(super) struct Ritz {
    /// Ritz values.
    pub(super) values: Vec<f64>,
    /// Norms of X·v − θ·v.
    pub(super) residuals: Vec<f64>,
    /// Coordinates in Q, one column a pair.
    coordinates: Mat<f64>,
}

impl Basis {
    /// A random block of `width` columns, of at most `most` that the basis may ever have.
    pub(super) fn random(order: usize, width: usize, most: usize, mut rng: ChaCha8Rng) -> Self {
        let width = width.min(order);
        let most = (most + 2 * width).min(order);
        let mut basis_q = Mat::zeros(order, most);
        for j in 0..width {
            draw(basis_q.col_as_slice_mut(j), &mut rng);
        }
        let (empty, block) = basis_q.as_mut().get_mut(.., ..width).split_at_col_mut(0);
        orthonormalise(empty, block, &mut rng);
        Self {
            q: basis_q,
            t: Mat::zeros(most, most),
            filled: width,
            applied: 0,
            coupling: Mat::zeros(0, 0),
            rng,
        }
    }

    /// Columns that X was applied to.
    pub(super) fn len(&self) -> usize {
        self.applied
    }

    /// Whether X was applied to all of the space.
    pub(super) fn is_complete(&self) -> bool {
        self.applied == self.q.nrows()
    }

    /// Applies X to the newest block and appends what is new of it. One pass over W if X is streamed.
    pub(super) fn step(&mut self, operator: &mut dyn Operator) -> Result<()> {
        let (from, to) = (self.applied, self.filled);
        let mut z = operator.apply(self.q.as_ref().get(.., from..to))?;
        if (0..z.ncols()).any(|j| z.col_as_slice(j).iter().any(|x| !x.is_finite())) {
            return Err(Error::new(ErrorKind::NonFinite, "the eigenvalues leave the range of f64"));
        }
        let before: Vec<f64> = (0..z.ncols()).map(|j| norm(z.col_as_slice(j))).collect();
        let coefficients = project_out(self.q.as_ref().get(.., ..to), z.as_mut());
        self.t.as_mut().get_mut(..to, from..to).copy_from(&coefficients);
        self.applied = to;
        let width = (to - from).min(self.q.ncols() - to);
        self.coupling = Mat::zeros(width, to - from);
        if width == 0 {
            return Ok(());
        }
        self.append(&z, &before, width);
        Ok(())
    }

    /// Makes `z`, already orthogonal to Q, the next block. A column that depends on those before is replaced by a
    /// random one: so the basis grows past an invariant subspace, as that of a matrix of low rank is.
    fn append(&mut self, z: &Mat<f64>, before: &[f64], width: usize) {
        let mut fresh: Vec<Vec<f64>> = Vec::new();
        for (j, &length) in before.iter().enumerate() {
            let mut column = z.col_as_slice(j).to_vec();
            for _ in 0..2 {
                for (i, other) in fresh.iter().enumerate() {
                    let share = dot(other, &column);
                    column.iter_mut().zip(other).for_each(|(x, y)| *x -= share * y);
                    self.coupling[(i, j)] += share;
                }
            }
            let left = norm(&column);
            if fresh.len() < width && left > DEPENDENT * length {
                self.coupling[(fresh.len(), j)] = left;
                column.iter_mut().for_each(|x| *x /= left);
                fresh.push(column);
            }
        }
        let (old, mut next) =
            self.q.as_mut().get_mut(.., ..self.filled + width).split_at_col_mut(self.filled);
        for j in 0..width {
            let mut column = fresh.get(j).cloned().unwrap_or_default();
            if column.is_empty() {
                column = vec![0.0; z.nrows()];
                draw(&mut column, &mut self.rng);
            }
            column.iter().enumerate().for_each(|(i, x)| next[(i, j)] = *x);
        }
        orthonormalise(old, next, &mut self.rng);
        self.filled += width;
    }

    /// The `count` largest Ritz pairs.
    pub(super) fn ritz(&self, count: usize) -> Result<Ritz> {
        let d = self.applied;
        // an exact factor takes T near 1: the solver loses digits of very small matrices
        let largest = (0..d).map(|i| self.t[(i, i)]).fold(0.0, f64::max);
        let exponent = if largest > 0.0 { eigen::exponent_of(largest) } else { 0 };
        let scaled = |i, j| if i >= j { eigen::times_power_of_two(self.t[(j, i)], -exponent) } else { 0.0 };
        let lower = Mat::from_fn(d, d, scaled);
        let found = eigen::eigenvectors(lower)?;
        let count = count.min(d);
        let coordinates = Mat::from_fn(d, count, |i, j| found.vectors[(i, d - 1 - j)]);
        let values = found.eigenvalues.iter().rev().take(count);
        let values = values.map(|theta| eigen::times_power_of_two(*theta, exponent)).collect();
        let last = self.coupling.ncols();
        let tail = coordinates.as_ref().get(d - last.., ..);
        let leaks = &self.coupling * tail;
        let residuals = (0..count).map(|j| norm(leaks.col_as_slice(j))).collect();
        Ok(Ritz { values, residuals, coordinates })
    }

    /// The vectors of the first `count` pairs.
    pub(super) fn vectors(&self, ritz: &Ritz, count: usize) -> Mat<f64> {
        let mut v = Mat::zeros(self.q.nrows(), count);
        let q = self.q.as_ref().get(.., ..ritz.coordinates.nrows());
        matmul(v.as_mut(), Accum::Replace, q, ritz.coordinates.as_ref().get(.., ..count), 1.0, Par::Seq);
        v
    }
}

/// Orthonormalises the columns of `block` among themselves and against the orthonormal `q`, drawing anew what
/// vanishes. Two rounds: the first may leave a short column inexact.
fn orthonormalise(q: MatMut<'_, f64>, mut block: MatMut<'_, f64>, rng: &mut ChaCha8Rng) {
    const ROUNDS: usize = 2;
    let q = q.into_const();
    for _ in 0..ROUNDS {
        project_out(q, block.as_mut());
        for j in 0..block.ncols() {
            let (done, rest) = block.as_mut().split_at_col_mut(j);
            let done = done.into_const();
            let mut column = rest.get_mut(.., ..1);
            for _ in 0..3 {
                project_out(done, column.as_mut());
                let length = column.norm_l2();
                if length > 1e-8 {
                    column.as_mut().col_mut(0).iter_mut().for_each(|x| *x /= length);
                    break;
                }
                column.as_mut().col_mut(0).iter_mut().for_each(|x| *x = normal(rng));
                project_out(q, column.as_mut());
            }
        }
    }
}

pub(super) fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(a, b)| a * b).sum()
}

fn draw(column: &mut [f64], rng: &mut ChaCha8Rng) {
    column.iter_mut().for_each(|x| *x = normal(rng));
}

/// Box-Muller.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
