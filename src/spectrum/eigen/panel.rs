//! Householder reflections: one, and the QR factorisation of a panel with its compact WY form.

use super::simd::{Fused, Kernel, axpy, dispatch, dot};
use faer::linalg::matmul::matmul;
use faer::prelude::{Reborrow, ReborrowMut};
use faer::{Accum, Mat, MatMut, Par};

/// Sums of squares below this have lost digits to underflow, or soon will.
const VANISHING: f64 = 1e-280;

/// The reflection H = I − τ·v·vᵀ with v₀ = 1 and H·x = β·e₀. Replaces x by v (v₀ included); gives (β, τ). A tail whose
/// squares vanish beside one is taken as zero: the matrix is scaled to one. So is one whose squares are few digits
/// above the least number, from which β and τ would come out wrong and H not orthogonal.
#[inline(always)]
pub(super) fn reflection<F: Fused>(x: &mut [f64]) -> (f64, f64) {
    let Some((first, rest)) = x.split_first_mut() else { return (0.0, 0.0) };
    let (alpha, tail) = (*first, dot::<F>(rest, rest));
    *first = 1.0;
    if tail < VANISHING {
        rest.fill(0.0);
        return (alpha, 0.0);
    }
    let beta = -(alpha * alpha + tail).sqrt().copysign(alpha);
    let inverse = 1.0 / (alpha - beta);
    rest.iter_mut().for_each(|x| *x *= inverse);
    (beta, (beta - alpha) / beta)
}

/// Columns that are factored one by one; wider panels are halved and meet matrix products.
const BASE: usize = 8;

/// Factors `panel` (m × w, w ≤ m) as Q·R with Q = I − V·T·Vᵀ: R replaces the panel's upper triangle (below it: zero),
/// V (m × w, unit lower trapezoidal, zeros and ones explicit) and T (w × w, upper triangular) are written.
pub(super) fn qr(mut panel: MatMut<'_, f64>, mut v: MatMut<'_, f64>, mut t: MatMut<'_, f64>) {
    let (m, w) = (panel.nrows(), panel.ncols());
    if w <= BASE {
        dispatch(Base { panel, v, t });
        return;
    }
    let left = (w / 2).div_ceil(BASE) * BASE;
    let right = w - left;
    let (panel_left, mut panel_right) = panel.rb_mut().split_at_col_mut(left);
    let (v_left, mut v_right) = v.rb_mut().split_at_col_mut(left);
    let (mut t11, mut t12, _, mut t22) = t.rb_mut().split_at_mut(left, left);
    let mut v_left = v_left;
    qr(panel_left, v_left.rb_mut(), t11.rb_mut());
    // right −= V₁·(T₁ᵀ·(V₁ᵀ·right))
    let mut inner = Mat::<f64>::zeros(left, right);
    let mut outer = Mat::<f64>::zeros(left, right);
    product(inner.as_mut(), Accum::Replace, v_left.rb().transpose(), panel_right.rb(), 1.0);
    product(outer.as_mut(), Accum::Replace, t11.rb().transpose(), inner.as_ref(), 1.0);
    product(panel_right.rb_mut(), Accum::Add, v_left.rb(), outer.as_ref(), -1.0);
    v_right.rb_mut().subrows_mut(0, left).fill(0.0);
    let lower = m - left;
    qr(
        panel_right.rb_mut().subrows_mut(left, lower),
        v_right.rb_mut().subrows_mut(left, lower),
        t22.rb_mut(),
    );
    // T₁₂ = −T₁·(V₁ᵀ·V₂)·T₂
    product(inner.as_mut(), Accum::Replace, v_left.rb().transpose(), v_right.rb(), 1.0);
    product(outer.as_mut(), Accum::Replace, t11.rb(), inner.as_ref(), 1.0);
    product(t12.rb_mut(), Accum::Replace, outer.as_ref(), t22.rb(), -1.0);
}

/// dst (+)= factor·a·b on one thread.
pub(super) fn product(
    dst: MatMut<'_, f64>,
    accum: Accum,
    a: faer::MatRef<'_, f64>,
    b: faer::MatRef<'_, f64>,
    factor: f64,
) {
    matmul(dst, accum, a, b, factor, Par::Seq);
}

struct Base<'a> {
    panel: MatMut<'a, f64>,
    v: MatMut<'a, f64>,
    t: MatMut<'a, f64>,
}

impl Kernel for Base<'_> {
    type Output = ();

    #[inline(always)]
    fn run<F: Fused>(self) {
        let Self { mut panel, mut v, mut t } = self;
        t.fill(0.0);
        for j in 0..panel.ncols() {
            let column = slice(panel.rb_mut(), j);
            let own = slice(v.rb_mut(), j);
            own[..j].fill(0.0);
            own[j..].copy_from_slice(&column[j..]);
            let (beta, tau) = reflection::<F>(&mut own[j..]);
            column[j] = beta;
            column[j + 1..].fill(0.0);
            for k in j + 1..panel.ncols() {
                let other = &mut slice(panel.rb_mut(), k)[j..];
                let factor = -tau * dot::<F>(&own[j..], other);
                axpy::<F>(factor, &own[j..], other);
            }
            t_column::<F>(&mut v, &mut t, j, tau);
        }
    }
}

/// Column j of T: τ on the diagonal, −τ·T·(Vᵀ·v_j) above it (LAPACK dlarft).
#[inline(always)]
fn t_column<F: Fused>(v: &mut MatMut<'_, f64>, t: &mut MatMut<'_, f64>, j: usize, tau: f64) {
    let mut products = [0.0; BASE];
    let (before, own) = v.rb_mut().split_at_col_mut(j);
    let (mut before, mut own) = (before, own);
    let own = slice(own.rb_mut(), 0);
    for (i, entry) in products.iter_mut().enumerate().take(j) {
        *entry = dot::<F>(&slice(before.rb_mut(), i)[j..], &own[j..]);
    }
    for i in 0..j {
        let sum: f64 = (i..j).map(|k| t[(i, k)] * products[k]).sum();
        t[(i, j)] = -tau * sum;
    }
    t[(j, j)] = tau;
}

/// Column j as a slice; all our matrices have contiguous columns.
#[inline(always)]
pub(super) fn slice(matrix: MatMut<'_, f64>, j: usize) -> &mut [f64] {
    matrix.col_mut(j).try_as_col_major_mut().map_or(&mut [], |column| column.as_slice_mut())
}
