//! Rows → the report of a model.

use super::options::Options;
use super::report::{LayerReport, ModelIdentity, ModelReport, SCHEMA_VERSION, Status, Timings, Tool};
use super::rows::skipped_row;
use super::summary::summarize;
use crate::format::Catalog;
use crate::layer::{Layers, SkipReason, Skipped, tied_candidates};
use std::collections::BTreeMap;

/// The report of a model: `rows` of its layers (in their order) and a row for every skipped tensor, in the order of
/// the catalog; an output head with the same bytes as the input embedding is counted once.
pub fn model_report(
    catalog: &Catalog,
    layers: &Layers,
    options: &Options,
    rows: Vec<LayerReport>,
    timings: Timings,
) -> ModelReport {
    let mut placed: Vec<(usize, LayerReport)> =
        layers.layers.iter().map(|layer| layer.tensor).zip(rows).collect();
    if !options.is_compat() {
        skip_tied(catalog, &mut placed);
    }
    placed.extend(layers.skipped.iter().map(|skipped| (skipped.tensor, skipped_row(catalog, skipped))));
    placed.sort_by_key(|(tensor, _)| *tensor); // stable: the parts of a tensor stay in order
    let layers: Vec<LayerReport> = placed.into_iter().map(|(_, row)| row).collect();
    let tensors: BTreeMap<String, u64> =
        catalog.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.elements())).collect();
    ModelReport {
        schema_version: SCHEMA_VERSION,
        tool: Tool::default(),
        model: ModelIdentity {
            uri: catalog.uri.clone(),
            format: catalog.format,
            files: catalog.files.iter().map(|file| file.identity().clone()).collect(),
            metadata: catalog.metadata.clone(),
            notes: catalog.notes.clone(),
        },
        options: options.clone(),
        summary: summarize(&layers, &tensors, options),
        layers,
        timings,
    }
}

/// Turns the row of an output head into a skipped one where its content is that of the input embedding.
fn skip_tied(catalog: &Catalog, placed: &mut [(usize, LayerReport)]) {
    for (embedding, head) in tied_candidates(catalog) {
        let digest_of = |tensor: usize| {
            let row = placed.iter().find(|(at, row)| *at == tensor && row.status != Status::Skipped)?;
            row.1.digest.clone()
        };
        let Some(digest) = digest_of(embedding) else { continue };
        if digest_of(head).as_ref() != Some(&digest) {
            continue;
        }
        let name = catalog.tensors.get(embedding).map(|t| t.name.clone()).unwrap_or_default();
        for (_, row) in placed.iter_mut().filter(|(at, _)| *at == head) {
            let skipped = Skipped {
                tensor: head,
                layer_id: row.layer_id,
                name: row.name.clone(),
                reason: SkipReason::Tied,
                detail: format!("the same bytes as '{name}'"),
            };
            *row = LayerReport { digest: Some(digest.clone()), ..skipped_row(catalog, &skipped) };
        }
    }
}
