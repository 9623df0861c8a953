//! One layer → one row: the whole science on one screen.

use super::input::LayerInput;
use super::options::Options;
use super::partial;
use super::report::{
    ErgColumns, EsdColumns, FitColumns, LayerReport, MpColumns, NormColumns, RandomColumns, Status,
    VectorColumns,
};
use super::rows::{described_row, fail, failed_row};
use crate::fit::{self, MarchenkoPastur, MatrixShape, Mode, PowerLaw, PowerLawOptions};
use crate::format::DType;
use crate::layer::Layer;
use crate::metrics;
use crate::spectrum::{self, Spectrum, SpectrumOptions};
use crate::tensor::{Blocks, Shuffled};
use crate::{ErrorKind, Result};

/// What analysing a layer came to.
#[derive(Debug, Clone)]
pub enum Analysed {
    /// Its row.
    Row(Box<LayerReport>),
    /// Nothing new: `on_digest` said that the result for this content is known.
    Known {
        /// The content digest, in hexadecimal.
        digest: String,
    },
}

impl Analysed {
    /// The row, if there is one.
    pub fn into_row(self) -> Option<LayerReport> {
        match self {
            Self::Row(row) => Some(*row),
            Self::Known { .. } => None,
        }
    }
}

/// Analyses one layer. What its numbers say (NaN, no fit) is in the row; a row is always given unless reading fails or
/// `on_digest` says that it is known.
///
/// # Errors
/// What the source gives, and `Interrupted`; `InvalidArgument` if a `gram` was given that is not the layer's.
pub fn analyze_layer(input: &mut LayerInput<'_>, options: &Options) -> Result<Analysed> {
    input.spectrum = None;
    if let Some(hook) = input.on_digest.take() {
        input.reader.watch_digest(hook);
    }
    let row = match full_row(input, options) {
        Err(_) if input.reader.take_known() => {
            return Ok(Analysed::Known { digest: input.reader.digest().unwrap_or_default() });
        }
        // Of the spectrum itself, or of the shuffled or the eigenvectors' one.
        Err(e) if matches!(e.kind(), ErrorKind::NonFinite | ErrorKind::Internal) => {
            let mut row = failed_row(input.catalog, input.layer, options, &e);
            row.digest = input.reader.digest();
            row
        }
        other => other?,
    };
    Ok(Analysed::Row(Box::new(row)))
}

fn full_row(input: &mut LayerInput<'_>, options: &Options) -> Result<LayerReport> {
    let found = partial::find(input, options)?;
    if let Some(partial) = &found.spectrum.partial {
        let row = partial::row(input, &found, partial, options);
        input.keep(found.spectrum.pooled());
        return Ok(row);
    }
    let spectrum = found.spectrum;
    let evals = spectrum.pooled();
    let mut row = described_row(input.catalog, input.layer);
    row.digest = input.reader.digest();
    row.has_esd = true;
    if options.method.is_randomized() {
        row.partial = Some(partial::exact_columns(&evals));
        row.detail = [row.detail, found.why_exact].into_iter().flatten().reduce(|a, b| format!("{a}; {b}"));
    }
    row.esd = esd_columns(&spectrum, &evals, input.layer.n, mode(options));
    let fitted = power_law(&evals, spectrum.noise_floor(), (input.tensor.dtype, options));
    row.norms = norm_columns(&evals, fitted.as_ref().ok(), input.layer.n, mode(options));
    match &fitted {
        Ok(law) => {
            row.status = Status::Success;
            row.fit = fit_columns(law);
            row.warning = fit::warning(Some(law.alpha), mode(options)).map(|w| w.as_str().to_owned());
        }
        Err(failure) => {
            row.detail = Some(failure.to_string());
            fail(&mut row, "NO_FIT", options);
        }
    }
    let law = fitted.ok();
    if options.erg {
        row.erg = Some(erg_columns(&evals, law.as_ref(), mode(options)));
    }
    if options.mp {
        row.mp = Some(mp_columns(&evals, shape(input), options));
    }
    if options.vectors {
        row.vectors = Some(vector_columns(input, law.as_ref())?);
    }
    if options.randomize {
        row.random = Some(random_columns(input, &evals, options)?);
    }
    input.keep(evals);
    Ok(row)
}

/// The spectrum of a layer's matrices, given as stored or permuted.
pub(super) fn spectrum_of(blocks: &mut dyn Blocks, layer: &Layer, how: &SpectrumOptions) -> Result<Spectrum> {
    match &layer.operator {
        Some(grid) => spectrum::operator::spectrum(blocks, grid, how),
        None => spectrum::spectrum(blocks, how),
    }
}

pub(super) fn mode(options: &Options) -> Mode {
    if options.is_compat() { Mode::Compat } else { Mode::Strict }
}

fn shape(input: &LayerInput<'_>) -> MatrixShape {
    MatrixShape { n: input.layer.n, m: input.layer.m, count: input.layer.matrix_count() }
}

/// No statistic reads what the solver cannot tell from zero: the fit starts above the noise floor. Nor does one read
/// the rounding of the stored type: the eigenvalues of an orthogonal matrix are equal but for that, and have no tail.
fn power_law(
    evals: &[f64],
    noise_floor: f64,
    (dtype, options): (DType, &Options),
) -> std::result::Result<PowerLaw, fit::FitFailure> {
    let largest = evals.last().copied().unwrap_or(0.0);
    if mode(options) == Mode::Compat {
        return fit::power_law(evals, &PowerLawOptions::compat());
    }
    let cut = noise_floor.max(f64::EPSILON * largest);
    let smallest = evals.iter().copied().find(|&eval| eval > cut).unwrap_or(largest);
    let equal = largest > 0.0 && smallest < largest && largest - smallest <= rounding(dtype) * largest;
    let above = evals.len() - evals.partition_point(|&eval| eval <= cut);
    if equal && above >= 2 {
        return Err(fit::FitFailure::AllEqual);
    }
    fit::power_law(evals, &PowerLawOptions::strict(cut))
}

/// How far the rounding of an orthogonal matrix to this type may spread its eigenvalues, which are all one: 8 unit
/// round-offs (each λ moves by 2·‖E‖₂ at most, and ‖E‖₂ is about two round-offs). Coarser types than bf16 give no
/// such bound that a real spectrum would not meet.
fn rounding(dtype: DType) -> f64 {
    let unit = match dtype {
        DType::F32 => 2f64.powi(-24),
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => 2f64.powi(-53),
    };
    8.0 * unit
}

fn esd_columns(spectrum: &Spectrum, evals: &[f64], n: u64, mode: Mode) -> EsdColumns {
    let roots: Vec<Vec<f64>> =
        spectrum.matrices.iter().map(|m| m.eigenvalues.iter().map(|x| x.sqrt()).collect()).collect();
    let roots: Vec<&[f64]> = roots.iter().map(Vec::as_slice).collect();
    EsdColumns {
        num_evals: Some(evals.len() as u64),
        sv_max: Some(metrics::sv_max(&roots)),
        sv_min: Some(metrics::sv_min(&roots, mode)),
        rank_loss: Some(metrics::rank_loss(&roots, n) as u64),
        weak_rank_loss: Some(metrics::weak_rank_loss(evals) as u64),
        lambda_max: evals.last().copied(),
        method: Some(spectrum.method().name()),
        noise_floor: Some(spectrum.noise_floor()),
    }
}

pub(super) fn fit_columns(law: &PowerLaw) -> FitColumns {
    FitColumns {
        alpha: Some(law.alpha),
        xmin: Some(law.xmin),
        xmax: Some(law.xmax),
        d: Some(law.d),
        d_two_sided: Some(law.d_two_sided),
        sigma: Some(law.sigma),
        num_pl_spikes: Some(law.num_pl_spikes as i64),
        alpha_lo: Some(law.alpha_lo),
        alpha_hi: Some(law.alpha_hi),
        xmin_tied: Some(law.tied),
    }
}

fn norm_columns(evals: &[f64], law: Option<&PowerLaw>, n: u64, mode: Mode) -> NormColumns {
    let norms = metrics::norms(evals);
    let roots: Vec<f64> = evals.iter().map(|x| x.sqrt()).collect();
    let rank = metrics::matrix_rank(&roots, n);
    let alpha = law.map(|law| law.alpha).or((mode == Mode::Compat).then_some(-1.0));
    NormColumns {
        norm: finite(norms.norm),
        log_norm: finite(norms.log_norm),
        spectral_norm: finite(norms.spectral_norm),
        log_spectral_norm: finite(norms.log_spectral_norm),
        alpha_weighted: alpha.and_then(|a| finite(metrics::alpha_weighted(a, norms.spectral_norm))),
        log_alpha_norm: alpha.and_then(|a| finite(metrics::log_alpha_norm(evals, a, mode))),
        stable_rank: finite(norms.stable_rank),
        matrix_rank: Some(rank as u64),
        entropy: finite(metrics::matrix_entropy(evals, rank, mode)),
    }
}

pub(super) fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

fn erg_columns(evals: &[f64], law: Option<&PowerLaw>, mode: Mode) -> ErgColumns {
    let Some(erg) = metrics::erg(evals, law.map(|l| (l.xmin, l.num_pl_spikes)), mode) else {
        return ErgColumns::default();
    };
    ErgColumns {
        detx_num: Some(erg.detx_num as u64),
        num_erg_spikes: Some(erg.num_erg_spikes as u64),
        erg_gap: erg.erg_gap,
        detx_val: finite(erg.detx_val),
        detx_val_unrescaled: finite(erg.detx_val_unrescaled),
        delta_lambda_min: erg.delta_lambda_min.and_then(finite),
    }
}

fn mp_fit(evals: &[f64], shape: MatrixShape, options: &Options) -> Option<MarchenkoPastur> {
    let fitted = match mode(options) {
        Mode::Compat => fit::ww_mp_fit(evals, shape),
        Mode::Strict => fit::fit_bulk(evals, shape),
    };
    fitted.ok()
}

fn mp_columns(evals: &[f64], shape: MatrixShape, options: &Options) -> MpColumns {
    match mp_fit(evals, shape, options) {
        Some(mp) => MpColumns {
            num_spikes: Some(mp.num_spikes as i64),
            sigma_mp: finite(mp.sigma),
            mp_softrank: finite(mp.mp_softrank),
            w_scale: finite(mp.w_scale),
            bulk_max: finite(mp.bulk_max),
            bulk_min: finite(mp.bulk_min),
            mp_distance: mp.distance.and_then(finite),
            mp_converged: mp.distance.map(|_| mp.converged),
        },
        None if options.is_compat() => MpColumns {
            num_spikes: Some(-1),
            sigma_mp: Some(-1.0),
            mp_softrank: Some(-1.0),
            w_scale: Some(-1.0),
            bulk_max: Some(-1.0),
            bulk_min: Some(-1.0),
            ..MpColumns::default()
        },
        None => MpColumns::default(),
    }
}

/// The spectrum of the permuted elements. WeightWatcher takes one shuffle (five for fewer than 100 eigenvalues) for
/// the fit and another for the distances (weightwatcher.py:2995); one serves for both here, unless its numbers are
/// asked for.
fn random_columns(input: &mut LayerInput<'_>, evals: &[f64], options: &Options) -> Result<RandomColumns> {
    let seed = options.seed.unwrap_or_else(|| seed_of(input.reader.digest().as_deref()));
    let exact = input.is_exact_in_f32();
    let how = options.spectrum(input.threads);
    let mut shuffled = Shuffled::copy(&mut input.reader, exact)?;
    let layer = input.layer;
    let mut next = |seed: u64| -> Result<Vec<f64>> {
        match layer.operator {
            Some(_) => shuffled.shuffle_together(seed),
            None => shuffled.shuffle(seed),
        }
        Ok(spectrum_of(&mut shuffled, layer, &how)?.pooled())
    };
    let mut random = next(seed)?;
    let mut of_distance = random.clone();
    if options.is_compat() {
        let replicas = if evals.len() < 100 { 5 } else { 1 };
        for replica in 1..replicas {
            random.extend(next(seed.wrapping_add(replica))?);
        }
        random.sort_by(f64::total_cmp);
        of_distance = next(seed.wrapping_add(replicas))?;
    }
    let distance = metrics::compare_random(evals, &of_distance);
    let mp = mp_columns(&random, shape(input), options);
    let traps = metrics::num_traps(&random, shape(input)) as i64;
    Ok(RandomColumns {
        max_rand_eval: random.last().copied(),
        rand_distance: finite(distance.rand_distance),
        rand_wasserstein: finite(distance.rand_wasserstein),
        ww_softrank: finite(distance.ww_softrank),
        ww_maxdist: finite(distance.ww_maxdist),
        rand_num_spikes: mp.num_spikes,
        num_traps: if options.is_compat() { mp.num_spikes } else { Some(traps) },
        rand_sigma_mp: mp.sigma_mp,
        rand_mp_softrank: mp.mp_softrank,
        rand_w_scale: mp.w_scale,
        rand_bulk_max: mp.bulk_max,
        rand_bulk_min: mp.bulk_min,
        seed: Some(seed),
    })
}

/// The first 53 bits of the content digest: a number that JSON readers keep.
fn seed_of(digest: Option<&str>) -> u64 {
    let head = digest.and_then(|hex| hex.get(..16)).unwrap_or("0");
    u64::from_str_radix(head, 16).unwrap_or(0) >> 11
}

fn vector_columns(input: &mut LayerInput<'_>, law: Option<&PowerLaw>) -> Result<VectorColumns> {
    let (mut evals, mut of_vectors) = (Vec::new(), Vec::new());
    spectrum::eigenvectors(&mut input.reader, &mut |found| {
        for (j, &eval) in found.eigenvalues.iter().enumerate() {
            evals.push(eval);
            of_vectors.push(metrics::vector_metrics(found.vectors.col_as_slice(j)));
        }
    })?;
    let xmin = law.map_or(f64::INFINITY, |law| law.xmin);
    let (tail, bulk) = metrics::mean_over_tail_and_bulk(&evals, &of_vectors, xmin);
    Ok(VectorColumns {
        tail_localization_ratio: tail.and_then(|v| finite(v.localization_ratio)),
        tail_participation_ratio: tail.and_then(|v| finite(v.participation_ratio)),
        tail_vector_entropy: tail.and_then(|v| finite(v.entropy)),
        bulk_localization_ratio: bulk.and_then(|v| finite(v.localization_ratio)),
        bulk_participation_ratio: bulk.and_then(|v| finite(v.participation_ratio)),
        bulk_vector_entropy: bulk.and_then(|v| finite(v.entropy)),
    })
}
