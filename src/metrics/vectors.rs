//! How far an eigenvector is spread over its components, and the averages over tail and bulk (Martin & Mahoney,
//! JMLR 22, 2021).

/// Bins of the histogram behind the discrete entropy.
const BINS: usize = 100;
/// WeightWatcher's `EPSILON`, added to each bin's density.
const EPSILON: f64 = 1e-10;

/// Localisation of one vector, or the mean over several.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct VectorMetrics {
    /// Entropy of the histogram of |v_i| (100 bins), in nats: larger the more the components differ in size.
    pub entropy: f64,
    /// ‖v‖₁ / ‖v‖_∞: 1 for a single component, the length of v for equal ones.
    pub localization_ratio: f64,
    /// ‖v‖₂ / ‖v‖₄: 1 for a single component, (length of v)^(1/4) for equal ones.
    pub participation_ratio: f64,
}

/// The three metrics of a vector, with WeightWatcher's formulas (RMT_Util.py:603-639). NaN for a vector of zeros,
/// where the ratios are 0/0.
pub fn vector_metrics(v: &[f64]) -> VectorMetrics {
    let largest = v.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    let l1: f64 = v.iter().map(|x| x.abs()).sum();
    let l2 = v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let l4 = v.iter().map(|x| x.powi(4)).sum::<f64>().powf(0.25);
    VectorMetrics {
        entropy: discrete_entropy(v),
        localization_ratio: l1 / largest,
        participation_ratio: l2 / l4,
    }
}

/// Means over the eigenvectors whose eigenvalue is at least `xmin` (the tail) and over the others (the bulk);
/// `None` for a part without vectors. `evals` and `metrics` go together, in any order.
pub fn mean_over_tail_and_bulk(
    evals: &[f64],
    metrics: &[VectorMetrics],
    xmin: f64,
) -> (Option<VectorMetrics>, Option<VectorMetrics>) {
    let part = |in_tail: bool| {
        mean(evals.iter().zip(metrics).filter(move |(eval, _)| (**eval >= xmin) == in_tail).map(|(_, m)| m))
    };
    (part(true), part(false))
}

fn mean<'a>(metrics: impl Iterator<Item = &'a VectorMetrics>) -> Option<VectorMetrics> {
    let (mut count, mut sum) = (0.0, [0.0; 3]);
    for m in metrics {
        count += 1.0;
        sum = [sum[0] + m.entropy, sum[1] + m.localization_ratio, sum[2] + m.participation_ratio];
    }
    (count > 0.0).then(|| VectorMetrics {
        entropy: sum[0] / count,
        localization_ratio: sum[1] / count,
        participation_ratio: sum[2] / count,
    })
}

/// WeightWatcher's `discrete_entropy`: -Σ p ln p over the bins of `numpy.histogram(|v| - mean, 100, density=True)`.
fn discrete_entropy(v: &[f64]) -> f64 {
    let mean = v.iter().map(|x| x.abs()).sum::<f64>() / v.len() as f64;
    let values: Vec<f64> = v.iter().map(|x| x.abs() - mean).collect();
    let densities = histogram(&values).map(|density| density + EPSILON);
    let sum: f64 = densities.iter().sum();
    -densities.iter().map(|density| density / sum).map(|p| p * p.ln()).sum::<f64>()
}

/// `numpy.histogram(values, bins=100, density=True)`: equal bins, each without its right edge but the last.
fn histogram(values: &[f64]) -> [f64; BINS] {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // numpy widens an empty range.
    let (low, high) = if low == high { (low - 0.5, high + 0.5) } else { (low, high) };
    let step = (high - low) / BINS as f64;
    let edge = |bin: usize| if bin == BINS { high } else { bin as f64 * step + low };
    let mut counts = [0.0; BINS];
    for &value in values {
        // As numpy does: a guess, put right by the edges themselves.
        let mut bin = (((value - low) / (high - low) * BINS as f64) as usize).min(BINS - 1);
        if value < edge(bin) {
            bin = bin.saturating_sub(1);
        } else if bin + 1 < BINS && value >= edge(bin + 1) {
            bin += 1;
        }
        counts[bin] += 1.0;
    }
    let total = values.len() as f64;
    let mut densities = [0.0; BINS];
    for (bin, density) in densities.iter_mut().enumerate() {
        *density = counts[bin] / (edge(bin + 1) - edge(bin)) / total;
    }
    densities
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_component_and_equal_components() {
        let single = vector_metrics(&[0.0, -1.0, 0.0, 0.0]);
        assert_eq!((single.localization_ratio, single.participation_ratio), (1.0, 1.0));
        let equal = vector_metrics(&[0.25; 16]);
        assert_eq!((equal.localization_ratio, equal.participation_ratio), (16.0, 2.0));
        assert!(equal.entropy.abs() < 1e-6, "{equal:?}");
    }

    /// weightwatcher.RMT_Util: discrete_entropy(v), localization_ratio(v), participation_ratio(v) for
    /// v = numpy.sin(numpy.arange(1, n + 1) ** 2.0)
    #[test]
    fn weightwatchers_numbers() {
        for (n, expected) in WEIGHTWATCHER {
            let v: Vec<f64> = (1..=n).map(|k| f64::from(k).powi(2).sin()).collect();
            let found = vector_metrics(&v);
            for (found, expected) in
                [found.entropy, found.localization_ratio, found.participation_ratio].into_iter().zip(expected)
            {
                assert!((found / expected - 1.0).abs() < 1e-10, "n {n}: {found} {expected}");
            }
        }
    }

    const WEIGHTWATCHER: [(i32, [f64; 3]); 5] = [
        (2, [0.6931471808122467, 1.8993803814646115, 1.1859114006736469]),
        (7, [1.9459101512002748, 4.412453969078305, 1.453168744426161]),
        (64, [3.74292576527705, 40.71339011552173, 2.5438997447563696]),
        (300, [4.16661011274141, 191.27247079055513, 3.7655837305972866]),
        (1000, [4.333042221827805, 637.711811342261, 5.0846215096527585]),
    ];

    #[test]
    fn means_are_taken_apart_at_xmin() {
        let metrics = [1.0, 2.0, 6.0].map(|x| VectorMetrics {
            entropy: x,
            localization_ratio: 10.0 * x,
            participation_ratio: -x,
        });
        let (tail, bulk) = mean_over_tail_and_bulk(&[5.0, 1.0, 3.0], &metrics, 3.0);
        assert_eq!(
            tail.map(|m| (m.entropy, m.localization_ratio, m.participation_ratio)),
            Some((3.5, 35.0, -3.5))
        );
        assert_eq!(bulk.map(|m| m.entropy), Some(2.0));
        assert_eq!(mean_over_tail_and_bulk(&[5.0], &metrics, 0.0).1, None);
    }
}
