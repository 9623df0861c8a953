//! Which way to the eigenvalues was asked for, and what it leads to.

use super::{flops, randomized};
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Which way may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MethodChoice {
    /// The Gram matrix, and the SVD where the Gram matrix cannot tell.
    #[default]
    Auto,
    /// Always the SVD.
    Svd,
    /// The largest eigenvalues alone: so many, or, with `None`, as many as certify the fit, unless the whole spectrum
    /// is cheaper.
    Randomized(Option<u64>),
}

impl MethodChoice {
    /// How many eigenvalues to try for, one after the other, in a layer of `count` matrices of N × M; none where the
    /// whole spectrum is the thing to compute from the start: there are several matrices, nearly all eigenvalues are
    /// wanted, or M is small.
    pub fn counts(self, count: u64, n: u64, m: u64) -> Vec<u64> {
        match self {
            Self::Randomized(_) if count != 1 => Vec::new(),
            Self::Randomized(Some(k)) if k.saturating_mul(2) >= m => Vec::new(),
            Self::Randomized(Some(k)) => vec![k],
            Self::Randomized(None) if randomized::is_streamed(m) => {
                let doubled = std::iter::successors(Some((m / 16).max(64)), |k| Some(2 * k));
                let affordable = |k: &u64| *k <= m / 4 && randomized::flops(n, m, *k) < flops(1, n, m);
                doubled.take_while(affordable).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether the whole spectrum may have to be computed after all.
    pub fn ends_exact(self, count: u64, m: u64) -> bool {
        match self {
            Self::Randomized(Some(k)) => count != 1 || k.saturating_mul(2) >= m,
            _ => true,
        }
    }

    /// Whether partial spectra were asked for.
    pub fn is_randomized(self) -> bool {
        matches!(self, Self::Randomized(_))
    }
}

impl fmt::Display for MethodChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Svd => f.write_str("svd"),
            Self::Randomized(None) => f.write_str("randomized:auto"),
            Self::Randomized(Some(k)) => write!(f, "randomized:{k}"),
        }
    }
}

impl FromStr for MethodChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "svd" => Ok(Self::Svd),
            "randomized" | "randomized:auto" => Ok(Self::Randomized(None)),
            other => match other.strip_prefix("randomized:").map(str::parse::<u64>) {
                Some(Ok(k)) if k >= 3 => Ok(Self::Randomized(Some(k))),
                Some(_) => Err("the number of eigenvalues must be a whole number of at least 3".to_owned()),
                None => Err("one of auto, svd, randomized, randomized:auto, randomized:K".to_owned()),
            },
        }
    }
}

impl Serialize for MethodChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_read_back_from_what_it_prints() {
        for text in ["auto", "svd", "randomized:auto", "randomized:256"] {
            assert_eq!(text.parse::<MethodChoice>().unwrap().to_string(), text);
        }
        assert_eq!("randomized".parse(), Ok(MethodChoice::Randomized(None)));
        for bad in ["", "gram", "randomized:", "randomized:0", "randomized:-1", "randomized:1e3", "randomize"]
        {
            assert!(bad.parse::<MethodChoice>().is_err(), "{bad}");
        }
    }

    #[test]
    fn auto_tries_only_what_is_cheaper_than_the_whole_spectrum() {
        let auto = MethodChoice::Randomized(None);
        assert!(auto.counts(1, 8192, 8192).is_empty());
        let tried = auto.counts(1, 16_384, 16_384);
        assert_eq!(tried.first(), Some(&1024));
        assert!(tried.iter().all(|k| randomized::flops(16_384, 16_384, *k) < flops(1, 16_384, 16_384)));
        assert!(auto.counts(2, 16_384, 16_384).is_empty(), "several matrices");
        assert_eq!(MethodChoice::Randomized(Some(100)).counts(1, 300, 201), [100]);
        assert!(MethodChoice::Randomized(Some(100)).counts(1, 300, 200).is_empty());
    }
}
