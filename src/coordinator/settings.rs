//! What the coordinator is told at its start.

use crate::config::{Config, Root};
use crate::format::{Catalog, Limits};
use crate::job;
use crate::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Handle;

/// Settings of a coordinator.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) data_dir: PathBuf,
    pub(super) roots: Vec<Root>,
    /// Whether any path of this machine may be named.
    pub(super) allow_local: bool,
    pub(super) leases: job::Config,
    pub(super) format_limits: Limits,
    pub(super) max_tensor_bytes: u64,
    pub(super) max_layers: u64,
    pub(super) max_units: u64,
    pub(super) max_message_bytes: usize,
    /// Bytes of sums of partial Gram matrices in memory.
    pub(super) gram_memory: u64,
    pub(super) report_every: Duration,
    pub(super) max_upload_bytes: u64,
    pub(super) max_uploads: usize,
    /// Where tasks that outlive a request run; the store's thread spawns on it too.
    pub(super) runtime: Handle,
}

impl Settings {
    pub(super) fn new(config: &Config, runtime: Handle) -> Self {
        let limits = &config.limits;
        Self {
            data_dir: config.coordinator.data_dir.clone(),
            roots: config.roots.clone(),
            allow_local: config.coordinator.allow_local_files,
            leases: leases(config),
            format_limits: Limits { tensors: limits.max_tensors, ..Limits::default() },
            max_tensor_bytes: limits.max_tensor_bytes,
            max_layers: limits.max_layers,
            max_units: limits.max_units,
            max_message_bytes: limits.max_message_bytes,
            gram_memory: config.leases.combine_memory,
            report_every: config.worker.report_every,
            max_upload_bytes: limits.max_upload_bytes,
            max_uploads: limits.max_uploads,
            runtime,
        }
    }

    /// `TooLarge` if a model has more layers or units of work than one analysis may have.
    pub(super) fn check_units(&self, layers: usize, units: usize) -> Result<()> {
        for (what, count, most, key) in [
            ("layers", layers as u64, self.max_layers, "limits.max_layers"),
            ("layers and row blocks", units as u64, self.max_units, "limits.max_units"),
        ] {
            if count > most {
                let message = format!("has {count} {what}, more than {key} = {most}");
                return Err(Error::new(ErrorKind::TooLarge, message));
            }
        }
        Ok(())
    }

    /// `TooLarge` if a tensor of the model is.
    pub(super) fn check_tensors(&self, catalog: &Catalog) -> Result<()> {
        let most = self.max_tensor_bytes;
        let Some(tensor) = catalog.tensors.iter().find(|tensor| tensor.bytes() > most) else { return Ok(()) };
        let (has, most) = (bytesize::ByteSize(tensor.bytes()), bytesize::ByteSize(most));
        let message = format!("has {has}, more than limits.max_tensor_bytes = {most}");
        Err(Error::new(ErrorKind::TooLarge, message).in_tensor(&tensor.name))
    }
}

fn leases(config: &Config) -> job::Config {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let leases = &config.leases;
    let report_interval = ms(config.worker.report_every);
    job::Config {
        batch_flops: leases.batch_flops as f64,
        batch_units: leases.batch_layers,
        lease_timeout: ms(leases.lease_timeout),
        progress_timeout: ms(leases.progress_timeout),
        report_interval,
        adoption_grace: 2 * report_interval,
        max_kills: leases.max_kills,
        max_world_failures: leases.max_world_failures,
        backoff_first: ms(leases.retry_backoff),
        backoff_longest: ms(leases.retry_backoff_max),
        unplaceable_timeout: ms(leases.unplaceable_timeout),
        no_worker_timeout: Some(ms(leases.no_worker_timeout)),
        max_jobs_queued: config.limits.max_jobs_queued,
        max_units: usize::try_from(config.limits.max_units).unwrap_or(usize::MAX),
        ..job::Config::default()
    }
}
