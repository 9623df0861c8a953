//! Files of this machine: positioned reads, pinned by inode, modification time and size.
//!
//! Links are followed: the usual download cache keeps a model's files as links to blobs elsewhere. A *name* never
//! leaves the directory.

use super::{ModelSource, ObjectIdentity, ReadAt, checked_length, room_for, uri};
use crate::{Error, ErrorKind, Result};
use bytes::Bytes;
use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file, or the files of a directory.
pub(super) struct LocalSource {
    uri: String,
    directory: PathBuf,
    names: Vec<String>,
    single: bool,
}

/// Looks what is at `path`. `uri` is what the user gave.
pub(super) fn open(uri: &str, path: &Path) -> Result<LocalSource> {
    let found = fs::metadata(path).map_err(|error| translate(&error))?;
    if found.is_dir() {
        let names = list(path)?;
        return Ok(LocalSource { uri: uri.to_owned(), directory: path.to_owned(), names, single: false });
    }
    refuse_special(&found)?;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Error::new(ErrorKind::Unsupported, "the file's name is not UTF-8"))?;
    let directory = path.parent().map(Path::to_owned).unwrap_or_default();
    Ok(LocalSource { uri: uri.to_owned(), directory, names: vec![name.to_owned()], single: true })
}

/// Names of the directory's own files, sorted. A name that is not UTF-8 cannot be asked for and is left out.
fn list(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| translate(&error))? {
        let entry = entry.map_err(|error| translate(&error))?;
        // A dangling link is no file.
        let is_file = fs::metadata(entry.path()).is_ok_and(|found| found.is_file());
        if let (true, Ok(name)) = (is_file, entry.file_name().into_string()) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn refuse_special(found: &Metadata) -> Result<()> {
    if found.is_file() {
        return Ok(());
    }
    let what = if found.is_dir() { "a directory, not a file" } else { "neither a file nor a directory" };
    Err(Error::new(ErrorKind::Unsupported, what))
}

impl ModelSource for LocalSource {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ReadAt>> {
        // The name of the single file is the user's own, whatever characters it has.
        if !(self.single && self.names.iter().any(|own| own == name)) {
            uri::check_name(name)?;
        }
        let file = LocalFile::open(self.directory.join(name), name).map_err(|error| error.in_file(name))?;
        Ok(Arc::new(file))
    }

    fn is_single_file(&self) -> bool {
        self.single
    }
}

/// An open file and what it was when it was opened.
struct LocalFile {
    name: String,
    path: PathBuf,
    file: Positioned,
    pin: String,
    identity: ObjectIdentity,
}

impl LocalFile {
    fn open(path: PathBuf, name: &str) -> Result<Self> {
        // Looked at before it is opened: opening a FIFO would wait for a writer.
        refuse_special(&fs::metadata(&path).map_err(|error| translate(&error))?)?;
        let file = File::open(&path).map_err(|error| translate(&error))?;
        let found = file.metadata().map_err(|error| translate(&error))?;
        refuse_special(&found)?;
        let pin = pin_of(&found);
        let uri = path.to_string_lossy().into_owned();
        let identity = ObjectIdentity { uri, size: found.len(), pin: Some(pin.clone()) };
        Ok(Self { name: name.to_owned(), path, file: Positioned::new(file), pin, identity })
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let length = room_for(checked_length(&range, self.identity.size)?)?;
        if length == 0 {
            return Ok(Bytes::new());
        }
        let mut bytes = vec![0; length];
        let outcome = self.file.read_exact_at(&mut bytes, range.start);
        // Asked afterwards and first: a file that shrank also fails the read.
        self.check_unchanged()?;
        outcome.map_err(|error| translate(&error))?;
        Ok(Bytes::from(bytes))
    }

    fn check_unchanged(&self) -> Result<()> {
        let found = match fs::metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let message = "the file was there when it was opened and is gone now";
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            Err(error) => return Err(translate(&error)),
        };
        let now = pin_of(&found);
        if now == self.pin {
            return Ok(());
        }
        let message = format!(
            "the file changed while it was read: inode-time-size was {} when it was opened and is {now} now",
            self.pin
        );
        Err(Error::new(ErrorKind::Changed, message))
    }
}

impl ReadAt for LocalFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> &ObjectIdentity {
        &self.identity
    }

    fn read_at(&self, range: Range<u64>) -> Result<Bytes> {
        self.read(range).map_err(|error| error.in_file(self.name.as_str()))
    }
}

/// Inode, modification time (ns since 1970) and size (bytes), in hexadecimal.
fn pin_of(found: &Metadata) -> String {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(found);
    #[cfg(not(unix))]
    let inode = 0;
    let since = found.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let time = since.map_or(0, |since| since.as_nanos());
    format!("{inode:x}-{time:x}-{:x}", found.len())
}

fn translate(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "no such file or directory"),
        io::ErrorKind::PermissionDenied => Error::new(ErrorKind::PermissionDenied, "permission denied"),
        // `file/name`: what was taken for a directory is a file.
        io::ErrorKind::NotADirectory => Error::new(ErrorKind::NotFound, "no such file or directory"),
        io::ErrorKind::InvalidInput => Error::invalid("not a file name"),
        _ => Error::new(ErrorKind::Unavailable, format!("cannot read: {error}")),
    }
}

/// A file that many threads read at once.
#[cfg(unix)]
struct Positioned(File);

#[cfg(unix)]
impl Positioned {
    fn new(file: File) -> Self {
        Self(file)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, bytes, offset)
    }
}

/// A file that many threads read, one after another: positioned reads are not portable.
#[cfg(not(unix))]
struct Positioned(std::sync::Mutex<File>);

#[cfg(not(unix))]
impl Positioned {
    fn new(file: File) -> Self {
        Self(std::sync::Mutex::new(file))
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        // A thread that panicked left only a position behind, and that is set anew.
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(bytes)
    }
}
