//! Stored bytes → rows of numbers, streamed.
//!
//! A layer's matrices are read as [`Blocks`]: runs of rows of the tall orientation (N × M, N ≥ M), decoded to f64 a
//! few hundred rows at a time, so that no layer ever exists as a whole in f64. Block boundaries follow from the shape
//! alone, never from how the bytes arrived.

mod content;
mod decode;
mod read;
mod shards;
mod shuffle;
mod view;
mod window;

pub use decode::{decode, decode_f32, is_exact_in_f32};
pub use read::{CHUNK_BYTES, LayerReader, NonFinite, OnDigest, ReadOptions, ShardRead, bytes_needed};
pub use shards::{shard_rows, shards};
pub use shuffle::Shuffled;
pub use view::{Dequantise, MatrixView, Scales};

use crate::Result;

/// How the elements of a [`Block`] lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Element (r, c) at `r·cols + c`.
    RowMajor,
    /// Element (r, c) at `c·rows + r`.
    ColumnMajor,
}

/// A run of rows of the tall orientation of one matrix.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// The elements, `rows` × M.
    pub values: &'a [f64],
    /// Number of rows in this block.
    pub rows: usize,
    /// How `values` lies.
    pub layout: Layout,
}

/// One or more matrices of the same shape, each N × M with N ≥ M, that can be streamed any number of times.
pub trait Blocks {
    /// Number of matrices.
    fn count(&self) -> usize;
    /// N: rows of the tall orientation (the longer side).
    fn n(&self) -> usize;
    /// M: columns of the tall orientation (the shorter side).
    fn m(&self) -> usize;
    /// Rows of a shard, if the one matrix is cut in shards: its Gram matrix is the sum of theirs in their order. A
    /// multiple of the rows of a block.
    fn shard_rows(&self) -> Option<usize> {
        None
    }
    /// Visits every block: blocks of one matrix come in order of their rows; matrices may alternate.
    ///
    /// # Errors
    /// What reading gives, and what `visit` returns.
    fn stream(&mut self, visit: &mut dyn FnMut(usize, Block<'_>) -> Result<()>) -> Result<()>;
}

/// Rows in a block of `count` N × M matrices that lie interleaved: enough for a matrix product to be compute bound; at
/// most 16 MiB of f64 for one matrix, and 4 MiB for several together, which are gathered from it while it is in cache.
/// A function of the shape alone: the boundaries decide the order of summation, hence the bits of the result.
pub fn block_rows(m: usize, count: usize) -> usize {
    let (most_elements, fewest) = if count > 1 { (1 << 19, 16) } else { (2 << 20, 64) };
    (most_elements / (m * count).max(1)).clamp(fewest, 384)
}
