//! Which models an analysis may name, and how they are opened.

use super::settings::Settings;
use crate::guard::Roots;
use crate::source::{self, ModelSource, SourceOptions};
use crate::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The scheme of models that were uploaded.
pub(super) const UPLOAD: &str = "upload://";

/// A model that may be read.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Its URI or path, as it is shown.
    pub(super) uri: String,
    /// The root that it is under; empty: a path of this machine, or an upload.
    pub(super) root: String,
    /// What is opened: the URI, or a path without symbolic links.
    opened: String,
    /// Whether it lies on this machine, so that workers elsewhere read it through the coordinator.
    pub(super) is_local: bool,
}

/// The configured roots.
pub(super) struct Sources {
    roots: Roots,
    options: BTreeMap<String, SourceOptions>,
    uploads: PathBuf,
}

impl Sources {
    pub(super) fn new(settings: &Settings) -> Self {
        let options = settings.roots.iter().map(|root| (root.name.clone(), options(root.store_config())));
        Self {
            roots: Roots::new(settings.roots.clone(), settings.allow_local),
            options: options.collect(),
            uploads: uploads(&settings.data_dir),
        }
    }

    /// Where `uri` points, if it may be read.
    ///
    /// # Errors
    /// `PermissionDenied` for what is under no configured root; `NotFound` for an upload that is not there.
    pub(super) fn resolve(&self, uri: &str) -> Result<Place> {
        if let Some(id) = uri.strip_prefix(UPLOAD) {
            let id = id.trim_end_matches('/');
            let known = uuid::Uuid::parse_str(id).is_ok() && self.uploads.join(id).join("done").is_file();
            if !known {
                return Err(Error::new(ErrorKind::NotFound, "there is no such upload").in_file(uri));
            }
            let opened = self.uploads.join(id).join("files").to_string_lossy().into_owned();
            return Ok(Place { uri: format!("{UPLOAD}{id}"), root: String::new(), opened, is_local: true });
        }
        let allowed = self.roots.resolve(uri)?;
        let root = allowed.name.unwrap_or_default();
        let is_local = root.is_empty() || allowed.path.is_some();
        let opened = match allowed.path {
            Some(path) => path.to_string_lossy().into_owned(),
            None => allowed.uri.clone(),
        };
        Ok(Place { uri: allowed.uri, root, opened, is_local })
    }

    /// Opens a model.
    pub(super) fn open(&self, place: &Place) -> Result<Arc<dyn ModelSource>> {
        let options = self.options.get(&place.root).cloned().unwrap_or_default();
        source::open(&place.opened, &options)
    }
}

/// Where uploads are kept.
pub(super) fn uploads(data_dir: &std::path::Path) -> PathBuf {
    data_dir.join("uploads")
}

/// How a root's store is read: no redirect is followed, since it could lead anywhere.
pub(super) fn options(store_config: Vec<(String, String)>) -> SourceOptions {
    SourceOptions { store_config, follow_redirects: false, ..SourceOptions::default() }
}
