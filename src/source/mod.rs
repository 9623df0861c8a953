//! Where bytes live: model URIs, and pinned, ranged, length-checked reads of their objects.
//!
//! The only module that builds an `ObjectStore` or touches the file system for weights. Callers see the blocking
//! trait [`ReadAt`]; what is asynchronous stays inside.

mod connect;
mod failure;
mod fetch;
mod local;
mod options;
mod remote;
mod runtime;
mod store;
mod uri;

pub use options::SourceOptions;

use crate::{Error, ErrorKind, Result};
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

/// Opens a model: a file or directory on this machine (a path or `file://`), or an object or prefix in a store
/// (`s3://` `s3a://` `gs://` `az://` `abfs://` `abfss://` `http://` `https://`).
///
/// Stores take their credentials and settings from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`), then from
/// [`SourceOptions::store_config`]. Plain HTTP has no listing: a URI that ends in `/` is a directory whose
/// [`ModelSource::names`] are empty and whose objects open by name.
///
/// # Errors
/// `InvalidArgument` for a URI or setting that we do not understand, `NotFound` if there is nothing at the URI,
/// `Unsupported` for what is neither file nor directory, `PermissionDenied` or `Unavailable` as the store says.
/// No error text carries credentials or a query string.
pub fn open(uri: &str, options: &SourceOptions) -> Result<Arc<dyn ModelSource>> {
    let opened = match uri::parse(uri) {
        Ok(uri::Location::Local(path)) => {
            local::open(uri, &path).map(|source| Arc::new(source) as Arc<dyn ModelSource>)
        }
        Ok(uri::Location::Remote(place)) => {
            remote::open(&place, options).map(|source| Arc::new(source) as Arc<dyn ModelSource>)
        }
        Err(error) => Err(error),
    };
    opened.map_err(|error| error.in_file(uri::redact(uri)))
}

/// The number of bytes in `range`, if it lies within an object of `size` bytes.
fn checked_length(range: &Range<u64>, size: u64) -> Result<u64> {
    match range.end.checked_sub(range.start) {
        Some(length) if range.end <= size => Ok(length),
        _ => Err(Error::malformed(format!(
            "bytes {}..{} are asked for, but the file has {size}",
            range.start, range.end
        ))),
    }
}

/// Refuses a buffer that the allocator cannot give, which would otherwise end the process.
fn room_for(length: u64) -> Result<usize> {
    let too_large =
        || Error::new(ErrorKind::TooLarge, format!("a read of {length} bytes does not fit in memory"));
    let length = usize::try_from(length).map_err(|_| too_large())?;
    Vec::<u8>::new().try_reserve_exact(length).map_err(|_| too_large())?;
    Ok(length)
}
