//! X = WᵀW as something that multiplies vectors.

use crate::spectrum::gram::Gram;
use crate::spectrum::team::join;
use crate::tensor::{Block, Blocks, Layout};
use crate::{Error, ErrorKind, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};

/// A symmetric positive semidefinite matrix that is known by its products.
pub(super) trait Operator {
    /// Rows and columns.
    fn order(&self) -> usize;
    /// X·v.
    fn apply(&mut self, v: MatRef<'_, f64>) -> Result<Mat<f64>>;
}

/// Two halves of the columns, on one thread or two: what each computes is fixed, and so are its bits.
fn in_halves(
    out: MatMut<'_, f64>,
    v: MatRef<'_, f64>,
    threads: usize,
    work: impl Fn(MatMut<'_, f64>, MatRef<'_, f64>) + Sync,
) {
    let middle = v.ncols() / 2;
    let (out_left, out_right) = out.split_at_col_mut(middle);
    let (left, right) = v.split_at_col(middle);
    join(threads, || work(out_left, left), || work(out_right, right));
}

/// The squares of W must stay in the range of f64, and so must products of two of them.
fn check_range(trace: f64, nonzero: bool) -> Result<()> {
    let in_range = (1e-140..1e140).contains(&trace) || (trace == 0.0 && !nonzero);
    if in_range {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NonFinite, "the eigenvalues leave the range of f64"))
}

/// X formed once.
pub(super) struct Formed {
    x: Mat<f64>,
    threads: usize,
    pub(super) trace: f64,
}

impl Formed {
    /// `gram`'s lower triangle is mirrored in place.
    pub(super) fn new(gram: Gram, threads: usize) -> Result<Self> {
        let (trace, _) = gram.check_sums();
        check_range(trace, gram.saw_nonzero())?;
        let mut x = gram.into_lower();
        for j in 0..x.ncols() {
            for i in 0..j {
                x[(i, j)] = x[(j, i)];
            }
        }
        Ok(Self { x, threads, trace })
    }
}

impl Operator for Formed {
    fn order(&self) -> usize {
        self.x.nrows()
    }

    fn apply(&mut self, v: MatRef<'_, f64>) -> Result<Mat<f64>> {
        let mut out = Mat::zeros(self.order(), v.ncols());
        in_halves(out.as_mut(), v, self.threads, |out, v| {
            matmul(out, Accum::Replace, self.x.as_ref(), v, 1.0, Par::Seq);
        });
        Ok(out)
    }
}

/// X never formed: each product streams the rows of W once and adds Bᵀ(B·v) block by block, in their order.
pub(super) struct Streamed<'a> {
    blocks: &'a mut dyn Blocks,
    threads: usize,
    pub(super) trace: f64,
}

impl<'a> Streamed<'a> {
    /// `blocks` must hold one matrix.
    pub(super) fn new(blocks: &'a mut dyn Blocks, threads: usize) -> Self {
        Self { blocks, threads, trace: 0.0 }
    }
}

impl Operator for Streamed<'_> {
    fn order(&self) -> usize {
        self.blocks.m()
    }

    fn apply(&mut self, v: MatRef<'_, f64>) -> Result<Mat<f64>> {
        let (m, threads) = (self.order(), self.threads);
        let mut out = Mat::zeros(m, v.ncols());
        let (mut trace, mut nonzero) = (0.0, false);
        self.blocks.stream(&mut |_, block| {
            trace += block.values.iter().map(|x| x * x).sum::<f64>();
            nonzero = nonzero || block.values.iter().any(|&x| x != 0.0);
            let rows = rows_of(&block, m);
            in_halves(out.as_mut(), v, threads, |out, v| {
                let mut product = Mat::zeros(rows.nrows(), v.ncols());
                matmul(product.as_mut(), Accum::Replace, rows, v, 1.0, Par::Seq);
                matmul(out, Accum::Add, rows.transpose(), product.as_ref(), 1.0, Par::Seq);
            });
            Ok(())
        })?;
        check_range(trace, nonzero)?;
        self.trace = trace;
        Ok(out)
    }
}

fn rows_of<'a>(block: &Block<'a>, m: usize) -> MatRef<'a, f64> {
    match block.layout {
        Layout::RowMajor => MatRef::from_row_major_slice(block.values, block.rows, m),
        Layout::ColumnMajor => MatRef::from_column_major_slice(block.values, block.rows, m),
    }
}

/// (I − VVᵀ)·X·(I − VVᵀ): what is left of X beside the span of V's orthonormal columns.
pub(super) struct Deflated<'a> {
    pub(super) operator: &'a mut dyn Operator,
    pub(super) v: MatRef<'a, f64>,
}

impl Operator for Deflated<'_> {
    fn order(&self) -> usize {
        self.operator.order()
    }

    fn apply(&mut self, v: MatRef<'_, f64>) -> Result<Mat<f64>> {
        let mut inside = v.to_owned();
        project_out(self.v, inside.as_mut());
        let mut out = self.operator.apply(inside.as_ref())?;
        project_out(self.v, out.as_mut());
        Ok(out)
    }
}

/// z −= Q·(Qᵀz), twice, which leaves z orthogonal to working precision; gives the sum of both Qᵀz.
pub(super) fn project_out(q: MatRef<'_, f64>, mut z: MatMut<'_, f64>) -> Mat<f64> {
    let mut coefficients = Mat::zeros(q.ncols(), z.ncols());
    for _ in 0..2 {
        let mut part = Mat::zeros(q.ncols(), z.ncols());
        matmul(part.as_mut(), Accum::Replace, q.transpose(), z.as_ref(), 1.0, Par::Seq);
        matmul(z.as_mut(), Accum::Add, q, part.as_ref(), -1.0, Par::Seq);
        coefficients += part;
    }
    coefficients
}
