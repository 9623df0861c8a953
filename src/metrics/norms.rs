//! Norms of W from the eigenvalues of WᵀW, and the norms that the power law's exponent weights.

use crate::fit::Mode;

/// Norms of W. For a matrix of zeros the logarithms are -∞ and the stable rank is NaN.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Norms {
    /// ‖W‖²_F = Σ λ. (WeightWatcher's `norm` is the square, and so its `log_norm` twice log₁₀ ‖W‖_F.)
    pub norm: f64,
    /// log₁₀ Σ λ.
    pub log_norm: f64,
    /// λ_max = ‖W‖²₂.
    pub spectral_norm: f64,
    /// log₁₀ λ_max.
    pub log_spectral_norm: f64,
    /// Σ λ / λ_max, between 1 and the number of eigenvalues.
    pub stable_rank: f64,
}

/// The norms of ascending eigenvalues.
pub fn norms(evals: &[f64]) -> Norms {
    let norm: f64 = evals.iter().sum();
    let spectral_norm = evals.last().copied().unwrap_or_default();
    Norms {
        norm,
        log_norm: norm.log10(),
        spectral_norm,
        log_spectral_norm: spectral_norm.log10(),
        stable_rank: norm / spectral_norm,
    }
}

/// alpha-hat = alpha · log₁₀ λ_max (Martin, Peng & Mahoney, Nat. Commun. 12, 2021).
pub fn alpha_weighted(alpha: f64, spectral_norm: f64) -> f64 {
    alpha * spectral_norm.log10()
}

/// log₁₀ Σ λ^alpha, the logarithm of the Schatten norm ‖W‖_{2 alpha}^{2 alpha} (the same paper).
///
/// Strict: taken relative to λ_max, so that no power leaves the range of f64. Compat: as WeightWatcher sums it,
/// infinite where a power is (large alpha, or alpha = -1 of a failed fit with an eigenvalue of 0).
pub fn log_alpha_norm(evals: &[f64], alpha: f64, mode: Mode) -> f64 {
    let largest = evals.last().copied().unwrap_or_default();
    if mode == Mode::Compat || largest <= 0.0 {
        return evals.iter().map(|eval| eval.powf(alpha)).sum::<f64>().log10();
    }
    let relative: f64 = evals.iter().map(|eval| (eval / largest).powf(alpha)).sum();
    alpha * largest.log10() + relative.log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_of_a_known_spectrum() {
        let found = norms(&[1.0, 9.0, 90.0]);
        assert_eq!(
            found,
            Norms {
                norm: 100.0,
                log_norm: 2.0,
                spectral_norm: 90.0,
                log_spectral_norm: 90.0_f64.log10(),
                stable_rank: 100.0 / 90.0
            }
        );
        assert_eq!(alpha_weighted(3.0, 100.0), 6.0);
    }

    #[test]
    fn the_alpha_norm_does_not_overflow_in_strict() {
        let evals = [1.0, 1e10, 1e10];
        assert_eq!(log_alpha_norm(&evals, 50.0, Mode::Compat), f64::INFINITY);
        let strict = log_alpha_norm(&evals, 50.0, Mode::Strict);
        assert!((strict - (500.0 + 2.0_f64.log10())).abs() < 1e-12, "{strict}");
    }

    #[test]
    fn both_modes_agree_where_nothing_overflows() {
        let evals = [0.0, 0.3, 2.0, 17.0];
        let (compat, strict) =
            (log_alpha_norm(&evals, 2.7, Mode::Compat), log_alpha_norm(&evals, 2.7, Mode::Strict));
        assert!((compat - strict).abs() < 1e-14, "{compat} {strict}");
    }

    #[test]
    fn a_matrix_of_zeros() {
        let found = norms(&[0.0, 0.0]);
        assert_eq!((found.norm, found.log_norm), (0.0, f64::NEG_INFINITY));
        assert!(found.stable_rank.is_nan());
        assert_eq!(log_alpha_norm(&[0.0, 0.0], 2.0, Mode::Strict), f64::NEG_INFINITY);
    }
}
