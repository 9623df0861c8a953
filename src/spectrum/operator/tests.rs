use super::*;
use crate::tensor::Block;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A kernel [out, in, positions…] in memory.
struct Conv {
    out: usize,
    inputs: usize,
    grid: Grid,
    values: Vec<f64>,
}

impl Conv {
    fn random(out: usize, inputs: usize, kernel: &[u64], points: &[u64]) -> Self {
        let grid = Grid::new(kernel, points).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(out as u64 + grid.frequencies());
        let count = out * inputs * grid.positions() as usize;
        Self { out, inputs, grid, values: (0..count).map(|_| rng.random::<f64>() - 0.4).collect() }
    }

    fn at(&self, o: usize, i: usize, position: usize) -> f64 {
        self.values[(o * self.inputs + i) * self.grid.positions() as usize + position]
    }

    fn spectrum(&mut self, method: MethodChoice, threads: usize) -> Result<Spectrum> {
        let (grid, options) = (self.grid, SpectrumOptions { method, floor_factor: 64.0, threads });
        spectrum(self, &grid, &options)
    }

    /// Ascending eigenvalues by the operator's own matrix: out·points × in·points, an entry for each kernel position.
    fn reference(&self) -> Vec<f64> {
        let [kh, kw, kd] = self.grid.kernel.map(|k| k as usize);
        let [h, w, d] = self.grid.points.map(|n| n as usize);
        let points = h * w * d;
        let mut operator = Mat::<f64>::zeros(self.out * points, self.inputs * points);
        for (o, i) in (0..self.out).flat_map(|o| (0..self.inputs).map(move |i| (o, i))) {
            for to in 0..points {
                let (y, x, z) = (to / (w * d), to / d % w, to % d);
                for position in 0..kh * kw * kd {
                    let (dy, dx, dz) = (position / (kw * kd), position / kd % kw, position % kd);
                    let from = ((y + dy) % h * w + (x + dx) % w) * d + (z + dz) % d;
                    operator[(o * points + to, i * points + from)] += self.at(o, i, position);
                }
            }
        }
        let mut values: Vec<f64> = operator.singular_values().unwrap().iter().map(|s| s * s).collect();
        values.sort_by(f64::total_cmp);
        values
    }
}

impl Blocks for Conv {
    fn count(&self) -> usize {
        self.grid.positions() as usize
    }
    fn n(&self) -> usize {
        self.out.max(self.inputs)
    }
    fn m(&self) -> usize {
        self.out.min(self.inputs)
    }
    /// Three rows of the tall orientation at a time, positions taking turns, both layouts.
    fn stream(&mut self, visit: &mut dyn FnMut(usize, Block<'_>) -> Result<()>) -> Result<()> {
        let (n, m) = (self.n(), self.m());
        for start in (0..n).step_by(3) {
            let rows = 3.min(n - start);
            for position in 0..self.count() {
                let at = |r: usize, c: usize| match self.out >= self.inputs {
                    true => self.at(start + r, c, position),
                    false => self.at(c, start + r, position),
                };
                let (values, layout): (Vec<f64>, _) = if self.out >= self.inputs {
                    ((0..rows * m).map(|k| at(k / m, k % m)).collect(), Layout::RowMajor)
                } else {
                    ((0..rows * m).map(|k| at(k % rows, k / rows)).collect(), Layout::ColumnMajor)
                };
                visit(position, Block { values: &values, rows, layout })?;
            }
        }
        Ok(())
    }
}

fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.last().copied().unwrap();
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-12 * largest, "{what}: {a} {b}");
    }
}

/// out, in, kernel, points: odd and even grids, kernels as large as the grid, one to three dimensions.
const CASES: [(usize, usize, &[u64], &[u64]); 12] = [
    (3, 2, &[3, 3], &[5, 4]),
    (2, 3, &[3, 3], &[4, 5]),
    (3, 3, &[2, 3], &[6, 6]),
    (4, 4, &[1, 1], &[3, 2]),
    (5, 1, &[3, 3], &[7, 7]),
    (7, 4, &[5, 5], &[5, 5]),
    (2, 2, &[4, 1], &[4, 3]),
    (4, 3, &[5], &[8]),
    (4, 5, &[3], &[9]),
    (1, 6, &[2], &[2]),
    (3, 2, &[2, 3, 2], &[3, 4, 2]),
    (2, 2, &[3, 1, 3], &[3, 3, 5]),
];

#[test]
fn the_singular_values_are_those_of_the_circulant_matrix() {
    for (out, inputs, kernel, points) in CASES {
        let mut conv = Conv::random(out, inputs, kernel, points);
        let expected = conv.reference();
        // the operator's matrix has as many singular values as its shorter side
        for method in [MethodChoice::Auto, MethodChoice::Svd] {
            let found = conv.spectrum(method, 1).unwrap();
            assert_eq!(found.matrices.len() as u64, conv.grid.frequencies());
            assert_close(
                &found.pooled(),
                &expected,
                &format!("{out} × {inputs} {kernel:?} {points:?} {method:?}"),
            );
        }
    }
}

#[test]
fn parseval_and_the_same_bits_on_two_threads() {
    for (out, inputs, kernel, points) in [
        (24, 40, &[3_u64, 3][..], &[17_u64, 16][..]),
        (70, 33, &[12, 12], &[12, 13]),
        (40, 40, &[9], &[100]),
        (300, 130, &[3, 3], &[4, 4]),
    ] {
        let mut conv = Conv::random(out, inputs, kernel, points);
        let one = conv.spectrum(MethodChoice::Auto, 1).unwrap();
        let two = conv.spectrum(MethodChoice::Auto, 2).unwrap();
        assert_eq!(one.method(), Method::Gram);
        let bits = |s: &Spectrum| -> Vec<u64> {
            s.matrices.iter().flat_map(|m| m.eigenvalues.iter().map(|x| x.to_bits())).collect()
        };
        assert!(bits(&one) == bits(&two), "{kernel:?} {points:?}");
        let sum: f64 = one.pooled().iter().sum();
        let norm: f64 = conv.values.iter().map(|x| x * x).sum();
        let expected = conv.grid.frequencies() as f64 * norm;
        assert!((sum / expected - 1.0).abs() <= 1e-12, "{kernel:?} {points:?}: {sum} {expected}");
        let by_svd = conv.spectrum(MethodChoice::Svd, 1).unwrap();
        assert_eq!(by_svd.method(), Method::Svd);
        assert_close(&one.pooled(), &by_svd.pooled(), "svd");
    }
}

#[test]
fn a_pointwise_kernel_repeats_the_spectrum_of_its_matrix() {
    let mut conv = Conv::random(9, 6, &[1, 1], &[5, 8]);
    let matrix = faer::MatRef::from_row_major_slice(&conv.values, 9, 6);
    let singular = matrix.singular_values().unwrap();
    let found = conv.spectrum(MethodChoice::Auto, 1).unwrap();
    for matrix in &found.matrices {
        let roots: Vec<f64> = matrix.eigenvalues.iter().rev().map(|x| x.sqrt()).collect();
        for (a, b) in roots.iter().zip(&singular) {
            assert!((a - b).abs() <= 1e-12 * singular[0], "{a} {b}");
        }
    }
    assert_eq!(found.matrices.len(), 40);
}

#[test]
fn frequencies_pair_with_their_conjugates() {
    for (points, alone) in [(&[5_u64, 4][..], 2), (&[4, 6], 4), (&[7], 1), (&[2, 2, 2], 8), (&[1], 1)] {
        let grid = Grid::new(&vec![1; points.len()], points).unwrap();
        let found = frequencies(&grid);
        assert_eq!(found.iter().filter(|f| !f.twice).count(), alone, "{points:?}");
        let counted: u64 = found.iter().map(|f| if f.twice { 2 } else { 1 }).sum();
        assert_eq!(counted, grid.frequencies(), "{points:?}");
        let (by_flops, one) = (flops(2, 2, &grid), 4.0 * 4.0 + 4.0 * 8.0 + 16.0 / 3.0 * 8.0);
        assert!(
            (by_flops / one - found.len() as f64).abs() < 1e-9,
            "the plan counts those that are computed"
        );
    }
}

#[test]
fn a_singular_operator_is_done_by_svd_and_its_noise_is_below_the_floor() {
    // two inputs with the same kernel: one eigenvalue of each frequency is zero
    let mut conv = Conv::random(6, 2, &[3, 3], &[6, 5]);
    for o in 0..6 {
        let (from, to) = ((o * 2) * 9, (o * 2 + 1) * 9);
        conv.values.copy_within(from..from + 9, to);
    }
    let found = conv.spectrum(MethodChoice::Auto, 1).unwrap();
    assert_eq!(found.method(), Method::Svd);
    let (evals, floor) = (found.pooled(), found.noise_floor());
    assert_eq!(evals.iter().filter(|x| **x <= floor).count(), 30);
    assert!(floor <= 1e-26 * evals[59] && evals[30] > 1e-6 * evals[59], "{floor:e} {:e}", evals[30]);
}

#[test]
fn a_difference_has_no_constant_part() {
    // [1, -1] on 8 points: |1 - e^{-2πik/8}|²
    let grid = Grid::new(&[2], &[8]).unwrap();
    let mut conv = Conv { out: 1, inputs: 1, grid, values: vec![1.0, -1.0] };
    let found = conv.spectrum(MethodChoice::Auto, 1).unwrap().pooled();
    let mut expected: Vec<f64> =
        (0..8).map(|k| 2.0 - 2.0 * (std::f64::consts::TAU * f64::from(k) / 8.0).cos()).collect();
    expected.sort_by(f64::total_cmp);
    assert_close(&found, &expected, "difference");
    assert_eq!(found[0], 0.0, "exactly: the quarters of a turn are exact");
}

#[test]
fn zero_tiny_and_huge_kernels() {
    let plain = Conv::random(4, 3, &[3, 3], &[4, 4]).spectrum(MethodChoice::Auto, 1).unwrap().pooled();
    for scale in [2f64.powi(-500), 2f64.powi(500)] {
        let mut conv = Conv::random(4, 3, &[3, 3], &[4, 4]);
        conv.values.iter_mut().for_each(|x| *x *= scale);
        let found = conv.spectrum(MethodChoice::Auto, 1).unwrap().pooled();
        assert!(found.iter().zip(&plain).all(|(a, b)| *a == b * scale * scale), "{scale:e}");
    }
    let mut conv = Conv::random(4, 3, &[3, 3], &[4, 4]);
    conv.values.iter_mut().for_each(|x| *x *= 1e200);
    assert_eq!(conv.spectrum(MethodChoice::Auto, 1).unwrap_err().kind(), ErrorKind::NonFinite);
    conv.values.iter_mut().for_each(|x| *x *= 1e-250);
    conv.values.iter_mut().for_each(|x| *x *= 1e-150);
    assert_eq!(conv.spectrum(MethodChoice::Auto, 1).unwrap_err().kind(), ErrorKind::NonFinite);
    conv.values.fill(0.0);
    let found = conv.spectrum(MethodChoice::Auto, 1).unwrap();
    assert!(found.pooled().iter().all(|x| *x == 0.0) && found.noise_floor() == 0.0);
}

#[test]
fn memory_follows_from_shapes_and_never_overflows() {
    let needed =
        |n, m, kernel: &[u64], points: &[u64]| bytes_needed(n, m, &Grid::new(kernel, points).unwrap());
    let small = needed(64, 64, &[3, 3], &[32, 32]);
    // the kernel, two batches of transforms, eight copies of 65,536 eigenvalues
    let (kernel, batches, evals) = (64 * 64 * 9 * 8, 2 * 64 * 64 * 64 * 16, 8 * 8 * 65_536);
    assert!(small > kernel + batches + evals && small < kernel + batches + evals + (2 << 20), "{small}");
    let wide = needed(2048, 2048, &[3, 3], &[32, 32]);
    let square = 2048 * 2048 * 8;
    assert!(wide < 9 * square + 2 * 20 * square, "one matrix at a time, never all transforms: {wide}");
    assert_eq!(needed(u64::MAX, u64::MAX, &[3], &[32]), u64::MAX);
    assert_eq!(needed(1 << 40, 1 << 20, &[3], &[32]), u64::MAX);
}
