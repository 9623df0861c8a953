//! Options + one layer → [`LayerReport`]: the whole science on one screen ([`analyze_layer`]). [`LayerReport`]s →
//! [`ModelReport`].

mod asked;
mod input;
mod layer;
mod model;
mod options;
mod partial;
mod report;
mod rows;
mod shard;
mod summary;

#[cfg(test)]
mod tests;

pub use asked::{Asked, Field, Naming};
pub use input::LayerInput;
pub use layer::{Analysed, analyze_layer};
pub use model::model_report;
pub use options::{Compat, Options};
pub use partial::layer_spectrum;
pub use report::{
    ALGORITHM_VERSION, ErgColumns, EsdColumns, FitColumns, LayerReport, ModelIdentity, ModelReport,
    MpColumns, NormColumns, PartialColumns, RandomColumns, SCHEMA_VERSION, Status, Timings, Tool,
    VectorColumns,
};
pub use rows::{adopted_row, described_row, failed_row, row_for_others, skipped_row};
pub use shard::{shard_gram, shards_of};
pub use summary::{Summary, Worst, distance_from_range, summarize};
