//! The content digest of a layer.

use super::shards::shard_rows;
use super::window::Shape;
use std::ops::Range;

/// BLAKE3 of a header, which says element type, unfolding and scales, and then of the stored bytes (`v1`) or, where
/// the layer is cut in shards, of the BLAKE3 of each shard's bytes, in order (`v2`): shards can be hashed apart.
pub(super) struct Content {
    hasher: blake3::Hasher,
    shard: Option<Shard>,
}

struct Shard {
    hasher: blake3::Hasher,
    step: u64,
    rows: u64,
}

impl Content {
    pub(super) fn new(shape: &Shape) -> Self {
        let step = shard_rows(&shape.views);
        let rows = shape.first().rows;
        let shard = step.map(|step| Shard { hasher: blake3::Hasher::new(), step, rows });
        Self { hasher: header(shape, shard.is_some()), shard }
    }

    /// Takes the bytes of the next rows; they are of one shard.
    pub(super) fn update(&mut self, rows: &Range<u64>, raw: &[u8]) {
        let Some(shard) = &mut self.shard else {
            self.hasher.update(raw);
            return;
        };
        shard.hasher.update(raw);
        if rows.end.is_multiple_of(shard.step) || rows.end == shard.rows {
            self.hasher.update(shard.hasher.finalize().as_bytes());
            shard.hasher.reset();
        }
    }

    pub(super) fn finish(&self) -> blake3::Hash {
        self.hasher.finalize()
    }

    /// Of a layer that is cut, from the digests of its shards.
    pub(super) fn of_shards(shape: &Shape, digests: &[[u8; 32]]) -> blake3::Hash {
        let mut hasher = header(shape, true);
        for digest in digests {
            hasher.update(digest);
        }
        hasher.finalize()
    }
}

fn header(shape: &Shape, is_cut: bool) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    let version: &[u8] =
        if is_cut { b"spectrald layer content v2\0" } else { b"spectrald layer content v1\0" };
    hasher.update(version);
    hasher.update(shape.dtype.name().as_bytes());
    let first = shape.first();
    for view in &shape.views {
        for n in [view.offset - first.offset, view.rows, view.cols, view.row_stride, view.col_stride] {
            hasher.update(&n.to_le_bytes());
        }
    }
    if let Some(scales) = &shape.scales {
        for n in [scales.how.block_rows, scales.how.block_cols] {
            hasher.update(&n.to_le_bytes());
        }
        scales.values.iter().for_each(|scale| {
            hasher.update(&scale.to_le_bytes());
        });
    }
    hasher
}
