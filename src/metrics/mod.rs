//! Eigenvalues → norms, ranks, entropy, ERG, random baselines, and the localisation of eigenvectors.
//!
//! Small pure functions of ascending eigenvalues of WᵀW in f64. Each number's formula, unit and source, and where
//! the two [`Mode`](crate::fit::Mode)s differ, is in `docs/metrics.md`.

mod entropy;
mod erg;
mod norms;
mod random;
mod rank;
mod vectors;

pub use entropy::matrix_entropy;
pub use erg::{Erg, erg};
pub use norms::{Norms, alpha_weighted, log_alpha_norm, norms};
pub use random::{RandomDistance, compare_random, jensen_shannon_distance, num_traps};
pub use rank::{WEAK_RANK_THRESHOLD, matrix_rank, rank_loss, sv_max, sv_min, weak_rank_loss};
pub use vectors::{VectorMetrics, mean_over_tail_and_bulk, vector_metrics};
