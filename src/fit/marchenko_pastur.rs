//! The Marchenko-Pastur law of random matrices, its fit to the bulk of a spectrum, and the Tracy-Widom edge beyond
//! which an eigenvalue is a spike.
//!
//! For W of N×M (Q = N/M ≥ 1) independent elements of variance s², the eigenvalues of WᵀW/(N s²) follow the law
//! between (1 ± 1/√Q)² (Marchenko & Pastur 1967).

use std::f64::consts::PI;
use std::fmt;

/// The 99 % quantile of the Tracy-Widom distribution of order 1 (Johnstone 2001; tables of Bejan 2005). One matrix
/// of noise in a hundred has an eigenvalue above the edge that this gives.
pub const TW1_99: f64 = 2.0234;

/// Quantiles of the bulk that the fit compares, between its quartiles.
const QUANTILES: usize = 65;
/// A fit that has called this share of a spectrum spikes has found no bulk.
const MOST_SPIKES: f64 = 0.5;

/// The shape of the matrices behind a spectrum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixShape {
    /// Longer side of each matrix.
    pub n: u64,
    /// Shorter side of each matrix.
    pub m: u64,
    /// How many matrices' eigenvalues are pooled.
    pub count: u64,
}

/// The Marchenko-Pastur law for aspect ratio Q ≥ 1 and scale sigma: eigenvalues in
/// `[sigma² (1 - 1/√Q)², sigma² (1 + 1/√Q)²]`, mean sigma².
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MpLaw {
    variance: f64,
    /// 1/√Q.
    root: f64,
}

impl MpLaw {
    /// A law; `q` below 1 is taken as 1/q, which has the same non-zero eigenvalues up to scale.
    pub fn new(q: f64, sigma: f64) -> Self {
        Self { variance: sigma * sigma, root: 1.0 / q.max(1.0 / q).sqrt() }
    }

    /// Least and greatest eigenvalue.
    pub fn edges(&self) -> (f64, f64) {
        (self.variance * (1.0 - self.root).powi(2), self.variance * (1.0 + self.root).powi(2))
    }

    /// Density at `x`: `√((b - x)(x - a)) / (2π sigma² x / Q)` between the edges a and b, else 0.
    pub fn density(&self, x: f64) -> f64 {
        let (a, b) = self.edges();
        if x <= a || x >= b {
            return 0.0;
        }
        ((b - x) * (x - a)).sqrt() / (2.0 * PI * self.variance * x * self.root * self.root)
    }

    /// Share of eigenvalues ≤ `x`.
    pub fn cdf(&self, x: f64) -> f64 {
        let (a, b) = self.edges();
        if x <= a || x >= b {
            return if x >= b { 1.0 } else { 0.0 };
        }
        let scaled = x / self.variance;
        let cos = (1.0 + self.root * self.root - scaled) / (2.0 * self.root);
        self.cdf_at_angle(cos.clamp(-1.0, 1.0).acos())
    }

    /// The eigenvalue with the share `p` of eigenvalues below it.
    pub fn quantile(&self, p: f64) -> f64 {
        let (mut low, mut high) = (0.0, PI);
        // 60 halvings of π leave less than rounding.
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if self.cdf_at_angle(middle) < p {
                low = middle;
            } else {
                high = middle;
            }
        }
        let angle: f64 = 0.5 * (low + high);
        self.variance * (1.0 + self.root * self.root - 2.0 * self.root * angle.cos())
    }

    /// The distribution at x = sigma² (1 + r² - 2 r cos θ), r = 1/√Q: ∫ (2/π) sin²θ / (1 + r² - 2 r cos θ) dθ in
    /// closed form. The angle makes the law smooth at both edges, also at Q = 1 where its density has a pole.
    fn cdf_at_angle(&self, angle: f64) -> f64 {
        let r = self.root;
        let half = 0.5 * angle;
        let turn = ((1.0 + r) * half.sin()).atan2((1.0 - r) * half.cos());
        let r2 = r * r;
        let whole = ((1.0 + r2) * angle + 2.0 * r * angle.sin() - 2.0 * (1.0 - r2) * turn) / (2.0 * PI * r2);
        whole.clamp(0.0, 1.0)
    }
}

/// The largest eigenvalue of WᵀW that noise of this element variance reaches: the 99 % point of
/// s² (μ + width·TW₁) with μ = (√(N-1) + √M)² and width = (√(N-1) + √M)(1/√(N-1) + 1/√M)^(1/3) (Johnstone 2001).
pub fn tracy_widom_edge(n: f64, m: f64, element_variance: f64) -> f64 {
    let (root_n, root_m) = ((n - 1.0).max(1.0).sqrt(), m.max(1.0).sqrt());
    let sum = root_n + root_m;
    let width = sum * (1.0 / root_n + 1.0 / root_m).cbrt();
    element_variance * (sum * sum + TW1_99 * width)
}

/// A fitted bulk, in WeightWatcher's conventions: sigma is that of the spectrum scaled to mean 1 (by `w_scale`²), the
/// edges are those of the spectrum as it is.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct MarchenkoPastur {
    /// Scale of the law fitted to the eigenvalues times `w_scale`².
    pub sigma: f64,
    /// √(number of eigenvalues) / ‖W‖.
    pub w_scale: f64,
    /// Lower edge of the bulk.
    pub bulk_min: f64,
    /// Upper edge of the bulk, λ₊.
    pub bulk_max: f64,
    /// Number of eigenvalues above the edge of noise.
    pub num_spikes: usize,
    /// λ₊/λ_max.
    pub mp_softrank: f64,
    /// The edge of noise that decides spikes. Strict: Tracy-Widom, 99 %. Compat: WeightWatcher's own.
    pub tracy_widom_edge: f64,
    /// Variance of the elements of W without its spikes.
    pub element_variance: f64,
    /// Kolmogorov-Smirnov distance of the bulk (what is left without spikes) from the law; `None` in compat. Large:
    /// the layer has no bulk of noise, and the other figures mean little.
    pub distance: Option<f64>,
    /// False if taking out spikes did not come to rest before half of the spectrum was gone, as in layers without a
    /// bulk of noise: the figures are those of the try whose bulk was nearest to its law.
    pub converged: bool,
}

/// Why a spectrum has no Marchenko-Pastur fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MpFailure {
    /// No eigenvalues above zero.
    NoBulk,
    /// An eigenvalue is NaN or infinite.
    NotFinite,
    /// WeightWatcher's density estimate is below its threshold everywhere, where it fails too.
    NoDensity,
}

impl fmt::Display for MpFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoBulk => "no eigenvalue is above zero",
            Self::NotFinite => "an eigenvalue is not finite",
            Self::NoDensity => "the density of eigenvalues is below 0.01 everywhere",
        })
    }
}

/// Fits the bulk of `evals` (ascending, of WᵀW): the scale is the median ratio of the bulk's quantiles, between
/// its quartiles, to those of the law. Eigenvalues above the Tracy-Widom edge of that scale are spikes; they are
/// taken out and the rest fitted again, until no more are found. Half of the spectrum may be arbitrarily large
/// without moving the fit far, and eigenvalues of zero (missing rank) make the bulk narrower, not smaller.
///
/// # Errors
/// [`MpFailure::NoBulk`] or [`MpFailure::NotFinite`].
pub fn fit_bulk(evals: &[f64], shape: MatrixShape) -> Result<MarchenkoPastur, MpFailure> {
    if evals.iter().any(|eval| !eval.is_finite()) {
        return Err(MpFailure::NotFinite);
    }
    let lambda_max = evals.last().copied().filter(|&top| top > 0.0).ok_or(MpFailure::NoBulk)?;
    let floor = lambda_max * f64::EPSILON * evals.len() as f64;
    let positive = evals.get(evals.partition_point(|&eval| eval <= floor)..).unwrap_or_default();
    let (bulk, converged) = settle(positive, shape);
    let w_scale = (evals.len() as f64 / evals.iter().sum::<f64>()).sqrt();
    let (bulk_min, bulk_max) = MpLaw::new(bulk.q, bulk.scale.sqrt()).edges();
    Ok(MarchenkoPastur {
        sigma: bulk.scale.sqrt() * w_scale,
        w_scale,
        bulk_min,
        bulk_max,
        num_spikes: count_above(positive, bulk.edge),
        mp_softrank: bulk_max / lambda_max,
        tracy_widom_edge: bulk.edge,
        element_variance: bulk.element_variance,
        distance: Some(bulk.distance),
        converged,
    })
}

/// A try at the bulk: what remains after taking out spikes.
struct Bulk {
    q: f64,
    /// Mean of the law, N s².
    scale: f64,
    element_variance: f64,
    edge: f64,
    /// Kolmogorov-Smirnov distance of the remaining eigenvalues from the law.
    distance: f64,
}

/// Takes out spikes until no more are found, and gives the try whose bulk was nearest to its law; whether taking out
/// came to rest with most of the spectrum left.
fn settle(positive: &[f64], shape: MatrixShape) -> (Bulk, bool) {
    let mut spikes = 0;
    let mut best = fit_quantiles(positive, spikes, shape);
    let mut above = count_above(positive, best.edge);
    loop {
        if above as f64 > MOST_SPIKES * positive.len() as f64 {
            return (best, false);
        }
        if above <= spikes {
            return (best, true);
        }
        spikes = above;
        let next = fit_quantiles(positive, spikes, shape);
        above = count_above(positive, next.edge);
        if next.distance < best.distance {
            best = next;
        }
    }
}

/// Number of ascending values above `edge`.
fn count_above(values: &[f64], edge: f64) -> usize {
    values.len() - values.partition_point(|&value| value <= edge)
}

fn fit_quantiles(positive: &[f64], spikes: usize, shape: MatrixShape) -> Bulk {
    let bulk = positive.get(..positive.len() - spikes).unwrap_or_default();
    let count = shape.count.max(1) as f64;
    // A spike takes a direction of rows and one of columns with it; missing rank only one of columns.
    let n = (shape.n as f64 - spikes as f64 / count).max(1.0);
    let m = (bulk.len() as f64 / count).clamp(1.0, n);
    let q = n / m;
    let law = MpLaw::new(q, 1.0);
    let (first, last) = (bulk.len() / 4, (3 * bulk.len() / 4).max(bulk.len() / 4 + 1));
    let step = (last - first).div_ceil(QUANTILES);
    let mut ratios: Vec<f64> = (first..last)
        .step_by(step.max(1))
        .filter_map(|i| Some(bulk.get(i)? / law.quantile((i as f64 + 0.5) / bulk.len() as f64)))
        .collect();
    ratios.sort_by(f64::total_cmp);
    let scale = median(&ratios);
    let element_variance = scale / n;
    let distance = distance(bulk, MpLaw::new(q, scale.sqrt()));
    Bulk { q, scale, element_variance, distance, edge: tracy_widom_edge(n, m, element_variance) }
}

/// Kolmogorov-Smirnov distance of ascending values from a law.
fn distance(values: &[f64], law: MpLaw) -> f64 {
    let n = values.len() as f64;
    let gap = |(i, &value): (usize, &f64)| {
        let model = law.cdf(value);
        (model - i as f64 / n).abs().max((model - (i + 1) as f64 / n).abs())
    };
    values.iter().enumerate().map(gap).fold(0.0, f64::max)
}

/// Median of ascending values; 0 of none.
fn median(values: &[f64]) -> f64 {
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(low), values.get(high)) {
        (Some(a), Some(b)) => 0.5 * (a + b),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::testing::Draw;

    const ASPECTS: [f64; 6] = [1.0, 1.0001, 1.5, 4.0, 80.0, 10_000.0];

    #[test]
    fn the_law_integrates_to_one_and_has_mean_sigma_squared() {
        for q in ASPECTS {
            let law = MpLaw::new(q, 1.3);
            let (a, b) = law.edges();
            // x = a + (b-a) t², which tames the pole at Q = 1.
            let steps = 20_000;
            let (mut mass, mut mean) = (0.0, 0.0);
            for k in 0..steps {
                let t = (f64::from(k) + 0.5) / f64::from(steps);
                let x = a + (b - a) * t * t;
                let weight = law.density(x) * 2.0 * t * (b - a) / f64::from(steps);
                mass += weight;
                mean += x * weight;
            }
            assert!((mass - 1.0).abs() < 1e-4, "Q {q}: mass {mass}");
            assert!((mean / 1.69 - 1.0).abs() < 1e-4, "Q {q}: mean {mean}");
        }
    }

    #[test]
    fn the_distribution_is_the_integral_of_the_density() {
        for q in ASPECTS {
            let law = MpLaw::new(q, 0.7);
            let (a, b) = law.edges();
            assert_eq!((law.cdf(a - 1.0), law.cdf(b + 1.0)), (0.0, 1.0));
            for k in 1..20 {
                let x = a + (b - a) * f64::from(k) / 20.0;
                let h = (b - a) * 1e-5;
                let slope = (law.cdf(x + h) - law.cdf(x - h)) / (2.0 * h);
                assert!((slope / law.density(x) - 1.0).abs() < 1e-4, "Q {q}, x {x}");
                assert!((law.quantile(law.cdf(x)) / x - 1.0).abs() < 1e-7, "Q {q}, x {x}");
            }
        }
    }

    #[test]
    fn sigma_and_edge_of_pure_noise() {
        for (seed, (n, m)) in
            [(240, 240), (300, 200), (241, 240), (400, 100), (900, 60)].into_iter().enumerate()
        {
            let evals = Draw::new(seed as u64).wishart(n, m, &[]);
            let shape = MatrixShape { n: n as u64, m: m as u64, count: 1 };
            let fit = fit_bulk(&evals, shape).expect("fits");
            assert!(fit.converged && fit.num_spikes == 0, "{n}x{m}: {fit:?}");
            assert!((fit.element_variance - 1.0).abs() < 0.04, "{n}x{m}: {fit:?}");
            assert!((fit.sigma - 1.0).abs() < 0.02, "{n}x{m}: {fit:?}");
            let width =
                (fit.tracy_widom_edge - (n as f64).sqrt().mul_add(1.0, (m as f64).sqrt()).powi(2)) / TW1_99;
            assert!(
                (fit.bulk_max - evals[m - 1]).abs() < 4.0 * width.abs(),
                "{n}x{m}: {fit:?} {}",
                evals[m - 1]
            );
        }
    }

    #[test]
    fn planted_spikes_are_counted_and_do_not_move_the_bulk() {
        for (seed, (n, m)) in [(200, 200), (300, 150), (400, 80)].into_iter().enumerate() {
            let shape = MatrixShape { n: n as u64, m: m as u64, count: 1 };
            let edge = ((n as f64).sqrt() + (m as f64).sqrt()).powi(2);
            for (spikes, factor) in [(1, 1.0e4), (10, 3.0), (m / 4, 10.0), (m / 4, 1.0e4)] {
                let planted = vec![(edge * factor).sqrt(); spikes];
                let evals = Draw::new(100 + seed as u64).wishart(n, m, &planted);
                let fit = fit_bulk(&evals, shape).expect("fits");
                assert_eq!((fit.num_spikes, fit.converged), (spikes, true), "{n}x{m}, {spikes}×{factor}");
                let sigma = fit.element_variance.sqrt();
                assert!((sigma - 1.0).abs() < 0.02, "{n}x{m}, {spikes}×{factor}: {sigma}");
            }
        }
    }

    #[test]
    fn missing_rank_does_not_shrink_the_bulk() {
        let mut evals = vec![0.0; 60];
        evals.extend(Draw::new(3).wishart(300, 140, &[]));
        let fit = fit_bulk(&evals, MatrixShape { n: 300, m: 200, count: 1 }).expect("fits");
        assert!((fit.element_variance - 1.0).abs() < 0.04, "{fit:?}");
    }

    #[test]
    fn the_largest_eigenvalue_of_noise_is_below_the_edge_in_99_of_100() {
        let mut draw = Draw::new(11);
        let above =
            (0..200).filter(|_| draw.wishart(40, 20, &[])[19] > tracy_widom_edge(40.0, 20.0, 1.0)).count();
        assert!(above <= 7, "{above} of 200");
    }

    #[test]
    fn scaling_the_matrix_scales_the_edges_alone() {
        let evals = Draw::new(5).wishart(120, 60, &[40.0]);
        let shape = MatrixShape { n: 120, m: 60, count: 1 };
        let one = fit_bulk(&evals, shape).expect("fits");
        let scaled: Vec<f64> = evals.iter().map(|eval| eval * 1024.0).collect();
        let other = fit_bulk(&scaled, shape).expect("fits");
        assert_eq!((one.sigma, one.num_spikes), (other.sigma, other.num_spikes));
        assert_eq!(one.bulk_max * 1024.0, other.bulk_max);
    }

    #[test]
    fn spectra_without_a_bulk() {
        let shape = MatrixShape { n: 4, m: 4, count: 1 };
        assert_eq!(fit_bulk(&[0.0; 4], shape), Err(MpFailure::NoBulk));
        assert_eq!(fit_bulk(&[], shape), Err(MpFailure::NoBulk));
        assert_eq!(fit_bulk(&[1.0, f64::NAN], shape), Err(MpFailure::NotFinite));
        assert!(fit_bulk(&[2.0], MatrixShape { n: 1, m: 1, count: 1 }).is_ok());
    }
}
