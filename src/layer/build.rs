//! The default choice of layers: every tensor that holds weight matrices, of any name.

use super::classify::{Refusal, not_a_weight};
use super::fused;
use super::names::{Index, index, last_word, layer_name, shape_text};
use super::quantised::{Codes, Helpers, codes, helper_refusal, helpers};
use super::roles::{block, is_embedding, role};
use super::unfold::{Part, Unfolding, convolution, experts, matrix};
use super::{Dequantise, Grid, Layer, LayerOptions, LayerType, Layers, SkipReason, Skipped};
use crate::format::{Catalog, Tensor};
use std::collections::{HashMap, HashSet};

/// Matrices of a whole model: beyond it lies no model known to us, and the list alone would fill memory.
const MOST_MATRICES: usize = 4_194_304;

/// What is known of the whole catalog while its tensors are looked at one by one.
pub(super) struct Context<'a> {
    catalog: &'a Catalog,
    pub(super) options: &'a LayerOptions,
    index: Index<'a>,
    helpers: Helpers,
    /// Tensors that others serve with scales and the like.
    pub(super) owners: HashSet<usize>,
    same_bytes: HashMap<usize, usize>,
}

impl<'a> Context<'a> {
    pub(super) fn new(catalog: &'a Catalog, options: &'a LayerOptions) -> Self {
        let index = index(catalog);
        let helpers = helpers(catalog, &index);
        let owners = helpers.values().copied().collect();
        Self { catalog, options, index, helpers, owners, same_bytes: same_bytes(catalog) }
    }

    /// Why the tensor is not a weight, if it is not.
    pub(super) fn refusal(&self, position: usize, tensor: &Tensor) -> Option<Refusal> {
        if let Some(owner) = self.helpers.get(&position).and_then(|&owner| self.catalog.tensors.get(owner)) {
            return Some(helper_refusal(tensor, owner));
        }
        let name = layer_name(&tensor.name);
        let is_batch_norm = self.index.contains_key(format!("{name}.running_mean").as_str());
        not_a_weight(tensor, is_batch_norm)
    }
}

/// What was found out about one tensor that is a weight.
pub(super) struct Weight {
    unfolding: Unfolding,
    dequantise: Option<Dequantise>,
    note: Option<String>,
    role: Option<&'static str>,
    block: Option<u64>,
}

impl Weight {
    /// What is known of a tensor and its unfolding; `reading` is how its codes become numbers, and a note.
    pub(super) fn new(
        context: &Context<'_>,
        tensor: &Tensor,
        unfolding: Unfolding,
        reading: (Option<Dequantise>, Option<String>),
    ) -> Self {
        let role = role(&tensor.name, unfolding.layer_type, &context.index);
        let (dequantise, note) = reading;
        let grid = unfolding.operator.map(|grid| format!("operator on a grid of {grid}"));
        let mut weight = Self { unfolding, dequantise, note, role, block: block(&tensor.name) };
        weight.add_note(grid);
        weight
    }

    fn add_note(&mut self, note: Option<String>) {
        self.note = match (self.note.take(), note) {
            (Some(first), Some(second)) => Some(format!("{first}; {second}")),
            (first, second) => first.or(second),
        };
    }
}

/// See [`super::layers`].
pub(super) fn layers(catalog: &Catalog, options: &LayerOptions) -> Layers {
    let context = Context::new(catalog, options);
    let mut rows = Rows::default();
    for (position, tensor) in catalog.tensors.iter().enumerate() {
        let id = position as u64 + 1;
        match weight(&context, position, tensor) {
            Ok(weight) => rows.add(&context, position, id, weight),
            Err(refusal) => rows.skip(position, Some(id), layer_name(&tensor.name).to_owned(), refusal),
        }
    }
    rows.layers
}

fn weight(context: &Context<'_>, position: usize, tensor: &Tensor) -> Result<Weight, Refusal> {
    if let Some(refusal) = context.refusal(position, tensor) {
        return Err(refusal);
    }
    if let Some(first) =
        context.same_bytes.get(&position).and_then(|&first| context.catalog.tensors.get(first))
    {
        return Err((SkipReason::Tied, format!("the same bytes as '{}'", first.name)));
    }
    let reading = match codes(context.catalog, &context.index, tensor) {
        Codes::Numbers(note) => (None, note.map(str::to_owned)),
        Codes::Scaled(dequantise) => (Some(dequantise), None),
        Codes::Refused(refusal) => return Err(refusal),
    };
    let unfolding = unfold(tensor, context.options)?;
    let mut weight = Weight::new(context, tensor, unfolding, reading);
    cut(context, tensor, &mut weight);
    Ok(weight)
}

fn unfold(tensor: &Tensor, options: &LayerOptions) -> Result<Unfolding, Refusal> {
    let name = tensor.name.as_str();
    // A table of positions is often stored with a batch dimension in front: [1, positions, width].
    let shape = match tensor.shape[..] {
        [1, rows, cols] if is_embedding(name) => &[rows, cols][..],
        _ => tensor.shape.as_slice(),
    };
    match *shape {
        [1, rows, cols] if !is_kernel(name) => Ok(matrix(LayerType::Dense, rows, cols)),
        [rows, cols] if fused::is_recurrent(name) => Ok(matrix(LayerType::Recurrent, rows, cols)),
        [rows, cols] if is_embedding(name) => Ok(matrix(LayerType::Embedding, rows, cols)),
        [rows, cols] => Ok(matrix(LayerType::Dense, rows, cols)),
        [count, rows, cols] if fused::is_fused_experts(name) => experts(count, rows, cols),
        _ => convolution(shape, options),
    }
}

/// Whether the tensor's name leaves room for a convolution. Others of shape [1, a, b] are parameters with a batch
/// dimension in front, such as learned queries.
fn is_kernel(name: &str) -> bool {
    let last = last_word(name);
    last.contains("weight") || last.contains("kernel") || last.starts_with("original")
}

/// Cuts the weight in its parts where the options ask for it and its layout allows it.
fn cut(context: &Context<'_>, tensor: &Tensor, weight: &mut Weight) {
    let options = context.options;
    let kind = weight.unfolding.layer_type;
    let cut = if options.split_gates && kind == LayerType::Recurrent {
        fused::gates(context.catalog, &context.index, tensor).map(|parts| (parts, None))
    } else if options.split_fused && kind == LayerType::Dense {
        match weight.role {
            Some("qkv") => fused::qkv(context.catalog, tensor),
            Some("gate_up") => fused::gate_up(tensor).map(|parts| (parts, None)),
            _ => return,
        }
    } else {
        return;
    };
    let note = match cut {
        Ok((parts, note)) => {
            weight.unfolding.parts = parts;
            note
        }
        Err(note) => Some(note),
    };
    weight.add_note(note);
}

/// Tensors that share their bytes, shape and dtype with an earlier one: position → position of the earlier.
fn same_bytes(catalog: &Catalog) -> HashMap<usize, usize> {
    let mut first_at = HashMap::new();
    let mut same = HashMap::new();
    for (position, tensor) in
        catalog.tensors.iter().enumerate().filter(|(_, tensor)| !tensor.range.is_empty())
    {
        let place = (tensor.file, &tensor.range, tensor.dtype, &tensor.shape);
        let first = *first_at.entry(place).or_insert(position);
        if first != position {
            same.insert(position, first);
        }
    }
    same
}

/// The rows of the answer as they grow.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) layers: Layers,
    matrices: usize,
}

impl Rows {
    pub(super) fn skip(&mut self, tensor: usize, layer_id: Option<u64>, name: String, refusal: Refusal) {
        let (reason, detail) = refusal;
        self.layers.skipped.push(Skipped { tensor, layer_id, name, reason, detail });
    }

    /// Adds a layer for each part that is within the limits. If none is, the tensor is skipped once, as a whole.
    fn add(&mut self, context: &Context<'_>, position: usize, id: u64, mut weight: Weight) {
        let Some(tensor) = context.catalog.tensors.get(position) else { return };
        let name = layer_name(&tensor.name);
        let (mut kept, mut refused) = (Vec::new(), Vec::new());
        for part in std::mem::take(&mut weight.unfolding.parts) {
            match beyond_limits(&part, weight.unfolding.operator, context.options) {
                None => kept.push(part),
                Some(refusal) => refused.push((part.suffix, refusal)),
            }
        }
        if kept.is_empty() {
            let nothing = || (SkipReason::Empty, format!("shape {}", shape_text(&tensor.shape)));
            let refusal = refused.into_iter().next().map_or_else(nothing, |(_, refusal)| refusal);
            return self.skip(position, Some(id), name.to_owned(), refusal);
        }
        weight.unfolding.parts = kept;
        if self.add_all(context, (position, id), weight, |layer| layer) {
            for (suffix, refusal) in refused {
                self.skip(position, Some(id), format!("{name}{suffix}"), refusal);
            }
        }
    }

    /// Adds a layer for each part, after `change`; or skips the tensor, and says false, if the model has too many
    /// matrices.
    pub(super) fn add_all(
        &mut self,
        context: &Context<'_>,
        (position, id): (usize, u64),
        mut weight: Weight,
        change: impl Fn(Layer) -> Layer,
    ) -> bool {
        let Some(tensor) = context.catalog.tensors.get(position) else { return false };
        let parts = std::mem::take(&mut weight.unfolding.parts);
        if let Err(refusal) = self.count(&parts) {
            self.skip(position, Some(id), layer_name(&tensor.name).to_owned(), refusal);
            return false;
        }
        let made = parts.into_iter().map(|part| change(layer((position, tensor), id, &weight, part)));
        self.layers.layers.extend(made);
        true
    }

    /// Counts the matrices of these parts.
    ///
    /// # Errors
    /// A refusal if the model has too many.
    fn count(&mut self, parts: &[Part]) -> Result<(), Refusal> {
        let more: usize = parts.iter().map(|part| part.matrices.len()).sum();
        let total = self.matrices.saturating_add(more);
        if total > MOST_MATRICES {
            return Err((SkipReason::TooLarge, format!("more than {MOST_MATRICES} matrices in the model")));
        }
        self.matrices = total;
        Ok(())
    }
}

/// The row of one part.
fn layer((position, tensor): (usize, &Tensor), layer_id: u64, weight: &Weight, part: Part) -> Layer {
    let (rows, cols) = shape_of(&part);
    let kind = weight.unfolding.layer_type;
    Layer {
        layer_id,
        name: format!("{}{}", layer_name(&tensor.name), part.suffix),
        tensor: position,
        layer_type: kind,
        role: part.role.or(weight.role).map(str::to_owned),
        block: weight.block,
        slice_id: part.slice_id,
        matrices: part.matrices,
        operator: weight.unfolding.operator,
        n: rows.max(cols),
        m: rows.min(cols),
        rf: weight.unfolding.rf,
        scale: weight.unfolding.scale,
        as_f32: false,
        dequantise: weight.dequantise.clone(),
        note: weight.note.clone(),
    }
}

fn shape_of(part: &Part) -> (u64, u64) {
    part.matrices.first().map_or((0, 0), |view| (view.rows, view.cols))
}

/// Whether the part has too few or too many eigenvalues, or a side that is too long.
fn beyond_limits(part: &Part, operator: Option<Grid>, options: &LayerOptions) -> Option<Refusal> {
    let (rows, cols) = shape_of(part);
    let (n, m) = (rows.max(cols), rows.min(cols));
    let matrices = operator.map_or(part.matrices.len() as u64, |grid| grid.frequencies());
    let evals = matrices.saturating_mul(m);
    let figures = if matrices == 1 { format!("M={m}") } else { format!("{matrices} matrices of M={m}") };
    let counted = if evals == 1 { "1 eigenvalue".to_owned() } else { format!("{evals} eigenvalues") };
    if evals < options.min_evals {
        let detail = format!("{figures}: {counted} < min_evals {}", options.min_evals);
        return Some((SkipReason::TooFewEvals, detail));
    }
    if let Some(most) = options.max_evals.filter(|&most| evals > most) {
        return Some((SkipReason::TooLarge, format!("{figures}: {counted} > max_evals {most}")));
    }
    let longest = options.max_n.filter(|&longest| n > longest)?;
    Some((SkipReason::TooLarge, format!("N={n} > max_N {longest}")))
}
