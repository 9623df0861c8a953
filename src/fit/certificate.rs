//! The power law of a spectrum of which only the largest eigenvalues are known, and what they prove of the others.
//!
//! Let `l_1 ≥ l_2 ≥ …` be the whole spectrum. The tail of size t has the distance
//! `D_t = max_{r≤t} |(l_r/l_t)^(−s_t) − r/t|`, `s_t = alpha_t − 1`, and so does not look below `l_t`: among tails that
//! lie in the known part the search is the whole one.
//!
//! For a longer tail, `t·D_t = max_{r≤t} |c·exp(−s·ln l_r) − r|` with `s = s_t` and `c = t·l_t^s > 0`, which is at
//! least the same maximum over the known ranks, which is at least the least of all such maxima over every c ≥ 0 and
//! every s:
//!
//! `t·D_t ≥ E`, `E = min_{c,s} max_{r≤k} |c·exp(−s·ln l_r) − r|`.
//!
//! So no tail of a size below `E/D_best` beats the best known one. E is bounded below by the same problem on any
//! three ranks, whose solution is explicit: two curves c·exp(−s·x) with c ≥ 0 cross at most once, hence one that
//! leaves errors of +E, −E, +E (or the opposite) at three ranks cannot be improved at all three. The exchange
//! algorithm (Remez) finds three ranks whose bound is close to E; a poor choice makes the bound weaker, never false.
//!
//! Eigenvalues come with errors. Those of ln l, at most ε over a tail, move `D_t` by at most 2ε·s/(1 − 2ε·s), since
//! 1/s moves by at most 2ε and (1 + z)·e^(−z) ≤ 1; they move the three abscissae, which the bound takes at their
//! worst; and they move alpha by at most 2ε·s²/(1 − 2ε·s). A second known tail whose distance could be the smaller one
//! within these errors ends all claims.

use super::power_law::{self, FitFailure, PowerLaw};
use super::xmin::Tails;

/// Beyond rounding in any of the distances compared.
const SLACK: f64 = 1e-11;

/// What the known part proves of the whole spectrum's fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// This is the fit of the whole spectrum.
    Certified,
    /// No tail of at most `up_to` eigenvalues, which is more than are known, beats this one.
    RuledOut {
        /// Size of the largest tail ruled out.
        up_to: usize,
    },
    /// This is the best tail of at most `up_to` eigenvalues, all of them known; or not even that is sure.
    Uncertified {
        /// Size of the largest tail looked at; `None` if errors of the eigenvalues may decide between two.
        up_to: Option<usize>,
    },
}

/// A fit of the known part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartialFit {
    /// The best of the known tails.
    pub law: PowerLaw,
    /// What is proven of it.
    pub certificate: Certificate,
    /// Bound on the error of alpha that those of the eigenvalues make; infinite if they leave it open.
    pub alpha_error: f64,
    /// Lower bound of E.
    pub e: f64,
}

impl PartialFit {
    /// Size of the tails up to which this is the best.
    pub fn up_to(&self, total: usize) -> Option<usize> {
        match self.certificate {
            Certificate::Certified => Some(total),
            Certificate::RuledOut { up_to } => Some(up_to),
            Certificate::Uncertified { up_to } => up_to,
        }
    }
}

/// Fits the largest eigenvalues `top`, ascending and positive, of a spectrum of `total`; each is within the
/// corresponding one of `errors` of the true one of its rank.
///
/// # Errors
/// A [`FitFailure`] if no known tail has a power law.
pub fn partial_power_law(top: &[f64], errors: &[f64], total: usize) -> Result<PartialFit, FitFailure> {
    if top.iter().chain(errors).any(|x| !x.is_finite()) {
        return Err(FitFailure::NotFinite);
    }
    if top.len() < 3 || top[0] <= 0.0 {
        return Err(FitFailure::TooFewPoints { points: top.len(), cut: 0.0 });
    }
    // whether the smallest known one is the first of its value is not known
    let candidates: Vec<usize> =
        (1..top.len()).filter(|&i| top[i - 1] < top[i] && top[i] < top[top.len() - 1]).collect();
    let law = power_law::search(top, &candidates)?;
    let log_errors = log_errors(top, errors);
    let s = law.alpha - 1.0;
    let shift = 2.0 * log_errors[law.index] * s;
    let alpha_error = if shift < 1.0 { shift * s / (1.0 - shift) } else { f64::INFINITY };
    let e = lower_bound(top, log_errors[0]);
    let certificate = if is_alone(top, errors, &log_errors, law.index) {
        certificate(e, law.d + d_error(s, log_errors[law.index]) + SLACK, top.len(), total)
    } else {
        Certificate::Uncertified { up_to: None }
    };
    Ok(PartialFit { law, certificate, alpha_error, e })
}

fn certificate(e: f64, d: f64, known: usize, total: usize) -> Certificate {
    // the largest t with t·d < e
    let up_to = ((e / d).ceil() as usize).saturating_sub(1);
    if up_to >= total {
        Certificate::Certified
    } else if up_to >= known {
        Certificate::RuledOut { up_to }
    } else {
        Certificate::Uncertified { up_to: Some(known - 1) }
    }
}

/// For each start of a tail, the most that the logarithm of an eigenvalue in it can be off.
fn log_errors(top: &[f64], errors: &[f64]) -> Vec<f64> {
    let mut worst = vec![0.0; top.len()];
    let mut most = 0.0_f64;
    for i in (0..top.len()).rev() {
        let error = errors[i].max(f64::EPSILON * top[i]);
        most = most.max(if error < top[i] { error / (top[i] - error) } else { f64::INFINITY });
        worst[i] = most;
    }
    worst
}

/// The most that errors of `epsilon` in the logarithms can move the distance of a tail of exponent 1 + s.
fn d_error(s: f64, epsilon: f64) -> f64 {
    let shift = 2.0 * epsilon * s;
    if shift < 1.0 { shift / (1.0 - shift) } else { f64::INFINITY }
}

/// Whether, whatever the errors, the tail at `best` is a tail and no other known one has a distance as small. Tails
/// that begin within a group of equal values count too, as errors may have made them equal.
fn is_alone(top: &[f64], errors: &[f64], log_errors: &[f64], best: usize) -> bool {
    if top[best] - errors[best] <= top[best - 1] + errors[best - 1] {
        return false;
    }
    let mut tails = Tails::new(top);
    let limit = tails.distances(best).0 + d_error(tails.alpha(best) - 1.0, log_errors[best]) + SLACK;
    (1..top.len() - 1).filter(|&i| i != best).all(|i| {
        let s = tails.alpha(i) - 1.0;
        // a tail of equal values has an infinite s, and its error is without bound
        let error = d_error(s, log_errors[i]);
        error < 1.0 && tails.distances(i).0 - error > limit
    })
}

/// A lower bound of E from three ranks that the exchange algorithm finds.
fn lower_bound(top: &[f64], epsilon: f64) -> f64 {
    const EXCHANGES: usize = 60;
    let k = top.len();
    // x of rank r, measured from the smallest: descending in r
    let x: Vec<f64> = top.iter().rev().map(|l| (l / top[0]).ln()).collect();
    let mut triple = [0, k / 2, k - 1];
    let mut best = 0.0_f64;
    for _ in 0..EXCHANGES {
        best = best.max(Levelled::of(&x, triple, 2.0 * epsilon).safe);
        let Some(next) = exchanged(&x, triple) else { break };
        triple = next;
    }
    best * (1.0 - 1e-9)
}

/// The best exponential on three ranks.
struct Levelled {
    /// Its error, +e·sign, −e·sign, +e·sign at the three.
    e: f64,
    sign: f64,
    /// A lower bound of the error, whatever the abscissae within their errors.
    safe: f64,
}

impl Levelled {
    fn of(x: &[f64], triple: [usize; 3], wiggle: f64) -> Self {
        let ranks = triple.map(|i| (i + 1) as f64);
        let (whole, right) = (x[triple[0]] - x[triple[2]], x[triple[1]] - x[triple[2]]);
        if whole <= wiggle || whole <= 0.0 {
            return Self { e: 0.0, sign: 1.0, safe: 0.0 };
        }
        let w = right / whole;
        // on or above the chord in the logarithm: the middle rank is the one to come down
        let sign = if excess(ranks, w, 0.0, 1.0) >= 0.0 { 1.0 } else { -1.0 };
        let worst = if sign > 0.0 { (right - wiggle) / whole } else { (right + wiggle) / whole };
        let safe = level(ranks, worst.clamp(0.0, 1.0), sign);
        Self { e: level(ranks, w, sign), sign, safe }
    }
}

/// How far the middle is above the chord once errors of `e` are granted.
fn excess([a, b, c]: [f64; 3], w: f64, e: f64, sign: f64) -> f64 {
    let (a, b, c) = (a + sign * e, b - sign * e, c + sign * e);
    b.ln() - if w > 0.0 { w * a.ln() } else { 0.0 } - (1.0 - w) * c.ln()
}

/// The e at which `excess` vanishes, from below; 0 if it has the other sign from the start.
fn level(ranks: [f64; 3], w: f64, sign: f64) -> f64 {
    // beyond these one of the values would not be positive
    let (mut low, mut high) = (0.0, if sign > 0.0 { ranks[1] } else { ranks[0] });
    if sign < 0.0 && w <= 0.0 {
        high = ranks[2];
    }
    if sign * excess(ranks, w, 0.0, sign) <= 0.0 {
        return 0.0;
    }
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        let left = sign * excess(ranks, w, middle, sign);
        // ln of a value that is not positive: beyond the root
        if left > 0.0 { low = middle } else { high = middle }
    }
    low
}

/// The triple with the rank of the largest error taken in, signs still alternating; `None` when none is larger.
fn exchanged(x: &[f64], triple: [usize; 3]) -> Option<[usize; 3]> {
    let found = Levelled::of(x, triple, 0.0);
    let value = |i: usize, sign: f64| ((i + 1) as f64 + sign * found.e).max(f64::MIN_POSITIVE);
    let (first, last) = (value(triple[0], found.sign), value(triple[2], found.sign));
    let whole = x[triple[0]] - x[triple[2]];
    if whole <= 0.0 {
        return None;
    }
    let s = (last / first).ln() / whole;
    let error = |i: usize| last * (-s * (x[i] - x[triple[2]])).exp() - (i + 1) as f64;
    let worst = (0..x.len()).max_by(|&a, &b| error(a).abs().total_cmp(&error(b).abs()))?;
    let size = error(worst);
    if !size.is_finite() || size.abs() <= found.e * (1.0 + 1e-10) + 1e-12 {
        return None;
    }
    let same = |i: usize| {
        let sign = if i == 1 { -found.sign } else { found.sign };
        (size > 0.0) == (sign > 0.0)
    };
    let [a, b, c] = triple;
    let next = match worst {
        p if p < a => {
            if same(0) {
                [p, b, c]
            } else {
                [p, a, b]
            }
        }
        p if p < b => {
            if same(0) {
                [p, b, c]
            } else {
                [a, p, c]
            }
        }
        p if p < c => {
            if same(1) {
                [a, p, c]
            } else {
                [a, b, p]
            }
        }
        p => {
            if same(2) {
                [a, b, p]
            } else {
                [b, c, p]
            }
        }
    };
    (next != triple).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::testing::Draw;
    use crate::fit::{PowerLawOptions, power_law};

    /// E by a grid over s, the best c for each by ternary search: above the least, and near it.
    fn brute_force(top: &[f64]) -> f64 {
        let x: Vec<f64> = top.iter().rev().map(|l| (l / top[0]).ln()).collect();
        let error = |c: f64, s: f64| {
            let at = |(i, x): (usize, &f64)| (c * (-s * x).exp() - (i + 1) as f64).abs();
            x.iter().enumerate().map(at).fold(0.0, f64::max)
        };
        let mut least = f64::INFINITY;
        for step in 0..2000 {
            let s = 0.01 * f64::from(step).powf(1.2) / x[0].max(1e-3) * 0.1;
            let (mut low, mut high) = (0.0, 4.0 * top.len() as f64);
            for _ in 0..80 {
                let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
                if error(a, s) < error(b, s) { high = b } else { low = a }
            }
            least = least.min(error(low, s));
        }
        least
    }

    /// Ascending spectra of every kind: heavy-tailed, bulk with spikes, deficient, clustered, uniform, mixed.
    fn spectrum(draw: &mut Draw, kind: usize, n: usize) -> Vec<f64> {
        let (a, b) = (1.5 + 4.0 * draw.uniform(), 0.3 + 2.0 * draw.uniform());
        let head = 1 + draw.below(n / 2);
        let mut values = match kind {
            0 => draw.many(n, |d| d.pareto(a)),
            1 => {
                // a quantile of a semicircle-like bulk, and spikes above it
                let mut values =
                    draw.many(n, |d| (1.0 + b * (std::f64::consts::PI * d.uniform()).cos().abs()).powi(2));
                (0..head.min(n / 10 + 1)).for_each(|i| values[n - 1 - i] *= 3.0 + draw.pareto(a));
                values
            }
            2 => draw.many(n, |d| if d.uniform() < 0.5 { 1e-18 } else { d.pareto(a) }),
            3 => draw.many(n, |d| (1.0 + d.below(6) as f64) * (1.0 + 1e-9 * d.uniform())),
            4 => draw.many(n, Draw::uniform),
            5 => (0..n).map(|i| ((n - i) as f64 / n as f64).powf(-b)).collect(),
            // an exact power law above, another far below: what certificates can be had for
            _ => (0..n)
                .map(|i| {
                    let rank = (n - i) as f64;
                    let fall = if rank > head as f64 { 1e-3 * (1.0 - 0.9 * rank / n as f64) } else { 1.0 };
                    fall * (rank + 0.2 * draw.uniform()).powf(-b)
                })
                .collect(),
        };
        values.sort_by(f64::total_cmp);
        values
    }

    #[test]
    fn the_bound_is_close_to_the_least_error_and_never_above() {
        let mut draw = Draw::new(3);
        for case in 0..60 {
            let values = spectrum(&mut draw, case % 7, 40);
            let top: Vec<f64> = values.iter().copied().filter(|x| *x > 1e-9).collect();
            let (found, least) = (lower_bound(&top, 0.0), brute_force(&top));
            assert!(found <= least * (1.0 + 1e-9), "case {case}: {found} {least}");
            // the grid of s is not fine enough for more
            assert!(found >= 0.9 * least - 0.05, "case {case}: {found} {least}");
            assert!(lower_bound(&top, 1e-6) <= found);
        }
    }

    /// The whole search, over tails of at most `up_to`.
    fn whole(values: &[f64], up_to: usize) -> PowerLaw {
        let cut = 1e-15 * values[values.len() - 1];
        let data: Vec<f64> = values.iter().copied().filter(|x| *x > cut).collect();
        if up_to >= data.len() {
            return power_law(&data, &PowerLawOptions::strict(0.0)).unwrap();
        }
        let from = data.len() - up_to;
        let candidates: Vec<usize> = (from..data.len() - 1)
            .filter(|&i| data[i - 1] < data[i] && data[i] < data[data.len() - 1])
            .collect();
        power_law::search(&data, &candidates).unwrap()
    }

    #[test]
    fn no_certificate_is_false() {
        let mut draw = Draw::new(11);
        let (mut certified, mut ruled_out, mut uncertified, mut cases) = (0, 0, 0, 0);
        for case in 0..14_000 {
            let n = 20 + draw.below(120);
            let values = spectrum(&mut draw, case % 7, n);
            let k = (3 + draw.below(n - 3)).min(values.iter().filter(|x| **x > 1e-12).count());
            let relative = [0.0, 1e-13, 1e-9, 1e-6, 1e-4][draw.below(5)];
            let errors: Vec<f64> = values[n - k..].iter().map(|x| relative * x).collect();
            let mut top: Vec<f64> =
                values[n - k..].iter().zip(&errors).map(|(x, e)| x - e * draw.uniform()).collect();
            top.sort_by(f64::total_cmp);
            let Ok(found) = partial_power_law(&top, &errors, n) else { continue };
            cases += 1;
            match found.certificate {
                Certificate::Certified => certified += 1,
                Certificate::RuledOut { .. } => ruled_out += 1,
                Certificate::Uncertified { .. } => uncertified += 1,
            }
            let Some(up_to) = found.up_to(n) else { continue };
            let whole = whole(&values, up_to);
            assert_eq!(found.law.num_pl_spikes, whole.num_pl_spikes, "case {case}: {found:?} {whole:?}");
            let error = (found.law.alpha - whole.alpha).abs();
            assert!(error <= found.alpha_error + 1e-12 * whole.alpha, "case {case}: {error} {found:?}");
        }
        assert!(cases >= 10_000, "{cases}");
        assert!(
            certified >= 200 && ruled_out >= 500 && uncertified >= 500,
            "{certified} {ruled_out} {uncertified}"
        );
    }

    #[test]
    fn a_tail_longer_than_what_is_known_is_not_denied() {
        // a heavy-tailed spectrum whose best tail is nearly all of it
        let mut draw = Draw::new(5);
        let values = draw.many(400, |d| d.pareto(1.8));
        let best = whole(&values, 400);
        let k = best.num_pl_spikes / 4;
        let found = partial_power_law(&values[400 - k..], &vec![1e-12; k], 400).unwrap();
        assert_ne!(found.certificate, Certificate::Certified);
        assert!(found.up_to(400).is_none_or(|t| t < best.num_pl_spikes));
    }

    #[test]
    fn errors_that_leave_the_choice_open_end_all_claims() {
        let mut draw = Draw::new(9);
        let values = draw.many(200, |d| d.pareto(2.5));
        let fit = |relative: f64| {
            let errors: Vec<f64> = values[100..].iter().map(|x| relative * x).collect();
            partial_power_law(&values[100..], &errors, 200).unwrap()
        };
        assert!(fit(1e-12).up_to(200).is_some());
        assert_eq!(fit(0.1).certificate, Certificate::Uncertified { up_to: None });
        assert!(fit(1e-9).alpha_error < fit(1e-6).alpha_error);
    }

    #[test]
    fn what_has_no_fit_says_so() {
        assert!(matches!(partial_power_law(&[], &[], 9), Err(FitFailure::TooFewPoints { points: 0, .. })));
        assert!(matches!(partial_power_law(&[2.0; 5], &[0.0; 5], 9), Err(FitFailure::AllEqual)));
        assert!(matches!(partial_power_law(&[1.0, 2.0, f64::NAN], &[0.0; 3], 9), Err(FitFailure::NotFinite)));
    }
}
