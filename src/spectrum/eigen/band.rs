//! Dense → band: blocked Householder reflections from both sides, all but the panels in matrix products.

use super::panel::{product, qr, slice};
use crate::spectrum::team::join;
use faer::prelude::{IntoConst, Reborrow, ReborrowMut};
use faer::{Accum, Mat, MatMut, MatRef};

/// Columns of a tile of the trailing matrix.
const TILE: usize = 128;
/// Rows of a tile: 384 × 128 × 8 B stays in the second-level cache for both products that read it.
const ROWS: usize = 384;

/// The lower part of a symmetric band matrix, column by column: element (i, j), i ≥ j, at `(i − j) + 2·width·j`.
/// There is room for 2·width − 1 sub-diagonals, which the bulge needs.
pub(super) struct Band {
    pub(super) n: usize,
    pub(super) width: usize,
    pub(super) values: Vec<f64>,
}

/// Order from which two owners sum a symmetric product, on two threads if there are. A function of the shape alone:
/// the owners decide the order of summation, hence the bits.
const SHARED: usize = 512;

/// Reduces the symmetric matrix whose lower triangle is given to a similar one of bandwidth `width`.
pub(super) fn reduce(mut a: Mat<f64>, width: usize, threads: usize) -> Band {
    let n = a.nrows();
    mirror_diagonal_tiles(&mut a);
    let mut work = Work::new(n, width);
    let mut k = 0;
    while k + width + 1 < n {
        step(&mut a, k, &mut work, threads);
        k += width;
    }
    extract(&a, width)
}

/// Buffers of one step.
struct Work {
    /// [X | V] and [V | X], m × 2w each: the rank-2w update is then one product.
    xv: Mat<f64>,
    vx: Mat<f64>,
    /// Two owners' shares of A·V.
    y: [Mat<f64>; 2],
    t: Mat<f64>,
    small: Mat<f64>,
    smaller: Mat<f64>,
}

impl Work {
    fn new(n: usize, w: usize) -> Self {
        let square = || Mat::zeros(w, w);
        Self {
            xv: Mat::zeros(n, 2 * w),
            vx: Mat::zeros(n, 2 * w),
            y: [Mat::zeros(n, w), Mat::zeros(if n > SHARED { n } else { 0 }, w)],
            t: square(),
            small: square(),
            smaller: square(),
        }
    }
}

/// Annihilates what is below the band in columns k … k + width, and updates the trailing matrix A:
/// with Q = I − V·T·Vᵀ, Y = A·V·T and X = Y − ½·V·(Tᵀ·Vᵀ·Y), QᵀAQ = A − X·Vᵀ − V·Xᵀ.
fn step(a: &mut Mat<f64>, k: usize, work: &mut Work, threads: usize) {
    let width = work.t.ncols();
    let m = a.nrows() - k - width;
    let w = width.min(m);
    let mut v = work.vx.as_mut().submatrix_mut(0, 0, m, w);
    let mut t = work.t.as_mut().submatrix_mut(0, 0, w, w);
    qr(a.as_mut().submatrix_mut(k + width, k, m, w), v.rb_mut(), t.rb_mut());
    if w < width {
        // fewer rows than columns: the columns beyond w are turned too
        let rest = a.as_mut().submatrix_mut(k + width, k + w, m, width - w);
        turn(rest, v.rb(), t.rb());
    }
    let mut trailing = a.as_mut().submatrix_mut(k + width, k + width, m, m);
    let (v, t) = (v.rb(), t.rb());
    let y = symmetric_product(&mut work.y, trailing.rb(), v, (k + width, threads));
    let mut x = work.xv.as_mut().submatrix_mut(0, 0, m, w);
    product(x.rb_mut(), Accum::Replace, y, t, 1.0);
    let mut small = work.small.as_mut().submatrix_mut(0, 0, w, w);
    let mut smaller = work.smaller.as_mut().submatrix_mut(0, 0, w, w);
    product(small.rb_mut(), Accum::Replace, v.transpose(), x.rb(), 1.0);
    product(smaller.rb_mut(), Accum::Replace, t.transpose(), small.rb(), 1.0);
    product(x.rb_mut(), Accum::Add, v, smaller.rb(), -0.5);
    fill_pairs(work, m, w);
    let (xv, vx) = (work.xv.as_ref().submatrix(0, 0, m, 2 * w), work.vx.as_ref().submatrix(0, 0, m, 2 * w));
    symmetric_update(trailing.rb_mut(), (xv, vx), k + width, threads);
}

/// rest ← Qᵀ·rest.
fn turn(rest: MatMut<'_, f64>, v: MatRef<'_, f64>, t: MatRef<'_, f64>) {
    let mut inner = Mat::<f64>::zeros(v.ncols(), rest.ncols());
    let mut outer = inner.clone();
    product(inner.as_mut(), Accum::Replace, v.transpose(), rest.rb(), 1.0);
    product(outer.as_mut(), Accum::Replace, t.transpose(), inner.as_ref(), 1.0);
    product(rest, Accum::Add, v, outer.as_ref(), -1.0);
}

/// [X | ·] and [V | ·] → [X | V] and [V | X].
fn fill_pairs(work: &mut Work, m: usize, w: usize) {
    for j in 0..w {
        work.xv.col_as_slice_mut(w + j)[..m].copy_from_slice(&work.vx.col_as_slice(j)[..m]);
        work.vx.col_as_slice_mut(w + j)[..m].copy_from_slice(&work.xv.col_as_slice(j)[..m]);
    }
}

/// The first row and the length of each run of rows from `from` to `to`.
fn row_runs(from: usize, to: usize) -> impl Iterator<Item = (usize, usize)> {
    (from..to).step_by(ROWS).map(move |i| (i, ROWS.min(to - i)))
}

/// The first column and the width of each tile of a trailing matrix of order m that starts at `start`. Tiles lie on
/// one grid of the whole matrix, so that those on the diagonal are the same, and stay full, from step to step.
fn tiles(start: usize, m: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let here = next;
        let cols = (TILE - (start + here) % TILE).min(m.checked_sub(here).filter(|left| *left > 0)?);
        next += cols;
        Some((here, cols))
    })
}

/// A·v with A's tiles on and below the diagonal (those on it full), in the first of `shares`. In a large matrix one
/// owner sums the even columns of tiles, another the odd ones.
fn symmetric_product<'a>(
    shares: &'a mut [Mat<f64>; 2],
    a: MatRef<'_, f64>,
    v: MatRef<'_, f64>,
    (start, threads): (usize, usize),
) -> MatRef<'a, f64> {
    let (m, w) = (a.nrows(), v.ncols());
    let [first, second] = shares;
    let mut first = first.as_mut().submatrix_mut(0, 0, m, w);
    if m < SHARED {
        share(first.rb_mut(), a, v, tiles(start, m));
        return first.into_const();
    }
    let mut second = second.as_mut().submatrix_mut(0, 0, m, w);
    let even = tiles(start, m).step_by(2);
    let odd = tiles(start, m).skip(1).step_by(2);
    join(threads, || share(first.rb_mut(), a, v, even), || share(second.rb_mut(), a, v, odd));
    for j in 0..w {
        let (to, from) = (slice(first.rb_mut(), j), slice(second.rb_mut(), j));
        to.iter_mut().zip(from.iter()).for_each(|(to, from)| *to += from);
    }
    first.into_const()
}

/// y = the share of A·v that some columns of tiles have.
fn share(
    mut y: MatMut<'_, f64>,
    a: MatRef<'_, f64>,
    v: MatRef<'_, f64>,
    columns: impl Iterator<Item = (usize, usize)>,
) {
    let (m, w) = (a.nrows(), v.ncols());
    y.fill(0.0);
    for (j, cols) in columns {
        let v_here = v.subrows(j, cols);
        let diagonal = a.submatrix(j, j, cols, cols);
        product(y.rb_mut().subrows_mut(j, cols), Accum::Add, diagonal, v_here, 1.0);
        for (i, rows) in row_runs(j + cols, m) {
            let tile = a.submatrix(i, j, rows, cols);
            product(y.rb_mut().submatrix_mut(i, 0, rows, w), Accum::Add, tile, v_here, 1.0);
            let v_there = v.subrows(i, rows);
            product(y.rb_mut().submatrix_mut(j, 0, cols, w), Accum::Add, tile.transpose(), v_there, 1.0);
        }
    }
}

/// A −= X·Vᵀ + V·Xᵀ on the tiles on and below the diagonal. Each tile is on its own: who updates it does not matter.
fn symmetric_update(
    a: MatMut<'_, f64>,
    pairs: (MatRef<'_, f64>, MatRef<'_, f64>),
    start: usize,
    threads: usize,
) {
    let m = a.nrows();
    // half of the area below the diagonal lies left of 0.29·m
    let middle = tiles(start, m).map(|(j, _)| j).find(|&j| j * 100 >= m * 29).unwrap_or(m);
    let (left, right) = a.split_at_col_mut(middle);
    let columns = |from: usize, to: usize| tiles(start, m).filter(move |(j, _)| (from..to).contains(j));
    let threads = if m < SHARED { 1 } else { threads };
    join(
        threads,
        || update(left, 0, pairs, columns(0, middle)),
        || update(right, middle, pairs, columns(middle, m)),
    );
}

/// Some columns of tiles of the update; `a` starts at column `first` of the trailing matrix.
fn update(
    mut a: MatMut<'_, f64>,
    first: usize,
    (xv, vx): (MatRef<'_, f64>, MatRef<'_, f64>),
    columns: impl Iterator<Item = (usize, usize)>,
) {
    let m = a.nrows();
    for (j, cols) in columns {
        let right = vx.subrows(j, cols).transpose();
        for (i, rows) in row_runs(j, m) {
            let tile = a.rb_mut().submatrix_mut(i, j - first, rows, cols);
            product(tile, Accum::Add, xv.subrows(i, rows), right, -1.0);
        }
    }
}

/// Fills the upper halves of the diagonal tiles.
fn mirror_diagonal_tiles(a: &mut Mat<f64>) {
    for j in 0..a.nrows() {
        for i in j / TILE * TILE..j {
            a[(i, j)] = a[(j, i)];
        }
    }
}

fn extract(a: &Mat<f64>, width: usize) -> Band {
    let n = a.nrows();
    let mut values = vec![0.0; n * 2 * width];
    for (j, column) in values.chunks_exact_mut(2 * width).enumerate() {
        let last = (j + width + 1).min(n);
        column[..last - j].copy_from_slice(&a.col_as_slice(j)[j..last]);
    }
    Band { n, width, values }
}
