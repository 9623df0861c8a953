//! A model whose headers have been read, cut into units of work.

use super::keys::{self, Key};
use super::sources::Place;
use crate::analysis::Options;
use crate::job::NewUnit;
use crate::layer::Layer;
use crate::plan::{self, Cost};
use crate::rpc::proto::v1;
use crate::run::Model;
use crate::source::ModelSource;
use std::ops::Range;
use std::sync::Arc;

/// What a unit does for its layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    /// All of it.
    Whole,
    /// One row block.
    Shard { index: u32, rows: Range<u64> },
    /// What follows from the sum of the row blocks.
    Finish { shards: u32 },
}

/// A unit of work of one layer.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    /// Index of the layer among the layers of the model.
    pub(super) layer: usize,
    pub(super) work: Work,
    pub(super) key: Key,
    pub(super) cost: Cost,
}

/// A model, its layers and what it takes to analyse them.
pub(super) struct Planned {
    pub(super) place: Place,
    pub(super) source: Arc<dyn ModelSource>,
    pub(super) model: Model,
    pub(super) options: Options,
    /// Place of each layer's row among all rows.
    pub(super) rows: Vec<u32>,
    /// Places of the skipped rows, in the order of `model.layers.skipped`.
    pub(super) skipped_rows: Vec<u32>,
    pub(super) units: Vec<Unit>,
    /// Key of each layer's work.
    pub(super) keys: Vec<Key>,
    pub(super) bytes: Vec<u64>,
}

impl Planned {
    /// Cuts the layers of `model` into units. `nonce` is the analysis's id.
    pub(super) fn new(
        place: Place,
        source: Arc<dyn ModelSource>,
        model: Model,
        (options, keep_spectra): (Options, bool),
        nonce: &str,
    ) -> Self {
        let (rows, skipped_rows) = places(&model);
        let mut planned = Self {
            place,
            source,
            rows,
            skipped_rows,
            units: Vec::new(),
            keys: Vec::new(),
            bytes: Vec::new(),
            model,
            options,
        };
        for index in 0..planned.model.layers.layers.len() {
            planned.add(index, keep_spectra, nonce);
        }
        planned
    }

    fn add(&mut self, index: usize, keep_spectra: bool, nonce: &str) {
        let Some(layer) = self.model.layers.layers.get(index) else { return };
        let plain = keys::unit_key(&self.model, layer, &self.options, nonce);
        let key = if keep_spectra { keys::with_spectrum(plain) } else { plain };
        let cost = plan::cost(&self.model.catalog, layer, &self.options);
        self.keys.push(key);
        self.bytes.push(cost.bytes);
        let Some(shards) = plan::shards(layer, &self.options) else {
            self.units.push(Unit { layer: index, work: Work::Whole, key, cost });
            return;
        };
        let count = u32::try_from(shards.len()).unwrap_or(u32::MAX);
        for (number, rows) in (0..).zip(shards) {
            let cost = plan::shard_cost(&self.model.catalog, layer, &rows);
            let shard = keys::shard_key(&key, &rows);
            self.units.push(Unit {
                layer: index,
                work: Work::Shard { index: number, rows },
                key: shard,
                cost,
            });
        }
        let cost = plan::finish_cost(&self.model.catalog, layer, &self.options);
        self.units.push(Unit { layer: index, work: Work::Finish { shards: count }, key, cost });
    }

    /// The layer of a unit.
    pub(super) fn layer(&self, unit: &Unit) -> Option<&Layer> {
        self.model.layers.layers.get(unit.layer)
    }

    /// What the table gets.
    pub(super) fn new_units(&self) -> Vec<NewUnit> {
        (0..)
            .zip(&self.units)
            .map(|(number, unit)| NewUnit {
                key: unit.key.to_vec(),
                memory: unit.cost.peak_bytes,
                cost: unit.cost.flops,
                bytes: unit.cost.bytes,
                after: match unit.work {
                    Work::Finish { shards } => (u32::saturating_sub(number, shards)..number).collect(),
                    _ => Vec::new(),
                },
            })
            .collect()
    }

    /// Numbers of the units of a layer.
    pub(super) fn units_of(&self, layer: usize) -> Vec<u32> {
        let first = self.units.partition_point(|unit| unit.layer < layer);
        let own = self.units.iter().skip(first).take_while(|unit| unit.layer == layer).count();
        (first..first + own).filter_map(|unit| u32::try_from(unit).ok()).collect()
    }

    /// What it takes, for clients.
    pub(super) fn plan(&self) -> v1::Plan {
        let largest = |of: fn(&Cost) -> u64| self.units.iter().map(|unit| of(&unit.cost)).max().unwrap_or(0);
        let gram = |unit: &Unit| match unit.work {
            Work::Shard { .. } => self.layer(unit).map_or(0, |layer| triangle_bytes(layer.m)),
            Work::Finish { .. } => self.layer(unit).map_or(0, |layer| triangle_bytes(layer.m)),
            Work::Whole => 0,
        };
        v1::Plan {
            layers: self.model.layers.layers.len() as u64,
            skipped: self.model.layers.skipped.len() as u64,
            units: self.units.len() as u64,
            flops: self.units.iter().map(|unit| unit.cost.flops).sum(),
            bytes: self.bytes.iter().sum(),
            peak_bytes: largest(|cost| cost.peak_bytes),
            partial_gram_bytes: self.units.iter().map(gram).sum(),
        }
    }

    /// Number of rows, skipped ones included.
    pub(super) fn row_count(&self) -> usize {
        self.rows.len() + self.skipped_rows.len()
    }
}

/// Bytes of the lower triangle of an M × M matrix of f64.
fn triangle_bytes(m: u64) -> u64 {
    m.saturating_mul(m.saturating_add(1)).saturating_mul(4)
}

/// The places of layers and skipped rows: in the order of the catalog, as [`crate::analysis::model_report`] has them.
fn places(model: &Model) -> (Vec<u32>, Vec<u32>) {
    let layers = model.layers.layers.iter().map(|layer| layer.tensor);
    let skipped = model.layers.skipped.iter().map(|skipped| skipped.tensor);
    let mut order: Vec<(usize, usize)> = layers.chain(skipped).enumerate().map(|(at, t)| (t, at)).collect();
    order.sort_by_key(|(tensor, _)| *tensor); // stable: the parts of a tensor stay in order
    let mut places = vec![0; order.len()];
    for (place, (_, at)) in (0..).zip(order) {
        if let Some(slot) = places.get_mut(at) {
            *slot = place;
        }
    }
    let skipped = places.split_off(model.layers.layers.len());
    (places, skipped)
}
