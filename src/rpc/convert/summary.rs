//! What a model's rows come to.

use super::words;
use crate::analysis::{Summary, Worst};
use crate::rpc::proto::v1;
use crate::{Error, Result};
use std::collections::BTreeMap;

type Means = BTreeMap<&'static str, f64>;

impl From<&Summary> for v1::Summary {
    fn from(summary: &Summary) -> Self {
        let by_role = |(role, means): (&String, &Means)| (role.clone(), v1::Means { means: to_words(means) });
        Self {
            tensors: summary.tensors,
            layers_analysed: summary.layers_analysed,
            layers_failed: summary.layers_failed,
            skipped: summary.skipped,
            skipped_by_reason: summary.skipped_by_reason.clone().into_iter().collect(),
            parameters: summary.parameters,
            parameters_analysed: summary.parameters_analysed,
            coverage: summary.coverage,
            over_trained: summary.over_trained,
            under_trained: summary.under_trained,
            means: to_words(&summary.means),
            by_role: summary.by_role.iter().map(by_role).collect(),
            worst: summary.worst.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Summary> for Summary {
    type Error = Error;

    /// # Errors
    /// `InvalidArgument`: the mean of a metric that this version does not know.
    fn try_from(summary: v1::Summary) -> Result<Self> {
        let by_role = |(role, of): (String, v1::Means)| Ok((role, known_means(of.means, "by_role")?));
        Ok(Self {
            tensors: summary.tensors,
            layers_analysed: summary.layers_analysed,
            layers_failed: summary.layers_failed,
            skipped: summary.skipped,
            skipped_by_reason: summary.skipped_by_reason.into_iter().collect(),
            parameters: summary.parameters,
            parameters_analysed: summary.parameters_analysed,
            coverage: summary.coverage,
            over_trained: summary.over_trained,
            under_trained: summary.under_trained,
            means: known_means(summary.means, "means")?,
            by_role: summary.by_role.into_iter().map(by_role).collect::<Result<_>>()?,
            worst: summary.worst.into_iter().map(Into::into).collect(),
        })
    }
}

impl From<&Worst> for v1::WorstLayer {
    fn from(worst: &Worst) -> Self {
        Self { name: worst.name.clone(), alpha: worst.alpha, warning: worst.warning.clone() }
    }
}

impl From<v1::WorstLayer> for Worst {
    fn from(worst: v1::WorstLayer) -> Self {
        Self { name: worst.name, alpha: worst.alpha, warning: worst.warning }
    }
}

fn to_words(means: &Means) -> BTreeMap<String, f64> {
    means.iter().map(|(name, mean)| ((*name).to_owned(), *mean)).collect()
}

fn known_means(means: BTreeMap<String, f64>, field: &str) -> Result<Means> {
    let known = |(name, mean): (String, f64)| Ok((words::known(words::MEANS, &name, field)?, mean));
    means.into_iter().map(known).collect()
}
