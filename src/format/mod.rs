//! Bytes → [`Catalog`]: every tensor's name, dtype, shape and byte range. Headers are read, data is not.
//!
//! Each format has one file here that reads headers through [`ReadAt`] with straight-line guards: sizes are checked
//! against the object's length before anything is allocated, arithmetic is checked, nothing panics. A new format is
//! a new file with a sniffer and a reader, and one line in `kinds::READERS`.

mod config;
mod index;
mod json;
mod kinds;
mod limits;
mod model;
mod safetensors;

#[cfg(test)]
pub(crate) mod testing;

pub use index::{Index, parse_index};
pub use kinds::names;
pub use limits::Limits;
pub use model::{read_catalog, read_catalog_within};
pub use safetensors::parse_safetensors;

use crate::source::ReadAt;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// How an element is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the name of an element type")]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    /// A type that is reported and not decoded: complex, sub-byte, FNUZ and E8M0 floats. The name is safetensors'.
    Other(OtherDType),
}

/// Element types that are reported, not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the name of an element type")]
pub enum OtherDType {
    C64,
    F8E8M0,
    F8E4M3FNUZ,
    F8E5M2FNUZ,
    F6E2M3,
    F6E3M2,
    F4,
}

impl DType {
    /// The name that safetensors uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
            Self::Other(other) => match other {
                OtherDType::C64 => "C64",
                OtherDType::F8E8M0 => "F8_E8M0",
                OtherDType::F8E4M3FNUZ => "F8_E4M3FNUZ",
                OtherDType::F8E5M2FNUZ => "F8_E5M2FNUZ",
                OtherDType::F6E2M3 => "F6_E2M3",
                OtherDType::F6E3M2 => "F6_E3M2",
                OtherDType::F4 => "F4",
            },
        }
    }

    /// The dtype that safetensors calls `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Every dtype that a file can name.
    pub const ALL: [Self; 22] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::F8E4M3,
        Self::F8E5M2,
        Self::I64,
        Self::I32,
        Self::I16,
        Self::I8,
        Self::U64,
        Self::U32,
        Self::U16,
        Self::U8,
        Self::Bool,
        Self::Other(OtherDType::C64),
        Self::Other(OtherDType::F8E8M0),
        Self::Other(OtherDType::F8E4M3FNUZ),
        Self::Other(OtherDType::F8E5M2FNUZ),
        Self::Other(OtherDType::F6E2M3),
        Self::Other(OtherDType::F6E3M2),
        Self::Other(OtherDType::F4),
    ];

    /// Bits of one element.
    pub fn bits(self) -> u64 {
        match self {
            Self::F64 | Self::I64 | Self::U64 | Self::Other(OtherDType::C64) => 64,
            Self::F32 | Self::I32 | Self::U32 => 32,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 16,
            Self::Other(OtherDType::F6E2M3 | OtherDType::F6E3M2) => 6,
            Self::Other(OtherDType::F4) => 4,
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool | Self::Other(_) => 8,
        }
    }

    /// Bytes of one element, for the types that are decoded.
    pub fn bytes(self) -> u64 {
        self.bits().div_ceil(8)
    }

    /// Whether an element is a floating-point number that is decoded.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16 | Self::F8E4M3 | Self::F8E5M2)
    }

    /// Whether an element is an integer (booleans count).
    pub fn is_integer(self) -> bool {
        !self.is_float() && !matches!(self, Self::Other(_))
    }
}

/// One tensor as its file declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Full name, as stored.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, row-major (the last varies fastest).
    pub shape: Vec<u64>,
    /// Index into [`Catalog::files`].
    pub file: usize,
    /// The tensor's bytes in that file; their number is what dtype and shape need.
    pub range: Range<u64>,
}

impl Tensor {
    /// Number of elements. Readers have checked that it does not overflow.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
    /// Number of stored bytes.
    pub fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// What one file declares: its tensors in the order of their bytes (their [`Tensor::file`] is 0), and its metadata.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Tensors by offset; at the same offset empty ones first, then by name. Names are unique.
    pub tensors: Vec<Tensor>,
    /// What the file says about itself, such as safetensors' `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

/// A model's table of contents.
pub struct Catalog {
    /// The model's URI or path, without credentials.
    pub uri: String,
    /// Name of the format, e.g. `safetensors`.
    pub format: &'static str,
    /// Opened and pinned objects that hold tensors.
    pub files: Vec<Arc<dyn ReadAt>>,
    /// Every tensor, file by file, in the order of their bytes. Names are unique.
    pub tensors: Vec<Tensor>,
    /// `__metadata__` of the files (the first file that has a key wins).
    pub metadata: BTreeMap<String, String>,
    /// The model's `config.json`, where there is one.
    pub config: Option<serde_json::Value>,
    /// What a reader of the report should know about how the model was found, e.g. weight files that its index does
    /// not list and that were therefore not read. One sentence each.
    pub notes: Vec<String>,
}
