//! Eigenvalues of a symmetric tridiagonal matrix by bracketing with Sturm counts.
//!
//! The number of eigenvalues below x is the number of negative pivots qᵢ = dᵢ − x − eᵢ₋₁²/qᵢ₋₁ of T − x·I (Kahan
//! 1966; Demmel, Dhillon, Ren, *On the correctness of some bisection-like parallel eigenvalue algorithms*, ETNA 3,
//! 1995: signs of zero and infinite pivots take care of themselves in IEEE arithmetic). Every eigenvalue is found on
//! its own, to an error of about 2·ε·max|λ|, whatever the others are: no convergence can fail.
//!
//! A bracket is halved until it holds one eigenvalue. From there det(T − x·I) = Π qᵢ changes its sign once, and the
//! ITP method (Oliveira, Takahashi, *An enhancement of the bisection method average performance preserving minmax
//! optimality*, ACM TOMS 47, 2020) needs about ten evaluations instead of forty, and never more than one above
//! bisection. Brackets move by counts alone; the determinant only proposes where to look.

use super::simd::{Fused, Kernel, dispatch};
use crate::spectrum::team::join;

/// Shifts evaluated in step: enough independent divisions to fill the divider.
const LANES: usize = 16;
/// Rows between two normalisations of the running determinant: no product of so many pivots leaves the range of f64
/// unless single pivots nearly do.
const ROWS: usize = 8;

/// All eigenvalues, ascending, of the matrix with this diagonal (n) and sub-diagonal (n − 1).
pub(super) fn eigenvalues(diagonal: &[f64], off_diagonal: &[f64], threads: usize) -> Vec<f64> {
    match diagonal {
        [] => return Vec::new(),
        [only] => return vec![*only],
        _ => {}
    }
    let search = Search::new(diagonal, off_diagonal);
    let mut brackets = dispatch(First(&search));
    let middle = (brackets.len() / 2).next_multiple_of(LANES).min(brackets.len());
    let (lower, upper) = brackets.split_at_mut(middle);
    join(
        threads,
        || dispatch(Narrow { search: &search, brackets: lower, first: 0 }),
        || dispatch(Narrow { search: &search, brackets: upper, first: middle as u64 }),
    );
    let mut values: Vec<f64> = brackets.iter().map(Bracket::middle).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// m·2^e; m = 0: not known.
#[derive(Debug, Clone, Copy, Default)]
struct Scaled {
    m: f64,
    e: i64,
}

/// An interval that holds at least one eigenvalue: the number of eigenvalues below each end, and det(T − x·I) there.
#[derive(Debug, Clone, Copy)]
struct Bracket {
    low: f64,
    high: f64,
    below_low: u64,
    below_high: u64,
    at_low: Scaled,
    at_high: Scaled,
    /// Width when it first held one eigenvalue alone, and steps since.
    first_width: f64,
    steps: i32,
}

impl Bracket {
    fn middle(&self) -> f64 {
        self.low + 0.5 * (self.high - self.low)
    }

    fn is_open(&self, tolerance: f64) -> bool {
        let middle = self.middle();
        self.high - self.low > tolerance && middle > self.low && middle < self.high
    }

    /// Where to evaluate next; strictly inside.
    fn propose(&mut self, tolerance: f64) -> f64 {
        let (middle, width) = (self.middle(), self.high - self.low);
        let known = self.at_low.m != 0.0 && self.at_high.m != 0.0;
        if self.below_high - self.below_low != 1 || !known {
            return middle;
        }
        if self.first_width == 0.0 {
            self.first_width = width;
        }
        let most = (self.first_width / tolerance).log2().ceil() as i32 + 1;
        let radius = (0.5 * tolerance * power_of_two(most - self.steps) - 0.5 * width).max(0.0);
        self.steps += 1;
        let shift = (self.at_low.e - self.at_high.e).clamp(-1000, 1000) as i32;
        let (a, b) = (self.at_low.m.abs() * power_of_two(shift), self.at_high.m.abs());
        let secant = self.low + width * (a / (a + b));
        let toward = (middle - secant).signum();
        let truncation = (0.2 / self.first_width * width * width).min((middle - secant).abs());
        let truncated = secant + toward * truncation;
        let x = if (truncated - middle).abs() <= radius { truncated } else { middle - toward * radius };
        if x > self.low && x < self.high { x } else { middle }
    }

    /// Narrows it around eigenvalue number `index`, given the count and the determinant at `x`.
    fn narrow(&mut self, index: u64, x: f64, below: u64, at: Scaled) {
        if below > index {
            (self.high, self.below_high, self.at_high) = (x, below.max(index + 1), at);
        } else {
            (self.low, self.below_low, self.at_low) = (x, below, at);
        }
    }
}

/// 2^e for −1022 ≤ e ≤ 1023; beyond, the nearer end.
#[inline(always)]
fn power_of_two(e: i32) -> f64 {
    f64::from_bits(((e.clamp(-1022, 1023) + 1023) as u64) << 52)
}

struct Search<'a> {
    diagonal: &'a [f64],
    /// eᵢ₋₁² for row i, the first 0; never less than the least normal number, so that no pivot is 0/0.
    squares: Vec<f64>,
    /// An interval that holds every eigenvalue (Gershgorin), widened by a rounding or two.
    bounds: (f64, f64),
    /// Width at which a bracket is narrow enough.
    tolerance: f64,
}

impl<'a> Search<'a> {
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
        let squares =
            (0..n).map(|i| if i == 0 { 0.0 } else { (at(i - 1) * at(i - 1)).max(f64::MIN_POSITIVE) });
        Self {
            diagonal,
            squares: squares.collect(),
            bounds: (low - slack, high + slack),
            tolerance: f64::EPSILON * largest,
        }
    }

    /// Eigenvalues below each of the shifts, and the determinants there.
    #[inline(always)]
    fn evaluate(&self, shifts: &[f64; LANES]) -> ([u64; LANES], [Scaled; LANES]) {
        const EXPONENT: u64 = 0x7ff << 52;
        let mut counts = [0u64; LANES];
        let mut pivots = [1.0f64; LANES];
        let mut products = [1.0f64; LANES];
        let mut exponents = [0u64; LANES];
        for (diagonal, squares) in self.diagonal.chunks(ROWS).zip(self.squares.chunks(ROWS)) {
            for (d, square) in diagonal.iter().zip(squares) {
                for lane in 0..LANES {
                    pivots[lane] = (d - shifts[lane]) - square / pivots[lane];
                    counts[lane] += pivots[lane].to_bits() >> 63;
                    products[lane] *= pivots[lane];
                }
            }
            for lane in 0..LANES {
                let bits = products[lane].to_bits();
                exponents[lane] += (bits & EXPONENT) >> 52; // biased by 1023 each time
                products[lane] = f64::from_bits((bits & !EXPONENT) | (1023 << 52));
            }
        }
        let bias = 1023 * self.diagonal.len().div_ceil(ROWS) as i64;
        let scaled = |lane: usize| Scaled { m: products[lane], e: exponents[lane] as i64 - bias };
        (counts, std::array::from_fn(scaled))
    }

    /// For each eigenvalue a cell of a grid over the bounds that holds it.
    #[inline(always)]
    fn first_brackets(&self) -> Vec<Bracket> {
        let n = self.diagonal.len();
        let points = (n / 2).next_multiple_of(LANES).max(LANES);
        let (low, high) = self.bounds;
        let point = |i: usize| low + (high - low) * (i as f64 / (points + 1) as f64);
        let unknown = Scaled::default();
        let (below_low, below_high) = (0, n as u64);
        let (at_low, at_high, first_width, steps) = (unknown, unknown, 0.0, 0);
        let whole = Bracket { low, high, below_low, below_high, at_low, at_high, first_width, steps };
        let mut brackets = vec![whole; n];
        let mut before = (low, 0, unknown);
        for start in (1..=points).step_by(LANES) {
            let shifts = std::array::from_fn(|lane| point(start + lane));
            let (counts, determinants) = self.evaluate(&shifts);
            for lane in 0..LANES {
                let count = counts[lane].clamp(before.1, n as u64);
                let here = (shifts[lane], count, determinants[lane]);
                for bracket in &mut brackets[before.1 as usize..count as usize] {
                    (bracket.low, bracket.below_low, bracket.at_low) = before;
                    (bracket.high, bracket.below_high, bracket.at_high) = here;
                }
                before = here;
            }
        }
        for bracket in &mut brackets[before.1 as usize..] {
            (bracket.low, bracket.below_low, bracket.at_low) = before;
        }
        brackets
    }
}

/// The grid: a bracket for each eigenvalue.
struct First<'a>(&'a Search<'a>);

impl Kernel for First<'_> {
    type Output = Vec<Bracket>;

    #[inline(always)]
    fn run<F: Fused>(self) -> Vec<Bracket> {
        self.0.first_brackets()
    }
}

/// Narrows the brackets of the eigenvalues from number `first` on until they are closed.
struct Narrow<'a> {
    search: &'a Search<'a>,
    brackets: &'a mut [Bracket],
    first: u64,
}

impl Kernel for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<F: Fused>(self) {
        let tolerance = self.search.tolerance;
        for (batch, group) in self.brackets.chunks_mut(LANES).enumerate() {
            let first = self.first + (batch * LANES) as u64;
            while group.iter().any(|bracket| bracket.is_open(tolerance)) {
                let mut shifts = [0.0; LANES];
                for (shift, bracket) in shifts.iter_mut().zip(group.iter_mut()) {
                    let open = bracket.is_open(tolerance);
                    *shift = if open { bracket.propose(tolerance) } else { bracket.middle() };
                }
                let (counts, determinants) = self.search.evaluate(&shifts);
                for (lane, bracket) in group.iter_mut().enumerate() {
                    if bracket.is_open(tolerance) {
                        bracket.narrow(first + lane as u64, shifts[lane], counts[lane], determinants[lane]);
                    }
                }
            }
        }
    }
}
