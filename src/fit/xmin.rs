//! The search for xmin: the tail whose power law is nearest to it in Kolmogorov-Smirnov distance, exactly, without
//! looking at every point of every tail.
//!
//! For ascending data x_0 ≤ … ≤ x_{N-1} the tail at i has n = N - i points, the maximum-likelihood exponent
//! `alpha_i = 1 + n / Σ_{j≥i} ln(x_j / x_i)` (Clauset, Shalizi & Newman 2009, eq. 3.1) and the distance
//! `D_i = max_{j≥i} |1 - (x_j / x_i)^(1 - alpha_i) - (j - i)/n|`. The plain search costs an exponential for each of
//! the N(N+1)/2 pairs. Any few points of a tail give a lower bound of D_i, and because both curves under the
//! maximum rise with j, the ends of an interval bound what lies inside it: so most points need no look.
//!
//! Both searches take every deviation from [`Tails::gap`], so that they compare the same floating-point numbers
//! and find the same minimum, not merely a close one.

/// Distances closer than this to the least are ties: rounding alone may have decided.
pub(crate) const TIE: f64 = 1e-12;
/// Distances within this of the least make the range of alpha that is reported.
pub(crate) const NEAR: f64 = 1e-3;
/// Points at which each tail is sampled for its first lower bound.
const SAMPLES: usize = 8;
/// More than rounding can lift a deviation above the bound of its interval (values are at most 1).
const SLACK: f64 = 1e-14;

/// What a search found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Best {
    /// Index of xmin.
    pub(crate) index: usize,
    /// Its distance.
    pub(crate) d: f64,
    /// Least and greatest alpha over the candidates whose distance is within [`NEAR`] of the best.
    pub(crate) alpha_range: (f64, f64),
    /// Whether another candidate's distance is within [`TIE`].
    pub(crate) tied: bool,
    /// Exponentials computed.
    pub(crate) evaluations: u64,
}

/// Ascending positive data, ready for the distance of any tail.
pub(crate) struct Tails {
    /// ln(x_max / x_j), descending to 0. Measured from the top, where tails are short and small errors would matter.
    depth: Vec<f64>,
    /// Σ_{j≥i} ln(x_j / x_i).
    log_sum: Vec<f64>,
    evaluations: u64,
}

impl Tails {
    /// `data` must be ascending, positive and finite.
    pub(crate) fn new(data: &[f64]) -> Self {
        let top = data.last().copied().unwrap_or(1.0);
        let mut depth: Vec<f64> = data.iter().map(|&x| log_ratio(top, x)).collect();
        let mut log_sum = vec![0.0; data.len()];
        for i in (0..data.len().saturating_sub(1)).rev() {
            // The bounds below lean on the depth's order, which rounding must not break.
            depth[i] = depth[i].max(depth[i + 1]);
            // Sums of gaps, all positive: `Σ ln x_j - n ln x_i` would cancel.
            let gap = log_ratio(data[i + 1], data[i]);
            log_sum[i] = log_sum[i + 1] + (data.len() - 1 - i) as f64 * gap;
        }
        Self { depth, log_sum, evaluations: 0 }
    }

    /// Number of points.
    fn len(&self) -> usize {
        self.depth.len()
    }

    /// Σ_{j≥i} ln(x_j / x_i).
    pub(crate) fn log_sum(&self, i: usize) -> f64 {
        self.log_sum[i]
    }

    /// The maximum-likelihood exponent of the tail at `i`; infinite where all its points are equal.
    pub(crate) fn alpha(&self, i: usize) -> f64 {
        1.0 + self.rate(i)
    }

    fn rate(&self, i: usize) -> f64 {
        (self.len() - i) as f64 / self.log_sum[i]
    }

    /// Exponentials computed so far.
    pub(crate) fn evaluations(&self) -> u64 {
        self.evaluations
    }

    fn tail(&mut self, i: usize, rate: f64) -> Tail<'_> {
        Tail { n: (self.len() - i) as f64, start: i, rate, depth: &self.depth, spent: &mut self.evaluations }
    }

    /// D of the tail at `i` over every point: WeightWatcher's (left limits of the empirical distribution alone), and
    /// the two-sided one.
    pub(crate) fn distances(&mut self, i: usize) -> (f64, f64) {
        self.distances_at(i, self.rate(i))
    }

    /// The same for an exponent `1 + rate` other than the likeliest.
    pub(crate) fn distances_at(&mut self, i: usize, rate: f64) -> (f64, f64) {
        let last = self.len();
        let mut tail = self.tail(i, rate);
        let (mut left, mut both) = (0.0_f64, 0.0_f64);
        for j in i..last {
            let model = tail.model(j);
            let gap = tail.gap(j, model);
            left = left.max(gap);
            both = both.max(gap).max((model - tail.empirical(j + 1)).abs());
        }
        (left, both)
    }

    /// The largest deviation of the tail at `i`, as far as it matters: exact between `floor` and `ceiling`; below
    /// `floor`, `floor` or less; above `ceiling`, some number above `ceiling` that D is not below.
    fn supremum(&mut self, i: usize, floor: f64, ceiling: f64, stack: &mut Vec<Interval>) -> f64 {
        let last = self.len() - 1;
        let rate = self.rate(i);
        let mut tail = self.tail(i, rate);
        let mut most = floor;
        stack.clear();
        let mut left = (i, 0.0);
        for j in (1..=SAMPLES).map(|k| sample(i, last, k)) {
            if j == left.0 {
                continue;
            }
            let model = tail.model(j);
            most = most.max(tail.gap(j, model));
            stack.push(tail.interval(left, (j, model)));
            left = (j, model);
        }
        while let Some(interval) = stack.pop() {
            if most > ceiling {
                break;
            }
            let ((a, _), (b, _)) = (interval.left, interval.right);
            if b - a < 2 || interval.bound + SLACK <= most {
                continue;
            }
            let middle = a + (b - a) / 2;
            let model = tail.model(middle);
            most = most.max(tail.gap(middle, model));
            let halves = [
                tail.interval(interval.left, (middle, model)),
                tail.interval((middle, model), interval.right),
            ];
            let lower_first = usize::from(halves[0].bound > halves[1].bound);
            stack.push(halves[lower_first]);
            stack.push(halves[1 - lower_first]);
        }
        most
    }

    /// A lower bound of D at `i` from a few of its points.
    fn lower_bound(&mut self, i: usize) -> f64 {
        let last = self.len() - 1;
        let rate = self.rate(i);
        let mut tail = self.tail(i, rate);
        let mut most = 0.0_f64;
        let mut before = i;
        for j in (1..=SAMPLES).map(|k| sample(i, last, k)) {
            if j != before {
                let model = tail.model(j);
                most = most.max(tail.gap(j, model));
                before = j;
            }
        }
        most
    }
}

/// ln(large / small), exact to rounding for near-equal values.
fn log_ratio(large: f64, small: f64) -> f64 {
    let excess = (large - small) / small;
    if excess.is_finite() { excess.ln_1p() } else { large.ln() - small.ln() }
}

/// The k-th of the sampled points of the tail i..=last; the last one is `last`.
fn sample(i: usize, last: usize, k: usize) -> usize {
    i + (last - i) * k / SAMPLES
}

/// One tail and its law.
struct Tail<'a> {
    n: f64,
    start: usize,
    rate: f64,
    depth: &'a [f64],
    spent: &'a mut u64,
}

/// Points between two known ones (index, model distribution), and what no deviation between them exceeds.
#[derive(Clone, Copy)]
struct Interval {
    left: (usize, f64),
    right: (usize, f64),
    bound: f64,
}

impl Tail<'_> {
    /// The law's distribution function at point `j`.
    fn model(&mut self, j: usize) -> f64 {
        let log_ratio = self.depth[self.start] - self.depth[j];
        if log_ratio == 0.0 {
            // Also where the rate is infinite because the whole tail is one value.
            return 0.0;
        }
        *self.spent += 1;
        1.0 - (-self.rate * log_ratio).exp()
    }

    /// |model - empirical| at point `j`, with the left limit of the empirical distribution.
    fn gap(&self, j: usize, model: f64) -> f64 {
        (model - self.empirical(j)).abs()
    }

    fn empirical(&self, j: usize) -> f64 {
        (j - self.start) as f64 / self.n
    }

    fn interval(&self, left: (usize, f64), right: (usize, f64)) -> Interval {
        let model_above = right.1 - self.empirical(left.0 + 1);
        let model_below = self.empirical(right.0 - 1) - left.1;
        Interval { left, right, bound: model_above.max(model_below) }
    }
}

/// The plain search: every point of every candidate's tail. The reference for [`pruned_search`].
///
/// `candidates` are ascending indices; `None` if there are none.
#[cfg_attr(not(test), allow(dead_code, reason = "the reference that tests compare with"))]
pub(crate) fn full_search(tails: &mut Tails, candidates: &[usize]) -> Option<Best> {
    let distances: Vec<f64> = candidates.iter().map(|&i| tails.distances(i).0).collect();
    let (place, d) = least(&distances)?;
    let near = |limit: f64| distances.iter().enumerate().filter(move |&(_, &other)| other <= limit);
    Some(Best {
        index: candidates[place],
        d,
        alpha_range: alpha_range(near(d + NEAR).map(|(place, _)| tails.alpha(candidates[place]))),
        tied: near(d + TIE).any(|(other, _)| other != place),
        evaluations: tails.evaluations(),
    })
}

/// The first of the least.
fn least(distances: &[f64]) -> Option<(usize, f64)> {
    distances.iter().copied().enumerate().reduce(|best, next| if next.1 < best.1 { next } else { best })
}

fn alpha_range(alphas: impl Iterator<Item = f64>) -> (f64, f64) {
    alphas.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), alpha| (lo.min(alpha), hi.max(alpha)))
}

/// What is known of a candidate's D.
#[derive(Clone, Copy)]
enum Known {
    Exactly(f64),
    AtLeast(f64),
}

/// The same as [`full_search`] with far fewer exponentials: candidates are visited in the order of their lower
/// bounds, and left as soon as they cannot win.
pub(crate) fn pruned_search(tails: &mut Tails, candidates: &[usize]) -> Option<Best> {
    let mut known: Vec<Known> = candidates.iter().map(|&i| Known::AtLeast(tails.lower_bound(i))).collect();
    let mut stack = Vec::new();
    let (place, d) = find_least(tails, candidates, &mut known, &mut stack)?;
    let tied = known
        .iter()
        .enumerate()
        .any(|(other, known)| other != place && matches!(known, Known::Exactly(o) if *o <= d + TIE));
    let limit = d + NEAR;
    let mut near = Vec::new();
    for (&i, known) in candidates.iter().zip(&known) {
        let is_near = match *known {
            Known::Exactly(other) => other <= limit,
            Known::AtLeast(other) => other <= limit && tails.supremum(i, limit, limit, &mut stack) <= limit,
        };
        if is_near {
            near.push(tails.alpha(i));
        }
    }
    Some(Best {
        index: candidates[place],
        d,
        alpha_range: alpha_range(near.into_iter()),
        tied,
        evaluations: tails.evaluations(),
    })
}

/// Place and distance of the first of the least. Afterwards `known` has the exact distance of each candidate
/// within [`TIE`] of it.
fn find_least(
    tails: &mut Tails,
    candidates: &[usize],
    known: &mut [Known],
    stack: &mut Vec<Interval>,
) -> Option<(usize, f64)> {
    let mut order: Vec<(f64, usize)> = known
        .iter()
        .enumerate()
        .map(|(place, known)| match *known {
            Known::Exactly(d) | Known::AtLeast(d) => (d, place),
        })
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut best: Option<(usize, f64)> = None;
    for (bound, place) in order {
        let ceiling = best.map_or(f64::INFINITY, |(_, d)| d + TIE);
        if bound > ceiling {
            break;
        }
        let d = tails.supremum(candidates[place], 0.0, ceiling, stack);
        if d > ceiling {
            known[place] = Known::AtLeast(d);
            continue;
        }
        known[place] = Known::Exactly(d);
        if best.is_none_or(|(first, least)| d < least || (d == least && place < first)) {
            best = Some((place, d));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::testing::Draw;
    use proptest::prelude::*;

    fn both(data: &[f64]) -> (Option<Best>, Option<Best>) {
        let candidates: Vec<usize> = (0..data.len().saturating_sub(1)).collect();
        let full = full_search(&mut Tails::new(data), &candidates);
        (full, pruned_search(&mut Tails::new(data), &candidates))
    }

    fn assert_same(data: &[f64]) {
        let (full, pruned) = both(data);
        let count = |best: Option<Best>| best.map(|best| Best { evaluations: 0, ..best });
        assert_eq!(count(full), count(pruned), "{data:?}");
    }

    /// One of several kinds of spectrum, chosen by the seed.
    fn spectrum(seed: u64) -> Vec<f64> {
        let mut draw = Draw::new(seed);
        let n = 2 + draw.below(120);
        let alpha = 1.1 + 6.0 * draw.uniform();
        match seed % 8 {
            0 => draw.many(n, |d| d.pareto(alpha)),
            1 => draw.many(n, |d| d.normal().powi(2) + 1e-5),
            2 => draw.many(n, |d| (1.0 + 9.0 * d.uniform()).floor()),
            3 => draw.many(n, |d| 1.0 + 1e-9 * d.uniform()),
            4 => draw.many(n, |d| (20.0 * d.normal()).exp()),
            5 => draw.many(n, |d| if d.uniform() < 0.7 { d.uniform() } else { d.pareto(alpha) }),
            6 => draw.many(n, |d| if d.uniform() < 0.9 { 1.0 } else { 2.0 + d.uniform() }),
            _ => draw.many(n, |d| (1.0 + 1e-15 * (10.0 * d.uniform()).floor()) * 3.0),
        }
    }

    #[test]
    fn pruned_equals_full_on_thousands_of_spectra() {
        for seed in 0..6000 {
            assert_same(&spectrum(seed));
        }
    }

    #[test]
    fn pruned_equals_full_on_geometric_and_quantile_spectra() {
        for n in 2..90 {
            assert_same(&(0..n).map(|k| 1.1_f64.powi(k)).collect::<Vec<_>>());
            let quantiles = (0..n).rev().map(|k| ((f64::from(k) + 0.5) / f64::from(n)).powf(-0.5));
            assert_same(&quantiles.collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn pruned_equals_full_on_any_spectrum(
            mut data in prop::collection::vec(prop_oneof![1e-300..1e300_f64, 0.5..2.0_f64, Just(1.0)], 0..60)
        ) {
            data.sort_by(f64::total_cmp);
            assert_same(&data);
        }
    }

    #[test]
    fn a_large_spectrum_needs_a_twentieth_of_the_exponentials() {
        let mut draw = Draw::new(7);
        let data = draw.many(4096, |d| if d.uniform() < 0.8 { 0.1 + d.uniform() } else { d.pareto(3.0) });
        let (full, pruned) = both(&data);
        let (full, pruned) = (full.expect("fits"), pruned.expect("fits"));
        assert_eq!((full.index, full.d, full.alpha_range), (pruned.index, pruned.d, pruned.alpha_range));
        let pairs = 4096 * 4097 / 2;
        assert!(pruned.evaluations * 20 <= pairs, "{} of {pairs}", pruned.evaluations);
    }

    #[test]
    fn sums_of_logs_do_not_cancel() {
        let data: Vec<f64> = (0..100).map(|k| 1e6 * (1.0 + 1e-12 * f64::from(k))).collect();
        let expected: f64 = (0..100).map(|k| 1e-12 * f64::from(k)).sum();
        let found = Tails::new(&data).log_sum(0);
        assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
    }

    #[test]
    fn no_candidates_give_no_answer() {
        assert_eq!(both(&[]), (None, None));
        assert_eq!(both(&[1.0]), (None, None));
    }
}
