//! One row a layer, under WeightWatcher's column names, and what a model's rows come to.

use super::options::Options;
use super::summary::Summary;
use crate::source::ObjectIdentity;
use serde::Serialize;
use std::collections::BTreeMap;

/// How far a layer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Analysed, with a power-law fit.
    Success,
    /// Analysed or tried, without a power-law fit; `reason` says why.
    Failed,
    /// Not analysed; `reason` says why.
    #[default]
    Skipped,
}

/// One row. A value that does not apply, or could not be computed, is `None`; it is never a stand-in number (except in
/// compatibility mode, where WeightWatcher writes −1).
#[derive(Debug, Clone, Serialize, Default)]
#[allow(missing_docs, reason = "each column is defined with its formula in docs/metrics.md")]
pub struct LayerReport {
    pub layer_id: Option<u64>,
    pub name: String,
    pub longname: String,
    pub layer_type: Option<String>,
    #[serde(rename = "N")]
    pub n: Option<u64>,
    #[serde(rename = "M")]
    pub m: Option<u64>,
    pub rf: Option<u64>,
    #[serde(rename = "Q")]
    pub q: Option<f64>,
    pub slice_id: Option<u64>,
    pub status: Status,
    pub reason: Option<String>,
    pub detail: Option<String>,
    pub warning: Option<String>,
    pub has_esd: bool,
    #[serde(flatten)]
    pub esd: EsdColumns,
    #[serde(flatten)]
    pub partial: Option<PartialColumns>,
    #[serde(flatten)]
    pub fit: FitColumns,
    #[serde(flatten)]
    pub norms: NormColumns,
    #[serde(flatten)]
    pub erg: Option<ErgColumns>,
    #[serde(flatten)]
    pub mp: Option<MpColumns>,
    #[serde(flatten)]
    pub random: Option<RandomColumns>,
    #[serde(flatten)]
    pub vectors: Option<VectorColumns>,
    pub tensor: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub parameters: u64,
    pub role: Option<String>,
    pub block: Option<u64>,
    pub digest: Option<String>,
}

impl LayerReport {
    /// Whether the row's fit is that of the whole spectrum. A failed fit has no alpha in either case.
    pub fn is_whole(&self) -> bool {
        let certificate = self.partial.as_ref().map(|partial| partial.certificate);
        matches!(certificate, None | Some(Some("certified" | "exact")))
    }

    /// The row's alpha, if it is that of the whole spectrum.
    pub fn whole_alpha(&self) -> Option<f64> {
        self.fit.alpha.filter(|_| self.is_whole())
    }
}

/// What the ESD itself says.
#[derive(Debug, Clone, Serialize, Default)]
#[allow(missing_docs, reason = "docs/metrics.md")]
pub struct EsdColumns {
    pub num_evals: Option<u64>,
    pub sv_max: Option<f64>,
    pub sv_min: Option<f64>,
    pub rank_loss: Option<u64>,
    pub weak_rank_loss: Option<u64>,
    pub lambda_max: Option<f64>,
    pub method: Option<&'static str>,
    pub noise_floor: Option<f64>,
}

/// How much of the spectrum is known, and what that says of the fit; only with a randomized method.
#[derive(Debug, Clone, Serialize, Default)]
#[allow(missing_docs, reason = "docs/metrics.md")]
pub struct PartialColumns {
    pub k: Option<u64>,
    pub certificate: Option<&'static str>,
    pub certified_up_to: Option<u64>,
    pub residual_max: Option<f64>,
    pub alpha_error: Option<f64>,
}

/// The power-law fit of the tail.
#[derive(Debug, Clone, Serialize, Default)]
#[allow(missing_docs, reason = "docs/metrics.md")]
pub struct FitColumns {
    pub alpha: Option<f64>,
    pub xmin: Option<f64>,
    pub xmax: Option<f64>,
    #[serde(rename = "D")]
    pub d: Option<f64>,
    #[serde(rename = "D_two_sided")]
    pub d_two_sided: Option<f64>,
    pub sigma: Option<f64>,
    pub num_pl_spikes: Option<i64>,
    pub alpha_lo: Option<f64>,
    pub alpha_hi: Option<f64>,
    pub xmin_tied: Option<bool>,
}

/// Norms, ranks, entropy.
#[derive(Debug, Clone, Serialize, Default)]
#[allow(missing_docs, reason = "docs/metrics.md")]
pub struct NormColumns {
    pub norm: Option<f64>,
    pub log_norm: Option<f64>,
    pub spectral_norm: Option<f64>,
    pub log_spectral_norm: Option<f64>,
    pub alpha_weighted: Option<f64>,
    pub log_alpha_norm: Option<f64>,
    pub stable_rank: Option<f64>,
    pub matrix_rank: Option<u64>,
    pub entropy: Option<f64>,
}

/// The ERG (trace-log) condition.
#[derive(Debug, Clone, Serialize, Default)]
#[allow(missing_docs, reason = "docs/metrics.md")]
pub struct ErgColumns {
    #[serde(rename = "detX_num")]
    pub detx_num: Option<u64>,
    #[serde(rename = "num_ERG_spikes")]
    pub num_erg_spikes: Option<u64>,
    #[serde(rename = "ERG_gap")]
    pub erg_gap: Option<i64>,
    #[serde(rename = "detX_val")]
    pub detx_val: Option<f64>,
    #[serde(rename = "detX_val_unrescaled")]
    pub detx_val_unrescaled: Option<f64>,
    #[serde(rename = "delta_lambda_min")]
    pub delta_lambda_min: Option<f64>,
}

/// The Marchenko-Pastur fit of the bulk.
#[derive(Debug, Clone, Serialize, Default)]
#[allow(missing_docs, reason = "docs/metrics.md")]
pub struct MpColumns {
    pub num_spikes: Option<i64>,
    pub sigma_mp: Option<f64>,
    pub mp_softrank: Option<f64>,
    #[serde(rename = "W_scale")]
    pub w_scale: Option<f64>,
    pub bulk_max: Option<f64>,
    pub bulk_min: Option<f64>,
    pub mp_distance: Option<f64>,
    pub mp_converged: Option<bool>,
}

/// The permuted matrix.
#[derive(Debug, Clone, Serialize, Default)]
#[allow(missing_docs, reason = "docs/metrics.md")]
pub struct RandomColumns {
    pub max_rand_eval: Option<f64>,
    pub rand_distance: Option<f64>,
    pub rand_wasserstein: Option<f64>,
    pub ww_softrank: Option<f64>,
    pub ww_maxdist: Option<f64>,
    pub rand_num_spikes: Option<i64>,
    pub num_traps: Option<i64>,
    pub rand_sigma_mp: Option<f64>,
    pub rand_mp_softrank: Option<f64>,
    #[serde(rename = "rand_W_scale")]
    pub rand_w_scale: Option<f64>,
    pub rand_bulk_max: Option<f64>,
    pub rand_bulk_min: Option<f64>,
    pub seed: Option<u64>,
}

/// Localisation of the eigenvectors of the tail (λ ≥ xmin) and of the bulk, means over the vectors.
#[derive(Debug, Clone, Serialize, Default)]
#[allow(missing_docs, reason = "docs/metrics.md")]
pub struct VectorColumns {
    pub tail_localization_ratio: Option<f64>,
    pub tail_participation_ratio: Option<f64>,
    pub tail_vector_entropy: Option<f64>,
    pub bulk_localization_ratio: Option<f64>,
    pub bulk_participation_ratio: Option<f64>,
    pub bulk_vector_entropy: Option<f64>,
}

/// Version of the JSON report; rises when a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// Version of the numerics: a result computed by another version is another result.
pub const ALGORITHM_VERSION: u32 = 2;

/// What made a report.
#[derive(Debug, Clone, Serialize)]
pub struct Tool {
    /// `spectrald`.
    pub name: &'static str,
    /// The package's version.
    pub version: &'static str,
    /// [`ALGORITHM_VERSION`].
    pub algorithm: u32,
}

impl Default for Tool {
    fn default() -> Self {
        Self { name: "spectrald", version: env!("CARGO_PKG_VERSION"), algorithm: ALGORITHM_VERSION }
    }
}

/// What was analysed.
#[derive(Debug, Clone, Serialize)]
pub struct ModelIdentity {
    /// URI or path, without credentials.
    pub uri: String,
    /// Name of the format.
    pub format: &'static str,
    /// Every object that was read, with the version that was read.
    pub files: Vec<ObjectIdentity>,
    /// The files' own metadata.
    pub metadata: BTreeMap<String, String>,
    /// What reading it left aside, e.g. a weight file that no index lists.
    pub notes: Vec<String>,
}

/// How long it took and what it read: the only part of a report that changes from run to run.
#[derive(Debug, Clone, Copy, Serialize, Default)]
pub struct Timings {
    /// Seconds from the first read to the last row.
    pub seconds: f64,
    /// Bytes of the analysed tensors, each counted once.
    pub bytes_read: u64,
    /// Threads that computed.
    pub threads: usize,
}

/// A whole model's report.
#[derive(Debug, Clone, Serialize)]
pub struct ModelReport {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What made it.
    pub tool: Tool,
    /// What was analysed.
    pub model: ModelIdentity,
    /// With what options.
    pub options: Options,
    /// What the rows come to.
    pub summary: Summary,
    /// One row a layer or skipped tensor, in the order of the model.
    pub layers: Vec<LayerReport>,
    /// How long it took.
    pub timings: Timings,
}
