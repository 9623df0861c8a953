//! A matrix inside a tensor, as a strided view of its elements.

/// Element (r, c) is at `offset + r·row_stride + c·col_stride` (all in elements, not bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MatrixView {
    /// First element.
    pub offset: u64,
    /// Number of rows as stored.
    pub rows: u64,
    /// Number of columns as stored.
    pub cols: u64,
    /// Elements between one row and the next.
    pub row_stride: u64,
    /// Elements between one column and the next.
    pub col_stride: u64,
}

impl MatrixView {
    /// Elements from the first of a row to one past its last.
    pub(super) fn row_span(&self) -> u64 {
        (self.cols.max(1) - 1) * self.col_stride + 1
    }
}

/// How stored codes become numbers: number = code × scale, one scale for each block of codes.
///
/// The blocks lie on the tensor seen as a matrix of `elements / cols` rows and `cols` columns; the scale tensor
/// holds one number a block, row-major. See [`Dequantise::scale_index`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dequantise {
    /// Index in the catalog of the tensor that holds the scales.
    pub scale: usize,
    /// Elements of the tensor between one row of codes and the next.
    pub cols: u64,
    /// Rows of a block that share one scale (1: a scale for each row).
    pub block_rows: u64,
    /// Columns of a block that share one scale (the number of columns: a scale for each row).
    pub block_cols: u64,
}

impl Dequantise {
    /// Which element of the scale tensor multiplies this element of the tensor:
    /// `(row / block_rows) · ⌈cols / block_cols⌉ + col / block_cols`, with `row = element / cols` and
    /// `col = element % cols`.
    pub fn scale_index(&self, element: u64) -> u64 {
        let cols = self.cols.max(1);
        let block_cols = self.block_cols.max(1);
        let (row, col) = (element / cols, element % cols);
        (row / self.block_rows.max(1)) * cols.div_ceil(block_cols) + col / block_cols
    }
}

/// The scales of a quantised tensor, read, and how they lie on it (block sides and columns at least 1).
#[derive(Debug, Clone)]
pub struct Scales {
    /// The scales.
    pub values: Vec<f64>,
    /// Which block each multiplies.
    pub how: Dequantise,
}

impl Scales {
    /// Multiplies `values`, the tensor's elements from `first` on, by their scales.
    pub(super) fn apply(&self, first: u64, values: &mut [f64]) {
        let (cols, block_cols) = (self.how.cols, self.how.block_cols);
        let mut element = first;
        let mut rest = values;
        while !rest.is_empty() {
            let col = element % cols;
            let block_end = ((col / block_cols + 1) * block_cols).min(cols);
            let run = ((block_end - col) as usize).min(rest.len());
            let index = self.how.scale_index(element);
            let scale = self.values.get(index as usize).copied().unwrap_or(f64::NAN);
            let (now, later) = rest.split_at_mut(run);
            now.iter_mut().for_each(|value| *value *= scale);
            rest = later;
            element += run as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_scales_follow_rows_and_columns_of_ragged_blocks() {
        // 3 × 5 in blocks of 2 × 2: scales 2 × 3
        let how = Dequantise { scale: 0, cols: 5, block_rows: 2, block_cols: 2 };
        let scales = Scales { values: vec![1., 2., 3., 4., 5., 6.], how };
        let mut values = vec![1.0; 15];
        scales.apply(0, &mut values);
        assert_eq!(values, [1., 1., 2., 2., 3., 1., 1., 2., 2., 3., 4., 4., 5., 5., 6.]);
        let mut tail = vec![1.0; 4];
        scales.apply(8, &mut tail);
        assert_eq!(tail, values[8..12], "the same from the middle");
    }
}
