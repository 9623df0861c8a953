//! Eigenvalues of a symmetric tridiagonal matrix by bisection on Sturm counts.
//!
//! The number of eigenvalues below x is the number of negative pivots qᵢ = dᵢ − x − eᵢ₋₁²/qᵢ₋₁ of T − x·I (Kahan
//! 1966; Demmel, Dhillon, Ren, *On the correctness of some bisection-like parallel eigenvalue algorithms*, ETNA 3,
//! 1995: signs of zero and infinite pivots take care of themselves in IEEE arithmetic). Every eigenvalue is found on
//! its own, to an error of about 2·ε·max|λ|, whatever the others are: no convergence can fail.

use super::simd::{Fused, Kernel, dispatch};

/// Shifts counted in step: enough independent divisions to fill the divider.
const LANES: usize = 16;

/// All eigenvalues, ascending, of the matrix with this diagonal (n) and sub-diagonal (n − 1).
pub(super) fn eigenvalues(diagonal: &[f64], off_diagonal: &[f64]) -> Vec<f64> {
    match diagonal {
        [] => Vec::new(),
        [only] => vec![*only],
        _ => dispatch(Bisection::new(diagonal, off_diagonal)),
    }
}

struct Bisection<'a> {
    diagonal: &'a [f64],
    /// eᵢ₋₁² for row i, the first 0; never less than the least normal number, so that no pivot is 0/0.
    squares: Vec<f64>,
    /// An interval that holds every eigenvalue (Gershgorin), widened by a rounding or two.
    bounds: (f64, f64),
    /// Width at which an interval is narrow enough.
    tolerance: f64,
}

impl<'a> Bisection<'a> {
    fn new(diagonal: &'a [f64], off_diagonal: &[f64]) -> Self {
        let n = diagonal.len();
        let at = |i: usize| off_diagonal.get(i).map_or(0.0, |e| e.abs());
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for (i, d) in diagonal.iter().enumerate() {
            let radius = at(i) + if i > 0 { at(i - 1) } else { 0.0 };
            low = low.min(d - radius);
            high = high.max(d + radius);
        }
        let largest = low.abs().max(high.abs()).max(f64::MIN_POSITIVE);
        let slack = 4.0 * f64::EPSILON * largest;
        let squares = (0..n).map(|i| if i == 0 { 0.0 } else { (at(i - 1) * at(i - 1)).max(f64::MIN_POSITIVE) });
        Self {
            diagonal,
            squares: squares.collect(),
            bounds: (low - slack, high + slack),
            tolerance: 0.5 * f64::EPSILON * largest,
        }
    }

    /// Eigenvalues below each of the shifts.
    #[inline(always)]
    fn counts(&self, shifts: &[f64; LANES]) -> [u64; LANES] {
        let mut counts = [0u64; LANES];
        let mut pivots = [1.0f64; LANES];
        for (d, square) in self.diagonal.iter().zip(&self.squares) {
            for lane in 0..LANES {
                pivots[lane] = (d - shifts[lane]) - square / pivots[lane];
                counts[lane] += pivots[lane].to_bits() >> 63;
            }
        }
        counts
    }

    /// For each eigenvalue an interval of a grid over the bounds that holds it.
    #[inline(always)]
    fn first_intervals(&self) -> Vec<(f64, f64)> {
        let n = self.diagonal.len();
        let points = (n / 4).next_multiple_of(LANES).max(LANES);
        let (low, high) = self.bounds;
        let point = |i: usize| low + (high - low) * (i as f64 / (points + 1) as f64);
        let mut intervals = vec![(low, high); n];
        let mut below = 0;
        for start in (1..=points).step_by(LANES) {
            let shifts = std::array::from_fn(|lane| point(start + lane));
            for (lane, count) in self.counts(&shifts).into_iter().enumerate() {
                let count = (count as usize).clamp(below, n);
                intervals[below..count].iter_mut().for_each(|interval| interval.1 = shifts[lane]);
                intervals[count..].iter_mut().for_each(|interval| interval.0 = shifts[lane]);
                below = count;
            }
        }
        intervals
    }
}

impl Kernel for Bisection<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn run<F: Fused>(self) -> Vec<f64> {
        let mut intervals = self.first_intervals();
        for (batch, group) in intervals.chunks_mut(LANES).enumerate() {
            let first = (batch * LANES) as u64;
            loop {
                let middle = |lane: usize| group.get(lane).map_or(0.0, |(low, high)| low + 0.5 * (high - low));
                let shifts: [f64; LANES] = std::array::from_fn(middle);
                let open = |(low, high): &(f64, f64)| high - low > self.tolerance;
                let done = group.iter().zip(shifts).all(|(i, m)| !open(i) || m <= i.0 || m >= i.1);
                if done {
                    break;
                }
                let counts = self.counts(&shifts);
                for (lane, interval) in group.iter_mut().enumerate() {
                    if !open(interval) {
                        continue;
                    }
                    if counts[lane] > first + lane as u64 {
                        interval.1 = shifts[lane];
                    } else {
                        interval.0 = shifts[lane];
                    }
                }
            }
        }
        let mut values: Vec<f64> = intervals.iter().map(|(low, high)| low + 0.5 * (high - low)).collect();
        values.sort_by(f64::total_cmp);
        values
    }
}
