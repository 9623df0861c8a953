//! The few vector loops of the solver, compiled for each instruction set and chosen at run time.
//!
//! Sums run in [`LANES`] partial sums added in a fixed order, so that their bits do not depend on how the compiler
//! maps them to registers; they do depend on whether multiply-add is fused, which [`Fused`] says.

use pulp::Arch;

/// Partial sums of a dot product.
const LANES: usize = 8;

/// Multiply-add, fused or not.
pub(super) trait Fused: Copy {
    /// a·b + c.
    fn mul_add(a: f64, b: f64, c: f64) -> f64;
}

/// One rounding: where the hardware has it.
#[derive(Clone, Copy)]
pub(super) struct Yes;

/// Two roundings: a library call for each would be far slower.
#[derive(Clone, Copy)]
pub(super) struct No;

impl Fused for Yes {
    #[inline(always)]
    fn mul_add(a: f64, b: f64, c: f64) -> f64 {
        a.mul_add(b, c)
    }
}

impl Fused for No {
    #[inline(always)]
    fn mul_add(a: f64, b: f64, c: f64) -> f64 {
        a * b + c
    }
}

/// Work that is compiled once for each instruction set.
pub(super) trait Kernel {
    type Output;
    /// Does it; `#[inline(always)]` in every implementation.
    fn run<F: Fused>(self) -> Self::Output;
}

/// Runs `kernel` with the best instruction set of this machine. `SPECTRALD_SIMD=portable` in the environment asks for
/// the one without vector extensions.
pub(super) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    let arch = if portable_asked() { Arch::Scalar } else { Arch::new() };
    let fused = !matches!(arch, Arch::Scalar) || cfg!(target_arch = "aarch64");
    if fused { arch.dispatch(Call(kernel, Yes)) } else { arch.dispatch(Call(kernel, No)) }
}

fn portable_asked() -> bool {
    use std::sync::OnceLock;
    static ASKED: OnceLock<bool> = OnceLock::new();
    *ASKED.get_or_init(|| std::env::var_os("SPECTRALD_SIMD").is_some_and(|value| value == "portable"))
}

struct Call<K, F>(K, F);

impl<K: Kernel, F: Fused> pulp::NullaryFnOnce for Call<K, F> {
    type Output = K::Output;

    #[inline(always)]
    fn call(self) -> K::Output {
        self.0.run::<F>()
    }
}

/// Σ a·b.
#[inline(always)]
pub(super) fn dot<F: Fused>(a: &[f64], b: &[f64]) -> f64 {
    let len = a.len().min(b.len());
    let (a, a_rest) = a[..len].as_chunks::<LANES>();
    let (b, b_rest) = b[..len].as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] = F::mul_add(a[lane], b[lane], sums[lane]);
        }
    }
    let mut total = ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
    for (a, b) in a_rest.iter().zip(b_rest) {
        total = F::mul_add(*a, *b, total);
    }
    total
}

/// y += factor·x.
#[inline(always)]
pub(super) fn axpy<F: Fused>(factor: f64, x: &[f64], y: &mut [f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = F::mul_add(factor, *x, *y);
    }
}
