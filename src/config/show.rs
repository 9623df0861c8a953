//! The configuration as text: what holds and where it came from, and the sample file.

use super::Config;
use super::origin::Origin;
use super::read::{RawRoot, Values};
use super::schema::{self, KEYS, Key, ROOT_KEYS, SECTIONS};
use super::value::{quoted, to_toml};
use std::fmt::Write as _;

/// Lines of one `[[root]]` table, secrets hidden.
pub(super) type Lines = Vec<String>;

/// Text added to a `String`, which cannot fail.
macro_rules! add {
    ($out:expr, $($arg:tt)*) => { let _ = writeln!($out, $($arg)*); };
}

impl Config {
    /// The whole configuration as a TOML file with one comment a value: where it came from. Secrets are `***`; a key
    /// without a value is a comment.
    pub fn resolved_toml(&self) -> String {
        let mut out = String::new();
        for (section, _) in SECTIONS.iter().filter(|(name, _)| *name != "root") {
            add!(out, "[{section}]");
            for key in keys_of(section) {
                add!(out, "{}", line(key, schema::split(key.name).1, &self.values, key.name));
            }
            out.push('\n');
        }
        for root in &self.roots {
            add!(out, "[[root]]");
            for line in &root.origins {
                add!(out, "{line}");
            }
            out.push('\n');
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }

    /// The sample file: every key with its meaning, defaults in force, keys without a default commented out.
    pub fn example_toml() -> String {
        let mut out = String::from(HEAD);
        for (section, about) in SECTIONS {
            add!(out, "\n# {about}");
            let is_root = section == "root";
            add!(out, "{}", if is_root { "# [[root]]".to_owned() } else { format!("[{section}]") });
            let keys: Vec<&Key> =
                if is_root { ROOT_KEYS.iter().collect() } else { keys_of(section).collect() };
            for key in keys {
                add!(out, "# {}", key.about);
                add!(out, "{}", sample(key, is_root));
            }
        }
        out.push_str(TAIL);
        out
    }
}

const HEAD: &str = "\
# Configuration of spectrald: `spectrald coordinator --config FILE`, `spectrald worker --config FILE`.
#
# Every value in force here is the built-in default, so that a file needs only what differs. A line such as
# `# key = …` has no default. Sizes are \"8GiB\" or a number of bytes; durations are \"30s\", \"1h 30m\", \"250ms\".
#
# An environment variable overrides the file: SPECTRALD_, then section and key joined by `_`, in upper case, such as
# SPECTRALD_COORDINATOR_LISTEN or SPECTRALD_WORKER_TLS_CA. SPECTRALD_ROOT adds roots: NAME=URI,NAME=URI. A flag of the
# command line overrides both. `spectrald config show --resolved` shows what holds and where it came from.
";

const TAIL: &str = "\
# Further settings of the object store, by the names of its environment variables.
# settings = { AWS_VIRTUAL_HOSTED_STYLE_REQUEST = \"true\" }
";

fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| schema::split(key.name).0 == section)
}

fn sample(key: &Key, commented: bool) -> String {
    let (_, name) = schema::split(key.name);
    let text = key.default.unwrap_or(key.example);
    let read = super::value::read(key.kind, &super::value::Raw::Untyped(text.to_owned()));
    let value = read.map_or_else(|_| quoted(text), |value| to_toml(key.kind, &value));
    let comment = if key.default.is_none() || commented { "# " } else { "" };
    format!("{comment}{name} = {value}")
}

/// `name = value  # where it came from`, or a comment where there is no value.
fn line(key: &Key, name: &str, values: &Values, at: &str) -> String {
    match values.get(at) {
        Some((value, origin)) => format!("{name} = {}  # {}", to_toml(key.kind, value), where_from(origin)),
        None => format!("# {name} is not set"),
    }
}

fn where_from(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::Command(name) => format!("default of {name}"),
        Origin::File { .. } => crate::error::printable(&origin.to_string()),
        Origin::Environment(name) => format!("environment {name}"),
        Origin::Flag(name) => format!("flag {name}"),
    }
}

/// Lines of a root; the values of its settings are hidden, because they may be secrets.
pub(super) fn root_lines(raw: &RawRoot) -> Lines {
    let mut lines: Lines = ROOT_KEYS
        .iter()
        .filter(|key| raw.values.contains_key(key.name))
        .map(|key| line(key, key.name, &raw.values, key.name))
        .collect();
    if !raw.settings.is_empty() {
        let settings: Vec<String> =
            raw.settings.iter().map(|(key, _)| format!("{} = \"***\"", quoted(key))).collect();
        lines.push(format!("settings = {{ {} }}  # {}", settings.join(", "), where_from(&raw.origin)));
    }
    lines
}
