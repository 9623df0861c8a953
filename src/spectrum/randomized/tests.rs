use super::*;
use crate::spectrum::{MethodChoice, SpectrumOptions, spectrum};
use crate::tensor::{Block, Layout, block_rows};
use faer::MatRef;
use rand::RngExt;

/// A matrix whose eigenvalues are known: iterations from random starts see no more of it than of any other basis.
struct Diagonal(Vec<f64>);

impl Operator for Diagonal {
    fn order(&self) -> usize {
        self.0.len()
    }

    fn apply(&mut self, v: MatRef<'_, f64>) -> Result<Mat<f64>> {
        Ok(Mat::from_fn(v.nrows(), v.ncols(), |i, j| self.0[i] * v[(i, j)]))
    }
}

/// One N × M matrix in memory.
struct Dense {
    n: usize,
    m: usize,
    values: Vec<f64>,
    layout: Layout,
}

impl Dense {
    fn random(n: usize, m: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values = (0..n * m).map(|_| rng.random::<f64>() - 0.5).collect();
        Self { n, m, values, layout: Layout::RowMajor }
    }

    fn of_rank(n: usize, m: usize, rank: usize) -> Self {
        let (a, b) = (Self::random(n, rank, 3), Self::random(rank, m, 4));
        let entry =
            |i: usize, j: usize| (0..rank).map(|k| a.values[i * rank + k] * b.values[k * m + j]).sum();
        Self { n, m, values: (0..n * m).map(|at| entry(at / m, at % m)).collect(), layout: Layout::RowMajor }
    }

    /// Descending.
    fn exact(&mut self) -> Vec<f64> {
        let options = SpectrumOptions { method: MethodChoice::Auto, floor_factor: 64.0, threads: 1 };
        let mut values = spectrum(self, &options).unwrap().pooled();
        values.reverse();
        values
    }
}

impl Blocks for Dense {
    fn count(&self) -> usize {
        1
    }
    fn n(&self) -> usize {
        self.n
    }
    fn m(&self) -> usize {
        self.m
    }
    fn stream(&mut self, visit: &mut dyn FnMut(usize, Block<'_>) -> Result<()>) -> Result<()> {
        for rows in self.values.chunks(block_rows(self.m, 1) * self.m) {
            let count = rows.len() / self.m;
            let turned: Vec<f64> = match self.layout {
                Layout::RowMajor => rows.to_vec(),
                Layout::ColumnMajor => {
                    (0..rows.len()).map(|at| rows[at % count * self.m + at / count]).collect()
                }
            };
            visit(0, Block { values: &turned, rows: count, layout: self.layout })?;
        }
        Ok(())
    }
}

fn vectors(rows: usize, cols: usize, seed: u64) -> Mat<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Mat::from_fn(rows, cols, |_, _| rng.random::<f64>() - 0.5)
}

/// Descending spectra of order `n` of every kind that layers have, and of some that they should not.
fn spectra(n: usize) -> Vec<(&'static str, Vec<f64>)> {
    let of = |f: &dyn Fn(usize) -> f64| {
        let mut values: Vec<f64> = (0..n).map(f).collect();
        values.sort_by(|a, b| b.total_cmp(a));
        values
    };
    let x = |i: usize| (i as f64 + 1.0) / n as f64;
    vec![
        ("heavy tail", of(&|i| x(i).powf(-1.5))),
        ("uniform", of(&x)),
        ("bulk and spikes", of(&|i| if i < 5 { 20.0 + i as f64 } else { (0.1 + x(i)).powi(2) })),
        ("identity", of(&|_| 1.0)),
        ("a cluster wider than the block", of(&|i| if i < n / 2 { 3.0 } else { x(i) })),
        ("clusters", of(&|i| (1 + i % 5) as f64)),
        ("low rank", of(&|i| if i < n / 10 { 1.0 + x(i) } else { 0.0 })),
        ("geometric", of(&|i| 0.8f64.powi(i as i32))),
        ("zero", of(&|_| 0.0)),
        ("large", of(&|i| 1e100 * x(i))),
        ("small", of(&|i| 1e-100 * x(i))),
    ]
}

#[test]
fn what_is_kept_is_the_top_of_the_spectrum_within_its_bounds() {
    let mut kept_of_heavy = 0;
    for n in [1, 2, 17, 64, 150, 300] {
        for (name, values) in spectra(n) {
            for seed in 0..4 {
                let count = (n / 6).max(1);
                let found = of_operator(&mut Diagonal(values.clone()), count, seed).unwrap();
                assert!(found.values.len() <= count);
                for (i, value) in found.values.iter().enumerate() {
                    let error = (value - values[i]).abs();
                    assert!(error <= found.errors[i], "{name}, n = {n}, {i}: {value} {} {error}", values[i]);
                    let near = values.iter().map(|l| (l - value).abs()).fold(f64::INFINITY, f64::min);
                    let noise = noise_floor(n, values[0]);
                    assert!(near <= found.residuals[i] + noise, "{name}, n = {n}: residual {i}");
                    assert!(*value <= values[i] + noise, "{name}: Ritz values are not above");
                }
                if name == "heavy tail" && n >= 64 {
                    kept_of_heavy += usize::from(found.values.len() == count);
                }
            }
        }
    }
    assert_eq!(kept_of_heavy, 12, "all that were asked for");
}

#[test]
fn nothing_beyond_what_was_locked_exceeds_its_bound() {
    for (name, values) in spectra(300) {
        for seed in 0..8 {
            let mut operator = Diagonal(values.clone());
            let v = Mat::from_fn(300, 20, |i, j| f64::from(u8::from(i == j)));
            let pairs = Pairs { v, values: values[..20].to_vec(), residuals: vec![0.0; 20] };
            let bound = pairs.rest_below(&mut operator, ChaCha8Rng::seed_from_u64(seed)).unwrap();
            assert!(values[20] <= bound, "{name}: {} {bound}", values[20]);
            assert!(bound <= 1.1 * values[20] + 1e-12 * values[0], "{name}: not far above: {bound}");
        }
    }
}

#[test]
fn a_missed_eigenvalue_is_noticed() {
    let values: Vec<f64> = (0..200).map(|i| 200.0 - f64::from(i)).collect();
    let v = Mat::from_fn(200, 20, |i, j| f64::from(u8::from(i == j + usize::from(j >= 7))));
    let locked: Vec<f64> = (0..20).map(|j| values[j + usize::from(j >= 7)]).collect();
    let pairs = Pairs { v, values: locked, residuals: vec![0.0; 20] };
    let bound = pairs.rest_below(&mut Diagonal(values.clone()), ChaCha8Rng::seed_from_u64(1)).unwrap();
    assert!(bound >= values[7]);
    let kept = pairs.keep(20, bound, 200);
    assert!(kept.values.len() <= 7, "none below the missed one is called one of the largest");
}

#[test]
fn matrices_have_the_exact_eigenvalues() {
    let full =
        [(1, 1), (40, 1), (64, 64), (300, 200), (260, 257)].map(|(n, m)| Dense::random(n, m, n as u64));
    let deficient = [(200, 150, 40), (90, 80, 3)].map(|(n, m, r)| Dense::of_rank(n, m, r));
    for mut dense in full.into_iter().chain(deficient) {
        let exact = dense.exact();
        let count = (dense.m / 5).max(1);
        let (found, partial) = largest(&mut dense, count, 7, 1).unwrap();
        let norm: f64 = dense.values.iter().map(|x| x * x).sum();
        assert!((partial.trace - norm).abs() <= 1e-13 * norm);
        assert!((partial.lambda_max - exact[0]).abs() <= 1e-9 * exact[0]);
        assert!(!found.is_empty() && found.len() <= count, "{} × {}", dense.n, dense.m);
        for (i, value) in found.iter().rev().enumerate() {
            let bound = partial.errors[found.len() - 1 - i] + noise_floor(dense.m, exact[0]);
            assert!((value - exact[i]).abs() <= bound, "{} × {}: {i}", dense.n, dense.m);
        }
    }
}

#[test]
fn products_without_the_gram_matrix_are_those_with_it() {
    for (n, m) in [(1, 1), (400, 3), (500, 300), (1000, 129)] {
        for layout in [Layout::RowMajor, Layout::ColumnMajor] {
            let mut dense = Dense { layout, ..Dense::random(n, m, 5) };
            let v = vectors(m, 5, 6);
            let gram = gram::grams(&mut dense, 1).unwrap().remove(0);
            let mut formed = Formed::new(gram, 1).unwrap();
            let with = formed.apply(v.as_ref()).unwrap();
            let mut streamed = Streamed::new(&mut dense, 1);
            let without = streamed.apply(v.as_ref()).unwrap();
            assert!((&with - &without).norm_l2() <= 1e-12 * with.norm_l2(), "{n} × {m}");
            assert!((formed.trace - streamed.trace).abs() <= 1e-12 * formed.trace);
        }
    }
}

#[test]
fn two_threads_give_the_bits_of_one() {
    let mut dense = Dense::random(700, 290, 8);
    let mut formed = |threads| largest(&mut dense, 40, 3, threads).unwrap().0;
    assert_eq!(formed(1), formed(2));
    let mut dense = Dense::random(700, 290, 8);
    let mut streamed = |threads| {
        let found = of_operator(&mut Streamed::new(&mut dense, threads), 40, 3).unwrap();
        (found.values, found.rest_below)
    };
    assert_eq!(streamed(1), streamed(2));
}

#[test]
fn squares_that_overflow_or_vanish_are_refused() {
    for scale in [1e200, 1e-200] {
        let mut dense = Dense::random(50, 20, 1);
        dense.values.iter_mut().for_each(|x| *x *= scale);
        assert_eq!(largest(&mut dense, 4, 1, 1).unwrap_err().kind(), ErrorKind::NonFinite);
        let refused = of_operator(&mut Streamed::new(&mut dense, 1), 4, 1);
        assert_eq!(refused.err().map(|e| e.kind()), Some(ErrorKind::NonFinite));
    }
}

#[test]
fn without_the_gram_matrix_memory_grows_with_m_not_its_square() {
    let at = |m| bytes_needed(m, 256) as f64;
    assert!(is_streamed(16_384) && !is_streamed(8192));
    let growth = at(131_072) / at(16_384);
    assert!(growth < 8.5, "eight times the columns take {growth} times the memory");
    assert!(at(131_072) < 0.05 * 8.0 * 131_072f64.powi(2));
    assert!(at(8192) > 8.0 * 8192f64.powi(2), "with it, it is counted");
}
