//! Tall matrices cut in runs of rows that may be read, hashed and summed apart.

use super::block_rows;
use super::view::MatrixView;
use std::ops::Range;

/// Flops of its Gram matrix, N·M², from which a matrix is cut, and the least that one shard has.
const WORTH_CUTTING: u128 = 20_000_000_000;
const LEAST_FLOPS: u128 = 10_000_000_000;
/// N/M from which a matrix is cut, and the least N/M of a shard: what is sent of a shard, M²/2 numbers, is then at
/// most an eighth of its elements.
const LEAST_RATIO: u64 = 4;

/// Rows of a shard of the layer with these views; the last may have fewer. `None` if the layer is not cut: it has
/// several matrices, its rows do not lie one after the other, or it is not tall or not large.
///
/// A function of the shape alone. A shard holds whole blocks of [`block_rows`], so that cutting moves no block; the
/// Gram matrix of the layer is the sum of those of its shards in their order, whoever computes them.
pub fn shard_rows(views: &[MatrixView]) -> Option<u64> {
    let [view] = views else { return None };
    let (n, m) = (view.rows, view.cols);
    let contiguous = view.col_stride == 1 && view.row_stride == m;
    if !contiguous || m == 0 || n / LEAST_RATIO < m {
        return None;
    }
    let row_flops = u128::from(m) * u128::from(m);
    if u128::from(n).saturating_mul(row_flops) < WORTH_CUTTING {
        return None;
    }
    let block = block_rows(usize::try_from(m).ok()?, 1) as u64;
    let of_flops = u64::try_from(LEAST_FLOPS.div_ceil(row_flops)).ok()?;
    let rows = of_flops.max(LEAST_RATIO * m).checked_next_multiple_of(block)?;
    (rows < n).then_some(rows)
}

/// The shards of a layer, runs of rows that tile it; see [`shard_rows`].
pub fn shards(views: &[MatrixView]) -> Option<Vec<Range<u64>>> {
    let step = shard_rows(views)?;
    let rows = views.first()?.rows;
    Some((0..rows.div_ceil(step)).map(|i| i * step..((i + 1) * step).min(rows)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(rows: u64, cols: u64) -> MatrixView {
        MatrixView { offset: 0, rows, cols, row_stride: cols, col_stride: 1 }
    }

    #[test]
    fn shards_tile_the_rows_in_whole_blocks_and_have_work_enough() {
        for (n, m) in [(262_144, 640), (128_256, 4096), (30_522, 1024), (50_257, 768), (4_000_000, 72)] {
            let shards = shards(&[whole(n, m)]).unwrap();
            assert!(shards.len() >= 2, "{n} × {m}");
            assert_eq!((shards[0].start, shards[shards.len() - 1].end), (0, n));
            assert!(shards.windows(2).all(|pair| pair[0].end == pair[1].start));
            let block = block_rows(m as usize, 1) as u64;
            for shard in &shards[..shards.len() - 1] {
                let rows = shard.end - shard.start;
                assert_eq!((rows, rows % block), (shards[0].end, 0));
                assert!(rows >= 4 * m && rows * m * m >= 10_000_000_000, "{n} × {m}: {rows} rows");
            }
        }
        assert_eq!(shard_rows(&[whole(262_144, 640)]), Some(24_576));
        assert_eq!(shard_rows(&[whole(128_256, 4096)]), Some(16_512));
    }

    #[test]
    fn what_is_small_or_wide_or_lies_apart_is_not_cut() {
        assert_eq!(shard_rows(&[whole(262_144, 640); 2]), None, "two matrices");
        assert_eq!(shard_rows(&[whole(640, 262_144)]), None, "wide");
        assert_eq!(shard_rows(&[whole(4095, 1024)]), None, "N/M < 4");
        assert_eq!(shard_rows(&[whole(20_000, 999)]), None, "19.96 Gflop");
        assert_eq!(shard_rows(&[whole(8192, 2048)]), None, "one shard of 4·M rows");
        let columns = MatrixView { row_stride: 641, ..whole(262_144, 640) };
        let transposed = MatrixView { row_stride: 1, col_stride: 262_144, ..whole(262_144, 640) };
        assert_eq!((shard_rows(&[columns]), shard_rows(&[transposed])), (None, None));
        assert_eq!((shard_rows(&[]), shard_rows(&[whole(u64::MAX, 0)])), (None, None));
        assert!(shard_rows(&[whole(u64::MAX, 1)]).is_some(), "no overflow");
    }
}
