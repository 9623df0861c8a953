//! A layer against itself with its elements shuffled: what of its spectrum is order, what is chance.

use crate::fit::{MatrixShape, tracy_widom_edge};

/// A spectrum against that of the shuffled weights.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct RandomDistance {
    /// Largest eigenvalue of the shuffled weights.
    pub max_rand_eval: f64,
    /// [`jensen_shannon_distance`] of the two spectra; NaN if their lengths differ.
    pub rand_distance: f64,
    /// Σ |λ_i - λ'_i| / Σ λ_i of the sorted spectra: the Wasserstein distance (order 1) of the two ESDs in units of the
    /// mean eigenvalue; NaN if their lengths differ. Ours, see [`compare_random`].
    pub rand_wasserstein: f64,
    /// λ'_max / λ_max: near λ₊/λ_max for weights that are not heavy-tailed.
    pub ww_softrank: f64,
    /// λ_max - λ'_max.
    pub ww_maxdist: f64,
}

/// Compares ascending `evals` with the ascending eigenvalues of one shuffle of the same weights.
///
/// `rand_distance` has WeightWatcher's formula in both modes, because published thresholds and tables are in it,
/// although it compares two sorted lists as if their indices were outcomes; a true distance of the two densities is
/// given beside it. (WeightWatcher's own numbers come from shuffles without a seed, `max_rand_eval` from another
/// shuffle than the rest, and cannot be reproduced digit by digit.)
pub fn compare_random(evals: &[f64], shuffled: &[f64]) -> RandomDistance {
    let lambda_max = evals.last().copied().unwrap_or(f64::NAN);
    let max_rand_eval = shuffled.last().copied().unwrap_or(f64::NAN);
    RandomDistance {
        max_rand_eval,
        rand_distance: jensen_shannon_distance(evals, shuffled),
        rand_wasserstein: wasserstein(evals, shuffled),
        ww_softrank: max_rand_eval / lambda_max,
        ww_maxdist: lambda_max - max_rand_eval,
    }
}

/// Square root of the Jensen-Shannon divergence (natural logarithm) of two lists, each normalised to sum 1
/// (RMT_Util.py:1078-1097): 0 for proportional lists of equal sum, at most √ln 2. NaN if their lengths differ.
pub fn jensen_shannon_distance(p: &[f64], q: &[f64]) -> f64 {
    if p.len() != q.len() {
        return f64::NAN;
    }
    let middle: Vec<f64> = p.iter().zip(q).map(|(a, b)| 0.5 * (a + b)).collect();
    // Rounding can take the divergence of equal lists below 0.
    (0.5 * (relative_entropy(p, &middle) + relative_entropy(q, &middle))).max(0.0).sqrt()
}

/// scipy.stats.entropy(p, q).
fn relative_entropy(p: &[f64], q: &[f64]) -> f64 {
    let (sum_p, sum_q) = (p.iter().sum::<f64>(), q.iter().sum::<f64>());
    let terms = p.iter().zip(q).map(|(a, b)| (a / sum_p, b / sum_q));
    terms.map(|(a, b)| if a == 0.0 { 0.0 } else { a * (a / b).ln() }).sum()
}

fn wasserstein(evals: &[f64], shuffled: &[f64]) -> f64 {
    if evals.len() != shuffled.len() {
        return f64::NAN;
    }
    evals.iter().zip(shuffled).map(|(a, b)| (a - b).abs()).sum::<f64>() / evals.iter().sum::<f64>()
}

/// Correlation traps (arXiv 2602.02859): eigenvalues of the shuffled weights that noise of the same element variance,
/// Σλ / (N·M·count), would reach in one matrix of a hundred only ([`tracy_widom_edge`]).
///
/// A shuffle destroys order but keeps the elements: what stays outside is due to single large elements, or to a
/// mean that is not 0.
pub fn num_traps(shuffled: &[f64], shape: MatrixShape) -> usize {
    let (n, m) = (shape.n as f64, shape.m as f64);
    let variance = shuffled.iter().sum::<f64>() / (n * m * shape.count.max(1) as f64);
    let edge = tracy_widom_edge(n, m, variance);
    shuffled.iter().filter(|&&eval| eval > edge).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::testing::Draw;

    /// weightwatcher.RMT_Util.jensen_shannon_distance(p, q)
    #[test]
    fn the_distance_is_weightwatchers() {
        let cases: [(&[f64], &[f64], f64); 3] = [
            (&[1.0, 2.0, 3.0, 10.0], &[2.0, 3.0, 5.0, 6.0], JSD_SAME_SUM),
            (&[0.0, 0.5, 4.0], &[1.0, 1.0, 1.5], JSD_OTHER_SUM),
            (&[1.0, 2.0], &[1.0, 2.0], 0.0),
        ];
        for (p, q, expected) in cases {
            let found = jensen_shannon_distance(p, q);
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    const JSD_SAME_SUM: f64 = 0.179_286_016_447_529_3;
    const JSD_OTHER_SUM: f64 = 0.402_630_081_107_258_8;

    #[test]
    fn extremes_and_wasserstein() {
        let found = compare_random(&[1.0, 2.0, 9.0], &[2.0, 4.0, 6.0]);
        assert_eq!((found.max_rand_eval, found.ww_softrank, found.ww_maxdist), (6.0, 6.0 / 9.0, 3.0));
        assert_eq!(found.rand_wasserstein, 0.5);
    }

    #[test]
    fn spectra_of_different_length_have_no_distance() {
        let found = compare_random(&[1.0, 2.0], &[1.0]);
        assert!(found.rand_distance.is_nan() && found.rand_wasserstein.is_nan());
    }

    #[test]
    fn one_huge_element_is_a_trap_and_noise_is_none() {
        let shape = MatrixShape { n: 120, m: 80, count: 1 };
        assert_eq!(num_traps(&Draw::new(1).wishart(120, 80, &[]), shape), 0);
        assert_eq!(num_traps(&Draw::new(2).wishart(120, 80, &[40.0]), shape), 1);
    }
}
