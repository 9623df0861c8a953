//! The singular values of a convolution as the linear operator that it is (Sedghi, Gupta, Long, *The Singular Values
//! of Convolutional Layers*, ICLR 2019).
//!
//! On a grid of H × W inputs with circular padding and stride 1 the operator is a matrix of H·W blocks a side, which
//! the Fourier transform makes block diagonal: for each frequency (u, v) one complex matrix
//! C = Σ K[:, :, i, j]·e^{−2πi(ui/H + vj/W)} of the kernel's out × in. Its singular values are those of all of them.
//!
//! A kernel has few positions against the points of the grid, so that the plain sum, done for a batch of frequencies
//! as one matrix product with the phases, needs neither a padded copy of the kernel nor all transforms at once.
//! A real kernel gives conjugate matrices at (u, v) and (−u, −v): one of them is computed, and counted twice.

mod frequency;

use super::eigen::{exponent_of, times_power_of_two};
use super::team::join;
use super::{MatrixSpectrum, Method, MethodChoice, Spectrum, SpectrumOptions, check_sums, noise_floor};
use crate::layer::Grid;
use crate::tensor::{Blocks, Layout};
use crate::{Error, ErrorKind, Result};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack, StackReq};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::{
    matmul,
    triangular::{self, BlockStructure},
};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Accum, Mat, Par, c64};
use frequency::{Frequency, frequencies, roots_of_unity};

/// Bytes of transforms that one thread holds at a time.
const BATCH_BYTES: usize = 8 << 20;

/// Times that the eigenvalues of a layer are held: its spectrum, the pooled ESD, their roots, and what the fits need.
const ESD_COPIES: u64 = 8;

/// The spectrum of the convolution on `grid` whose kernel's slices, one a position, are the matrices of `blocks`: one
/// matrix a frequency, conjugate ones side by side. One thread and two give the same bits.
///
/// # Errors
/// What streaming gives; `NonFinite` if the eigenvalues leave the range of f64; `Internal` if a solver fails or a
/// result does not keep the norm of the kernel.
pub fn spectrum(blocks: &mut dyn Blocks, grid: &Grid, options: &SpectrumOptions) -> Result<Spectrum> {
    let kernel = Kernel::read(blocks, grid)?;
    let frequencies = frequencies(grid);
    // two halves by shape alone, so that threads decide nothing
    let (first, second) = frequencies.split_at(frequencies.len().div_ceil(2));
    let (mut head, mut tail) = (Ok(Vec::new()), Ok(Vec::new()));
    join(
        options.threads,
        || head = Half::new(&kernel, grid, options).and_then(|mut half| half.spectra(first)),
        || tail = Half::new(&kernel, grid, options).and_then(|mut half| half.spectra(second)),
    );
    let mut found = head?;
    found.extend(tail?);
    kernel.check_norm(&found, &frequencies, grid)?;
    let matrices = kernel.finish(found, frequencies, grid)?;
    Ok(Spectrum { matrices, partial: None })
}

/// A kernel in memory, scaled by a power of two so that its largest element lies in [½, 1).
struct Kernel {
    /// Column p is the slice at position p, N × M, column-major.
    slices: Mat<f64>,
    n: usize,
    m: usize,
    /// The elements are 2^exponent times what is held.
    exponent: i32,
}

impl Kernel {
    fn read(blocks: &mut dyn Blocks, grid: &Grid) -> Result<Self> {
        let (n, m, count) = (blocks.n(), blocks.m(), blocks.count());
        if count as u64 != grid.positions() {
            let message = format!("{count} slices for a kernel of {} positions", grid.positions());
            return Err(Error::new(ErrorKind::Internal, message));
        }
        let mut slices = Mat::zeros(n * m, count);
        let mut filled = vec![0; count];
        let mut largest = 0.0_f64;
        blocks.stream(&mut |position, block| {
            let (start, rows) = (filled[position], block.rows);
            filled[position] += rows;
            let slice = slices.col_as_slice_mut(position);
            for (c, column) in slice.chunks_exact_mut(n).enumerate() {
                for (r, to) in column[start..start + rows].iter_mut().enumerate() {
                    *to = match block.layout {
                        Layout::RowMajor => block.values[r * m + c],
                        Layout::ColumnMajor => block.values[c * rows + r],
                    };
                    largest = largest.max(to.abs());
                }
            }
            Ok(())
        })?;
        let exponent = if largest > 0.0 { exponent_of(largest) } else { 0 };
        for position in 0..count {
            slices.col_as_slice_mut(position).iter_mut().for_each(|x| *x = times_power_of_two(*x, -exponent));
        }
        Ok(Self { slices, n, m, exponent })
    }

    fn squared_norm(&self) -> f64 {
        (0..self.slices.ncols()).map(|p| self.slices.col_as_slice(p).iter().map(|x| x * x).sum::<f64>()).sum()
    }

    /// Parseval: the eigenvalues of all frequencies add up to their number times the squared norm of the kernel.
    fn check_norm(&self, found: &[MatrixSpectrum], frequencies: &[Frequency], grid: &Grid) -> Result<()> {
        let sum = found.iter().zip(frequencies).map(|(matrix, frequency)| {
            let sum: f64 = matrix.eigenvalues.iter().sum();
            if frequency.twice { 2.0 * sum } else { sum }
        });
        let (sum, expected) = (sum.sum::<f64>(), grid.frequencies() as f64 * self.squared_norm());
        if (sum - expected).abs() <= 1e-10 * expected {
            return Ok(());
        }
        let message =
            format!("the operator does not keep the norm of its kernel: {sum:e} against {expected:e}");
        Err(Error::new(ErrorKind::Internal, message))
    }

    /// Puts the scale back, adds the error of the transform to the noise floors, and counts conjugates twice.
    ///
    /// The sum over P positions is off by at most about P·ε of the whole operator's norm, and the SVD by N·ε of its
    /// matrix': a singular value below (N + P)·ε·σ_max is rounding, at whatever frequency.
    fn finish(
        &self,
        found: Vec<MatrixSpectrum>,
        frequencies: Vec<Frequency>,
        grid: &Grid,
    ) -> Result<Vec<MatrixSpectrum>> {
        let largest = found.iter().filter_map(|f| f.eigenvalues.last().copied()).fold(0.0, f64::max);
        let relative = (self.n + self.slices.ncols()) as f64 * f64::EPSILON;
        let unscaled = |x: f64| times_power_of_two(times_power_of_two(x, self.exponent), self.exponent);
        if !unscaled(largest).is_finite() || (largest > 0.0 && unscaled(largest) == 0.0) {
            return Err(Error::new(ErrorKind::NonFinite, "the eigenvalues leave the range of f64"));
        }
        let mut matrices = Vec::with_capacity(grid.frequencies() as usize);
        for (mut matrix, frequency) in found.into_iter().zip(frequencies) {
            matrix.noise_floor = unscaled(matrix.noise_floor + relative * relative * largest);
            matrix.eigenvalues.iter_mut().for_each(|x| *x = unscaled(*x));
            if frequency.twice {
                matrices.push(matrix.clone());
            }
            matrices.push(matrix);
        }
        Ok(matrices)
    }
}

/// Frequencies whose transforms are held at a time, of at most `half`.
fn batch_of(n: usize, m: usize, half: usize) -> usize {
    (BATCH_BYTES / (16 * n * m).max(1)).clamp(1, 64).min(half.max(1))
}

/// What one thread works with, on its half of the frequencies.
struct Half<'a> {
    kernel: &'a Kernel,
    options: &'a SpectrumOptions,
    kernel_shape: [usize; 3],
    roots: [Vec<c64>; 3],
    /// Real and imaginary parts of the phases: column 2b and 2b + 1 for the b-th frequency of a batch.
    phases: Mat<f64>,
    /// The same of the transforms, each column N × M, column-major.
    transforms: Mat<f64>,
    matrix: Mat<c64>,
    gram: Mat<c64>,
    values: Diag<c64>,
    buffer: MemBuffer,
}

impl<'a> Half<'a> {
    fn new(kernel: &'a Kernel, grid: &Grid, options: &'a SpectrumOptions) -> Result<Self> {
        let (n, m, positions) = (kernel.n, kernel.m, kernel.slices.ncols());
        let batch = batch_of(n, m, grid.frequencies() as usize);
        let buffer = MemBuffer::try_new(scratch(n, m)).map_err(|_| {
            Error::new(ErrorKind::TooLarge, format!("no memory for the solvers' work space, {n} × {m}"))
        })?;
        Ok(Self {
            kernel,
            options,
            kernel_shape: grid.kernel.map(|k| k as usize),
            roots: grid.points.map(|points| roots_of_unity(points as usize)),
            phases: Mat::zeros(positions, 2 * batch),
            transforms: Mat::zeros(n * m, 2 * batch),
            matrix: Mat::zeros(n, m),
            gram: Mat::zeros(m, m),
            values: Diag::zeros(m),
            buffer,
        })
    }

    fn spectra(&mut self, frequencies: &[Frequency]) -> Result<Vec<MatrixSpectrum>> {
        let mut found = Vec::with_capacity(frequencies.len());
        for batch in frequencies.chunks(self.phases.ncols() / 2) {
            for (b, frequency) in batch.iter().enumerate() {
                self.set_phases(b, frequency);
            }
            let (phases, transforms) = (self.phases.as_ref(), self.transforms.as_mut());
            let (phases, transforms) =
                (phases.subcols(0, 2 * batch.len()), transforms.subcols_mut(0, 2 * batch.len()));
            matmul(transforms, Accum::Replace, self.kernel.slices.as_ref(), phases, 1.0, Par::Seq);
            for b in 0..batch.len() {
                found.push(self.solve(b)?);
            }
        }
        Ok(found)
    }

    fn set_phases(&mut self, b: usize, frequency: &Frequency) {
        let [_, width, depth] = self.kernel_shape;
        for position in 0..self.phases.nrows() {
            let at = [position / (width * depth), position / depth % width, position % depth];
            let [first, second, third] =
                [0, 1, 2].map(|d| self.roots[d][frequency.at[d] * at[d] % self.roots[d].len()]);
            let phase = first * second * third;
            self.phases[(position, 2 * b)] = phase.re;
            self.phases[(position, 2 * b + 1)] = phase.im;
        }
    }

    /// The spectrum of the b-th matrix of the batch.
    fn solve(&mut self, b: usize) -> Result<MatrixSpectrum> {
        let re = self.transforms.col_as_slice(2 * b).chunks_exact(self.kernel.n);
        let im = self.transforms.col_as_slice(2 * b + 1).chunks_exact(self.kernel.n);
        for (c, (re, im)) in re.zip(im).enumerate() {
            let column = self.matrix.col_as_slice_mut(c);
            column.iter_mut().zip(re.iter().zip(im)).for_each(|(to, (&re, &im))| *to = c64::new(re, im));
        }
        if self.options.method == MethodChoice::Auto
            && let Some(found) = self.by_gram()?
        {
            return Ok(found);
        }
        self.by_svd()
    }

    /// `None` if the smallest eigenvalue is lost in the noise.
    fn by_gram(&mut self) -> Result<Option<MatrixSpectrum>> {
        let matrix = self.matrix.as_ref();
        triangular::matmul(
            self.gram.as_mut(),
            BlockStructure::TriangularLower,
            Accum::Replace,
            matrix.adjoint(),
            BlockStructure::Rectangular,
            matrix,
            BlockStructure::Rectangular,
            c64::new(1.0, 0.0),
            Par::Seq,
        );
        let (trace, frobenius) = self.check_sums();
        let stack = MemStack::new(&mut self.buffer);
        let (gram, values) = (self.gram.as_ref(), self.values.as_mut());
        self_adjoint_evd(gram, values, None, Par::Seq, stack, Default::default()).map_err(|_| {
            let m = self.kernel.m;
            Error::new(
                ErrorKind::Internal,
                format!("the complex eigenvalue solver did not converge, M = {m}"),
            )
        })?;
        let mut eigenvalues: Vec<f64> = self.values.column_vector().iter().map(|x| x.re.max(0.0)).collect();
        eigenvalues.sort_by(f64::total_cmp);
        check_sums(&eigenvalues, trace, frobenius)?;
        let largest = eigenvalues.last().copied().unwrap_or(0.0);
        let smallest = eigenvalues.first().copied().unwrap_or(0.0);
        let noise_floor = noise_floor(eigenvalues.len(), largest);
        if smallest < self.options.floor_factor * noise_floor && largest > 0.0 {
            return Ok(None);
        }
        Ok(Some(MatrixSpectrum { eigenvalues, method: Method::Gram, noise_floor }))
    }

    /// tr G and ‖G‖_F.
    fn check_sums(&self) -> (f64, f64) {
        let (mut trace, mut squares) = (0.0, 0.0);
        for j in 0..self.kernel.m {
            let column = self.gram.col_as_slice(j);
            trace += column[j].re;
            squares += column[j].norm_sqr() + 2.0 * column[j + 1..].iter().map(c64::norm_sqr).sum::<f64>();
        }
        (trace, squares.sqrt())
    }

    fn by_svd(&mut self) -> Result<MatrixSpectrum> {
        let stack = MemStack::new(&mut self.buffer);
        let (matrix, values) = (self.matrix.as_ref(), self.values.as_mut());
        svd(matrix, values, None, None, Par::Seq, stack, Default::default()).map_err(|_| {
            let (n, m) = (self.kernel.n, self.kernel.m);
            Error::new(ErrorKind::Internal, format!("the complex SVD did not converge for {n} × {m}"))
        })?;
        let mut eigenvalues: Vec<f64> = self.values.column_vector().iter().map(|s| s.re * s.re).collect();
        eigenvalues.sort_by(f64::total_cmp);
        // its own floor is within that of the transform, which is added for all
        Ok(MatrixSpectrum { eigenvalues, method: Method::Svd, noise_floor: 0.0 })
    }
}

/// Work space of the solvers of one matrix.
fn scratch(n: usize, m: usize) -> StackReq {
    let no = ComputeSvdVectors::No;
    StackReq::any_of(&[
        self_adjoint_evd_scratch::<c64>(m, ComputeEigenvectors::No, Par::Seq, Default::default()),
        svd_scratch::<c64>(n, m, no, no, Par::Seq, Default::default()),
    ])
}

/// Peak memory in bytes of [`spectrum`] beside the streamed blocks, and of the eigenvalues as an analysis holds them:
/// the kernel in f64, and for each of two halves a batch of transforms, one matrix with its Gram matrix, and the
/// solvers' work space.
pub fn bytes_needed(n: u64, m: u64, grid: &Grid) -> u64 {
    let (Ok(rows), Ok(cols)) = (usize::try_from(n), usize::try_from(m)) else { return u64::MAX };
    if rows.checked_mul(cols).and_then(|elements| elements.checked_mul(1024)).is_none() {
        return u64::MAX;
    }
    let (elements, positions) = (n * m, grid.positions());
    let batch = batch_of(rows, cols, usize::try_from(grid.frequencies()).unwrap_or(usize::MAX)) as u64;
    let phases = positions.saturating_mul(16 * batch).saturating_add(16 * grid.points.iter().sum::<u64>());
    let matrices = elements.saturating_mul(16 * (batch + 1)).saturating_add(m.saturating_mul(m + 1) * 16);
    let half =
        matrices.saturating_add(phases).saturating_add(scratch(rows, cols).unaligned_bytes_required() as u64);
    let per_frequency = m.saturating_mul(8 * ESD_COPIES).saturating_add(128);
    elements
        .saturating_mul(positions.saturating_mul(8))
        .saturating_add(half.saturating_mul(2))
        .saturating_add(grid.frequencies().saturating_mul(per_frequency))
}

/// Flops of [`spectrum`] by Gram matrices. For each frequency that is computed: 4·P·N·M for its matrix from P
/// positions, 4·N·M² for the lower triangle of the complex Gram matrix, 16/3·M³ for its eigenvalues.
pub fn flops(n: u64, m: u64, grid: &Grid) -> f64 {
    let (n, m, positions) = (n as f64, m as f64, grid.positions() as f64);
    let own_conjugates = grid.points.iter().map(|&p| if p % 2 == 0 && p > 0 { 2.0 } else { 1.0 });
    let computed = (grid.frequencies() as f64 + own_conjugates.product::<f64>()) / 2.0;
    computed * (4.0 * positions * n * m + 4.0 * n * m * m + 16.0 / 3.0 * m * m * m)
}

#[cfg(test)]
mod tests;
