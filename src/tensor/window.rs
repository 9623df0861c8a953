//! A block of rows and columns decoded once and handed out matrix by matrix.

use super::view::{MatrixView, Scales};
use super::{Layout, decode, is_exact_in_f32};
use crate::format::DType;
use std::ops::Range;

/// What every window of a layer shares.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) dtype: DType,
    /// The matrices: same rows, columns and strides, offsets ascending.
    pub(super) views: Vec<MatrixView>,
    /// Factor on every element.
    pub(super) factor: f64,
    /// Whether elements are rounded to f32 first.
    pub(super) as_f32: bool,
    pub(super) scales: Option<Scales>,
}

impl Shape {
    pub(super) fn first(&self) -> MatrixView {
        self.views.first().copied().unwrap_or(MatrixView {
            offset: 0,
            rows: 0,
            cols: 0,
            row_stride: 1,
            col_stride: 1,
        })
    }

    /// Distance between the offsets of the first and the last matrix.
    fn spread(&self) -> u64 {
        self.views.last().map_or(0, |last| last.offset - self.first().offset)
    }

    /// The elements that a run of rows covers, whole rows of all matrices.
    pub(super) fn covering(&self, rows: Range<u64>) -> Range<u64> {
        let view = self.first();
        let first = view.offset + rows.start * view.row_stride;
        let last_row = view.offset + (rows.end.max(1) - 1) * view.row_stride;
        first..last_row + self.spread() + view.row_span()
    }

    /// Whether rows cover disjoint, ascending elements, so that runs of rows can be read one after the other.
    pub(super) fn rows_are_apart(&self) -> bool {
        let view = self.first();
        view.row_stride >= self.spread() + view.row_span()
    }

    /// Whether rows ≥ columns as stored.
    pub(super) fn is_tall(&self) -> bool {
        self.first().rows >= self.first().cols
    }
}

/// Gets a matrix's index and its elements.
type Visit<'a, E> = &'a mut dyn FnMut(usize, &[f64]) -> Result<(), E>;

/// Buffers for one block, reused from block to block.
#[derive(Debug, Default)]
pub(super) struct Window {
    decoded: Vec<f64>,
    gathered: Vec<f64>,
}

impl Window {
    /// Decodes the elements of `rows` × `cols` (as stored) of all matrices from `raw`, whose first element is
    /// `raw_first`, and calls `visit(matrix, elements row-major)` for each matrix.
    pub(super) fn decode_block<E>(
        &mut self,
        shape: &Shape,
        raw: (&[u8], u64),
        (rows, cols): (Range<u64>, Range<u64>),
        visit: Visit<'_, E>,
    ) -> Result<(), E> {
        let view = shape.first();
        let segment = (cols.end - cols.start - 1) * view.col_stride + shape.spread() + 1;
        let (height, width) = ((rows.end - rows.start) as usize, (cols.end - cols.start) as usize);
        self.decoded.resize(height * segment as usize, 0.0);
        let origin = view.offset + cols.start * view.col_stride;
        if segment == view.row_stride {
            decode_run(shape, raw, origin + rows.start * view.row_stride, &mut self.decoded);
        } else {
            for (row, out) in rows.clone().zip(self.decoded.chunks_exact_mut(segment as usize)) {
                decode_run(shape, raw, origin + row * view.row_stride, out);
            }
        }
        if shape.views.len() == 1 && view.col_stride == 1 {
            return visit(0, &self.decoded);
        }
        self.gathered.resize(height * width, 0.0);
        for (index, matrix) in shape.views.iter().enumerate() {
            let shift = (matrix.offset - view.offset) as usize;
            let stride = view.col_stride as usize;
            let lines = self.decoded.chunks_exact(segment as usize);
            for (line, out) in lines.zip(self.gathered.chunks_exact_mut(width)) {
                for (value, &element) in out.iter_mut().zip(line[shift..].iter().step_by(stride)) {
                    *value = element;
                }
            }
            visit(index, &self.gathered)?;
        }
        Ok(())
    }
}

/// The layout in which [`Window::decode_block`]'s rows × columns lie for the tall orientation.
pub(super) fn layout_of(tall: bool) -> Layout {
    if tall { Layout::RowMajor } else { Layout::ColumnMajor }
}

fn decode_run(shape: &Shape, (raw, raw_first): (&[u8], u64), first: u64, out: &mut [f64]) {
    let start = (first - raw_first) as usize * shape.dtype.bytes() as usize;
    decode(shape.dtype, raw.get(start..).unwrap_or_default(), out);
    if shape.as_f32 && !is_exact_in_f32(shape.dtype) {
        out.iter_mut().for_each(|value| *value = f64::from(*value as f32));
    }
    if let Some(scales) = &shape.scales {
        scales.apply(first, out);
    }
    if shape.factor != 1.0 {
        out.iter_mut().for_each(|value| *value *= shape.factor);
    }
}
