//! How much a model's headers may ask of this machine before anything is believed.

use crate::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicU64, Ordering};

/// Limits on untrusted headers. Every one is far above what a real model needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one safetensors header; 100,000,000 as in the reference implementation.
    pub header_bytes: u64,
    /// Bytes of all headers of a model together.
    pub model_header_bytes: u64,
    /// JSON values in one header.
    pub nodes: u64,
    /// Tensors of a model.
    pub tensors: u64,
    /// Dimensions of a tensor.
    pub rank: usize,
    /// Bytes of an index.
    pub index_bytes: u64,
    /// Shards of a model.
    pub shards: usize,
    /// Bytes of a config.json.
    pub config_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 100_000_000,
            model_header_bytes: 1 << 30,
            nodes: 25_000_000,
            tensors: 1_000_000,
            rank: 64,
            index_bytes: 256 << 20,
            shards: 10_000,
            config_bytes: 4 << 20,
        }
    }
}

impl Limits {
    /// `TooLarge` if `count` of `what` is over `limit`, e.g. `more than 10000 shards`.
    pub(super) fn check(what: &str, count: u64, limit: u64) -> Result<()> {
        if count > limit {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("more than {limit} {what}, the limit in force"),
            ));
        }
        Ok(())
    }
}

/// [`Limits`], and what the headers of this model have used so far (files are read by several threads).
pub(super) struct Budget {
    pub(super) limits: Limits,
    header_bytes: AtomicU64,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, header_bytes: AtomicU64::new(0) }
    }

    /// Takes `bytes` for a header that is about to be read.
    pub(super) fn take_header(&self, bytes: u64) -> Result<()> {
        let before = self.header_bytes.fetch_add(bytes, Ordering::Relaxed);
        let limit = self.limits.model_header_bytes;
        Limits::check("bytes of headers in one model", before.saturating_add(bytes), limit)
    }
}
