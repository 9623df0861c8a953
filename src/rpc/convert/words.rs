//! Columns whose values are words of a fixed list: the crate holds them as `&'static str`.

use crate::{Error, Result};

/// How eigenvalues were found.
pub(super) const METHODS: &[&str] = &["gram", "svd", "randomized"];

/// What a partial spectrum proves.
pub(super) const CERTIFICATES: &[&str] = &["certified", "ruled-out", "uncertified", "exact"];

/// Metrics of which a summary has the mean.
pub(super) const MEANS: &[&str] = &[
    "log_norm",
    "alpha",
    "alpha_weighted",
    "log_alpha_norm",
    "log_spectral_norm",
    "stable_rank",
    "mp_softrank",
];

/// The word of `list` that equals `text`.
///
/// # Errors
/// `InvalidArgument` with the field's name: a word that this version does not know.
pub(super) fn known(list: &[&'static str], text: &str, field: &str) -> Result<&'static str> {
    list.iter().copied().find(|word| *word == text).ok_or_else(|| {
        Error::invalid(format!("unknown word '{text}': we know {}", list.join(", "))).in_field(field)
    })
}
