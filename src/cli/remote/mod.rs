//! Commands that ask a coordinator.

mod json;
mod show;
mod submit;
mod system;
mod tables;
mod target;
mod wait;

pub(super) use show::{cancel, job, jobs, results, spectrum};
pub(super) use submit::{submit, watch};
pub(super) use system::{drain, status, workers};

use crate::{Error, ErrorKind, Result};

/// Carries `work` out on a runtime of this thread alone: a client has little to do at a time.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let failed = |e| Error::new(ErrorKind::Internal, format!("cannot start the network runtime: {e}"));
    runtime.map_err(failed)?.block_on(work)
}
