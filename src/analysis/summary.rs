//! What a model's rows come to.

use super::options::Options;
use super::report::{LayerReport, Status};
use serde::Serialize;
use std::collections::BTreeMap;

/// Counts, means and the layers to look at first.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Summary {
    /// Tensors in the model.
    pub tensors: u64,
    /// Layers analysed (status success).
    pub layers_analysed: u64,
    /// Layers whose analysis or fit failed.
    pub layers_failed: u64,
    /// Rows skipped.
    pub skipped: u64,
    /// Rows skipped, by reason.
    pub skipped_by_reason: BTreeMap<String, u64>,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Elements of the tensors of which a layer was analysed.
    pub parameters_analysed: u64,
    /// `parameters_analysed / parameters`.
    pub coverage: f64,
    /// Layers with alpha < 2.
    pub over_trained: u64,
    /// Layers with alpha > 6.
    pub under_trained: u64,
    /// Means over analysed layers, under WeightWatcher's `get_summary` keys. A failed fit enters no mean of ours.
    pub means: BTreeMap<&'static str, f64>,
    /// The same by role.
    pub by_role: BTreeMap<String, BTreeMap<&'static str, f64>>,
    /// The layers farthest from the range 2 ≤ alpha ≤ 6, the farthest first; at most ten.
    pub worst: Vec<Worst>,
}

/// A layer to look at.
#[derive(Debug, Clone, Serialize)]
pub struct Worst {
    /// Its name.
    pub name: String,
    /// Its alpha.
    pub alpha: f64,
    /// Its warning.
    pub warning: String,
}

type Metric = (&'static str, fn(&LayerReport) -> Option<f64>);

/// WeightWatcher's `get_summary` metrics, in its order (weightwatcher.py:3692).
const METRICS: [Metric; 7] = [
    ("log_norm", |row| row.norms.log_norm),
    ("alpha", LayerReport::whole_alpha),
    ("alpha_weighted", |row| row.norms.alpha_weighted.filter(|_| row.is_whole())),
    ("log_alpha_norm", |row| row.norms.log_alpha_norm),
    ("log_spectral_norm", |row| row.norms.log_spectral_norm),
    ("stable_rank", |row| row.norms.stable_rank),
    ("mp_softrank", |row| row.mp.as_ref().and_then(|mp| mp.mp_softrank)),
];

/// Sums rows up. `tensors` are the elements of each tensor of the model, by name.
pub fn summarize(rows: &[LayerReport], tensors: &BTreeMap<String, u64>, options: &Options) -> Summary {
    let analysed: BTreeMap<&str, u64> =
        rows.iter().filter(|r| r.has_esd).map(|r| (r.tensor.as_str(), r.parameters)).collect();
    let parameters: u64 = tensors.values().sum();
    let parameters_analysed =
        analysed.iter().map(|(tensor, own)| tensors.get(*tensor).copied().unwrap_or(*own)).sum::<u64>();
    let count = |status| rows.iter().filter(|r| r.status == status).count() as u64;
    let warned = |word| rows.iter().filter(|r| r.warning.as_deref() == Some(word)).count() as u64;
    // WeightWatcher's mean takes the −1 of a failed fit for an alpha; so do we if asked for its numbers
    let in_mean = |r: &&LayerReport| r.has_esd && (r.status == Status::Success || options.is_compat());
    let mut by_role: BTreeMap<String, Vec<&LayerReport>> = BTreeMap::new();
    for row in rows.iter().filter(in_mean) {
        if let Some(role) = &row.role {
            by_role.entry(role.clone()).or_default().push(row);
        }
    }
    let mut skipped_by_reason = BTreeMap::new();
    for row in rows.iter().filter(|r| r.status == Status::Skipped) {
        *skipped_by_reason.entry(row.reason.clone().unwrap_or_default()).or_insert(0) += 1;
    }
    Summary {
        tensors: tensors.len() as u64,
        layers_analysed: count(Status::Success),
        layers_failed: count(Status::Failed),
        skipped: count(Status::Skipped),
        skipped_by_reason,
        parameters,
        parameters_analysed,
        coverage: if parameters == 0 { 0.0 } else { parameters_analysed as f64 / parameters as f64 },
        over_trained: warned("over-trained"),
        under_trained: warned("under-trained"),
        means: means(&rows.iter().filter(in_mean).collect::<Vec<_>>()),
        by_role: by_role.into_iter().map(|(role, rows)| (role, means(&rows))).collect(),
        worst: worst(rows),
    }
}

fn means(rows: &[&LayerReport]) -> BTreeMap<&'static str, f64> {
    let mean = |of: fn(&LayerReport) -> Option<f64>| {
        let values: Vec<f64> = rows.iter().filter_map(|row| of(row)).filter(|x| x.is_finite()).collect();
        // + 0.0: a mean of -0.0 is 0, which messages without field presence cannot tell apart
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64 + 0.0)
    };
    METRICS.iter().filter_map(|(name, of)| Some((*name, mean(*of)?))).collect()
}

/// How far alpha is outside 2 … 6, as a ratio, so that 1.5 and 8 weigh alike.
pub fn distance_from_range(row: &LayerReport) -> f64 {
    match row.whole_alpha() {
        Some(alpha) if row.status == Status::Success && alpha < 2.0 => 2.0 / alpha.max(1e-3),
        Some(alpha) if row.status == Status::Success && alpha > 6.0 => alpha / 6.0,
        _ => 0.0,
    }
}

fn worst(rows: &[LayerReport]) -> Vec<Worst> {
    let mut outside: Vec<&LayerReport> = rows.iter().filter(|row| distance_from_range(row) > 0.0).collect();
    outside.sort_by(|a, b| distance_from_range(b).total_cmp(&distance_from_range(a)));
    let entry = |row: &&LayerReport| {
        let warning = row.warning.clone().unwrap_or_default();
        Some(Worst { name: row.name.clone(), alpha: row.fit.alpha?, warning })
    };
    outside.iter().take(10).filter_map(entry).collect()
}
