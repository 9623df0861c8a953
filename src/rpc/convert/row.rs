//! Rows of a report. Each column is named once, and the compiler sees to it that none is left out of either side.

use super::words;
use crate::analysis::{
    ErgColumns, EsdColumns, FitColumns, LayerReport, MpColumns, NormColumns, PartialColumns, RandomColumns,
    Status, VectorColumns,
};
use crate::rpc::proto::v1;
use crate::{Error, Result};

/// Both directions of a struct and a message with the same fields.
macro_rules! same_columns {
    ($($columns:ident { $($field:ident),* $(,)? })*) => {$(
        impl From<$columns> for v1::$columns {
            fn from(columns: $columns) -> Self {
                Self { $($field: columns.$field),* }
            }
        }

        impl From<v1::$columns> for $columns {
            fn from(columns: v1::$columns) -> Self {
                Self { $($field: columns.$field),* }
            }
        }
    )*};
}

same_columns! {
    ErgColumns { detx_num, num_erg_spikes, erg_gap, detx_val, detx_val_unrescaled, delta_lambda_min }
    MpColumns {
        num_spikes, sigma_mp, mp_softrank, w_scale, bulk_max, bulk_min, mp_distance, mp_converged,
    }
    RandomColumns {
        max_rand_eval, rand_distance, rand_wasserstein, ww_softrank, ww_maxdist, rand_num_spikes, num_traps,
        rand_sigma_mp, rand_mp_softrank, rand_w_scale, rand_bulk_max, rand_bulk_min, seed,
    }
    VectorColumns {
        tail_localization_ratio, tail_participation_ratio, tail_vector_entropy,
        bulk_localization_ratio, bulk_participation_ratio, bulk_vector_entropy,
    }
}

/// Both directions of a row: columns of the row itself, columns of its groups, which the message holds flat, and
/// optional groups, which are messages of their own. The columns that are words come last, each by itself.
macro_rules! row {
    (
        own { $($own:ident),* $(,)? }
        $(flat $group:ident: $columns:ident { $($column:ident),* $(,)? } $(with $word:ident)?;)*
        optional { $($option:ident),* $(,)? }
    ) => {
        impl From<LayerReport> for v1::LayerResult {
            fn from(row: LayerReport) -> Self {
                Self {
                    $($own: row.$own,)*
                    $($($column: row.$group.$column,)*)*
                    $($($word: row.$group.$word.map(str::to_owned),)?)*
                    $($option: row.$option.map(Into::into),)*
                    partial: row.partial.map(Into::into),
                    status: v1::LayerStatus::from(row.status).into(),
                }
            }
        }

        fn row_of(row: v1::LayerResult) -> Result<LayerReport> {
            Ok(LayerReport {
                $($own: row.$own,)*
                $($group: $columns {
                    $($column: row.$column,)*
                    $($word: method(row.$word)?,)?
                },)*
                $($option: row.$option.map(Into::into),)*
                partial: row.partial.map(PartialColumns::try_from).transpose()?,
                status: status_of(row.status)?,
            })
        }
    };
}

row! {
    own {
        layer_id, name, longname, layer_type, n, m, rf, q, slice_id, reason, detail, warning, has_esd,
        tensor, dtype, shape, parameters, role, block, digest,
    }
    flat esd: EsdColumns {
        num_evals, sv_max, sv_min, rank_loss, weak_rank_loss, lambda_max, noise_floor,
    } with method;
    flat fit: FitColumns {
        alpha, xmin, xmax, d, d_two_sided, sigma, num_pl_spikes, alpha_lo, alpha_hi, xmin_tied,
    };
    flat norms: NormColumns {
        norm, log_norm, spectral_norm, log_spectral_norm, alpha_weighted, log_alpha_norm, stable_rank,
        matrix_rank, entropy,
    };
    optional { erg, mp, random, vectors }
}

impl From<&LayerReport> for v1::LayerResult {
    fn from(row: &LayerReport) -> Self {
        row.clone().into()
    }
}

impl TryFrom<v1::LayerResult> for LayerReport {
    type Error = Error;

    /// # Errors
    /// `InvalidArgument` with the names of tensor and column: a status or a word that this version does not know.
    fn try_from(row: v1::LayerResult) -> Result<Self> {
        let tensor = row.tensor.clone();
        row_of(row).map_err(|e| e.in_tensor(tensor))
    }
}

impl From<PartialColumns> for v1::PartialSpectrum {
    fn from(partial: PartialColumns) -> Self {
        Self {
            k: partial.k,
            certificate: partial.certificate.map(str::to_owned),
            certified_up_to: partial.certified_up_to,
            residual_max: partial.residual_max,
            alpha_error: partial.alpha_error,
        }
    }
}

impl TryFrom<v1::PartialSpectrum> for PartialColumns {
    type Error = Error;

    fn try_from(partial: v1::PartialSpectrum) -> Result<Self> {
        let word = |text: String| words::known(words::CERTIFICATES, &text, "partial.certificate");
        Ok(Self {
            k: partial.k,
            certificate: partial.certificate.map(word).transpose()?,
            certified_up_to: partial.certified_up_to,
            residual_max: partial.residual_max,
            alpha_error: partial.alpha_error,
        })
    }
}

impl From<Status> for v1::LayerStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Success => Self::Success,
            Status::Failed => Self::Failed,
            Status::Skipped => Self::Skipped,
        }
    }
}

fn method(text: Option<String>) -> Result<Option<&'static str>> {
    text.map(|text| words::known(words::METHODS, &text, "method")).transpose()
}

fn status_of(number: i32) -> Result<Status> {
    match v1::LayerStatus::try_from(number) {
        Ok(v1::LayerStatus::Success) => Ok(Status::Success),
        Ok(v1::LayerStatus::Failed) => Ok(Status::Failed),
        Ok(v1::LayerStatus::Skipped) => Ok(Status::Skipped),
        Ok(v1::LayerStatus::Unspecified) => Err(Error::invalid("is not set").in_field("status")),
        Err(_) => Err(Error::invalid(format!("{number} is no status that we know")).in_field("status")),
    }
}
