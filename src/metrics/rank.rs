//! Ranks, and extreme singular values over the matrices of a layer.

use crate::fit::Mode;

/// Eigenvalues below this count as lost in `weak_rank_loss` (WeightWatcher's `WEAK_RANK_LOSS_TOLERANCE`).
pub const WEAK_RANK_THRESHOLD: f64 = 1e-6;

/// Number of singular values above σ_max · N · 2.2e-16, as `numpy.linalg.matrix_rank` counts. `n` is the longer side.
///
/// `singular_values` ascend. Those of a Gram matrix below its noise floor are noise, which this cannot tell from
/// rank: give it singular values of the matrix itself where rank matters.
pub fn matrix_rank(singular_values: &[f64], n: u64) -> usize {
    let largest = singular_values.last().copied().unwrap_or_default();
    let tolerance = largest * n as f64 * f64::EPSILON;
    singular_values.iter().filter(|&&sv| sv > tolerance).count()
}

/// Σ over a layer's matrices of (singular values - rank).
pub fn rank_loss(matrices: &[&[f64]], n: u64) -> usize {
    matrices.iter().map(|singular_values| singular_values.len() - matrix_rank(singular_values, n)).sum()
}

/// Number of eigenvalues below 1e-6, whatever the layer's scale.
pub fn weak_rank_loss(evals: &[f64]) -> usize {
    evals.iter().filter(|&&eval| eval < WEAK_RANK_THRESHOLD).count()
}

/// The largest singular value of a layer's matrices (each ascending).
pub fn sv_max(matrices: &[&[f64]]) -> f64 {
    matrices.iter().filter_map(|sv| sv.last().copied()).fold(0.0, f64::max)
}

/// The smallest singular value of a layer's matrices (each ascending). Compat: the largest of the matrices' smallest,
/// as weightwatcher.py:2853 takes it.
pub fn sv_min(matrices: &[&[f64]], mode: Mode) -> f64 {
    let smallest = matrices.iter().filter_map(|sv| sv.first().copied());
    match mode {
        Mode::Compat => smallest.fold(0.0, f64::max),
        Mode::Strict => smallest.reduce(f64::min).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_counts_above_the_tolerance_of_numpy() {
        let tolerance = 4.0 * 10.0 * f64::EPSILON;
        assert_eq!(matrix_rank(&[0.0, tolerance, tolerance * 1.01, 4.0], 10), 2);
        assert_eq!(matrix_rank(&[0.0, 0.0], 10), 0);
        assert_eq!(matrix_rank(&[], 10), 0);
    }

    #[test]
    fn losses_add_over_matrices() {
        assert_eq!(rank_loss(&[&[0.0, 1.0], &[0.0, 0.0, 2.0], &[1.0, 1.0]], 3), 3);
        assert_eq!(weak_rank_loss(&[0.0, 9.9e-7, 1e-6, 1.0]), 2);
    }

    #[test]
    fn the_smallest_singular_value_in_both_modes() {
        let matrices: [&[f64]; 2] = [&[0.5, 3.0], &[0.25, 7.0]];
        assert_eq!(sv_min(&matrices, Mode::Strict), 0.25);
        assert_eq!(sv_min(&matrices, Mode::Compat), 0.5);
        assert_eq!(sv_max(&matrices), 7.0);
    }
}
