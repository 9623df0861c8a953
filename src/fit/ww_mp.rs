//! WeightWatcher 0.7.7's Marchenko-Pastur fit, step by step (weightwatcher.py:4729-4823, RMT_Util.py:734-867): the
//! spectrum is scaled to mean 1, smoothed by a kernel of fixed width on a grid of fixed length, and sigma minimises
//! the squared difference from the law, first over a grid of sigmas and then by scipy's Nelder-Mead search.
//!
//! Known defects, kept: the grid is coarser than the kernel for heavy-tailed spectra, a square layer is compared
//! with a quarter circle whose support never moves, and the edge for spikes is not Tracy-Widom's.

use super::{MarchenkoPastur, MatrixShape, MpFailure};
use std::f64::consts::PI;

/// Width of the (triangular) kernel.
const BANDWIDTH: f64 = 0.1;
/// Points of the grid, from 0 to λ_max + 0.5.
const GRID: usize = 1000;
/// Points of less density are left out.
const THRESHOLD: f64 = 0.01;
/// Difference at every point, where the law lies off the data.
const PENALTY: f64 = 1000.0;
/// Most evaluations and iterations of the search, and the differences in sigma and in the sum at which it stops:
/// scipy's defaults.
const MOST: usize = 200;
const TOLERANCE: f64 = 1e-4;

/// WeightWatcher's fit of `evals` (ascending, of WᵀW). `shape.n` and `shape.m` are taken as they are, swapped
/// sides included; `shape.count` does not matter.
///
/// # Errors
/// [`MpFailure`], where WeightWatcher reports -1 in every column.
pub fn ww_mp_fit(evals: &[f64], shape: MatrixShape) -> Result<MarchenkoPastur, MpFailure> {
    if evals.iter().any(|eval| !eval.is_finite()) {
        return Err(MpFailure::NotFinite);
    }
    let norm: f64 = evals.iter().sum();
    if norm <= 0.0 {
        return Err(MpFailure::NoBulk);
    }
    let (n, m) = (shape.n as f64, shape.m as f64);
    let q = n / m;
    let w_scale = (evals.len() as f64).sqrt() / norm.sqrt();
    let scale = w_scale * w_scale;
    let scaled: Vec<f64> = evals.iter().map(|eval| scale * eval).collect();
    let lambda_max = scaled.last().copied().unwrap_or_default();
    let sigma = fit_sigma(&scaled, q)?;
    let bulk_max = (sigma * (1.0 + 1.0 / q.sqrt())).powi(2);
    let bulk_min = (sigma * (1.0 - 1.0 / q.sqrt())).powi(2);
    let edge = bulk_max + (1.0 / q.sqrt() * bulk_max.powf(2.0 / 3.0) * m.powf(-2.0 / 3.0)).sqrt();
    Ok(MarchenkoPastur {
        sigma,
        w_scale,
        bulk_min: bulk_min / scale,
        bulk_max: bulk_max / scale,
        num_spikes: scaled.iter().filter(|&&eval| eval > edge).count(),
        mp_softrank: bulk_max / lambda_max,
        tracy_widom_edge: edge / scale,
        element_variance: sigma * sigma / (scale * n),
        distance: None,
        converged: true,
    })
}

fn fit_sigma(scaled: &[f64], q: f64) -> Result<f64, MpFailure> {
    let lambda_max = scaled.last().copied().unwrap_or_default();
    let widest = (lambda_max / (1.0 + 1.0 / q.sqrt()).powi(2)).sqrt();
    let density = if q == 1.0 {
        Density::of(&scaled.iter().map(|eval| eval.sqrt()).collect::<Vec<_>>())
    } else {
        Density::of(scaled)
    };
    let density = density.ok_or(MpFailure::NoDensity)?;
    let mut misfit = |sigma: f64| density.misfit(q, sigma);
    let start = brute(&mut misfit, (0.05 * widest, 2.0 * widest, 0.01 * widest));
    Ok(nelder_mead(&mut misfit, start))
}

/// The smoothed spectrum where it is dense enough.
struct Density {
    x: Vec<f64>,
    y: Vec<f64>,
    peak: f64,
    end: f64,
}

impl Density {
    /// sklearn's `KernelDensity(kernel='linear')` of ascending values on `numpy.linspace(0, max + 0.5, 1000)`.
    fn of(values: &[f64]) -> Option<Self> {
        let stop = values.last()? + 0.5;
        let step = stop / (GRID - 1) as f64;
        let (mut x, mut y) = (Vec::with_capacity(GRID), Vec::with_capacity(GRID));
        for k in 0..GRID {
            let at = if k == GRID - 1 { stop } else { k as f64 * step };
            let density = kernel_density(values, at);
            if density > THRESHOLD {
                x.push(at);
                y.push(density);
            }
        }
        let top = y.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let peak = *x.get(y.iter().position(|&density| density == top)?)?;
        Some(Self { peak, end: *x.last()?, x, y })
    }

    /// Sum of squared differences from the law of this sigma.
    fn misfit(&self, q: f64, sigma: f64) -> f64 {
        if q == 1.0 {
            return self.squares(|x| (1.0 / (PI * sigma * sigma)) * (4.0 - x * x).sqrt());
        }
        let inverse = (1.0 / q).sqrt();
        let (low, high) = ((sigma * (1.0 - inverse)).powi(2), (sigma * (1.0 + inverse)).powi(2));
        if high < self.peak || high > self.end || low > self.peak {
            return PENALTY * PENALTY * self.x.len() as f64;
        }
        let y = 1.0 / q;
        self.squares(|x| (1.0 / (2.0 * PI * sigma * sigma * x * y)) * ((high - x) * (x - low)).sqrt())
    }

    fn squares(&self, law: impl Fn(f64) -> f64) -> f64 {
        let difference = |(&x, &y): (&f64, &f64)| {
            let density = law(x);
            // numpy.nan_to_num: outside its support the law is the root of a negative number.
            (if density.is_nan() { 0.0 } else { density.min(f64::MAX) }) - y
        };
        self.x.iter().zip(&self.y).map(difference).map(|d| d * d).sum()
    }
}

/// Mean of triangles of half-width [`BANDWIDTH`] around ascending values.
fn kernel_density(values: &[f64], at: f64) -> f64 {
    let first = values.partition_point(|&value| value <= at - BANDWIDTH);
    let near = values.iter().skip(first).take_while(|&&value| value < at + BANDWIDTH);
    let sum: f64 = near.map(|value| (1.0 - (value - at).abs() / BANDWIDTH).max(0.0)).sum();
    sum / (values.len() as f64 * BANDWIDTH)
}

/// scipy's `brute` over one slice (start, stop, step): the first of the least points of `numpy.arange`.
fn brute(misfit: &mut impl FnMut(f64) -> f64, (start, stop, step): (f64, f64, f64)) -> f64 {
    let points = ((stop - start) / step).ceil().clamp(1.0, 1000.0) as usize;
    // numpy steps by the difference of its first two points.
    let step = (start + step) - start;
    let mut best = (f64::INFINITY, start);
    for k in 0..points {
        let sigma = start + k as f64 * step;
        let value = misfit(sigma);
        if value < best.0 {
            best = (value, sigma);
        }
    }
    best.1
}

/// scipy's `fmin` in one dimension: Nelder & Mead's simplex of two points, with its limits and its tolerances.
fn nelder_mead(misfit: &mut impl FnMut(f64) -> f64, start: f64) -> f64 {
    let second = if start == 0.0 { 0.00025 } else { 1.05 * start };
    let mut simplex = [(misfit(start), start), (misfit(second), second)];
    let (mut calls, mut iterations) = (2, 1);
    order(&mut simplex);
    while calls < MOST && iterations < MOST {
        let [best, worst] = simplex;
        if (worst.1 - best.1).abs() <= TOLERANCE && (best.0 - worst.0).abs() <= TOLERANCE {
            break;
        }
        let mut budget = MOST - calls;
        let mut call = |sigma: f64| {
            // Past its budget scipy leaves the step undone.
            budget = budget.checked_sub(1)?;
            Some((misfit(sigma), sigma))
        };
        let Some(replaced) = step(&mut call, best, worst) else { break };
        simplex[1] = replaced;
        calls = MOST - budget;
        iterations += 1;
        order(&mut simplex);
    }
    simplex[0].1
}

/// One iteration: what takes the place of the worst point. In one dimension the best point is the centroid.
fn step(
    call: &mut impl FnMut(f64) -> Option<(f64, f64)>,
    best: (f64, f64),
    worst: (f64, f64),
) -> Option<(f64, f64)> {
    let reflected = call(2.0 * best.1 - worst.1)?;
    if reflected.0 < best.0 {
        let expanded = call(3.0 * best.1 - 2.0 * worst.1)?;
        return Some(if expanded.0 < reflected.0 { expanded } else { reflected });
    }
    // scipy's second-worst is the best here, so that reflection alone never helps.
    let contracted = if reflected.0 < worst.0 {
        Some(call(1.5 * best.1 - 0.5 * worst.1)?).filter(|contracted| contracted.0 <= reflected.0)
    } else {
        Some(call(0.5 * best.1 + 0.5 * worst.1)?).filter(|contracted| contracted.0 < worst.0)
    };
    match contracted {
        Some(contracted) => Some(contracted),
        None => call(best.1 + 0.5 * (worst.1 - best.1)),
    }
}

/// Best first; equals keep their order.
fn order(simplex: &mut [(f64, f64); 2]) {
    if simplex[1].0 < simplex[0].0 {
        simplex.swap(0, 1);
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    type Formula = fn(f64) -> f64;

    /// Eigenvalues f(t) at M even points of (0, 1).
    fn spectrum(m: u32, f: Formula) -> Vec<f64> {
        let mut evals: Vec<f64> = (0..m).map(|k| f((f64::from(k) + 0.5) / f64::from(m))).collect();
        evals.sort_by(f64::total_cmp);
        evals
    }

    /// num_spikes, sigma_mp, mp_softrank, bulk_min, bulk_max, W_scale of
    /// WeightWatcher().mp_fit(evals, N, M, 1, "", 0, 0, False, False, "", "", "", True, evals), version 0.7.7.
    #[test]
    fn every_branch_is_weightwatchers() {
        let flat: Formula = |t| 0.1 + 3.0 * t * t;
        let spiked: Formula = |t| 0.1 + 3.0 * t * t + if t > 0.97 { 40.0 * t } else { 0.0 };
        let heavy: Formula = |t| 1.0 / (1.001 - t).powf(1.5);
        #[rustfmt::skip]
        let cases: [(u32, u32, Formula, usize, [f64; 5]); 6] = [
            // The quarter circle of square layers.
            (100, 100, |t| 4.0 * t * t, 0, [0.996357716300948, 1.3369411622467038, 0.0, 5.294420696613172, 0.8660362293049648]),
            (400, 200, flat, 3, [0.9338700424537612, 0.9062054558038722, 0.08229657080474978, 2.7956608225072426, 0.9534652979576728]),
            (400, 200, spiked, 6, [0.6546929208965413, 0.06631228529357916, 0.08390896694308171, 2.8504348266998503, 0.6619768083880272]),
            // The penalty everywhere: the first sigma of the grid.
            (300, 250, heavy, 33, [0.28799651723460545, 0.0025, 0.03156552069537231, 15.21451548625544, 0.1412354895293969]),
            // Swapped sides, Q < 1.
            (64, 128, flat, 30, [0.49309061683537614, 0.5066631326637266, 0.04588690504849604, 1.5588039872833477, 0.9534692023528154]),
            (90, 80, |t| 1.0 + 1e-3 * t, 0, [0.5397090901812307, 1.0989183482767158, 0.0009532159656813696, 1.1000103983853156, 0.9997500937109548]),
        ];
        for (n, m, f, spikes, expected) in cases {
            let shape = MatrixShape { n: n.into(), m: m.into(), count: 1 };
            let fit = ww_mp_fit(&spectrum(m, f), shape).expect("fits");
            assert_eq!(fit.num_spikes, spikes, "{n}x{m}");
            let found = [fit.sigma, fit.mp_softrank, fit.bulk_min, fit.bulk_max, fit.w_scale];
            for (found, expected) in found.into_iter().zip(expected) {
                assert!(
                    (found - expected).abs() <= 1e-10 * expected.abs(),
                    "{n}x{m}: {found} is not {expected}"
                );
            }
        }
    }

    #[test]
    fn spectra_that_weightwatcher_cannot_fit() {
        let shape = MatrixShape { n: 20, m: 10, count: 1 };
        assert_eq!(ww_mp_fit(&[0.0; 10], shape), Err(MpFailure::NoBulk));
        assert_eq!(ww_mp_fit(&[f64::INFINITY], shape), Err(MpFailure::NotFinite));
    }
}
