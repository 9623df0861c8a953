//! The grid on which a convolution is a linear operator.

use std::fmt;

/// Most points of a grid, hence frequencies of an operator: 256 × 256, or 40 × 40 × 40.
const MOST_POINTS: u64 = 65_536;

/// A periodic input grid of one to three dimensions, with the kernel that moves over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Kernel positions along each dimension; 1 along those that are not there.
    pub kernel: [u64; 3],
    /// Points along each dimension; 1 along those that are not there.
    pub points: [u64; 3],
    /// Number of dimensions.
    pub rank: usize,
}

impl Grid {
    /// A kernel on a grid of these points.
    ///
    /// # Errors
    /// The reason in words, if the kernel does not fit, the grid has too many points, or there are no or more than
    /// three dimensions.
    pub fn new(kernel: &[u64], points: &[u64]) -> Result<Self, String> {
        let rank = kernel.len();
        if !(1..=3).contains(&rank) || points.len() != rank {
            return Err(format!("a kernel of {rank} dimensions on a grid of {}", points.len()));
        }
        let mut grid = Self { kernel: [1; 3], points: [1; 3], rank };
        grid.kernel[..rank].copy_from_slice(kernel);
        grid.points[..rank].copy_from_slice(points);
        if kernel.iter().zip(points).any(|(k, n)| k > n) {
            return Err(format!("a kernel of {} does not fit the grid of {grid}", product_text(kernel)));
        }
        match points.iter().try_fold(1_u64, |product, &n| product.checked_mul(n)) {
            Some(count) if (1..=MOST_POINTS).contains(&count) => Ok(grid),
            _ => Err(format!("a grid of {grid} has no or more than {MOST_POINTS} points")),
        }
    }

    /// Points of the grid; as many frequencies has the operator.
    pub fn frequencies(&self) -> u64 {
        self.points.iter().product()
    }

    /// Kernel positions.
    pub fn positions(&self) -> u64 {
        self.kernel.iter().product()
    }
}

/// The points, e.g. `32 × 32`.
impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&product_text(self.points.get(..self.rank).unwrap_or_default()))
    }
}

fn product_text(sizes: &[u64]) -> String {
    sizes.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_and_what_does_not() {
        let grid = Grid::new(&[3, 5], &[8, 5]).unwrap();
        assert_eq!((grid.frequencies(), grid.positions(), grid.to_string()), (40, 15, "8 × 5".to_owned()));
        let refused = |kernel: &[u64], points: &[u64]| Grid::new(kernel, points).unwrap_err();
        assert_eq!(refused(&[64, 1], &[32, 32]), "a kernel of 64 × 1 does not fit the grid of 32 × 32");
        assert_eq!(refused(&[1; 3], &[41; 3]), "a grid of 41 × 41 × 41 has no or more than 65536 points");
        assert!(Grid::new(&[1; 3], &[40; 3]).is_ok() && Grid::new(&[256; 2], &[256; 2]).is_ok());
        assert!(refused(&[1, 1], &[u64::MAX, u64::MAX]).contains("65536"));
        assert!(refused(&[], &[]).contains("0 dimensions"));
    }
}
