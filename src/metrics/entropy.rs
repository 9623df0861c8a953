//! The entropy of a spectrum as a share of the greatest that its rank allows.

use crate::fit::Mode;

/// WeightWatcher's `EPSILON`, which it adds to each probability and to the rank.
const WW_EPSILON: f64 = 1e-10;

/// `-Σ p ln p / ln(rank)` with p = λ/Σλ (Martin & Mahoney, JMLR 22, 2021): 0 for one direction, 1 for all equal.
///
/// Strict: 0·ln 0 = 0; a rank of 1 or 0 gives 0. Compat: 1e-10 is added to each p, which is not normalised again, and
/// to the rank (RMT_Util.py:336-357): a rank of 1 gives about 45, a matrix of zeros NaN.
pub fn matrix_entropy(evals: &[f64], rank: usize, mode: Mode) -> f64 {
    let sum: f64 = evals.iter().sum();
    match mode {
        Mode::Compat => {
            let plogp = |eval: &f64| {
                let p = eval / sum + WW_EPSILON;
                p * p.ln()
            };
            -evals.iter().map(plogp).sum::<f64>() / (rank as f64 + WW_EPSILON).ln()
        }
        Mode::Strict if rank <= 1 || sum <= 0.0 => 0.0,
        Mode::Strict => {
            let plogp: f64 =
                evals.iter().map(|eval| eval / sum).filter(|&p| p > 0.0).map(|p| p * p.ln()).sum();
            // Rounding, and values below the rank's tolerance, can pass the ends by a hair.
            (-plogp / (rank as f64).ln()).clamp(0.0, 1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_eigenvalues_have_entropy_one() {
        assert!((matrix_entropy(&[0.3; 7], 7, Mode::Strict) - 1.0).abs() < 1e-15);
        assert_eq!(matrix_entropy(&[0.0, 0.3, 0.3], 2, Mode::Strict), 1.0);
    }

    #[test]
    fn one_direction_has_entropy_zero() {
        assert_eq!(matrix_entropy(&[0.0, 0.0, 5.0], 1, Mode::Strict), 0.0);
        assert_eq!(matrix_entropy(&[0.0, 0.0], 0, Mode::Strict), 0.0);
    }

    /// weightwatcher.RMT_Util.matrix_entropy(numpy.sqrt(evals), 10)
    #[test]
    fn compat_is_weightwatchers() {
        let close = |evals: &[f64], rank, expected: f64| {
            let found = matrix_entropy(evals, rank, Mode::Compat);
            assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
        };
        close(&[0.5, 1.0, 2.0, 8.0], 4, ENTROPY_OF_FOUR);
        close(&[0.0, 0.0, 5.0], 1, ENTROPY_OF_RANK_ONE);
        assert!(matrix_entropy(&[0.0, 0.0], 0, Mode::Compat).is_nan());
    }

    const ENTROPY_OF_FOUR: f64 = 0.653_085_326_108_989_3;
    const ENTROPY_OF_RANK_ONE: f64 = 45.051_698_051_748_915;

    proptest! {
        #[test]
        fn entropy_is_between_zero_and_one(evals in prop::collection::vec(0.0..1e9_f64, 1..50)) {
            let rank = evals.iter().filter(|&&eval| eval > 0.0).count();
            let entropy = matrix_entropy(&evals, rank, Mode::Strict);
            prop_assert!((0.0..=1.0).contains(&entropy), "{}", entropy);
        }
    }
}
