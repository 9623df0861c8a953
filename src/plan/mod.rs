//! Layers → tasks, each with its cost and peak memory, from shapes alone. Nothing is read.

use crate::analysis::{self, Options};
use crate::format::Catalog;
use crate::layer::Layer;
use crate::{spectrum, tensor};
use serde::Serialize;
use std::ops::Range;

/// What one layer costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// Floating-point operations: N·M² for the Gram matrix, 4/3·M³ for its eigenvalues, for each matrix and each
    /// spectrum asked for (the permuted ones too); of a convolution as an operator, [`spectrum::operator::flops`]; of
    /// partial spectra, [`spectrum::randomized::flops`].
    pub flops: f64,
    /// Stored bytes read (once; a layer that needs the SVD or its elements permuted may be read again, and a
    /// randomized spectrum without a Gram matrix reads them once a block of vectors).
    pub bytes: u64,
    /// Most memory taken at a time, in bytes.
    pub peak_bytes: u64,
}

/// Cost of analysing `layer` of `catalog`.
pub fn cost(catalog: &Catalog, layer: &Layer, options: &Options) -> Cost {
    let count = layer.matrices.len() as u64;
    let (rows, cols) = layer.matrix_shape();
    let (n, m) = (rows.max(cols), rows.min(cols));
    let elements = count.saturating_mul(n).saturating_mul(m);
    let Some(stored) = catalog.tensors.get(layer.tensor) else {
        return Cost { flops: 0.0, bytes: 0, peak_bytes: 0 };
    };
    let spectra =
        1 + u64::from(options.vectors) * 4 + u64::from(options.randomize) * replicas(layer, options);
    let copy = if options.randomize {
        let exact = tensor::is_exact_in_f32(stored.dtype) && layer.dequantise.is_none();
        tensor::Shuffled::bytes_needed(elements, exact)
    } else {
        0
    };
    let vectors = if options.vectors { m.saturating_mul(m).saturating_mul(8 * 6) } else { 0 };
    let (spectrum, flops) = match &layer.operator {
        Some(grid) => (spectrum::operator::bytes_needed(n, m, grid), spectrum::operator::flops(n, m, grid)),
        None => (
            spectrum::bytes_needed(count, n, m, options.method),
            spectrum::flops_of(count, n, m, options.method),
        ),
    };
    let sharded = tensor::shard_rows(&layer.matrices).map_or(0, |_| spectrum::sharded_gram_bytes(m));
    Cost {
        flops: spectra as f64 * flops,
        bytes: elements.saturating_mul(stored.dtype.bytes()),
        peak_bytes: tensor::bytes_needed(stored, &layer.matrices)
            .saturating_add(spectrum.max(sharded))
            .saturating_add(copy)
            .saturating_add(vectors),
    }
}

/// The shards of a layer that is computed in parts, runs of its rows in order; `None` if it is one task. Each is a
/// task of its own ([`shard_cost`], [`analysis::shard_gram`]); the sum of all is another ([`finish_cost`]).
pub fn shards(layer: &Layer, options: &Options) -> Option<Vec<Range<u64>>> {
    analysis::shards_of(layer, options)
}

/// Cost of the Gram matrix of one shard: N·M² flops for its N rows. Memory is that of the rows being read, the matrix,
/// and its triangle to be sent.
pub fn shard_cost(catalog: &Catalog, layer: &Layer, rows: &Range<u64>) -> Cost {
    let (_, m) = layer.matrix_shape();
    let n = rows.end.saturating_sub(rows.start);
    let Some(stored) = catalog.tensors.get(layer.tensor) else {
        return Cost { flops: 0.0, bytes: 0, peak_bytes: 0 };
    };
    Cost {
        flops: n as f64 * m as f64 * m as f64,
        bytes: n.saturating_mul(m).saturating_mul(stored.dtype.bytes()),
        peak_bytes: tensor::bytes_needed(stored, &layer.matrices)
            .saturating_add(spectrum::sharded_gram_bytes(m)),
    }
}

/// Cost of the row of a layer from the sum of its shards: 4/3·M³ flops. No byte is planned to be read; the memory is
/// that of the SVD and of reading for it all the same, as any layer may turn out to need it.
pub fn finish_cost(catalog: &Catalog, layer: &Layer, options: &Options) -> Cost {
    let (_, m) = layer.matrix_shape();
    let whole = cost(catalog, layer, options);
    Cost { flops: 4.0 / 3.0 * (m as f64).powi(3), bytes: 0, ..whole }
}

/// Permuted copies whose spectrum is computed: one, or in compatibility mode WeightWatcher's 1 or 5 and a further one
/// for the distance (weightwatcher.py:2995).
pub fn replicas(layer: &Layer, options: &Options) -> u64 {
    match (options.is_compat(), layer.num_evals() < 100) {
        (false, _) => 1,
        (true, false) => 2,
        (true, true) => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::DType;
    use crate::layer::testing::{catalog, tensor};
    use crate::layer::{LayerOptions, layers};
    use crate::spectrum::MethodChoice;

    #[test]
    fn parts_cost_what_the_whole_costs_and_fit_where_it_fits() {
        let options = Options::default();
        for (rows, cols) in [(262_144, 640), (128_256, 4096)] {
            let catalog = catalog(vec![tensor("a.weight", DType::BF16, &[rows, cols])], None);
            let layers = layers(&catalog, &options.layers).layers;
            let whole = cost(&catalog, &layers[0], &options);
            let shards = shards(&layers[0], &options).unwrap();
            let parts: Vec<Cost> = shards.iter().map(|s| shard_cost(&catalog, &layers[0], s)).collect();
            let finish = finish_cost(&catalog, &layers[0], &options);
            let flops = parts.iter().map(|c| c.flops).sum::<f64>() + finish.flops;
            assert!((flops - whole.flops).abs() < 1e-9 * whole.flops, "{rows} × {cols}");
            assert_eq!(parts.iter().map(|c| c.bytes).sum::<u64>() + finish.bytes, whole.bytes);
            assert!(parts.iter().all(|part| part.peak_bytes < whole.peak_bytes));
            assert!(parts.iter().all(|part| part.peak_bytes > 12 * cols * cols), "a matrix and a triangle");
            assert!(finish.peak_bytes <= whole.peak_bytes && finish.peak_bytes > 12 * cols * cols);
        }
    }

    #[test]
    fn what_needs_the_layer_again_is_one_task() {
        let once = Options::default();
        let catalog = catalog(vec![tensor("a.weight", DType::F32, &[262_144, 640])], None);
        let layers = layers(&catalog, &LayerOptions::default()).layers;
        assert_eq!(shards(&layers[0], &once).map(|shards| shards.len()), Some(11));
        let mp = Options { mp: true, erg: true, ..once.clone() };
        assert_eq!(shards(&layers[0], &mp).map(|shards| shards.len()), Some(11));
        for options in [
            Options { randomize: true, ..once.clone() },
            Options { vectors: true, ..once.clone() },
            Options { method: MethodChoice::Svd, ..once.clone() },
            Options { method: MethodChoice::Randomized(None), ..once.clone() },
            Options { compat: crate::analysis::Compat::Ww077, ..once.clone() },
        ] {
            assert_eq!(shards(&layers[0], &options), None, "{options:?}");
            let (plain, whole) = (cost(&catalog, &layers[0], &once), cost(&catalog, &layers[0], &options));
            assert!(whole.peak_bytes >= plain.peak_bytes || options.method.is_randomized());
        }
    }
}
