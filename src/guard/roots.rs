//! Which URIs a job may name: those under a configured root, and nothing else.

use crate::config::uri::{StrictUri, shown};
use crate::config::{Config, Root};
use crate::{Error, ErrorKind, Result};
use std::io;
use std::path::{Path, PathBuf};

/// The configured roots.
#[derive(Debug, Clone)]
pub struct Roots {
    roots: Vec<Root>,
    allow_local_files: bool,
}

/// A URI that a job may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The index of its root in the configuration; `None`: a local path, allowed by `allow_local_files`.
    pub root: Option<usize>,
    /// The root's name.
    pub name: Option<String>,
    /// The URI in its only spelling, or the path as it was given.
    pub uri: String,
    /// For a `file` root: the same place without symbolic links, which is what must be opened.
    pub path: Option<PathBuf>,
}

impl Roots {
    /// The roots of a configuration.
    pub fn from_config(config: &Config) -> Self {
        Self::new(config.roots.clone(), config.coordinator.allow_local_files)
    }

    /// These roots; with `allow_local_files` absolute paths and `file://` URIs are allowed as well.
    pub fn new(roots: Vec<Root>, allow_local_files: bool) -> Self {
        Self { roots, allow_local_files }
    }

    /// The root of that index.
    pub fn root(&self, index: usize) -> Option<&Root> {
        self.roots.get(index)
    }

    /// The root of `uri`, and its only spelling. Of two roots that hold it the longer one counts. A refusal is logged.
    ///
    /// # Errors
    /// `PermissionDenied` if it is not under a root; the message shows the URI without credentials. `NotFound` if it
    /// is under a `file` root and nothing is there.
    pub fn resolve(&self, uri: &str) -> Result<Allowed> {
        self.find(uri).inspect_err(|error| {
            if error.kind() == ErrorKind::PermissionDenied {
                tracing::warn!(uri = shown(uri), reason = error.message(), "URI refused");
            }
        })
    }

    fn find(&self, uri: &str) -> Result<Allowed> {
        if !uri.contains("://") {
            return self.local_path(uri);
        }
        let parsed = StrictUri::parse(uri).map_err(|why| refused(uri, Some(&why)))?;
        let holding = self.roots.iter().enumerate().filter(|(_, root)| parsed.is_under(&root.uri));
        let Some((index, root)) = holding.max_by_key(|(_, root)| root.uri.depth()) else {
            return match parsed.file_path() {
                Some(path) if self.allow_local_files => {
                    Ok(Allowed { root: None, name: None, uri: parsed.to_string(), path: Some(path) })
                }
                _ => Err(refused(uri, None)),
            };
        };
        let path = parsed.file_path().map(|path| self.confine(index, &path)).transpose()?;
        Ok(Allowed { root: Some(index), name: Some(root.name.clone()), uri: parsed.to_string(), path })
    }

    /// An absolute path, where the coordinator's user is the one who asks.
    fn local_path(&self, path: &str) -> Result<Allowed> {
        if !self.allow_local_files {
            return Err(refused(path, Some("a path without a scheme is not allowed here")));
        }
        if path.chars().any(char::is_control) || !Path::new(path).is_absolute() {
            return Err(refused(path, Some("a path must be absolute and without control characters")));
        }
        Ok(Allowed { root: None, name: None, uri: path.to_owned(), path: Some(PathBuf::from(path)) })
    }

    /// `path`, which lies under the `file` root of that index by its name, without symbolic links. Files found in a
    /// model's folder must pass here too: a link among them may lead out of the root.
    ///
    /// # Errors
    /// `PermissionDenied` if a symbolic link leads out of the root, or we may not look; `NotFound` if nothing is there.
    pub fn confine(&self, index: usize, path: &Path) -> Result<PathBuf> {
        let text = path.display().to_string();
        let root = self.root(index).and_then(|root| root.uri.file_path());
        let root = root.ok_or_else(|| refused(&text, Some("its root is not a folder")))?;
        let inside = root.canonicalize().map_err(|error| io_error(&text, &error))?;
        match path.canonicalize() {
            Ok(real) if real.starts_with(&inside) => Ok(real),
            Ok(_) => Err(refused(&text, Some("a symbolic link leads out of the root"))),
            // Whether something exists elsewhere must not be learnt through a link: its parent must lie inside.
            Err(error) => {
                let parent = path.ancestors().skip(1).find_map(|parent| parent.canonicalize().ok());
                let within = parent.is_some_and(|parent| parent.starts_with(&inside));
                Err(if within { io_error(&text, &error) } else { refused(&text, None) })
            }
        }
    }
}

fn refused(uri: &str, why: Option<&str>) -> Error {
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    Error::new(ErrorKind::PermissionDenied, format!("'{}' is not under a configured root{why}", shown(uri)))
}

fn io_error(path: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::new(ErrorKind::NotFound, format!("'{}' does not exist", shown(path)))
        }
        _ => Error::new(
            ErrorKind::PermissionDenied,
            format!("'{}' cannot be opened: {}", shown(path), error.kind()),
        ),
    }
}
