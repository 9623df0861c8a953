//! The worker: pulls tasks from the coordinator, pulls weights, computes, reports. It keeps nothing on disk.
//!
//! | file | question |
//! |---|---|
//! | `agent` | the loop: report, take the answer, wait |
//! | `board` | what is held, what is free, what is to be reported: plain data |
//! | `pool` | threads for computing, outside the runtime |
//! | `work` | one lease carried out on one of them |
//! | `blame` | who is to blame for a failure |
//! | `models` | which models are open, and are they those of the plan |
//! | `access` | who uses an open model; bytes counted as progress |
//! | `through` | a model read through the coordinator |
//! | `link` | every call to the coordinator |
//! | `incoming` | a sum of Gram matrices as it arrives |

mod access;
mod agent;
mod blame;
mod board;
mod incoming;
mod link;
mod models;
mod pool;
mod through;
mod work;

#[cfg(test)]
mod tests;

use crate::source::SourceOptions;
use crate::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub use crate::rpc::WORKER_PROTOCOL as PROTOCOL;

/// Gives the bearer token for the next call; asked every time, as tokens are rotated. `None`: no token is sent.
pub type Token = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What a worker is and has.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Its name, unique among those that run.
    pub id: String,
    /// Leases computed at the same time.
    pub cores: usize,
    /// Most bytes of the leases under way, together.
    pub memory: u64,
    /// Longest time between two reports; the coordinator may ask for them more often.
    pub report_every: Duration,
    /// How long leases under way may go on after the shutdown was asked for.
    pub drain_grace: Duration,
    /// How long the coordinator may refuse the worker's credentials before it gives up: tokens are rotated.
    pub refused_for: Duration,
    /// Whether it shares the coordinator's process, and so its file system.
    pub embedded: bool,
    /// Roots that it reads itself; the others are read through the coordinator.
    pub roots: Vec<WorkerRoot>,
}

impl WorkerOptions {
    /// A worker of this name with these means, that reads everything through the coordinator.
    pub fn new(id: impl Into<String>, cores: usize, memory: u64) -> Self {
        Self {
            id: id.into(),
            cores,
            memory,
            report_every: Duration::from_secs(1),
            drain_grace: Duration::from_secs(25),
            refused_for: Duration::from_secs(60),
            embedded: false,
            roots: Vec::new(),
        }
    }
}

/// A configured root that the worker can read.
#[derive(Debug, Clone)]
pub struct WorkerRoot {
    /// Its name, as in the coordinator's configuration.
    pub name: String,
    /// Endpoint, credentials and patience.
    pub source: SourceOptions,
}

/// Works until `shutdown`, and then no longer than [`WorkerOptions::drain_grace`] and a few seconds. A coordinator that
/// is away is waited for, for ever; what is under way goes on meanwhile.
///
/// Must be called on a runtime that goes on running while threads wait for it.
///
/// # Errors
/// `InvalidArgument` for options that make no worker; `Unsupported` if the coordinator speaks another version;
/// `PermissionDenied` if it goes on refusing the worker's credentials.
pub async fn run(
    options: WorkerOptions,
    channel: Channel,
    token: Token,
    shutdown: CancellationToken,
) -> Result<()> {
    check(&options)?;
    let runtime = tokio::runtime::Handle::current();
    let link = link::Link::new(channel, token, runtime, options.id.clone());
    agent::Agent::new(agent::Shared::new(options, link)).run(&shutdown).await
}

fn check(options: &WorkerOptions) -> Result<()> {
    let wrong = |field: &str, message: &str| Err(Error::invalid(message).in_field(field));
    match options {
        WorkerOptions { id, .. } if id.is_empty() || id.len() > 128 || id.chars().any(char::is_control) => {
            wrong("id", "is a name of 1 to 128 bytes")
        }
        WorkerOptions { cores: 0, .. } => wrong("cores", "a worker has at least one"),
        WorkerOptions { memory: 0, .. } => wrong("memory", "a worker needs some"),
        WorkerOptions { report_every, .. } if report_every.is_zero() => {
            wrong("report_every", "is above zero")
        }
        _ => Ok(()),
    }
}
