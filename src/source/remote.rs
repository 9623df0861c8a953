//! A model in an object store: one object, or the objects of a prefix.

use super::fetch::{RemoteObject, Shared};
use super::uri::{self, Kind, Place};
use super::{ModelSource, ReadAt, SourceOptions, failure, runtime, store};
use crate::{Error, ErrorKind, Result};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use std::sync::Arc;
use tokio::time::timeout;

/// One object with its siblings, or a prefix.
pub(super) struct RemoteSource {
    shared: Arc<Shared>,
    kind: Kind,
    /// The URI as given, without credentials.
    shown: String,
    /// `shown` up to and with the directory's `/`.
    shown_directory: String,
    /// The directory in the store.
    directory: Key,
    names: Vec<String>,
    /// The single object, pinned when the source was opened.
    single: Option<Arc<RemoteObject>>,
}

/// Finds out whether `place` is an object or a prefix.
///
/// A last part that looks like a file's name is asked for as an object first and listed as a prefix if there is none;
/// any other is listed first, because some servers fail on a HEAD of a directory.
pub(super) fn open(place: &Place, options: &SourceOptions) -> Result<RemoteSource> {
    let store = store::build(place, options)?;
    let shared = Arc::new(Shared::new(store.client, options.clone()));
    find(place, shared).map_err(|error| match (error.kind(), store.hint) {
        (kind @ (ErrorKind::PermissionDenied | ErrorKind::Unavailable), Some(hint)) => {
            Error::new(kind, format!("{} ({hint})", error.message()))
        }
        _ => error,
    })
}

fn find(place: &Place, shared: Arc<Shared>) -> Result<RemoteSource> {
    let source = |directory: Key| RemoteSource {
        shared: Arc::clone(&shared),
        kind: place.kind,
        shown: place.shown.clone(),
        shown_directory: with_slash(&place.shown),
        directory,
        names: Vec::new(),
        single: None,
    };
    if place.kind == Kind::Http {
        return if place.is_directory {
            Ok(source(Key::default()))
        } else {
            source(Key::default()).of_object(&place.key)
        };
    }
    if place.is_directory {
        return source(place.key.clone()).of_prefix();
    }
    let as_object = || source(parent(&place.key)).of_object(&place.key);
    let as_prefix = || source(place.key.clone()).of_prefix();
    if looks_like_a_file(&place.key) {
        as_object()
            .or_else(|error| if error.kind() == ErrorKind::NotFound { as_prefix() } else { Err(error) })
    } else {
        // Listing may be forbidden where reading is not.
        as_prefix().or_else(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied => {
                as_object().map_err(|other| if other.kind() == ErrorKind::NotFound { error } else { other })
            }
            _ => Err(error),
        })
    }
}

fn with_slash(uri: &str) -> String {
    if uri.ends_with('/') { uri.to_owned() } else { format!("{uri}/") }
}

fn parent(key: &Key) -> Key {
    let parts: Vec<_> = key.parts().collect();
    parts.iter().take(parts.len().saturating_sub(1)).cloned().collect()
}

/// Whether the last part ends in `.` and a letter with more letters or digits: `x.safetensors`, not `V3.1`.
fn looks_like_a_file(key: &Key) -> bool {
    let extension =
        key.filename().and_then(|name| name.rsplit_once('.')).map_or("", |(_, extension)| extension);
    extension.starts_with(|c: char| c.is_ascii_alphabetic())
        && extension.chars().all(|c| c.is_ascii_alphanumeric())
}

impl RemoteSource {
    fn of_object(mut self, key: &Key) -> Result<Self> {
        let name = key.filename().unwrap_or_default().to_owned();
        let uri = self.shown.clone();
        // The last part of the URI may be spelt differently (percent-encoded), but is one part.
        let end = uri.trim_end_matches('/').rfind('/').map_or(0, |slash| slash + 1);
        self.shown_directory = uri.get(..end).unwrap_or_default().to_owned();
        self.single = Some(Arc::new(self.pin(key, &name, uri)?));
        self.names = vec![name];
        Ok(self)
    }

    fn of_prefix(mut self) -> Result<Self> {
        let shared = Arc::clone(&self.shared);
        let prefix = self.directory.clone();
        let found = runtime::wait_for(async move {
            let listing = shared.store.list_with_delimiter(Some(&prefix));
            match timeout(shared.options.range_timeout, listing).await {
                Ok(listed) => listed.map_err(|error| failure::translate(&error)),
                Err(_) => Err(Error::new(ErrorKind::Unavailable, "the listing took too long")),
            }
        })?;
        if found.objects.is_empty() && found.common_prefixes.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "no such object, and no objects under this prefix"));
        }
        self.names =
            found.objects.iter().filter_map(|found| found.location.filename().map(str::to_owned)).collect();
        self.names.sort_unstable();
        Ok(self)
    }

    /// Asks what the object is now.
    fn pin(&self, key: &Key, name: &str, uri: String) -> Result<RemoteObject> {
        let (shared, wanted, kind) = (Arc::clone(&self.shared), key.clone(), self.kind);
        let found = runtime::wait_for(async move {
            match timeout(shared.options.range_timeout, ask(shared.store.as_ref(), &wanted, kind)).await {
                Ok(found) => found,
                Err(_) => Err(Error::new(ErrorKind::Unavailable, "no answer in time")),
            }
        })?;
        Ok(RemoteObject::new(Arc::clone(&self.shared), name, uri, found))
    }
}

/// HEAD; for a web server that refuses HEAD (a URL signed for GET), the first byte's answer tells the same.
async fn ask(store: &dyn ObjectStore, key: &Key, kind: Kind) -> Result<ObjectMeta> {
    let error = match store.get_opts(key, GetOptions { head: true, ..GetOptions::default() }).await {
        Ok(found) => return Ok(found.meta),
        Err(error) => error,
    };
    let no_head = matches!(failure::status(&error), Some(400 | 403 | 405)) || failure::has_no_length(&error);
    if kind == Kind::Http && no_head {
        let first = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
        if let Ok(found) = store.get_opts(key, first).await {
            return Ok(found.meta);
        }
    }
    Err(failure::translate(&error))
}

impl ModelSource for RemoteSource {
    fn uri(&self) -> &str {
        &self.shown
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ReadAt>> {
        if let Some(single) = self.single.as_ref().filter(|single| single.name() == name) {
            return Ok(Arc::clone(single) as Arc<dyn ReadAt>);
        }
        uri::check_name(name)?;
        let key = self.directory.parts().chain(Key::parse(name).unwrap_or_default().parts()).collect();
        let uri = format!("{}{name}", self.shown_directory);
        let object = self.pin(&key, name, uri).map_err(|error| error.in_file(name))?;
        Ok(Arc::new(object))
    }

    fn is_single_file(&self) -> bool {
        self.single.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_told_from_directories() {
        for (key, expected) in [
            ("a/model.safetensors", true),
            ("a/x.npy2", true),
            ("models/minilm", false),
            ("DeepSeek-V3.1", false),
            ("a.b/c", false),
            ("x.", false),
        ] {
            assert_eq!(looks_like_a_file(&Key::parse(key).unwrap()), expected, "{key}");
        }
    }

    #[test]
    fn parents_of_keys() {
        assert_eq!(parent(&Key::parse("a/b/c").unwrap()).as_ref(), "a/b");
        assert_eq!(parent(&Key::parse("c").unwrap()).as_ref(), "");
    }
}
