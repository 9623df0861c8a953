//! Which frequencies are computed, and the phases they are made of.

use crate::layer::Grid;
use faer::c64;
use std::cmp::Ordering;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_PI_2};

/// A frequency to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frequency {
    /// Its number along each dimension.
    pub(super) at: [usize; 3],
    /// Whether it stands for its conjugate too.
    pub(super) twice: bool,
}

/// One of each pair of conjugate frequencies, and those that are their own conjugates, in row-major order.
pub(super) fn frequencies(grid: &Grid) -> Vec<Frequency> {
    let points = grid.points.map(|n| n as usize);
    let [height, width, depth] = points;
    let all = (0..height * width * depth).map(|i| [i / (width * depth), i / depth % width, i % depth]);
    all.filter_map(|at| {
        let mirror = [0, 1, 2].map(|d| (points[d] - at[d]) % points[d]);
        (at <= mirror).then_some(Frequency { at, twice: at != mirror })
    })
    .collect()
}

/// e^{−2πik/n} for k = 0 … n−1.
pub(super) fn roots_of_unity(n: usize) -> Vec<c64> {
    (0..n).map(|k| root_of_unity(k, n)).collect()
}

/// From an angle of at most an eighth of a turn, so that quarters of a turn are exact and conjugates are conjugate to
/// the bit: a frequency that is its own conjugate then has a matrix without an imaginary part.
fn root_of_unity(k: usize, n: usize) -> c64 {
    let (quadrant, rest) = (4 * k / n, 4 * k % n);
    let quarter = |part: usize| (FRAC_PI_2 * part as f64 / n as f64).sin_cos();
    let (sin, cos) = match (2 * rest).cmp(&n) {
        Ordering::Less => quarter(rest),
        Ordering::Equal => (FRAC_1_SQRT_2, FRAC_1_SQRT_2),
        Ordering::Greater => {
            let (sin, cos) = quarter(n - rest);
            (cos, sin)
        }
    };
    match quadrant {
        0 => c64::new(cos, -sin),
        1 => c64::new(-sin, -cos),
        2 => c64::new(-cos, sin),
        _ => c64::new(sin, cos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_of_unity_are_exact_where_they_can_be() {
        for n in 1..=70 {
            let table = roots_of_unity(n);
            for (k, root) in table.iter().enumerate() {
                let angle = -std::f64::consts::TAU * k as f64 / n as f64;
                assert!(
                    (root.re - angle.cos()).abs() < 2e-15 && (root.im - angle.sin()).abs() < 2e-15,
                    "{k}/{n}"
                );
                assert_eq!(*root, table[(n - k) % n].conj(), "{k}/{n}");
            }
        }
        assert_eq!(
            roots_of_unity(4),
            [(1., -0.), (-0., -1.), (-1., 0.), (0., 1.)].map(|(a, b)| c64::new(a, b))
        );
    }
}
