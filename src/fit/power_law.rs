//! The power law of a spectrum's tail: density ∝ λ^-alpha for λ ≥ xmin.

use super::Mode;
use super::xmin::{Best, Tails, pruned_search};
use std::fmt;

/// WeightWatcher fits eigenvalues above this, whatever their scale (its `EVALS_THRESH`).
pub const WW_EVALS_THRESH: f64 = 1e-5;
/// Below this many points WeightWatcher takes another estimator (its `SMALL_N_CUTOFF`).
const WW_SMALL_N: usize = 20;
/// The shortest tail of that estimator (its `k_min`).
const WW_SMALL_N_TAIL: usize = 8;
/// A sum of logs at or below this is degenerate to it.
const WW_DEGENERATE: f64 = 1e-12;

/// What decides a fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PowerLawOptions {
    /// Whose numbers.
    pub mode: Mode,
    /// Eigenvalues at or below this are left out.
    pub cut: f64,
}

impl PowerLawOptions {
    /// WeightWatcher 0.7.7's `analyze()`: λ > 1e-5.
    pub fn compat() -> Self {
        Self { mode: Mode::Compat, cut: WW_EVALS_THRESH }
    }

    /// λ > `cut`, which should be relative to the spectrum: its noise floor, or eps·λ_max.
    pub fn strict(cut: f64) -> Self {
        Self { mode: Mode::Strict, cut }
    }
}

/// A fitted power law. Eigenvalues have the unit of W squared.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct PowerLaw {
    /// Exponent of the density.
    pub alpha: f64,
    /// Smallest eigenvalue of the tail.
    pub xmin: f64,
    /// Largest eigenvalue.
    pub xmax: f64,
    /// Kolmogorov-Smirnov distance with the left limits of the empirical distribution, as WeightWatcher takes it.
    pub d: f64,
    /// Kolmogorov-Smirnov distance with both limits: larger than `d` by at most 1/n.
    pub d_two_sided: f64,
    /// Standard error (alpha - 1) / √n of a known xmin (Clauset et al. 2009, eq. 3.2); infinite or negative where a
    /// degenerate fit of WeightWatcher's has it so.
    pub sigma: f64,
    /// Number of eigenvalues ≥ xmin.
    pub num_pl_spikes: usize,
    /// Index of xmin among the eigenvalues above the cut.
    pub index: usize,
    /// Least alpha over all xmin whose distance is within 1e-3 of the best: how much the choice of xmin matters.
    pub alpha_lo: f64,
    /// Greatest alpha over the same.
    pub alpha_hi: f64,
    /// Whether another xmin's distance is within 1e-12: rounding may have decided.
    pub tied: bool,
    /// Exponentials that the fit cost.
    pub evaluations: u64,
}

/// Why a spectrum has no power law.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FitFailure {
    /// Fewer than two eigenvalues above the cut.
    TooFewPoints {
        /// How many there are.
        points: usize,
        /// The cut.
        cut: f64,
    },
    /// All eigenvalues above the cut are equal.
    AllEqual,
    /// An eigenvalue is NaN or infinite.
    NotFinite,
}

impl fmt::Display for FitFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewPoints { points: 1, cut } => write!(f, "only 1 eigenvalue above {cut:e}"),
            Self::TooFewPoints { points, cut } => write!(f, "only {points} eigenvalues above {cut:e}"),
            Self::AllEqual => f.write_str("all eigenvalues are equal"),
            Self::NotFinite => f.write_str("an eigenvalue is not finite"),
        }
    }
}

/// Fits the tail of `evals`, which must be ascending.
///
/// The exponent is the maximum-likelihood estimate at each xmin, and the xmin the one of least distance, the
/// smallest of equals; every value but the last is tried. Strict: equal values are one xmin, and a tail of equal
/// values none. Compat: WeightWatcher's `WWFit` for each spectrum, including its other estimator below 20 points
/// (WW_powerlaw.py:95-182).
///
/// # Errors
/// A [`FitFailure`]. Compat knows fewer: equal eigenvalues fit there, with a meaningless alpha.
pub fn power_law(evals: &[f64], options: &PowerLawOptions) -> Result<PowerLaw, FitFailure> {
    if evals.iter().any(|eval| !eval.is_finite()) {
        return Err(FitFailure::NotFinite);
    }
    // WeightWatcher's cut is above zero; a caller's may not be, and zero has no logarithm.
    let first = evals.partition_point(|&eval| eval <= options.cut.max(0.0));
    let data = evals.get(first..).unwrap_or_default();
    if data.len() < 2 {
        return Err(FitFailure::TooFewPoints { points: data.len(), cut: options.cut });
    }
    match options.mode {
        Mode::Compat if data.len() < WW_SMALL_N => Ok(ww_small_n(data)),
        Mode::Compat => search(data, &(0..data.len() - 1).collect::<Vec<_>>()),
        Mode::Strict => search(data, &distinct_xmins(data)),
    }
}

/// Places of the first of each value but the largest.
fn distinct_xmins(data: &[f64]) -> Vec<usize> {
    let top = data.last().copied().unwrap_or_default();
    (0..data.len()).filter(|&i| data[i] < top && (i == 0 || data[i - 1] < data[i])).collect()
}

fn search(data: &[f64], candidates: &[usize]) -> Result<PowerLaw, FitFailure> {
    let mut tails = Tails::new(data);
    let best = pruned_search(&mut tails, candidates).ok_or(FitFailure::AllEqual)?;
    let alpha = tails.alpha(best.index);
    let (_, d_two_sided) = tails.distances(best.index);
    let n = (data.len() - best.index) as f64;
    Ok(assemble(
        data,
        Best { evaluations: tails.evaluations(), ..best },
        alpha,
        (alpha - 1.0) / n.sqrt(),
        d_two_sided,
    ))
}

fn assemble(data: &[f64], best: Best, alpha: f64, sigma: f64, d_two_sided: f64) -> PowerLaw {
    let xmin = data[best.index];
    PowerLaw {
        alpha,
        xmin,
        xmax: data[data.len() - 1],
        d: best.d,
        d_two_sided,
        sigma,
        num_pl_spikes: data.len() - data.partition_point(|&eval| eval < xmin),
        index: best.index,
        alpha_lo: best.alpha_range.0,
        alpha_hi: best.alpha_range.1,
        tied: best.tied,
        evaluations: best.evaluations,
    }
}

/// WeightWatcher's fit of fewer than 20 points, as it comes out: the exponent is corrected for bias,
/// alpha = 1 + (n - 1)/Σ ln(x_j/x_i), and only tails of 8 points or more are tried. The objective that it computes
/// to choose among them is then overruled: `WWFit.__init__` takes the least D. Where no tail will do, the first is
/// fitted after sigma was computed, and keeps the sigma of alpha = 0.
fn ww_small_n(data: &[f64]) -> PowerLaw {
    let n = data.len();
    let mut tails = Tails::new(data);
    let mut alphas = vec![0.0; n - 1];
    let mut distances = vec![(1.0, 1.0); n - 1];
    let mut any = false;
    for i in 0..n - 1 {
        if n - i >= WW_SMALL_N_TAIL && tails.log_sum(i) > WW_DEGENERATE {
            (alphas[i], distances[i]) = ww_small_tail(&mut tails, n, i);
            any = true;
        }
    }
    let sigmas: Vec<f64> =
        alphas.iter().enumerate().map(|(i, a)| (a - 1.0) / ((n - i) as f64).sqrt()).collect();
    if !any && tails.log_sum(0) > WW_DEGENERATE {
        (alphas[0], distances[0]) = ww_small_tail(&mut tails, n, 0);
    }
    let mut index = 0;
    for i in 1..n - 1 {
        if distances[i].0 < distances[index].0 {
            index = i;
        }
    }
    let d = distances[index].0;
    let near = (0..n - 1).filter(|&i| distances[i].0 <= d + super::xmin::NEAR).map(|i| alphas[i]);
    let alpha_range = near.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), a| (lo.min(a), hi.max(a)));
    let tied = (0..n - 1).any(|i| i != index && distances[i].0 <= d + super::xmin::TIE);
    let best = Best { index, d, alpha_range, tied, evaluations: tails.evaluations() };
    assemble(data, best, alphas[index], sigmas[index], distances[index].1)
}

fn ww_small_tail(tails: &mut Tails, n: usize, i: usize) -> (f64, (f64, f64)) {
    let rate = ((n - i) as f64 - 1.0) / tails.log_sum(i);
    (1.0 + rate, tails.distances_at(i, rate))
}

/// What an exponent says of its layer's training (Martin, Peng & Mahoney 2021).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Warning {
    /// alpha < 2: the layer may be over-trained.
    OverTrained,
    /// alpha > 6: the layer may be under-trained.
    UnderTrained,
}

impl Warning {
    /// WeightWatcher's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OverTrained => "over-trained",
            Self::UnderTrained => "under-trained",
        }
    }
}

/// The warning for an exponent; `None` for `alpha` is a failed fit. WeightWatcher gives that alpha = -1 and calls
/// it over-trained; strict says nothing of it.
pub fn warning(alpha: Option<f64>, mode: Mode) -> Option<Warning> {
    let alpha = match (alpha, mode) {
        (Some(alpha), _) => alpha,
        (None, Mode::Compat) => -1.0,
        (None, Mode::Strict) => return None,
    };
    if alpha < 2.0 {
        Some(Warning::OverTrained)
    } else if alpha > 6.0 {
        Some(Warning::UnderTrained)
    } else {
        None
    }
}
#[cfg(test)]
mod tmpcheck {
    use super::*;
    #[test]
    fn tmp() {
        let v: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string("/tmp/fitchk/cases.json").unwrap()).unwrap();
        let p = |v: &serde_json::Value| v.as_str().unwrap().parse::<f64>().unwrap();
        let mut bad = 0;
        let mut worst: f64 = 0.0;
        for (no, c) in v.as_array().unwrap().iter().enumerate() {
            let x: Vec<f64> = c["x"].as_array().unwrap().iter().map(p).collect();
            let fit = power_law(&x, &PowerLawOptions::compat());
            match fit {
                Err(e) => {
                    if c["status"] != "failed" {
                        bad += 1;
                        println!("{no} {e} {:?}", c["status"]);
                    }
                }
                Ok(f) => {
                    let rel = |a: f64, b: f64| if a == b { 0.0 } else { (a - b).abs() / b.abs() };
                    let m = rel(f.alpha, p(&c["alpha"]))
                        .max(rel(f.d, p(&c["D"])))
                        .max(rel(f.sigma, p(&c["sigma"])))
                        .max(rel(f.xmin, p(&c["xmin"])))
                        .max(rel(f.xmax, p(&c["xmax"])));
                    worst = if m > 1e-9 { worst } else { worst.max(m) };
                    if c["status"] != "success"
                        || m > 1e-9
                        || f.num_pl_spikes as i64 != c["k"].as_i64().unwrap()
                    {
                        bad += 1;
                        println!(
                            "{no} n={} {f:?} alpha {} D {} xmin {} k {}",
                            x.len(),
                            c["alpha"],
                            c["D"],
                            c["xmin"],
                            c["k"]
                        );
                    }
                }
            }
        }
        println!("bad {bad} worst {worst}");
    }
}
