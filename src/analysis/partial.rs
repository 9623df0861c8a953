//! A layer of which only the largest eigenvalues are computed.

use super::input::LayerInput;
use super::layer::{finite, fit_columns, mode, spectrum_of};
use super::options::Options;
use super::report::{EsdColumns, LayerReport, NormColumns, PartialColumns, Status};
use super::rows::{described_row, fail};
use super::shard;
use crate::Result;
use crate::fit::{self, Certificate, FitFailure, PartialFit};
use crate::metrics;
use crate::spectrum::{self, MethodChoice, Partial, Spectrum, randomized};

/// A spectrum, whole or partial.
pub(super) struct Found {
    pub(super) spectrum: Spectrum,
    /// Why it is whole though a partial one was asked for.
    pub(super) why_exact: Option<String>,
}

/// The eigenvalues of one layer; with a randomized method, the largest alone.
///
/// # Errors
/// What the source gives; `NonFinite` for NaN or infinity in the weights; `Internal` if a solver fails.
pub fn layer_spectrum(input: &mut LayerInput<'_>, options: &Options) -> Result<Spectrum> {
    Ok(find(input, options)?.spectrum)
}

/// With `randomized:K`, what K gives. With `randomized:auto`, K doubles while the whole spectrum is not cheaper and
/// the fit not certified; then the whole spectrum is computed.
pub(super) fn find(input: &mut LayerInput<'_>, options: &Options) -> Result<Found> {
    if let Some(sum) = input.gram.take() {
        shard::adopt(input, &sum, options)?;
        let how = options.spectrum(input.threads);
        let spectrum = spectrum::spectrum_of_sum(&mut input.reader, sum, &how)?;
        return Ok(Found { spectrum, why_exact: None });
    }
    let (rows, cols) = input.layer.matrix_shape();
    let (n, m) = (rows.max(cols), rows.min(cols));
    let count = input.layer.matrix_count();
    let tried = match input.layer.operator {
        Some(_) => Vec::new(),
        None => options.method.counts(count, n, m),
    };
    let seed = options.seed.unwrap_or_else(|| randomized::seed_of(n as usize, m as usize));
    for &k in &tried {
        let spectrum = spectrum::largest(&mut input.reader, k as usize, seed, input.threads)?;
        let certified = |s: &Spectrum| {
            let fitted = s.partial.as_ref().map(|partial| fit_of(s, partial));
            matches!(fitted, Some(Ok(PartialFit { certificate: Certificate::Certified, .. })))
        };
        if !options.method.ends_exact(count, m) || certified(&spectrum) {
            return Ok(Found { spectrum, why_exact: None });
        }
    }
    let why_exact = options.method.is_randomized().then(|| why_exact(&tried, count, m, options.method));
    let spectrum = spectrum_of(&mut input.reader, input.layer, &options.spectrum(input.threads))?;
    Ok(Found { spectrum, why_exact })
}

fn why_exact(tried: &[u64], count: u64, m: u64, method: MethodChoice) -> String {
    match (tried.last(), method) {
        (Some(k), _) => {
            format!("whole spectrum: {k} eigenvalues do not certify the fit, and more cost more than all {m}")
        }
        (None, _) if count > 1 => format!("whole spectrum: the layer has {count} matrices"),
        (None, MethodChoice::Randomized(Some(k))) => {
            format!("whole spectrum: {k} is half of the {m} eigenvalues or more")
        }
        (None, _) => format!("whole spectrum: cheaper for M = {m}"),
    }
}

fn fit_of(spectrum: &Spectrum, partial: &Partial) -> std::result::Result<PartialFit, FitFailure> {
    fit::partial_power_law(&spectrum.pooled(), &partial.errors, partial.order)
}

/// What a randomized method says of a layer whose whole spectrum was computed.
pub(super) fn exact_columns(evals: &[f64]) -> PartialColumns {
    let all = Some(evals.len() as u64);
    PartialColumns { k: all, certificate: Some("exact"), certified_up_to: all, ..PartialColumns::default() }
}

/// The row of a partial spectrum. What needs the rest of the eigenvalues is left empty, and `warning`, which judges
/// alpha, is given only if alpha is certified.
pub(super) fn row(
    input: &LayerInput<'_>,
    found: &Found,
    partial: &Partial,
    options: &Options,
) -> LayerReport {
    let mut row = described_row(input.catalog, input.layer);
    row.digest = input.reader.digest();
    row.has_esd = true;
    let k = found.spectrum.pooled().len() as u64;
    // with no eigenvalue proven, the largest Ritz value need not be the largest eigenvalue
    let lambda_max = (k > 0 || partial.trace == 0.0).then_some(partial.lambda_max);
    row.esd = EsdColumns {
        num_evals: Some(partial.order as u64),
        sv_max: lambda_max.map(f64::sqrt),
        lambda_max,
        method: Some("randomized"),
        noise_floor: Some(found.spectrum.noise_floor()),
        ..EsdColumns::default()
    };
    row.norms = norm_columns(partial.trace, lambda_max);
    let mut columns =
        PartialColumns { k: Some(k), residual_max: Some(partial.residual_max), ..Default::default() };
    columns.certificate = Some("uncertified");
    match fit_of(&found.spectrum, partial) {
        Ok(fitted) => {
            let law = &fitted.law;
            columns.certificate = Some(word(fitted.certificate));
            columns.certified_up_to = fitted.up_to(partial.order).map(|t| t as u64);
            columns.alpha_error = finite(fitted.alpha_error);
            row.status = Status::Success;
            row.fit = fit_columns(law);
            // other tails, not known, may come as near
            (row.fit.alpha_lo, row.fit.alpha_hi, row.fit.xmin_tied) = (None, None, None);
            row.norms.alpha_weighted = finite(metrics::alpha_weighted(law.alpha, partial.lambda_max));
            if fitted.certificate == Certificate::Certified {
                row.warning = fit::warning(Some(law.alpha), mode(options)).map(|w| w.as_str().to_owned());
            }
        }
        Err(failure) => {
            row.detail = Some(format!("of the {k} largest eigenvalues: {failure}"));
            fail(&mut row, "NO_FIT", options);
        }
    }
    row.partial = Some(columns);
    row
}

fn word(certificate: Certificate) -> &'static str {
    match certificate {
        Certificate::Certified => "certified",
        Certificate::RuledOut { .. } => "ruled-out",
        Certificate::Uncertified { .. } => "uncertified",
    }
}

/// ‖W‖_F² is summed over the elements, λ_max is the largest Ritz value.
fn norm_columns(trace: f64, lambda_max: Option<f64>) -> NormColumns {
    NormColumns {
        norm: finite(trace),
        log_norm: finite(trace.log10()),
        spectral_norm: lambda_max,
        log_spectral_norm: lambda_max.and_then(|x| finite(x.log10())),
        stable_rank: lambda_max.and_then(|x| finite(trace / x)),
        ..NormColumns::default()
    }
}
