//! The ERG (exact renormalisation group, "trace-log") condition of SETOL (arXiv 2507.17912): the tail whose
//! eigenvalues, of the spectrum scaled to mean 1, multiply to 1.

use crate::fit::Mode;

/// A logarithm of a product this near 0 may be on either side of it for rounding; the product itself decides.
const UNSURE: f64 = 1e-6;
/// exp of less than this is below the smallest normal number: the product loses digits, and its fate depends on the
/// order. Factors above ½ leave the least number above 0 as it is, so that it rarely becomes 0.
const SUBNORMAL: f64 = -708.0;

/// The tail of determinant 1, and how far the power law's is from it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Erg {
    /// Number of eigenvalues in the tail.
    pub detx_num: usize,
    /// WeightWatcher's second name for `detx_num`.
    pub num_erg_spikes: usize,
    /// `detx_num` - `num_pl_spikes`; compat counts a failed power law as -1 spikes; strict gives `None`.
    pub erg_gap: Option<i64>,
    /// Smallest eigenvalue of the tail, λ_min^detX.
    pub detx_val: f64,
    /// The same, of the spectrum scaled to mean 1. (The names are WeightWatcher's, which has them the wrong way round.)
    pub detx_val_unrescaled: f64,
    /// Δλ_min = xmin - λ_min^detX (SETOL eq. 164), 0 for an ideally trained layer; `None` without a power law.
    pub delta_lambda_min: Option<f64>,
}

/// The ERG tail of ascending `evals`; `power_law` is (xmin, num_pl_spikes) of the fit, if it succeeded.
///
/// Strict: among the tails that hold every eigenvalue above the mean, the one whose |ln det| is least, by sums of
/// logarithms; the shorter of equals. (Shorter tails than those have determinants above 1 that first grow, so that one
/// lone eigenvalue near the mean could win there.) `None` if all eigenvalues are equal: every tail would do.
///
/// Compat: WeightWatcher's `detX_constraint` (RMT_Util.py:1116-1164): the first product below 1, looking from the
/// top, with the underflow that its products have; index 0 is never tried; if no product is below 1, every
/// eigenvalue counts and the value is that of index 1; equal eigenvalues, or fewer than two, give 0 and index 0.
/// `None` for no eigenvalues.
pub fn erg(evals: &[f64], power_law: Option<(f64, usize)>, mode: Mode) -> Option<Erg> {
    let sum: f64 = evals.iter().sum();
    let w_scale = (evals.len() as f64).sqrt() / sum.sqrt();
    let scaled: Vec<f64> = evals.iter().map(|eval| w_scale * w_scale * eval).collect();
    let (detx_num, index) = match mode {
        Mode::Compat => ww_detx(&scaled),
        Mode::Strict => nearest_to_one(&scaled)?,
    };
    let detx_val_unrescaled = *scaled.get(index)?;
    let detx_val = match mode {
        // Scaled back, which a matrix of zeros does not survive: NaN.
        Mode::Compat => detx_val_unrescaled / (w_scale * w_scale),
        Mode::Strict => *evals.get(index)?,
    };
    let spikes = power_law.map(|(_, spikes)| spikes as i64).or((mode == Mode::Compat).then_some(-1));
    Some(Erg {
        detx_num,
        num_erg_spikes: detx_num,
        erg_gap: spikes.map(|spikes| detx_num as i64 - spikes),
        detx_val,
        detx_val_unrescaled,
        delta_lambda_min: power_law.map(|(xmin, _)| xmin - detx_val),
    })
}

/// Length and first index of the tail whose |ln det| is least.
fn nearest_to_one(scaled: &[f64]) -> Option<(usize, usize)> {
    // Also NaN, which a matrix of zeros becomes when scaled.
    if scaled.first()?.partial_cmp(scaled.last()?) != Some(std::cmp::Ordering::Less) {
        return None;
    }
    let mut log_det = 0.0;
    let mut best: Option<(f64, usize)> = None;
    for (i, eval) in scaled.iter().enumerate().rev() {
        log_det += eval.ln();
        let holds_all_above_mean = i == 0 || scaled.get(i - 1).is_some_and(|&next| next <= 1.0);
        if holds_all_above_mean && best.is_none_or(|(least, _)| log_det.abs() < least) {
            best = Some((log_det.abs(), i));
        }
        if log_det < -best.map_or(f64::INFINITY, |(least, _)| least) {
            // From here on the sum only falls.
            break;
        }
    }
    best.map(|(_, index)| (scaled.len() - index, index))
}

/// WeightWatcher's loop, with the product itself computed only where its logarithm does not decide.
fn ww_detx(scaled: &[f64]) -> (usize, usize) {
    match (scaled.first(), scaled.last()) {
        (Some(first), Some(last)) if scaled.len() >= 2 && first < last => {}
        _ => return (0, 0),
    }
    // `numpy.prod` multiplies upwards from the smallest: first the values below 1, then those above.
    let (mut below, mut above) = (0.0, 0.0);
    for (i, &eval) in scaled.iter().enumerate().skip(1).rev() {
        *(if eval < 1.0 { &mut below } else { &mut above }) += eval.ln();
        let log_det: f64 = below + above;
        let sure = below > SUBNORMAL && log_det.abs() > UNSURE;
        let is_below_one =
            if sure { log_det < 0.0 } else { product(scaled.get(i..).unwrap_or_default()) < 1.0 };
        if is_below_one {
            return (scaled.len() - i, i);
        }
    }
    (scaled.len(), 1)
}

/// The product from the first value on, which is 0 as soon as it underflows to 0.
fn product(values: &[f64]) -> f64 {
    let mut product = 1.0;
    for value in values {
        product *= value;
        if product == 0.0 {
            break;
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::testing::Draw;

    /// The loop as WeightWatcher writes it.
    fn plain(scaled: &[f64]) -> (usize, usize) {
        if scaled.len() < 2 || scaled[0] >= scaled[scaled.len() - 1] {
            return (0, 0);
        }
        for i in (1..scaled.len()).rev() {
            if scaled[i..].iter().product::<f64>() < 1.0 {
                return (scaled.len() - i, i);
            }
        }
        (scaled.len(), 1)
    }

    fn scaled(evals: &[f64]) -> Vec<f64> {
        let mean = evals.iter().sum::<f64>() / evals.len() as f64;
        evals.iter().map(|eval| eval / mean).collect()
    }

    #[test]
    fn compat_equals_the_plain_loop() {
        for seed in 0..600 {
            let mut draw = Draw::new(seed);
            let n = 2 + draw.below(if seed % 10 == 0 { 2500 } else { 60 });
            let evals = match seed % 5 {
                0 => draw.many(n, |d| d.normal().powi(2)),
                1 => draw.many(n, |d| (4.0 * d.normal()).exp()),
                2 => draw.many(n, |d| (3.0 * d.uniform()).floor()),
                3 => draw.many(n, |d| 0.9 + 0.1 * d.uniform()),
                _ => draw.many(n, |d| if d.uniform() < 0.5 { 1e-3 } else { d.pareto(1.3) }),
            };
            let evals = scaled(&evals);
            assert_eq!(ww_detx(&evals), plain(&evals), "seed {seed}");
        }
    }

    #[test]
    fn compat_keeps_the_underflow() {
        let mut evals = vec![1e-4; 400];
        evals.extend(vec![20.0; 600]);
        // 186 of the small ones underflow, although the large ones would lift the product far above 1.
        assert_eq!(ww_detx(&evals), (600 + 81, 319));
        assert_eq!(ww_detx(&evals), plain(&evals));
    }

    #[test]
    fn compat_keeps_products_that_get_stuck_at_the_least_number_above_zero() {
        // Exactly, the 1400 small ones would give e^-826 and all of them e^-27. Yet 5e-324 · 0.51 is 5e-324, and the
        // large ones lift that far above 1: no product is below 1.
        let mut evals: Vec<f64> = (0..1400).map(|i| 0.51 + 0.09 * f64::from(i) / 1400.0).collect();
        evals.extend([1.6; 1700]);
        assert_eq!(ww_detx(&evals), (3100, 1));
        assert_eq!(ww_detx(&evals), plain(&evals));
    }

    #[test]
    fn compat_has_no_value_for_zeros() {
        let found = erg(&[0.0; 9], None, Mode::Compat).expect("some");
        assert!(found.detx_val.is_nan() && found.detx_val_unrescaled.is_nan());
        assert_eq!((found.detx_num, found.erg_gap), (0, Some(1)));
    }

    /// weightwatcher.RMT_Util.detX_constraint(evals, rescale=False)
    #[test]
    fn compat_on_weightwatchers_own_cases() {
        assert_eq!(ww_detx(&[2.0, 3.0, 4.0]), (3, 1));
        let mut evals = vec![0.0; 90];
        evals.extend([1.0; 10]);
        assert_eq!(ww_detx(&scaled(&evals)), (11, 89));
        assert_eq!(ww_detx(&[1.0, 1.0]), (0, 0));
        assert_eq!(ww_detx(&[1.0]), (0, 0));
    }

    #[test]
    fn strict_finds_the_tail_of_determinant_one() {
        // Scaled by 1: mean of [0.1, 0.5, 0.4, 3] is 1; ln det of tails: 1.10, 0.41, -0.51, -2.8.
        let found = erg(&[0.1, 0.4, 0.5, 3.0], Some((0.5, 2)), Mode::Strict).expect("some");
        assert_eq!((found.detx_num, found.detx_val, found.erg_gap), (2, 0.5, Some(0)));
        assert_eq!(found.delta_lambda_min, Some(0.0));
    }

    #[test]
    fn strict_keeps_every_direction_of_a_deficient_matrix() {
        let mut evals = vec![0.0; 90];
        evals.extend([1.0; 10]);
        let found = erg(&evals, None, Mode::Strict).expect("some");
        assert_eq!((found.detx_num, found.erg_gap, found.detx_val), (10, None, 1.0));
        assert!((found.detx_val_unrescaled - 10.0).abs() < 1e-12);
    }

    #[test]
    fn strict_tries_every_eigenvalue() {
        let found = erg(&[0.999, 1.001], None, Mode::Strict).expect("some");
        assert_eq!(found.detx_num, 2);
        assert_eq!(erg(&[2.0, 2.0], None, Mode::Strict), None);
        assert_eq!(erg(&[], None, Mode::Compat), None);
        assert_eq!(erg(&[0.0, 0.0], None, Mode::Strict), None);
    }

    #[test]
    fn strict_is_the_least_of_all_tails_that_hold_the_values_above_the_mean() {
        for seed in 0..200 {
            let mut draw = Draw::new(seed);
            let n = 3 + draw.below(50);
            let evals = scaled(&draw.many(n, |d| (2.0 * d.normal()).exp()));
            let above = evals.iter().filter(|&&eval| eval > 1.0).count();
            let log_det = |k: &usize| evals[n - k..].iter().map(|eval| eval.ln()).sum::<f64>().abs();
            let least = (above..=n).min_by(|a, b| log_det(a).total_cmp(&log_det(b))).expect("some");
            assert_eq!(nearest_to_one(&evals), Some((least, n - least)), "seed {seed}");
        }
    }

    #[test]
    fn compat_counts_a_failed_fit_as_minus_one() {
        let found = erg(&[0.1, 0.4, 0.5, 3.0], None, Mode::Compat).expect("some");
        assert_eq!(found.erg_gap, Some(found.detx_num as i64 + 1));
        assert_eq!(found.delta_lambda_min, None);
    }
}
