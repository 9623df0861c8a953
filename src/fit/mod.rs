//! Eigenvalues → power law and Marchenko-Pastur law.
//!
//! Everything here is a pure function of ascending, finite, non-negative eigenvalues in f64: no threads, no input
//! or output. Each fit comes in two modes, see [`Mode`].

mod certificate;
mod marchenko_pastur;
mod power_law;
mod ww_mp;
mod xmin;

pub use certificate::{Certificate, PartialFit, partial_power_law};
pub use marchenko_pastur::{
    MarchenkoPastur, MatrixShape, MpFailure, MpLaw, TW1_99, fit_bulk, tracy_widom_edge,
};
pub use power_law::{FitFailure, PowerLaw, PowerLawOptions, WW_EVALS_THRESH, Warning, power_law, warning};
pub use ww_mp::ww_mp_fit;

/// Whose numbers are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The formulas as their papers give them, with the defects of WeightWatcher 0.7.7 mended.
    #[default]
    Strict,
    /// The numbers of WeightWatcher 0.7.7 on a CPU, defects included.
    Compat,
}

#[cfg(test)]
pub(crate) mod testing {
    //! Seeded draws for tests.

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    pub(crate) struct Draw(ChaCha8Rng);

    impl Draw {
        pub(crate) fn new(seed: u64) -> Self {
            Self(ChaCha8Rng::seed_from_u64(seed))
        }

        /// Uniform in (0, 1].
        pub(crate) fn uniform(&mut self) -> f64 {
            1.0 - self.0.random::<f64>()
        }

        pub(crate) fn below(&mut self, n: usize) -> usize {
            (self.uniform() * n as f64) as usize % n
        }

        pub(crate) fn normal(&mut self) -> f64 {
            (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
        }

        /// Density ∝ x^-alpha on x ≥ 1.
        pub(crate) fn pareto(&mut self, alpha: f64) -> f64 {
            self.uniform().powf(-1.0 / (alpha - 1.0))
        }

        pub(crate) fn many(&mut self, n: usize, mut draw: impl FnMut(&mut Self) -> f64) -> Vec<f64> {
            let mut values: Vec<f64> = (0..n).map(|_| draw(self)).collect();
            values.sort_by(f64::total_cmp);
            values
        }

        /// Eigenvalues of WᵀW for an n×m matrix W of normal elements plus `spikes` on its diagonal.
        pub(crate) fn wishart(&mut self, n: usize, m: usize, spikes: &[f64]) -> Vec<f64> {
            let mut w = faer::Mat::from_fn(n, m, |_, _| self.normal());
            for (i, spike) in spikes.iter().enumerate() {
                w[(i, i)] += spike;
            }
            let mut evals: Vec<f64> =
                w.singular_values().expect("converges").iter().map(|sv| sv * sv).collect();
            evals.sort_by(f64::total_cmp);
            evals
        }
    }
}
