//! For tests: models in memory that count what is read, and a writer of safetensors.

use crate::source::{ModelSource, ObjectIdentity, ReadAt};
use crate::{Error, ErrorKind, Result};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// A tensor to write: name, dtype's name, shape, bytes.
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) dtype: &'a str,
    pub(crate) shape: &'a [u64],
    pub(crate) data: &'a [u8],
}

/// A safetensors file with this header, whatever it says, and this data.
pub(crate) fn raw_safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// A safetensors file of these tensors, their data in the order given, the header padded to 8 bytes.
pub(crate) fn safetensors(entries: &[Entry<'_>], metadata: &[(&str, &str)]) -> Vec<u8> {
    let mut parts = Vec::new();
    if !metadata.is_empty() {
        let metadata: BTreeMap<_, _> = metadata.iter().copied().collect();
        parts.push(format!("\"__metadata__\":{}", serde_json::to_string(&metadata).unwrap()));
    }
    let mut data: Vec<u8> = Vec::new();
    for entry in entries {
        let begin = data.len();
        data.extend_from_slice(entry.data);
        let mut part = serde_json::to_string(entry.name).unwrap();
        let (dtype, shape, end) = (entry.dtype, entry.shape, data.len());
        write!(part, ":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}")
            .unwrap();
        parts.push(part);
    }
    let mut header = format!("{{{}}}", parts.join(","));
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    raw_safetensors(&header, &data)
}

/// A file in memory that may claim to be larger than its bytes, and remembers which ranges were read.
pub(crate) struct MemoryFile {
    identity: ObjectIdentity,
    bytes: Bytes,
    pub(crate) reads: Mutex<Vec<Range<u64>>>,
}

impl MemoryFile {
    pub(crate) fn new(name: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let size = bytes.len() as u64;
        Self::with_size(name, bytes, size)
    }

    /// Claims `size` bytes, of which only those in `bytes` can be read.
    pub(crate) fn with_size(name: &str, bytes: impl Into<Bytes>, size: u64) -> Self {
        let identity = ObjectIdentity { uri: name.to_owned(), size, pin: None };
        Self { identity, bytes: bytes.into(), reads: Mutex::default() }
    }

    /// Largest offset that was read.
    pub(crate) fn read_up_to(&self) -> u64 {
        self.reads.lock().unwrap().iter().map(|range| range.end).max().unwrap_or(0)
    }
}

impl ReadAt for MemoryFile {
    fn name(&self) -> &str {
        &self.identity.uri
    }

    fn identity(&self) -> &ObjectIdentity {
        &self.identity
    }

    fn read_at(&self, range: Range<u64>) -> Result<Bytes> {
        self.reads.lock().unwrap().push(range.clone());
        if range.start > range.end || range.end > self.bytes.len() as u64 {
            return Err(Error::malformed("read past the end").in_file(self.name()));
        }
        Ok(self.bytes.slice(range.start as usize..range.end as usize))
    }
}

/// Files in memory: a directory of all of them, or the single file among them that is named.
pub(crate) struct MemorySource {
    uri: String,
    names: Vec<String>,
    single: bool,
    files: BTreeMap<String, Arc<MemoryFile>>,
    /// Names whose opening is refused.
    pub(crate) denied: Vec<String>,
}

impl MemorySource {
    pub(crate) fn directory(files: impl IntoIterator<Item = MemoryFile>) -> Self {
        let files: BTreeMap<_, _> =
            files.into_iter().map(|file| (file.name().to_owned(), Arc::new(file))).collect();
        let names = files.keys().cloned().collect();
        Self { uri: "mem:model".to_owned(), names, single: false, files, denied: Vec::new() }
    }

    pub(crate) fn single(name: &str, files: impl IntoIterator<Item = MemoryFile>) -> Self {
        let directory = Self::directory(files);
        Self { uri: format!("mem:model/{name}"), names: vec![name.to_owned()], single: true, ..directory }
    }

    pub(crate) fn file(&self, name: &str) -> &MemoryFile {
        &self.files[name]
    }
}

impl ModelSource for MemorySource {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ReadAt>> {
        if self.denied.iter().any(|denied| denied == name) {
            return Err(Error::new(ErrorKind::PermissionDenied, "access denied").in_file(name));
        }
        match self.files.get(name) {
            Some(file) => Ok(Arc::clone(file) as Arc<dyn ReadAt>),
            None => Err(Error::new(ErrorKind::NotFound, "no such object").in_file(name)),
        }
    }

    fn is_single_file(&self) -> bool {
        self.single
    }
}
