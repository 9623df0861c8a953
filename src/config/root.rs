//! `[[root]]`: the places that jobs may name.

use super::origin::Origin;
use super::problem::Problems;
use super::read::RawRoot;
use super::schema::ROOT_KEYS;
use super::secret::Secret;
use super::uri::StrictUri;
use super::value::{self, Value};
use super::{check, show};
use std::path::{Path, PathBuf};

/// A place that jobs may name, and how its store is reached.
#[derive(Debug, Clone)]
pub struct Root {
    /// Its name, unique among the roots.
    pub name: String,
    /// Everything under it may be named; ends in `/`.
    pub uri: StrictUri,
    /// URL of the store's server; `None`: the cloud's own.
    pub endpoint: Option<String>,
    /// Region of an S3 bucket; `None`: as the environment says.
    pub region: Option<String>,
    /// Whether the endpoint may be reached without TLS (default no).
    pub allow_http: bool,
    /// Identity at an S3 store; `None`: as the environment says.
    pub access_key_id: Option<String>,
    /// The secret of `access_key_id`, read from its file.
    pub secret_access_key: Option<Secret>,
    /// Whether requests go unsigned (default no).
    pub skip_signature: bool,
    /// Further settings of the object store, by the names of its environment variables. They may hold secrets.
    pub settings: Vec<(String, Secret)>,
    pub(super) origins: show::Lines,
}

impl Root {
    /// The settings for this root's store: what `source::SourceOptions::store_config` takes. Secrets are in clear.
    pub fn store_config(&self) -> Vec<(String, String)> {
        let prefix = match self.uri.scheme() {
            "s3" => "AWS_",
            "gs" => "GOOGLE_",
            "az" | "abfs" | "abfss" => "AZURE_",
            _ => "",
        };
        let mut all = Vec::new();
        let mut add = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                all.push((format!("{prefix}{key}"), value.to_owned()));
            }
        };
        let endpoint = match prefix {
            "AWS_" => "ENDPOINT_URL",
            "GOOGLE_" => "BASE_URL",
            _ => "ENDPOINT",
        };
        add(endpoint, self.endpoint.as_deref());
        add("REGION", self.region.as_deref());
        add("ACCESS_KEY_ID", self.access_key_id.as_deref());
        add("SECRET_ACCESS_KEY", self.secret_access_key.as_ref().map(Secret::expose));
        add("SKIP_SIGNATURE", self.skip_signature.then_some("true"));
        if self.allow_http {
            // A setting of the client, which has the same name for every store.
            all.push(("allow_http".to_owned(), "true".to_owned()));
        }
        all.extend(self.settings.iter().map(|(key, value)| (key.clone(), value.expose().to_owned())));
        all
    }
}

/// Builds all roots that are right; the mistakes of the others, and between them, go to `problems`.
pub(super) fn build(raw: &[RawRoot], problems: &mut Problems) -> Vec<Root> {
    let mut roots: Vec<(Root, &Origin)> = Vec::new();
    for one in raw {
        let Some(root) = build_one(one, problems) else { continue };
        if let Some((_, first)) = roots.iter().find(|(other, _)| other.name == root.name) {
            problems.add(
                &one.origin,
                "root.name",
                format!("'{}' is also the name of the root at {first}", root.name),
            );
        }
        if let Some((other, _)) = roots.iter().find(|(other, _)| other.uri == root.uri) {
            problems.add(
                &one.origin,
                "root.uri",
                format!("'{}' is also the URI of root '{}'", root.uri, other.name),
            );
        }
        roots.push((root, &one.origin));
    }
    roots.into_iter().map(|(root, _)| root).collect()
}

fn build_one(raw: &RawRoot, problems: &mut Problems) -> Option<Root> {
    let text = |key: &str| match raw.values.get(key) {
        Some((Value::Text(text), _)) => Some(text.clone()),
        _ => None,
    };
    let is_set = |key: &str| matches!(raw.values.get(key), Some((Value::Bool(true), _)));
    for needed in ["name", "uri"] {
        if !raw.given.contains(&needed) {
            problems.add(&raw.origin, &format!("root.{needed}"), "is needed");
        }
    }
    let uri = text("uri").and_then(|uri| {
        let (_, origin) = raw.values.get("uri")?;
        let read = value::root_uri(&uri);
        // The text itself is shown only once it is known to hold no credentials.
        read.map_err(|what| problems.add(origin, "root.uri", format!("'{}' {what}", super::uri::shown(&uri))))
            .ok()
    });
    let secret = match raw.values.get("secret_access_key_file") {
        Some((Value::Path(path), origin)) => secret_in(path, "root.secret_access_key_file", origin, problems),
        _ => None,
    };
    if let Some(uri) = &uri {
        check_scheme(raw, uri, problems);
    }
    contradictions(raw, problems);
    Some(Root {
        name: text("name")?,
        uri: uri?,
        endpoint: text("endpoint"),
        region: text("region"),
        allow_http: is_set("allow_http"),
        access_key_id: text("access_key_id"),
        secret_access_key: secret,
        skip_signature: is_set("skip_signature"),
        settings: raw.settings.iter().map(|(key, value)| (key.clone(), Secret::new(value.clone()))).collect(),
        origins: show::root_lines(raw),
    })
}

/// Keys that mean nothing to the URI's kind of store.
fn check_scheme(raw: &RawRoot, uri: &StrictUri, problems: &mut Problems) {
    let useless: &[&str] = match uri.scheme() {
        "s3" => &[],
        "gs" | "az" | "abfs" | "abfss" => &["region", "access_key_id", "secret_access_key_file"],
        _ => {
            &["endpoint", "region", "allow_http", "access_key_id", "secret_access_key_file", "skip_signature"]
        }
    };
    for key in ROOT_KEYS.iter().filter(|key| useless.contains(&key.name)) {
        if let Some((value, origin)) = raw.values.get(key.name)
            && *value != Value::Bool(false)
        {
            problems.add(
                origin,
                &format!("root.{}", key.name),
                format!("means nothing to a {} root", uri.scheme()),
            );
        }
    }
    if uri.scheme() == "file" {
        if !raw.settings.is_empty() {
            problems.add(&raw.origin, "root.settings", "means nothing to a file root");
        }
        if let Some(path) = uri.file_path() {
            check::is_directory(&path, "root.uri", &raw.origin, problems);
        }
    }
}

fn contradictions(raw: &RawRoot, problems: &mut Problems) {
    let origin = |key: &str| raw.values.get(key).map(|(_, origin)| origin);
    let is_true = |key: &str| matches!(raw.values.get(key), Some((Value::Bool(true), _)));
    let (id, secret) = (origin("access_key_id"), origin("secret_access_key_file"));
    match (id, secret) {
        (Some(origin), None) => problems.add(origin, "root.access_key_id", "needs secret_access_key_file"),
        (None, Some(origin)) => problems.add(origin, "root.secret_access_key_file", "needs access_key_id"),
        (Some(origin), Some(_)) if is_true("skip_signature") => {
            problems.add(origin, "root.access_key_id", "contradicts skip_signature = true");
        }
        _ => {}
    }
    if let Some((Value::Text(endpoint), origin)) = raw.values.get("endpoint")
        && endpoint.starts_with("http://")
        && !is_true("allow_http")
    {
        problems.add(origin, "root.endpoint", "begins with http://, which needs allow_http = true");
    }
}

/// The only line of a file that holds a secret.
pub(super) fn secret_in(
    path: &Path,
    field: &str,
    origin: &Origin,
    problems: &mut Problems,
) -> Option<Secret> {
    const LONGEST: u64 = 64 * 1024;
    check::is_readable(path, field, origin, problems).then_some(())?;
    let size = std::fs::metadata(path).map(|data| data.len()).unwrap_or_default();
    if size > LONGEST {
        problems.add(origin, field, format!("{} is longer than {LONGEST} bytes", path.display()));
        return None;
    }
    let text = match std::fs::read_to_string(PathBuf::from(path)) {
        Ok(text) => text,
        Err(error) => {
            problems.add(origin, field, format!("{} cannot be read: {error}", path.display()));
            return None;
        }
    };
    let line = text.trim();
    if line.is_empty() || line.lines().count() > 1 || line.chars().any(char::is_control) {
        problems.add(origin, field, format!("{} must hold one line that is not empty", path.display()));
        return None;
    }
    Some(Secret::new(line))
}
