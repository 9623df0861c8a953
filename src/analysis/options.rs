//! What to compute. The options are part of every result's identity.

use crate::layer::{Conv, LayerOptions};
use crate::spectrum::{MethodChoice, SpectrumOptions};
use serde::Serialize;

/// Whose numbers to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub enum Compat {
    /// Ours: WeightWatcher's definitions with its defects mended (docs/metrics.md lists each).
    #[default]
    #[serde(rename = "none")]
    None,
    /// Those of WeightWatcher 0.7.7 on a CPU, defects included.
    #[serde(rename = "ww-0.7.7")]
    Ww077,
}

/// What to compute for each layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Default)]
pub struct Options {
    /// Whose numbers to give.
    pub compat: Compat,
    /// How tensors become layers.
    pub layers: LayerOptions,
    /// How eigenvalues are found.
    pub method: MethodChoice,
    /// The ERG (trace-log, detX) condition.
    pub erg: bool,
    /// The Marchenko-Pastur fit of the bulk.
    pub mp: bool,
    /// The spectrum of the permuted matrix, its Marchenko-Pastur fit and correlation traps.
    pub randomize: bool,
    /// Localisation of the eigenvectors.
    pub vectors: bool,
    /// Seed of permutations and of random blocks; `None`: permutations take it from the content digest of each layer,
    /// random blocks from its shape, as they are drawn before a byte is read.
    pub seed: Option<u64>,
}

impl Options {
    /// WeightWatcher 0.7.7's defaults: its layers, its limits, its numbers.
    pub fn ww_0_7_7(conv: Conv) -> Self {
        let layers = LayerOptions {
            conv,
            max_evals: Some(15_000),
            max_n: Some(50_000),
            ww_layers: true,
            ..LayerOptions::default()
        };
        Self { compat: Compat::Ww077, layers, ..Self::default() }
    }

    /// Whether numbers are WeightWatcher's.
    pub fn is_compat(&self) -> bool {
        self.compat == Compat::Ww077
    }

    /// Whether one pass over a layer is all that is foreseen, so that it may be made in parts. The SVD may ask for
    /// another; with `--compat` it often does.
    pub fn need_one_pass(&self) -> bool {
        let again = self.randomize || self.vectors || self.is_compat();
        !again && self.method == MethodChoice::Auto
    }

    /// How eigenvalues are found. WeightWatcher takes singular values; to give its `sv_min` to seven digits the Gram
    /// matrix may only be used where every eigenvalue is far above its noise.
    pub fn spectrum(&self, threads: usize) -> SpectrumOptions {
        let floor_factor = if self.is_compat() { 2e5 } else { 64.0 };
        SpectrumOptions { method: self.method, floor_factor, threads }
    }
}
