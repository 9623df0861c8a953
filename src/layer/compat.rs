//! WeightWatcher 0.7.7's choice of layers for a state dict (`PyStateDictLayer`), its ids, and the N and M that it
//! reports. Line numbers are those of its weightwatcher.py.

use super::build::{Context, Rows, Weight};
use super::classify::{Refusal, elements};
use super::names::{layer_name, shape_text};
use super::quantised::UNSCALED;
use super::unfold::{Unfolding, convolution, matrix};
use super::{Conv, Layer, LayerOptions, LayerType, Layers, SkipReason};
use crate::format::{Catalog, DType, Tensor};

/// `DEFAULT_MAX_EVALS` and `DEFAULT_MAX_N`, constants.py 148-152.
const MAX_EVALS: u64 = 15_000;
const MAX_N: u64 = 50_000;

/// N, M and rf as WeightWatcher reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reported {
    n: u64,
    m: u64,
    rf: u64,
}

/// Ids count the tensors whose name ends in `.weight`, from 1 (lines 452-476). What it leaves out is skipped with
/// our own reason where there is one, else as [`SkipReason::NotInWeightwatcher`].
pub(super) fn layers(catalog: &Catalog, options: &LayerOptions) -> Layers {
    let context = Context::new(catalog, options);
    let mut rows = Rows::default();
    let mut id = 0;
    for (position, tensor) in catalog.tensors.iter().enumerate() {
        let Some(name) = tensor.name.strip_suffix(".weight") else {
            let refusal = context.refusal(position, tensor).unwrap_or_else(|| {
                (SkipReason::NotInWeightwatcher, "the name does not end in .weight".to_owned())
            });
            rows.skip(position, None, layer_name(&tensor.name).to_owned(), refusal);
            continue;
        };
        id += 1;
        match weight(&context, position, tensor) {
            Ok((weight, reported)) => {
                let made = |made| as_reported(made, name, reported, options.conv);
                rows.add_all(&context, (position, id), weight, made);
            }
            Err(refusal) => rows.skip(position, Some(id), name.to_owned(), refusal),
        }
    }
    rows.layers
}

/// Slices all bear the layer's name; a layer that is not cut is slice 0 there (line 1779).
fn as_reported(made: Layer, name: &str, reported: Reported, conv: Conv) -> Layer {
    let slice_id = match conv {
        Conv::Slices => Some(made.slice_id.unwrap_or(0)),
        Conv::Pool | Conv::Flatten | Conv::Operator => made.slice_id,
    };
    Layer { name: name.to_owned(), n: reported.n, m: reported.m, slice_id, as_f32: true, ..made }
}

fn weight(context: &Context<'_>, position: usize, tensor: &Tensor) -> Result<(Weight, Reported), Refusal> {
    let shape = tensor.shape.as_slice();
    if !matches!(shape.len(), 2 | 4) || shape.contains(&0) || elements(shape).is_none() {
        let rank = || format!("rank {}: WeightWatcher takes 2 and 4", shape.len());
        return Err(context
            .refusal(position, tensor)
            .unwrap_or_else(|| (SkipReason::NotInWeightwatcher, rank())));
    }
    if let DType::Other(_) = tensor.dtype {
        return Err((SkipReason::UnsupportedDtype, format!("{} is not decoded", tensor.dtype.name())));
    }
    // `len(weights) < 2` leaves the type unknown (line 428).
    if shape.first() == Some(&1) {
        let detail = format!("shape {}: a first dimension of 1", shape_text(shape));
        return Err((SkipReason::NotInWeightwatcher, detail));
    }
    let (unfolding, reported) = match *shape {
        [rows, cols] => {
            let reported = Reported { n: rows.max(cols), m: rows.min(cols), rf: 1 };
            (matrix(LayerType::Dense, rows, cols), reported)
        }
        _ => conv2d(shape, context.options)?,
    };
    not_supported(reported, context.options)?;
    let note = codes_note(context, position, tensor);
    Ok((Weight::new(context, tensor, unfolding, (None, note)), reported))
}

/// WeightWatcher knows no scales: codes are taken for numbers.
fn codes_note(context: &Context<'_>, position: usize, tensor: &Tensor) -> Option<String> {
    if context.owners.contains(&position) {
        Some("WeightWatcher does not apply the scales of this tensor".to_owned())
    } else {
        tensor.dtype.is_integer().then(|| UNSCALED.to_owned())
    }
}

fn conv2d(shape: &[u64], options: &LayerOptions) -> Result<(Unfolding, Reported), Refusal> {
    if options.conv == Conv::Operator {
        // its `conv2d_fft` (line 1209) is deprecated, and counts and cuts the spectrum in its own way
        return Err((SkipReason::NotInWeightwatcher, "a convolution as an operator".to_owned()));
    }
    let unfolding = convolution(shape, options)?;
    let [out, inputs, height, width] = *shape else {
        return Err((SkipReason::NotAMatrix, format!("rank {}", shape.len())));
    };
    if options.conv == Conv::Flatten {
        let long = inputs * height * width;
        return Ok((unfolding, Reported { n: out.max(long), m: out.min(long), rf: 1 }));
    }
    let rf = height * width;
    // `conv2D_Wmats`, lines 1264-1325. With out + in ≥ kh + kw it takes the channels to come first in the shape and,
    // where out < in, swaps N and M once a kernel position: an even number of positions leaves N < M. Otherwise it
    // takes the shape to be the other way round, warns, and ends with N = out and M = in without a swap.
    let swaps = out.saturating_add(inputs) >= height.saturating_add(width) && out < inputs && rf % 2 == 1;
    let (n, m) = if swaps { (inputs, out) } else { (out, inputs) };
    Ok((unfolding, Reported { n, m, rf }))
}

/// `layer_supported`, lines 1725-1745: eigenvalues are counted as M · rf when pooled, as M otherwise, with the M that
/// is reported. A limit of 0 is no limit, except `max_N`.
fn not_supported(reported: Reported, options: &LayerOptions) -> Result<(), Refusal> {
    let Reported { n, m, rf } = reported;
    let (evals, how) = match options.conv {
        Conv::Slices => (m, format!("M={m}")),
        Conv::Pool | Conv::Flatten | Conv::Operator => (m.saturating_mul(rf), format!("M={m}, rf={rf}")),
    };
    if evals < options.min_evals {
        let detail = format!("{how}: {evals} eigenvalues < min_evals {}", options.min_evals);
        return Err((SkipReason::TooFewEvals, detail));
    }
    let most = options.max_evals.unwrap_or(MAX_EVALS);
    if most > 0 && evals > most {
        return Err((SkipReason::TooLarge, format!("{how}: {evals} eigenvalues > max_evals {most}")));
    }
    let longest = options.max_n.unwrap_or(MAX_N);
    if n > longest {
        return Err((SkipReason::TooLarge, format!("N={n} > max_N {longest}")));
    }
    Ok(())
}
