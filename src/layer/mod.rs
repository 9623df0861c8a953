//! [`Catalog`](crate::format::Catalog) → [`Layer`]s: which tensors are weight matrices, how each unfolds into
//! matrices, what part it plays in the model, and why the others are not analysed.
//!
//! Every tensor ends in exactly one of two places: it gives one or more layers, or one [`Skipped`] with a reason.
//! (A tensor cut in parts may do both: a part that is too small or too large is skipped by itself.)
//!
//! | file | question |
//! |---|---|
//! | `names` | what words is a tensor's name made of |
//! | `config` | what `config.json` says of heads and blocks |
//! | `roles` | what part does it play, in which block |
//! | `quantised` | which scales belong to which codes |
//! | `classify` | is it a weight at all |
//! | `unfold` | which matrices does its shape hold |
//! | `grid` | on which grid is a convolution an operator |
//! | `fused` | where are q, k, v, gates and halves cut |
//! | `build` | is it within the limits; one row each |
//! | `compat` | what would WeightWatcher 0.7.7 do |
//! | `filter` | which of them did the user ask for |

mod build;
mod classify;
mod compat;
mod config;
mod filter;
mod fused;
mod grid;
mod names;
mod quantised;
mod roles;
mod unfold;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::format::Catalog;
pub use crate::tensor::{Dequantise, MatrixView};
pub use filter::filter;
pub use grid::Grid;
use serde::Serialize;

/// What kind of layer a weight belongs to, in WeightWatcher's words where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each is the field's name for a layer type")]
pub enum LayerType {
    Dense,
    Embedding,
    Conv1d,
    Conv2d,
    Conv3d,
    Recurrent,
    Expert,
}

/// How a convolution becomes matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Conv {
    /// One matrix (out × in) a kernel position; all their eigenvalues pooled into one ESD (WeightWatcher's default).
    #[default]
    Pool,
    /// One layer a kernel position (WeightWatcher's `pool=False`).
    Slices,
    /// One matrix out × (in · kernel positions).
    Flatten,
    /// The linear operator on a periodic grid of inputs: all its singular values make one ESD.
    Operator,
}

/// What decides how tensors become layers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct LayerOptions {
    /// How convolutions unfold.
    pub conv: Conv,
    /// Points of the grid along each dimension of a kernel, for [`Conv::Operator`].
    pub grid: u64,
    /// One layer a gate of a recurrent weight, instead of one for the whole.
    pub split_gates: bool,
    /// One layer each for q, k and v of a fused weight, instead of one for the whole.
    pub split_fused: bool,
    /// Layers with fewer eigenvalues (of all their matrices together) are skipped. WeightWatcher: 8.
    pub min_evals: u64,
    /// Layers with more are skipped; `None`: memory alone decides. WeightWatcher: 15,000.
    pub max_evals: Option<u64>,
    /// Layers whose longer side is longer are skipped. WeightWatcher: 50,000.
    pub max_n: Option<u64>,
    /// WeightWatcher's choice of layers: 2-D and 4-D tensors whose name ends in `.weight`, and its layer ids.
    pub ww_layers: bool,
}

impl Default for LayerOptions {
    fn default() -> Self {
        Self {
            conv: Conv::Pool,
            grid: 32,
            split_gates: false,
            split_fused: false,
            min_evals: 8,
            max_evals: None,
            max_n: None,
            ww_layers: false,
        }
    }
}

/// One unit of analysis: one or more matrices of equal shape in one tensor, whose eigenvalues make one ESD.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Place in the model, from 1; WeightWatcher's `layer_id` with [`LayerOptions::ww_layers`], else the place of the
    /// tensor among all tensors of the catalog.
    pub layer_id: u64,
    /// WeightWatcher's `name` = `longname`: the tensor's name without `.weight`, with a part such as `[3]`, `.q` or
    /// `.gate_i` appended where the tensor gives several layers.
    pub name: String,
    /// Index of the tensor in the catalog.
    pub tensor: usize,
    /// Kind of layer.
    pub layer_type: LayerType,
    /// Part in the model, where config and names tell: `q`, `k`, `v`, `o`, `qkv`, `gate`, `up`, `down`, `gate_up`,
    /// `embed`, `head`, `conv`, `router`, …
    pub role: Option<String>,
    /// Number of the transformer block (or stage), where the name tells.
    pub block: Option<u64>,
    /// WeightWatcher's `slice_id`: number of the part (kernel position, gate, expert) within the tensor.
    pub slice_id: Option<u64>,
    /// The matrices, all of the same shape, in order.
    pub matrices: Vec<MatrixView>,
    /// `None`: the ESD is that of `matrices`. Else they are the slices of a kernel, one a position, and the ESD is that
    /// of the convolution on this grid: of one matrix of the same shape for each frequency.
    pub operator: Option<Grid>,
    /// Longer side of each matrix (in compatibility mode possibly swapped, as WeightWatcher does; reported only).
    pub n: u64,
    /// Shorter side of each matrix (see `n`).
    pub m: u64,
    /// WeightWatcher's receptive field size `rf`: kernel positions; 1 for dense layers.
    pub rf: u64,
    /// Factor on W: WeightWatcher's `conv2d_norm` = sqrt(count / 2) for a 4-D tensor unfolded by pool (count 1) or
    /// slices (count = rf); 1 otherwise.
    pub scale: f64,
    /// Whether elements are rounded to f32 first: WeightWatcher converts every tensor (RMT_Util.py:126).
    pub as_f32: bool,
    /// How stored codes become numbers; `None`: the elements are the numbers.
    pub dequantise: Option<Dequantise>,
    /// Something worth telling that does not stop the analysis, e.g. tied to another tensor.
    pub note: Option<String>,
}

impl Layer {
    /// Rows and columns of one matrix as stored.
    pub fn matrix_shape(&self) -> (u64, u64) {
        self.matrices.first().map_or((0, 0), |view| (view.rows, view.cols))
    }

    /// Number of matrices whose eigenvalues make the ESD: of an operator one a frequency.
    pub fn matrix_count(&self) -> u64 {
        self.operator.map_or(self.matrices.len() as u64, |grid| grid.frequencies())
    }

    /// Number of eigenvalues of the layer: matrices × their shorter side.
    pub fn num_evals(&self) -> u64 {
        let (rows, cols) = self.matrix_shape();
        self.matrix_count().saturating_mul(rows.min(cols))
    }
}

/// Why a tensor is not analysed: a word for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SkipReason {
    /// A 1-D tensor added to activations.
    Bias,
    /// The gain of a normalisation layer, or its running statistics.
    Norm,
    /// A tensor of rank 0, or of one element.
    Scalar,
    /// Not a parameter: position ids, masks, counters, rotary frequencies, STFT bases named as buffers.
    Buffer,
    /// State of an optimizer.
    OptimizerState,
    /// A 1-D tensor of no known use, or one whose rank is not analysed.
    NotAMatrix,
    /// A dimension is zero.
    Empty,
    /// Fewer eigenvalues than `min_evals`.
    TooFewEvals,
    /// More eigenvalues than `max_evals`, or a longer side than `max_N`.
    TooLarge,
    /// An element type that is not decoded.
    UnsupportedDtype,
    /// Integers that are not weights, or codes whose scales are missing or packed in an unknown way.
    Integer,
    /// The scales of a quantised tensor: used with it.
    Scale,
    /// The same bytes as another tensor (tied embeddings), analysed there.
    Tied,
    /// Left out by WeightWatcher 0.7.7, whose choice of layers was asked for.
    NotInWeightwatcher,
    /// Left out by the user's filter.
    Filtered,
}

impl SkipReason {
    /// The word as reports print it, e.g. `TOO_FEW_EVALS`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Bias => "BIAS",
            Self::Norm => "NORM",
            Self::Scalar => "SCALAR",
            Self::Buffer => "BUFFER",
            Self::OptimizerState => "OPTIMIZER_STATE",
            Self::NotAMatrix => "NOT_A_MATRIX",
            Self::Empty => "EMPTY",
            Self::TooFewEvals => "TOO_FEW_EVALS",
            Self::TooLarge => "TOO_LARGE",
            Self::UnsupportedDtype => "UNSUPPORTED_DTYPE",
            Self::Integer => "INTEGER",
            Self::Scale => "SCALE",
            Self::Tied => "TIED",
            Self::NotInWeightwatcher => "NOT_IN_WEIGHTWATCHER",
            Self::Filtered => "FILTERED",
        }
    }
}

/// A tensor (or, with `--split-*`, a part of one) that is not analysed, and why.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// Index of the tensor in the catalog.
    pub tensor: usize,
    /// WeightWatcher's or our layer id, as for [`Layer::layer_id`]; `None` where the tensor has none.
    pub layer_id: Option<u64>,
    /// As [`Layer::name`].
    pub name: String,
    /// Why, for machines.
    pub reason: SkipReason,
    /// Why, for people: one clause with the figures, e.g. `2 eigenvalues < min_evals 8`.
    pub detail: String,
}

/// What a catalog came to.
#[derive(Debug, Default)]
pub struct Layers {
    /// What is analysed, in the order of the catalog.
    pub layers: Vec<Layer>,
    /// What is not, in the order of the catalog.
    pub skipped: Vec<Skipped>,
}

/// Decides what every tensor of the catalog is. Pure, and never fails: what is odd is skipped with a reason.
///
/// With [`LayerOptions::ww_layers`] the choice, the ids and the reported N and M are WeightWatcher's; there
/// `max_evals` and `max_n` default to its 15,000 and 50,000, and nothing is split.
pub fn layers(catalog: &Catalog, options: &LayerOptions) -> Layers {
    if options.ww_layers { compat::layers(catalog, options) } else { build::layers(catalog, options) }
}

/// Pairs (input embedding, output head or further embedding) of the same shape and dtype: tied if their bytes are
/// equal, which only a digest can tell. Positions in the catalog; the embedding comes first in each pair.
pub fn tied_candidates(catalog: &Catalog) -> Vec<(usize, usize)> {
    roles::tied_candidates(catalog)
}
