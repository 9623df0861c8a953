//! Where a value came from, and the values that override the file.

use super::schema::{self, KEYS};
use std::fmt;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// The built-in default.
    #[default]
    Default,
    /// A default of the command that was typed, such as `serve`.
    Command(String),
    /// A line of the file, counted from 1.
    File {
        /// The file, as it was named.
        file: String,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line, such as `--listen`.
    Flag(String),
}

impl Origin {
    /// The order of reports: the file by its lines, then variables, flags and defaults.
    pub(super) fn order(&self) -> (u8, usize) {
        match self {
            Self::File { line, .. } => (0, *line),
            Self::Environment(_) => (1, 0),
            Self::Flag(_) => (2, 0),
            Self::Command(_) => (3, 0),
            Self::Default => (4, 0),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Command(name) | Self::Environment(name) | Self::Flag(name) => f.write_str(name),
            Self::File { file, line: 0 } => f.write_str(file),
            Self::File { file, line } => write!(f, "{file}:{line}"),
        }
    }
}

/// Values that stand beside the file: defaults of a command below it, the environment and flags above it.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub(super) given: Vec<Override>,
}

/// One value, as text.
#[derive(Debug, Clone)]
pub(super) struct Override {
    pub key: String,
    pub value: String,
    pub origin: Origin,
}

impl Overrides {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the variables of this process's environment.
    ///
    /// `SPECTRALD_`, then section and key joined by `_`, in upper case: `SPECTRALD_COORDINATOR_LISTEN` is
    /// `coordinator.listen`, `SPECTRALD_WORKER_TLS_CA` is `worker.tls.ca`. Variables that begin with `SPECTRALD_` and a
    /// section but name no key are mistakes; other `SPECTRALD_` variables belong to other parts of the program.
    /// `SPECTRALD_ROOT` is a list of roots, `NAME=URI` with commas between. Empty variables count as not set.
    pub fn from_environment() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            // A value that is not UTF-8 is reported by whoever reads it: U+FFFD is in no path, address or number.
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        Self::from_variables(std::env::vars_os().filter_map(text))
    }

    /// As [`Overrides::from_environment`], of these variables.
    pub fn from_variables(variables: impl Iterator<Item = (String, String)>) -> Self {
        let mut all = Self::default();
        let mut variables: Vec<(String, String)> = variables.filter(|(_, value)| !value.is_empty()).collect();
        variables.sort();
        for (name, value) in variables {
            if let Some(key) = key_of(&name) {
                all.given.push(Override { key, value, origin: Origin::Environment(name) });
            }
        }
        all
    }

    /// A value given by a flag, such as `("coordinator.listen", "0.0.0.0:7600", "--listen")`. It wins over all others.
    pub fn flag(&mut self, key: &str, value: impl Into<String>, flag: &str) {
        let origin = Origin::Flag(flag.to_owned());
        self.given.push(Override { key: key.to_owned(), value: value.into(), origin });
    }

    /// A default of the command that was typed, such as `("coordinator.http_listen", "off", "serve")`. The file, the
    /// environment and flags win over it.
    pub fn command_default(&mut self, key: &str, value: impl Into<String>, command: &str) {
        let origin = Origin::Command(command.to_owned());
        self.given.push(Override { key: key.to_owned(), value: value.into(), origin });
    }
}

/// The key that a variable sets, or the key that does not exist which it seems to set.
fn key_of(variable: &str) -> Option<String> {
    if variable == "SPECTRALD_ROOT" {
        return Some("root".to_owned());
    }
    if let Some(key) = KEYS.iter().find(|key| schema::variable(key.name) == variable) {
        return Some(key.name.to_owned());
    }
    // The longest section first: `coordinator.tls` before `coordinator`.
    let mut sections: Vec<&str> = schema::SECTIONS.iter().map(|(name, _)| *name).collect();
    sections.sort_by_key(|name| std::cmp::Reverse(name.len()));
    sections.iter().find_map(|section| {
        let rest = variable.strip_prefix(&format!("{}_", schema::variable(section)))?;
        Some(format!("{section}.{}", rest.to_lowercase()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_keys_by_one_rule() {
        for (variable, key) in [
            ("SPECTRALD_COORDINATOR_LISTEN", Some("coordinator.listen")),
            ("SPECTRALD_COORDINATOR_TLS_CLIENT_CA", Some("coordinator.tls.client_ca")),
            ("SPECTRALD_COORDINATOR_TLS_CRT", Some("coordinator.tls.crt")),
            ("SPECTRALD_LIMITS_MAX_STREAM", Some("limits.max_stream")),
            ("SPECTRALD_ROOT", Some("root")),
            ("SPECTRALD_ADDR", None),
            ("SPECTRALD_SIMD", None),
            ("PATH", None),
        ] {
            assert_eq!(key_of(variable).as_deref(), key, "{variable}");
        }
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        let mut names: Vec<String> = KEYS.iter().map(|key| schema::variable(key.name)).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
