//! Which models an analysis may name, and how they are opened.

use super::settings::Settings;
use crate::guard::Roots;
use crate::source::{self, ModelSource, ReadAt, SourceOptions};
use crate::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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
    /// The index of a `file://` root that it must not leave.
    confined_to: Option<usize>,
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
        let options = settings
            .roots
            .iter()
            .map(|root| (root.name.clone(), SourceOptions::of_service(root.store_config())));
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
            let uri = format!("{UPLOAD}{id}");
            return Ok(Place { uri, root: String::new(), opened, confined_to: None, is_local: true });
        }
        let allowed = self.roots.resolve(uri)?;
        let root = allowed.name.unwrap_or_default();
        let is_local = root.is_empty() || allowed.path.is_some();
        let confined_to = allowed.root.filter(|_| allowed.path.is_some());
        let opened = match allowed.path {
            Some(path) => path.to_string_lossy().into_owned(),
            None => allowed.uri.clone(),
        };
        Ok(Place { uri: allowed.uri, root, opened, confined_to, is_local })
    }

    /// Opens a model.
    pub(super) fn open(&self, place: &Place) -> Result<Arc<dyn ModelSource>> {
        let options = self.options.get(&place.root).cloned().unwrap_or_default();
        let inner = source::open(&place.opened, &options)?;
        let Some(root) = place.confined_to else { return Ok(inner) };
        let path = Path::new(&place.opened);
        let folder = if inner.is_single_file() { path.parent().unwrap_or(path) } else { path };
        Ok(Arc::new(Confined { roots: self.roots.clone(), root, folder: folder.to_owned(), inner }))
    }
}

/// A model under a `file://` root. A link among its files may lead out of the root; what it leads to is not read.
struct Confined {
    inner: Arc<dyn ModelSource>,
    roots: Roots,
    root: usize,
    folder: PathBuf,
}

impl ModelSource for Confined {
    fn uri(&self) -> &str {
        self.inner.uri()
    }

    fn names(&self) -> &[String] {
        self.inner.names()
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ReadAt>> {
        match self.roots.confine(self.root, &self.folder.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.in_file(name)),
            // What is not there is for the source to say.
            _ => self.inner.open(name),
        }
    }

    fn is_single_file(&self) -> bool {
        self.inner.is_single_file()
    }
}

/// Where uploads are kept.
pub(super) fn uploads(data_dir: &std::path::Path) -> PathBuf {
    data_dir.join("uploads")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    #[test]
    fn a_link_inside_a_model_does_not_lead_out_of_its_root() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside.safetensors"));
        std::fs::create_dir_all(root.join("model")).unwrap();
        std::fs::write(&outside, "secret").unwrap();
        std::fs::write(root.join("blob"), "weights").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("model/out.safetensors")).unwrap();
        std::os::unix::fs::symlink("../blob", root.join("model/in.safetensors")).unwrap();
        let mut overrides = Overrides::new();
        overrides.flag("root", format!("models=file://{}/", root.display()), "--root");
        let config = Config::load(None, &overrides).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sources = Sources::new(&Settings::new(&config, runtime.handle().clone()));
        let place = sources.resolve(&format!("file://{}/model/", root.display())).unwrap();
        let model = sources.open(&place).unwrap();
        assert_eq!(model.names(), ["in.safetensors", "out.safetensors"]);
        assert_eq!(model.open("in.safetensors").unwrap().len(), 7);
        let error = model.open("out.safetensors").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert_eq!(model.open("none.safetensors").err().unwrap().kind(), ErrorKind::NotFound);
    }
}
