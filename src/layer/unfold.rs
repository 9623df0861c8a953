//! From shapes to matrices: strided views of a tensor's elements.

use super::classify::{Refusal, elements};
use super::{Conv, Grid, LayerOptions, LayerType, MatrixView, SkipReason};

/// More matrices than this in one tensor is a mistake or an attack: the largest kernel known to us has 2,048
/// positions, the largest mixture of experts 512 experts, and each matrix costs more memory than a small slice.
const MOST_MATRICES: u64 = 65_536;

/// What of a tensor becomes one layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    /// Appended to the layer's name.
    pub(super) suffix: String,
    /// Role of this part, where it differs from that of the whole.
    pub(super) role: Option<&'static str>,
    /// Number of the part.
    pub(super) slice_id: Option<u64>,
    /// Matrices of equal shape.
    pub(super) matrices: Vec<MatrixView>,
}

impl Part {
    /// The whole tensor as one part.
    pub(super) fn whole(matrices: Vec<MatrixView>) -> Self {
        Self { suffix: String::new(), role: None, slice_id: None, matrices }
    }
}

/// What a tensor unfolds to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unfolding {
    /// Kind of layer.
    pub(super) layer_type: LayerType,
    /// At least one part; together they hold each element once.
    pub(super) parts: Vec<Part>,
    /// Kernel positions.
    pub(super) rf: u64,
    /// Factor on W.
    pub(super) scale: f64,
    /// Grid on which the slices are an operator.
    pub(super) operator: Option<Grid>,
}

/// Whether the layer is a convolution.
pub(super) fn is_conv(kind: LayerType) -> bool {
    matches!(kind, LayerType::Conv1d | LayerType::Conv2d | LayerType::Conv3d)
}

/// A matrix of `rows` × `cols` elements that lie one after another from `offset` on.
pub(super) fn dense_view(offset: u64, rows: u64, cols: u64) -> MatrixView {
    MatrixView { offset, rows, cols, row_stride: cols, col_stride: 1 }
}

/// One matrix, the whole tensor.
pub(super) fn matrix(layer_type: LayerType, rows: u64, cols: u64) -> Unfolding {
    let parts = vec![Part::whole(vec![dense_view(0, rows, cols)])];
    Unfolding { layer_type, parts, rf: 1, scale: 1.0, operator: None }
}

/// A mixture of experts in one tensor [experts, a, b]: one layer an expert, `[e]`.
///
/// # Errors
/// A refusal if there are too many experts.
pub(super) fn experts(count: u64, rows: u64, cols: u64) -> Result<Unfolding, Refusal> {
    refuse_many(count, "experts")?;
    let parts = (0..count)
        .map(|expert| Part {
            suffix: format!("[{expert}]"),
            role: None,
            slice_id: Some(expert),
            matrices: vec![dense_view(expert.saturating_mul(rows.saturating_mul(cols)), rows, cols)],
        })
        .collect();
    Ok(Unfolding { layer_type: LayerType::Expert, parts, rf: 1, scale: 1.0, operator: None })
}

/// A convolution [out, in, kernel…] of one to three kernel dimensions.
///
/// Element (o, i) of the slice at kernel position p (row-major over the kernel's dimensions) is element
/// `(o · in + i) · positions + p` of the tensor.
///
/// # Errors
/// A refusal if the shape is not that of a convolution, has too many kernel positions, or does not fit the grid.
pub(super) fn convolution(shape: &[u64], options: &LayerOptions) -> Result<Unfolding, Refusal> {
    let ([out, inputs, kernel @ ..], Some(_)) = (shape, elements(shape)) else {
        return Err((SkipReason::NotAMatrix, format!("rank {}", shape.len())));
    };
    let layer_type = match kernel.len() {
        1 => LayerType::Conv1d,
        2 => LayerType::Conv2d,
        _ => LayerType::Conv3d,
    };
    let conv = options.conv;
    let operator = (conv == Conv::Operator).then(|| grid(kernel, options.grid)).transpose()?;
    let positions = kernel.iter().product::<u64>();
    let per_out = inputs * positions;
    if conv == Conv::Flatten {
        let parts = vec![Part::whole(vec![dense_view(0, *out, per_out)])];
        return Ok(Unfolding { layer_type, parts, rf: positions, scale: 1.0, operator: None });
    }
    refuse_many(positions, "kernel positions")?;
    let slices = (0..positions).map(|position| MatrixView {
        offset: position,
        rows: *out,
        cols: *inputs,
        row_stride: per_out,
        col_stride: positions,
    });
    let parts = match conv {
        Conv::Slices => slices.enumerate().map(|(i, view)| slice(i as u64, view)).collect(),
        Conv::Pool | Conv::Flatten | Conv::Operator => vec![Part::whole(slices.collect())],
    };
    let scale = conv_scale(layer_type, conv, positions);
    Ok(Unfolding { layer_type, parts, rf: positions, scale, operator })
}

fn grid(kernel: &[u64], points: u64) -> Result<Grid, Refusal> {
    Grid::new(kernel, &vec![points; kernel.len()]).map_err(|detail| (SkipReason::TooLarge, detail))
}

fn slice(position: u64, view: MatrixView) -> Part {
    Part { suffix: format!("[{position}]"), role: None, slice_id: Some(position), matrices: vec![view] }
}

/// WeightWatcher's `conv2d_norm`, weightwatcher.py 2889-2891: sqrt(conv2d_count / 2), where `conv2d_count` is set by
/// the slice iterator only and stays 1 when slices are pooled. It knows 2-D convolutions alone.
fn conv_scale(layer_type: LayerType, conv: Conv, positions: u64) -> f64 {
    match (layer_type, conv) {
        (LayerType::Conv2d, Conv::Pool) => 0.5_f64.sqrt(),
        (LayerType::Conv2d, Conv::Slices) => (positions as f64 / 2.0).sqrt(),
        _ => 1.0,
    }
}

fn refuse_many(count: u64, what: &str) -> Result<(), Refusal> {
    if count <= MOST_MATRICES {
        return Ok(());
    }
    Err((SkipReason::TooLarge, format!("{count} {what} > {MOST_MATRICES} matrices of one tensor")))
}

/// Cuts a matrix in bands of rows of these lengths, which must add up to its rows.
pub(super) fn row_bands(cols: u64, lengths: &[u64]) -> Vec<MatrixView> {
    bands(lengths, |start, rows| dense_view(start * cols, rows, cols))
}

/// Cuts a matrix of `rows` × `cols` in bands of columns of these lengths, which must add up to `cols`.
pub(super) fn col_bands(rows: u64, cols: u64, lengths: &[u64]) -> Vec<MatrixView> {
    bands(lengths, |start, width| MatrixView {
        offset: start,
        rows,
        cols: width,
        row_stride: cols,
        col_stride: 1,
    })
}

fn bands(lengths: &[u64], view: impl Fn(u64, u64) -> MatrixView) -> Vec<MatrixView> {
    let starts = lengths.iter().scan(0_u64, |next, &length| {
        let start = *next;
        *next += length;
        Some(start)
    });
    starts.zip(lengths).map(|(start, &length)| view(start, length)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unfold(shape: &[u64], conv: Conv) -> Result<Unfolding, Refusal> {
        convolution(shape, &LayerOptions { conv, ..LayerOptions::default() })
    }

    #[test]
    fn pool_takes_a_slice_a_position() {
        let unfolding = unfold(&[16, 128, 64, 1], Conv::Pool).unwrap();
        assert_eq!((unfolding.layer_type, unfolding.rf, unfolding.parts.len()), (LayerType::Conv2d, 64, 1));
        assert_eq!(unfolding.scale, 0.5_f64.sqrt());
        let matrices = &unfolding.parts[0].matrices;
        assert_eq!(matrices.len(), 64);
        // Element [o, i, 5, 0] of the tensor is element ((o · 128 + i) · 64 + 5).
        let view = matrices[5];
        assert_eq!(view.offset + 3 * view.row_stride + 7 * view.col_stride, (3 * 128 + 7) * 64 + 5);
        assert_eq!((view.rows, view.cols), (16, 128));
    }

    #[test]
    fn scales_follow_weightwatcher_for_two_dimensional_kernels_only() {
        let scale = |shape: &[u64], conv| unfold(shape, conv).unwrap().scale;
        assert_eq!(scale(&[4, 4, 3, 3], Conv::Slices), 4.5_f64.sqrt());
        assert_eq!(scale(&[4, 4, 3, 3], Conv::Flatten), 1.0);
        assert_eq!(scale(&[4, 4, 3], Conv::Pool), 1.0);
        assert_eq!(scale(&[4, 4, 3, 3, 3], Conv::Slices), 1.0);
    }

    #[test]
    fn slices_and_flatten() {
        let slices = unfold(&[4, 2, 3], Conv::Slices).unwrap();
        assert_eq!(
            slices.parts.iter().map(|part| part.slice_id).collect::<Vec<_>>(),
            [Some(0), Some(1), Some(2)]
        );
        assert_eq!(slices.parts[2].suffix, "[2]");
        let flat = unfold(&[4, 2, 3], Conv::Flatten).unwrap();
        assert_eq!(flat.parts[0].matrices, [dense_view(0, 4, 6)]);
    }

    #[test]
    fn too_many_matrices_are_refused_before_they_are_listed() {
        let (reason, detail) = unfold(&[8, 2, 1 << 40], Conv::Pool).unwrap_err();
        assert_eq!(reason, SkipReason::TooLarge);
        assert!(detail.contains("1099511627776"), "{detail}");
        assert!(experts(1 << 40, 2, 2).is_err());
        assert!(unfold(&[8, 2, 1 << 40], Conv::Flatten).is_ok());
    }
    #[test]
    fn an_operator_has_the_slices_of_pool_and_a_grid() {
        let operator = unfold(&[4, 2, 3, 5], Conv::Operator).unwrap();
        let pool = unfold(&[4, 2, 3, 5], Conv::Pool).unwrap();
        assert_eq!((&operator.parts, operator.rf), (&pool.parts, pool.rf));
        assert_eq!((operator.scale, pool.operator), (1.0, None), "no factor on the operator");
        assert_eq!(operator.operator, Grid::new(&[3, 5], &[32, 32]).ok());
        let (reason, detail) = unfold(&[4, 2, 33], Conv::Operator).unwrap_err();
        assert_eq!(
            (reason, detail.as_str()),
            (SkipReason::TooLarge, "a kernel of 33 does not fit the grid of 32")
        );
    }
}
