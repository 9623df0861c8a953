//! What was typed → what is needed: one TOML file for coordinator and worker, the environment and flags over it.
//!
//! Every mistake is reported at once, before a port is bound: [`Config::load`] and [`Config::load_for`] collect them
//! all into one error with a line for each, `file:line: field: what`. The keys, their meaning, bounds and defaults are
//! one table (`schema.rs`), from which the sample file and the names of environment variables follow as well.

mod check;
mod lines;
mod origin;
mod problem;
mod read;
mod root;
mod schema;
mod secret;
mod sections;
mod show;
mod suggest;
#[cfg(test)]
mod tests;
pub mod uri;
mod value;

pub use check::Process;
pub(crate) use lines::LineNumbers;
pub use origin::{Origin, Overrides};
pub use problem::Problems;
pub use root::Root;
pub use secret::Secret;
pub use sections::{Coordinator, CoordinatorTls, Leases, Limits, Log, LogFormat, Store, Worker, WorkerTls};

use crate::Result;
use std::path::Path;

/// The configuration of a coordinator, a worker, or both.
#[derive(Debug, Clone)]
pub struct Config {
    /// The process that plans, leases, collects and remembers.
    pub coordinator: Coordinator,
    /// A process that pulls tasks and computes.
    pub worker: Worker,
    /// Places that jobs may name.
    pub roots: Vec<Root>,
    /// What one client, one model or one connection may take.
    pub limits: Limits,
    /// When work is taken from a worker, tried again, or given up.
    pub leases: Leases,
    /// The database.
    pub store: Store,
    /// Log lines.
    pub log: Log,
    values: read::Values,
}

impl Default for Config {
    /// The built-in defaults.
    fn default() -> Self {
        Self::gather(None, &Overrides::default(), &mut Problems::default())
    }
}

impl Config {
    /// Reads `file`, if there is one, and `overrides`, and checks what holds for every role.
    ///
    /// # Errors
    /// `InvalidArgument` with all mistakes, one a line of [`crate::Error::message`]: see [`Problems::into_result`].
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self> {
        Self::load_for(Process::Neither, file, overrides)
    }

    /// As [`Config::load`], with the rules of `role` in the same list of mistakes.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_for(role: Process, file: Option<&Path>, overrides: &Overrides) -> Result<Self> {
        let mut problems = Problems::default();
        let config = Self::gather(file, overrides, &mut problems);
        config.check_role(role, &mut problems);
        problems.into_result().map(|()| config)
    }

    /// Checks the rules of a coordinator: authentication off loopback, files that can be read.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn check_coordinator(&self) -> Result<()> {
        self.checked(Process::Coordinator)
    }

    /// Checks the rules of a worker: TLS that fits its URL, files that can be read.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn check_worker(&self) -> Result<()> {
        self.checked(Process::Worker)
    }

    fn checked(&self, role: Process) -> Result<()> {
        let mut problems = Problems::default();
        self.check_role(role, &mut problems);
        problems.into_result()
    }

    /// Where the value of `key` (such as `coordinator.listen`) came from.
    pub fn origin_of(&self, key: &str) -> Origin {
        self.values.get(key).map(|(_, origin)| origin.clone()).unwrap_or_default()
    }

    fn gather(file: Option<&Path>, overrides: &Overrides, problems: &mut Problems) -> Self {
        let gathered = read::gather(file, overrides, problems);
        let typed = sections::Typed(&gathered.values);
        let config = Self {
            coordinator: typed.coordinator(),
            worker: typed.worker(),
            roots: root::build(&gathered.roots, problems),
            limits: typed.limits(),
            leases: typed.leases(),
            store: typed.store(),
            log: typed.log(),
            values: gathered.values,
        };
        config.check_values(problems);
        config
    }
}
