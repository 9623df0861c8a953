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

/// The best tail among those that begin at `candidates`.
pub(super) fn search(data: &[f64], candidates: &[usize]) -> Result<PowerLaw, FitFailure> {
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
mod tests {
    use super::*;
    use crate::fit::testing::Draw;
    use proptest::prelude::*;

    fn strict(evals: &[f64]) -> Result<PowerLaw, FitFailure> {
        let cut = 1e-12 * evals.last().copied().unwrap_or_default();
        power_law(evals, &PowerLawOptions::strict(cut))
    }

    fn compat(evals: &[f64]) -> Result<PowerLaw, FitFailure> {
        power_law(evals, &PowerLawOptions::compat())
    }

    fn assert_fit(evals: &[f64], [alpha, xmin, d, sigma]: [f64; 4], spikes: usize) {
        let fit = compat(evals).expect("fits");
        for (found, expected) in [(fit.alpha, alpha), (fit.xmin, xmin), (fit.d, d), (fit.sigma, sigma)] {
            let close = found == expected || (found / expected - 1.0).abs() < 1e-11;
            assert!(close, "{fit:?} of {evals:?}: {found} is not {expected}");
        }
        assert_eq!(fit.num_pl_spikes, spikes, "{evals:?}");
    }

    /// Ascending eigenvalues; alpha, xmin, D and sigma; num_pl_spikes, as weightwatcher 0.7.7 gives them:
    /// WeightWatcher().fit_powerlaw(evals, plot=False). Ties, too few for a tail of 8, and all equal included.
    #[rustfmt::skip]
    const SMALL: [(&[f64], [f64; 4], usize); 20] = [
        (&[0.001, 0.0902], [1.2221220487781514, 0.001, 0.13212055882855767, -0.7071067811865475], 2),
        (&[1.084, 1.42, 3.767], [2.319591987132192, 1.084, 0.1400719182970177, -0.5773502691896258], 3),
        (&[0.0046, 0.2409, 0.2433, 0.386, 1.7972], [1.2182896791753728, 0.0046, 0.3785531583741714, -0.4472135954999579], 5),
        (&[1.153, 1.251, 1.604, 1.782, 1.993, 3.354, 7.538], [2.3825750584916294, 1.153, 0.0807469069851533, -0.3779644730092272], 7),
        (&[0.0034, 0.0138, 0.0256, 0.0359, 0.0746, 0.2912, 1.6074, 6.3351], [1.2592212865565697, 0.0034, 0.17951186497933602, 0.09164856477602584], 8),
        (&[1.004, 1.011, 1.134, 1.158, 1.302, 1.375, 1.574, 1.663, 2.015], [4.20427171094088, 1.004, 0.12073451362643528, 1.0680905703136265], 9),
        (&[0.0051, 0.0068, 0.0132, 0.0135, 0.0152, 0.4125, 0.7395, 1.5018, 1.8474, 2.3947], [1.2960220788063195, 0.0051, 0.22758365674721737, 0.09361040067258275], 10),
        (&[1.041, 1.059, 1.077, 1.25, 1.507, 1.558, 1.658, 1.859, 2.134, 2.968, 4.784], [2.8715487773231514, 1.041, 0.1359694540140861, 0.5642931882935729], 11),
        (&[0.0172, 0.0395, 0.2155, 0.2157, 0.3366, 0.4195, 0.6325, 0.8088, 1.3125, 1.4104, 1.7527, 3.9707], [1.7372601987735428, 0.2155, 0.1478866215356608, 0.2331421456312873], 10),
        (&[1.02, 1.092, 1.214, 1.32, 1.476, 1.703, 1.779, 1.812, 1.948, 2.858, 3.841, 5.057, 10.348], [2.342127079716131, 1.214, 0.0923618903844664, 0.40466654039943806], 11),
        (&[0.001, 0.0016, 0.0937, 0.1165, 0.1212, 0.1978, 0.3413, 0.4275, 0.4477, 1.108, 1.3609, 1.6674, 2.851, 4.1436], [1.5281775842571874, 0.0937, 0.16144397470100552, 0.15247173522540672], 12),
        (&[1.002, 1.046, 1.166, 1.202, 1.293, 1.478, 1.792, 1.856, 1.856, 1.997, 2.132, 2.189, 2.692, 3.326, 17.272], [2.3867297420070797, 1.002, 0.15342752791994096, 0.35805207976559517], 15),
        (&[0.009, 0.0151, 0.0181, 0.0382, 0.1327, 0.3503, 0.5737, 0.6078, 0.7159, 0.7177, 0.7371, 0.9459, 1.2811, 3.0499, 3.992, 4.5318], [2.1636025857008194, 0.5737, 0.15688370290352383, 0.3679634462075863], 10),
        (&[1.039, 1.09, 1.126, 1.179, 1.207, 1.208, 1.232, 1.263, 1.449, 1.476, 1.518, 1.537, 1.603, 1.766, 1.911, 2.14, 3.468], [4.857853339007309, 1.476, 0.10536202605977951, 1.3639571284176164], 8),
        (&[0.0011, 0.0015, 0.0445, 0.091, 0.1077, 0.1148, 0.1418, 0.3149, 0.4005, 0.4516, 0.5411, 0.652, 1.1121, 1.9015, 1.9814, 2.1152, 2.7369, 3.1022], [1.506812000494372, 0.091, 0.20029087476338708, 0.1308582958381845], 15),
        (&[1.005, 1.012, 1.019, 1.024, 1.024, 1.027, 1.097, 1.128, 1.163, 1.216, 1.229, 1.275, 1.766, 1.82, 1.979, 2.161, 2.607, 2.639, 5.651], [3.147612072729237, 1.024, 0.127272635271499, 0.5369030181823092], 16),
        (&[3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5], [0.0, 3.5, 1.0, -0.22941573387056174], 19),
        (&[3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 5.0], [20.62571276439995, 3.5, 0.75, 6.938737290663293], 9),
        (&[1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 4.0, 4.0], [2.227843378412744, 1.0, 0.32381393438846245, 0.3544478525246486], 12),
        (&[1e-06, 1e-06, 1e-06, 1e-06, 1.0, 2.0, 4.0, 9.0], [1.70148099395943, 1.0, 0.13505938276519935, -0.5], 4),
    ];

    #[test]
    fn compat_below_twenty_points_is_weightwatchers() {
        for (evals, expected, spikes) in SMALL {
            assert_fit(evals, expected, spikes);
        }
    }

    /// The same call for formulas of k = 0..n, which both sides compute to the same bits.
    #[test]
    fn compat_from_twenty_points_on_is_weightwatchers() {
        let spectrum = |n: i32, f: fn(f64, f64) -> f64| -> Vec<f64> {
            (0..n).map(|k| f(f64::from(k), f64::from(n))).collect()
        };
        let quadratic = |k, n| ((k + 1.0) / n) * ((k + 1.0) / n);
        let steep = |k, n| n / (n - k + 1.0) * (1.0 + k / n);
        let tied = |k: f64, _| (k / 4.0).floor() + 1.0;
        for (n, expected, spikes) in [
            (20, [3.187218098721589, 0.42250000000000004, 0.221792980660374, 0.7732983747699914], 8),
            (64, [4.595261520505076, 0.586181640625, 0.1902479168954565, 0.898815380126269], 16),
            (500, [9.764080036666577, 0.7992360000000001, 0.1660882011489097, 1.1926402308192], 54),
        ] {
            assert_fit(&spectrum(n, quadratic), expected, spikes);
        }
        for (n, expected, spikes) in [
            (20, [1.9998398092855183, 1.411764705882353, 0.10729833717598913, 0.24995995232137957], 16),
            (64, [1.970581003623277, 2.394736842105263, 0.06487726334853922, 0.15956253409348406], 37),
            (500, [1.9842359780816994, 6.583333333333334, 0.026366115740625695, 0.08599309667617251], 131),
        ] {
            assert_fit(&spectrum(n, steep), expected, spikes);
        }
        for (n, expected, spikes) in [
            (20, [2.9852072080985277, 2.0, 0.3028817845543389, 0.4963018020246319], 16),
            (64, [4.213547565019459, 9.0, 0.22826234026118797, 0.5680803187226943], 32),
            (500, [10.072464759189913, 101.0, 0.17921083067007176, 0.9072464759189913], 100),
        ] {
            assert_fit(&spectrum(n, tied), expected, spikes);
        }
    }

    #[test]
    fn compat_fits_equal_eigenvalues_with_an_infinite_alpha() {
        let fit = compat(&[3.7; 50]).expect("WeightWatcher calls it a success");
        assert_eq!((fit.alpha, fit.d, fit.sigma, fit.num_pl_spikes), (f64::INFINITY, 0.5, f64::INFINITY, 50));
    }

    #[test]
    fn failures_say_why() {
        let message = |evals: &[f64]| strict(evals).expect_err("fails").to_string();
        assert_eq!(message(&[2.0; 30]), "all eigenvalues are equal");
        assert_eq!(message(&[0.0, 0.0, 2.0]), "only 1 eigenvalue above 2e-12");
        assert_eq!(message(&[]), "only 0 eigenvalues above 0e0");
        assert_eq!(message(&[1.0, f64::NAN]), "an eigenvalue is not finite");
        assert_eq!(compat(&[1e-6, 1e-5, 1.0]), Err(FitFailure::TooFewPoints { points: 1, cut: 1e-5 }));
    }

    #[test]
    fn strict_merges_equal_eigenvalues_and_never_fits_a_tail_of_one_value() {
        let fit = strict(&[1.0, 1.0, 2.0, 2.0, 4.0, 4.0]).expect("fits");
        assert!(fit.alpha.is_finite() && [0, 2].contains(&fit.index), "{fit:?}");
        assert_eq!(fit.num_pl_spikes, 6 - fit.index);
        assert!(strict(&[1.0, 2.0]).is_ok());
    }

    #[test]
    fn the_two_sided_distance_is_larger_by_at_most_one_point() {
        for seed in 0..50 {
            let fit = strict(&Draw::new(seed).many(80, |d| d.pareto(2.5))).expect("fits");
            let step = 1.0 / fit.num_pl_spikes as f64;
            assert!(fit.d_two_sided >= fit.d && fit.d_two_sided <= fit.d + step + 1e-12, "{fit:?}");
            assert!(fit.alpha_lo <= fit.alpha && fit.alpha <= fit.alpha_hi, "{fit:?}");
        }
    }

    #[test]
    fn alpha_of_pareto_draws_is_recovered() {
        for alpha in [1.8, 2.5, 4.0] {
            let fits: Vec<PowerLaw> = (0..120)
                .map(|seed| strict(&Draw::new(1000 + seed).many(400, |d| d.pareto(alpha))).expect("fits"))
                .collect();
            // sigma is the error for a known xmin; choosing xmin by distance widens it a little.
            let off = fits.iter().filter(|fit| (fit.alpha - alpha).abs() > 3.0 * fit.sigma).count();
            assert!(off <= 6, "alpha {alpha}: {off} of 120");
            let mean = fits.iter().map(|fit| fit.alpha).sum::<f64>() / 120.0;
            assert!((mean / alpha - 1.0).abs() < 0.05, "alpha {alpha}: mean {mean}");
        }
    }

    proptest! {
        #[test]
        fn a_power_of_two_scales_xmin_alone(seed in 0_u64..1000, power in -40..40_i32) {
            let evals = Draw::new(seed).many(100, |d| d.pareto(3.0));
            let scale = 2.0_f64.powi(power);
            let scaled: Vec<f64> = evals.iter().map(|eval| eval * scale).collect();
            let (one, other) = (strict(&evals).expect("fits"), strict(&scaled).expect("fits"));
            let moved = PowerLaw { xmin: one.xmin * scale, xmax: one.xmax * scale, ..one };
            prop_assert_eq!(moved, other);
        }

        #[test]
        fn any_factor_leaves_alpha(seed in 0_u64..1000, factor in 1e-6..1e6_f64) {
            let evals = Draw::new(seed).many(100, |d| d.pareto(3.0));
            let scaled: Vec<f64> = evals.iter().map(|eval| eval * factor).collect();
            let (one, other) = (strict(&evals).expect("fits"), strict(&scaled).expect("fits"));
            prop_assert!((one.d - other.d).abs() < 1e-12);
            prop_assert!(one.index == other.index || one.tied);
            prop_assert!((one.alpha / other.alpha - 1.0).abs() < 1e-11 || one.tied);
        }
    }

    #[test]
    fn warnings_at_their_thresholds() {
        let word = |alpha, mode| warning(alpha, mode).map(Warning::as_str);
        for mode in [Mode::Strict, Mode::Compat] {
            assert_eq!(word(Some(1.99), mode), Some("over-trained"));
            assert_eq!((word(Some(2.0), mode), word(Some(6.0), mode)), (None, None));
            assert_eq!(word(Some(6.01), mode), Some("under-trained"));
        }
        assert_eq!(word(None, Mode::Strict), None);
        assert_eq!(word(None, Mode::Compat), Some("over-trained"));
    }
}
