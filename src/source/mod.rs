//! Where bytes live: model URIs, and pinned, ranged, length-checked reads of their objects.
//!
//! The only module that builds an `ObjectStore` or touches the file system for weights. Callers see the blocking
//! trait [`ReadAt`]; what is asynchronous stays inside.

use crate::Result;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// What an object was when it was opened. Every later read must still find the same.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ObjectIdentity {
    /// The full URI or path, without credentials.
    pub uri: String,
    /// Size in bytes.
    pub size: u64,
    /// ETag or version of the store; for a local file inode, modification time and size. `None`: the store gives
    /// none, so that a change under way cannot be noticed ("unpinned").
    pub pin: Option<String>,
}

/// An object whose byte ranges can be read. Every read is pinned to [`ObjectIdentity`] and its length checked: it
/// returns exactly the bytes asked for, or an error that names the object.
pub trait ReadAt: Send + Sync {
    /// The object's name for error messages: its file name relative to the model.
    fn name(&self) -> &str;
    /// What the object was when it was opened.
    fn identity(&self) -> &ObjectIdentity;
    /// The bytes of `range`; an empty range gives no bytes and reads nothing.
    ///
    /// # Errors
    /// `Changed` if the object is not the one that was opened, `Malformed` if the range passes its end,
    /// `Unavailable`, `PermissionDenied` or `NotFound` as the store says.
    fn read_at(&self, range: Range<u64>) -> Result<Bytes>;
    /// Size in bytes.
    fn len(&self) -> u64 {
        self.identity().size
    }
    /// Whether the object has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A model's objects: one file, or all files under a directory or prefix.
pub trait ModelSource: Send + Sync {
    /// The URI or path as the user gave it, without credentials.
    fn uri(&self) -> &str;
    /// Names of the objects, relative to the model, sorted. For a single file: that file's name alone, although
    /// [`ModelSource::open`] also finds its siblings (such as `config.json` beside it).
    fn names(&self) -> &[String];
    /// Opens one object by its relative name and pins it. The name must not leave the model's directory.
    ///
    /// # Errors
    /// `NotFound` if it does not exist; the store's own failures.
    fn open(&self, name: &str) -> Result<Arc<dyn ReadAt>>;
    /// Whether the URI named one file rather than a directory or prefix.
    fn is_single_file(&self) -> bool;
}
