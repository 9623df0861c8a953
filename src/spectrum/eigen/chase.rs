//! Band → tridiagonal: each column's sub-diagonals are annihilated by one reflection, and the bulge that it makes is
//! chased down the band by further ones, block by block (Lang, *A parallel algorithm for reducing symmetric banded
//! matrices to tridiagonal form*, SIAM J. Sci. Comput. 14, 1993).

use super::band::Band;
use super::panel::reflection;
use super::simd::{Fused, Kernel, axpy, dispatch, dot};

/// The diagonal (n) and the sub-diagonal (n − 1) of a tridiagonal matrix similar to `band`.
pub(super) fn tridiagonal(mut band: Band) -> (Vec<f64>, Vec<f64>) {
    if band.width > 1 {
        dispatch(Chase { band: &mut band });
    }
    let lda = 2 * band.width;
    let diagonal = (0..band.n).map(|j| band.values[j * lda]).collect();
    let below = (1..band.n).map(|j| if lda > 1 { band.values[(j - 1) * lda + 1] } else { 0.0 }).collect();
    (diagonal, below)
}

struct Chase<'a> {
    band: &'a mut Band,
}

impl Kernel for Chase<'_> {
    type Output = ();

    #[inline(always)]
    fn run<F: Fused>(self) {
        let (n, width) = (self.band.n, self.band.width);
        let mut sweep = Sweep { values: &mut self.band.values, n, width, lda: 2 * width };
        let mut v = vec![0.0; width];
        let mut next = vec![0.0; width];
        let mut work = vec![0.0; width];
        for column in 0..n.saturating_sub(2) {
            sweep.column::<F>(column, (&mut v, &mut next, &mut work));
        }
    }
}

struct Sweep<'a> {
    values: &'a mut [f64],
    n: usize,
    width: usize,
    lda: usize,
}

impl Sweep<'_> {
    /// Rows r … r + len of column j, r ≥ j.
    #[inline(always)]
    fn part(&mut self, j: usize, r: usize, len: usize) -> &mut [f64] {
        let at = j * self.lda + (r - j);
        &mut self.values[at..at + len]
    }

    /// Annihilates column `j` below its sub-diagonal and chases the bulge to the end.
    #[inline(always)]
    fn column<F: Fused>(&mut self, j: usize, (v, next, work): (&mut Vec<f64>, &mut Vec<f64>, &mut [f64])) {
        let mut row = j + 1;
        let mut len = self.width.min(self.n - row);
        let own = self.part(j, row, len);
        v[..len].copy_from_slice(own);
        let (beta, mut tau) = reflection::<F>(&mut v[..len]);
        own.fill(0.0);
        own[0] = beta;
        loop {
            self.both_sides::<F>(row, &v[..len], tau, &mut work[..len]);
            let below = row + len;
            if below >= self.n {
                return;
            }
            let height = self.width.min(self.n - below);
            tau = self.below::<F>((row, below), (&v[..len], tau), &mut next[..height], &mut work[..height]);
            std::mem::swap(v, next);
            (row, len) = (below, height);
        }
    }

    /// D ← H·D·H for the symmetric block D at `row`: with p = τ·D·v and k = p − ½τ(pᵀv)·v, D −= v·kᵀ + k·vᵀ.
    #[inline(always)]
    fn both_sides<F: Fused>(&mut self, row: usize, v: &[f64], tau: f64, p: &mut [f64]) {
        if tau == 0.0 {
            return;
        }
        let len = v.len();
        p.fill(0.0);
        for c in 0..len {
            let column = &*self.part(row + c, row + c, len - c);
            let upper = dot::<F>(&column[1..], &v[c + 1..]);
            axpy::<F>(v[c], column, &mut p[c..]);
            p[c] += upper;
        }
        p.iter_mut().for_each(|x| *x *= tau);
        let half = -0.5 * tau * dot::<F>(p, v);
        axpy::<F>(half, v, p);
        for c in 0..len {
            let column = self.part(row + c, row + c, len - c);
            let (factor_v, factor_p) = (-p[c], -v[c]);
            for ((x, v), p) in column.iter_mut().zip(&v[c..]).zip(&p[c..]) {
                *x = F::mul_add(factor_v, *v, F::mul_add(factor_p, *p, *x));
            }
        }
    }

    /// B ← B·H for the block B below the diagonal block, then a new reflection from B's first column, applied to B
    /// from the left. `next` becomes its vector; gives its τ.
    #[inline(always)]
    fn below<F: Fused>(
        &mut self,
        (row, below): (usize, usize),
        (v, tau): (&[f64], f64),
        next: &mut [f64],
        w: &mut [f64],
    ) -> f64 {
        let height = next.len();
        w.fill(0.0);
        for (c, &factor) in v.iter().enumerate() {
            axpy::<F>(factor, self.part(row + c, below, height), w);
        }
        w.iter_mut().for_each(|x| *x *= -tau);
        let first = self.part(row, below, height);
        axpy::<F>(v[0], w, first);
        next.copy_from_slice(first);
        let (beta, new_tau) = reflection::<F>(next);
        first.fill(0.0);
        first[0] = beta;
        for (c, &factor) in v.iter().enumerate().skip(1) {
            let column = self.part(row + c, below, height);
            axpy::<F>(factor, w, column);
            let turned = -new_tau * dot::<F>(next, column);
            axpy::<F>(turned, next, column);
        }
        new_tau
    }
}
