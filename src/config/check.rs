//! Rules between values, and the rules of each role: files that must be there, addresses that need authentication.

use super::Config;
use super::origin::Origin;
use super::problem::Problems;
use super::root::secret_in;
use super::value::show_time;
use std::path::Path;

/// What this process is about to be: which rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// `spectrald coordinator`.
    Coordinator,
    /// `spectrald worker`.
    Worker,
    /// `spectrald serve`: both in one process.
    Both,
    /// Neither, such as `spectrald store verify`: only the rules that hold for all.
    Neither,
}

impl Config {
    fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Rules between values that hold for every process.
    pub(super) fn check_values(&self, problems: &mut Problems) {
        let mut at_most = |low: (&str, u128, String), high: (&str, u128, String)| {
            if low.1 > high.1 {
                let what = format!("{} is more than {} = {}", low.2, high.0, high.2);
                problems.add(&self.origin_of(low.0), low.0, what);
            }
        };
        let number = |key, value: usize| (key, value as u128, value.to_string());
        let time = |key, value: std::time::Duration| (key, value.as_millis(), show_time(value));
        let (limits, leases) = (&self.limits, &self.leases);
        at_most(
            number("limits.max_connections_per_peer", limits.max_connections_per_peer),
            number("limits.max_connections", limits.max_connections),
        );
        at_most(
            time("leases.lease_timeout", leases.lease_timeout),
            time("leases.progress_timeout", leases.progress_timeout),
        );
        at_most(
            time("leases.retry_backoff", leases.retry_backoff),
            time("leases.retry_backoff_max", leases.retry_backoff_max),
        );
        if self.worker.report_every * 3 > leases.lease_timeout {
            let what = format!(
                "{} is more than a third of leases.lease_timeout = {}: one lost report would cost a worker its tasks",
                show_time(self.worker.report_every),
                show_time(leases.lease_timeout)
            );
            problems.add(&self.origin_of("worker.report_every"), "worker.report_every", what);
        }
        self.together("coordinator.tls.cert", "coordinator.tls.key", problems);
        self.together("worker.tls.cert", "worker.tls.key", problems);
        if self.has("coordinator.tls.client_ca") && !self.has("coordinator.tls.cert") {
            let key = "coordinator.tls.client_ca";
            problems.add(&self.origin_of(key), key, "needs coordinator.tls.cert and coordinator.tls.key");
        }
    }

    fn together(&self, one: &str, other: &str, problems: &mut Problems) {
        for (there, missing) in [(one, other), (other, one)] {
            if self.has(there) && !self.has(missing) {
                problems.add(&self.origin_of(there), there, format!("needs {missing}"));
            }
        }
    }

    /// The rules of this role.
    pub(super) fn check_role(&self, role: Process, problems: &mut Problems) {
        if matches!(role, Process::Coordinator | Process::Both) {
            self.coordinator_rules(problems);
        }
        if role == Process::Worker {
            self.worker_rules(problems);
        }
    }

    fn coordinator_rules(&self, problems: &mut Problems) {
        let all = &self.coordinator;
        let loopback = all.listen.ip().to_canonical().is_loopback();
        if !loopback && !self.has("coordinator.tokens_file") && !self.has("coordinator.tls.client_ca") {
            let what = format!(
                "{} is not loopback, and there is no authentication: set coordinator.tokens_file, or \
                 coordinator.tls with client_ca",
                all.listen
            );
            problems.add(&self.origin_of("coordinator.listen"), "coordinator.listen", what);
        }
        if all.allow_local_files && !loopback {
            let what = format!("is only for loopback, and coordinator.listen is {}", all.listen);
            problems.add(
                &self.origin_of("coordinator.allow_local_files"),
                "coordinator.allow_local_files",
                what,
            );
        }
        if Some(all.listen) == all.http_listen && all.listen.port() != 0 {
            let what = format!("{} is also coordinator.listen", all.listen);
            problems.add(&self.origin_of("coordinator.http_listen"), "coordinator.http_listen", what);
        }
        for key in [
            "coordinator.tokens_file",
            "coordinator.tls.cert",
            "coordinator.tls.key",
            "coordinator.tls.client_ca",
        ] {
            self.file_is_readable(key, problems);
        }
        if all.data_dir.exists() {
            is_directory(
                &all.data_dir,
                "coordinator.data_dir",
                &self.origin_of("coordinator.data_dir"),
                problems,
            );
        }
    }

    fn worker_rules(&self, problems: &mut Problems) {
        let secure = self.worker.coordinator.starts_with("https://");
        for key in ["worker.tls.ca", "worker.tls.cert", "worker.tls.key", "worker.tls.server_name"] {
            if self.has(key) && !secure {
                let what = format!(
                    "needs a URL that begins with https://, and worker.coordinator is {}",
                    self.worker.coordinator
                );
                problems.add(&self.origin_of(key), key, what);
            }
        }
        for key in ["worker.tls.ca", "worker.tls.cert", "worker.tls.key"] {
            self.file_is_readable(key, problems);
        }
        if let Some(path) = &self.worker.token_file {
            let _ = secret_in(path, "worker.token_file", &self.origin_of("worker.token_file"), problems);
        }
    }

    fn file_is_readable(&self, key: &str, problems: &mut Problems) {
        if let Some((super::value::Value::Path(path), origin)) = self.values.get(key) {
            is_readable(path, key, origin, problems);
        }
    }

    /// What is allowed but probably not meant, one line each.
    pub fn warnings(&self, role: Process) -> Vec<String> {
        let mut found = Problems::default();
        if matches!(role, Process::Coordinator | Process::Both) {
            let all = &self.coordinator;
            let key = "coordinator.listen";
            if !all.listen.ip().to_canonical().is_loopback() && all.tls.is_none() {
                found.add(
                    &self.origin_of(key),
                    key,
                    "is not loopback, and there is no TLS: tokens cross the network in clear",
                );
            }
            if all.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) && all.tokens_file.is_none() {
                let key = "coordinator.tls.client_ca";
                found.add(
                    &self.origin_of(key),
                    key,
                    "without coordinator.tokens_file only workers are let in, and no client",
                );
            }
            if self.roots.is_empty() && !all.allow_local_files {
                found.add(&Origin::Default, "root", "there is none: jobs can name uploaded models only");
            }
        }
        if role == Process::Worker
            && self.worker.token_file.is_some()
            && self.worker.coordinator.starts_with("http://")
        {
            let key = "worker.coordinator";
            found.add(
                &self.origin_of(key),
                key,
                "begins with http://: the worker's token crosses the network in clear",
            );
        }
        found.lines()
    }
}

/// Whether `path` is a file that can be read and is not empty; says what is wrong otherwise.
pub(super) fn is_readable(path: &Path, field: &str, origin: &Origin, problems: &mut Problems) -> bool {
    let wrong = match std::fs::metadata(path) {
        Err(error) => Some(format!("{} cannot be read: {error}", path.display())),
        Ok(data) if data.is_dir() => Some(format!("{} is a folder, not a file", path.display())),
        Ok(data) if data.is_file() && data.len() == 0 => Some(format!("{} is empty", path.display())),
        Ok(data) if data.is_file() => {
            let open = std::fs::File::open(path);
            open.err().map(|error| format!("{} cannot be read: {error}", path.display()))
        }
        // Opening a pipe could wait for ever.
        Ok(_) => Some(format!("{} is not a regular file", path.display())),
    };
    if let Some(what) = &wrong {
        problems.add(origin, field, what);
    }
    wrong.is_none()
}

/// Says what is wrong if `path` is not a folder.
pub(super) fn is_directory(path: &Path, field: &str, origin: &Origin, problems: &mut Problems) {
    match std::fs::metadata(path) {
        Err(error) => problems.add(origin, field, format!("{} cannot be read: {error}", path.display())),
        Ok(data) if !data.is_dir() => {
            problems.add(origin, field, format!("{} is not a folder", path.display()))
        }
        Ok(_) => {}
    }
}
