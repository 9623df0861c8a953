//! What kind of file is this? Told by content; a name decides only which error is the helpful one.

use super::limits::Budget;
use super::{Contents, safetensors};
use crate::source::ReadAt;
use crate::{Error, ErrorKind, Result};

/// A format that is read.
pub(super) struct Format {
    /// Its name in reports.
    pub(super) name: &'static str,
    /// How its files' names end, for finding them in a directory.
    pub(super) extension: &'static str,
    /// Whether a file begins like this format, from its first [`HEAD_BYTES`] bytes (or all it has).
    pub(super) sniff: fn(&[u8]) -> bool,
    /// Reads the header, given the same first bytes (over a network each read is a request).
    pub(super) read: fn(&dyn ReadAt, &[u8], &Budget) -> Result<Contents>,
}

/// Every format that is read. A new one is a file with a `Format`, and a line here.
pub(super) const READERS: &[Format] = &[safetensors::FORMAT];

/// Bytes that tell a format that is read.
const HEAD_BYTES: u64 = 16;

/// Bytes that tell what else a file may be (tar keeps its magic at 257).
const FOREIGN_BYTES: u64 = 512;

/// Extensions of weight files that this version does not read, for a helpful word on a directory of them.
pub(super) const FOREIGN_EXTENSIONS: &[&str] = &[
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".gguf", ".onnx", ".h5", ".hdf5", ".keras", ".npz", ".npy",
    ".msgpack",
];

/// The names of the formats that are read.
pub fn names() -> impl Iterator<Item = &'static str> {
    READERS.iter().map(|format| format.name)
}

/// The same for error messages.
pub(super) fn readable() -> String {
    names().collect::<Vec<_>>().join(", ")
}

/// Recognises `file` and reads its header.
pub(super) fn read_file(file: &dyn ReadAt, budget: &Budget) -> Result<(&'static Format, Contents)> {
    let read = || {
        let head = file.read_at(0..file.len().min(HEAD_BYTES))?;
        let format = recognise(file, &head)?;
        Ok((format, (format.read)(file, &head, budget)?))
    };
    read().map_err(|error: Error| error.in_file(file.name()))
}

/// The format of a file that begins with `head`: by content; a file of unknown content goes by its name, for the
/// reader's precise error.
fn recognise(file: &dyn ReadAt, head: &[u8]) -> Result<&'static Format> {
    if head.is_empty() {
        return Err(Error::malformed("the file is empty"));
    }
    if let Some(format) = READERS.iter().find(|format| (format.sniff)(head)) {
        return Ok(format);
    }
    let start = file.read_at(0..file.len().min(FOREIGN_BYTES))?;
    let by_name = READERS.iter().find(|format| file.name().ends_with(format.extension));
    match (foreign(&start), by_name) {
        (Some(kind), _) => Err(Error::new(ErrorKind::Unsupported, kind.message())),
        (None, Some(format)) => Ok(format),
        (None, None) => {
            let message = format!("not a kind of file that is known; this version reads {}", readable());
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

/// What a file that we cannot read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Foreign {
    /// Another format, `a …`.
    Format(&'static str),
    /// Not the file that was meant: what it is, and what to do.
    Instead(&'static str),
}

impl Foreign {
    fn message(self) -> String {
        match self {
            Self::Format(what) => format!("{what}; this version reads {}", readable()),
            Self::Instead(what) => what.to_owned(),
        }
    }
}

/// Magic numbers at the start of a file.
const MAGIC: &[(&[u8], Foreign)] = &[
    (
        b"version https://git-lfs",
        Foreign::Instead("a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'"),
    ),
    (
        b"<!DOCTYPE",
        Foreign::Instead("an HTML page, not a model; was a web page downloaded instead of the file?"),
    ),
    (
        b"<!doctype",
        Foreign::Instead("an HTML page, not a model; was a web page downloaded instead of the file?"),
    ),
    (b"<html", Foreign::Instead("an HTML page, not a model; was a web page downloaded instead of the file?")),
    (b"<?xml", Foreign::Instead("an XML document, not a model; is it an object store's error message?")),
    (b"GGUF", Foreign::Format("a GGUF file")),
    (b"\x93NUMPY", Foreign::Format("a NumPy array")),
    (b"\x89HDF\r\n\x1a\n", Foreign::Format("an HDF5 file (Keras)")),
    (b"\x1f\x8b", Foreign::Format("a gzip archive")),
    (b"\x28\xb5\x2f\xfd", Foreign::Format("a zstd archive")),
    (b"7z\xbc\xaf\x27\x1c", Foreign::Format("a 7z archive")),
];

/// What a file that begins with `start` seems to be, if it is something known that we do not read.
fn foreign(start: &[u8]) -> Option<Foreign> {
    if let Some((_, kind)) = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(*kind);
    }
    let what = match start {
        [b'P', b'K', 3, 4, ..] => zip(start),
        // The third byte of a safetensors length would be 0 here.
        [0x80, 2..=5, 1..=0xff, ..] => "a Python pickle (a PyTorch checkpoint of the old kind?)",
        // Field 1 (ir_version, a small varint), then one of ModelProto's fields 2 to 8.
        [0x08, 1..=0x20, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..] => "an ONNX model",
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => "a TensorFlow Lite model",
        _ if start.get(257..262) == Some(b"ustar") => "a tar archive",
        _ if start.len() >= 8 && is_text(start) => text(start),
        _ => return None,
    };
    Some(Foreign::Format(what))
}

/// Which zip archive: the first entry's name follows a local header of 30 bytes.
fn zip(start: &[u8]) -> &'static str {
    let has = |needle: &[u8]| start.windows(needle.len()).any(|window| window == needle);
    if has(b"data.pkl") {
        "a PyTorch zip archive"
    } else if has(b".npy") {
        "a NumPy archive (npz)"
    } else if has(b"metadata.json") || has(b"model.weights.h5") {
        "a Keras archive"
    } else {
        "a zip archive (PyTorch, Keras or npz)"
    }
}

/// Whether all of `start` is text (it may be cut in the middle of a character).
fn is_text(start: &[u8]) -> bool {
    let whole = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(start.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !whole.is_empty() && whole.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}

fn text(start: &[u8]) -> &'static str {
    match start.trim_ascii_start().first() {
        Some(b'{' | b'[') => "a JSON file",
        _ => "a text file",
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::MemoryFile;
    use super::*;

    fn message(name: &str, bytes: &[u8]) -> (ErrorKind, String) {
        let budget = Budget::new(super::super::Limits::default());
        let error = read_file(&MemoryFile::new(name, bytes.to_vec()), &budget).err().unwrap();
        (error.kind(), error.to_string())
    }

    #[test]
    fn other_formats_are_named() {
        let mut tar = vec![0_u8; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let torch =
            b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\x12\0archive/data.pklFB";
        let npz = b"PK\x03\x04\x14\0\0\0\0\0\0\0!\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\0\0a.npy";
        let cases: &[(&[u8], &str)] = &[
            (b"GGUF\x03\0\0\0\x01\0", "a GGUF file"),
            (torch, "a PyTorch zip archive"),
            (npz, "a NumPy archive (npz)"),
            (b"PK\x03\x04\0\0", "a zip archive (PyTorch, Keras or npz)"),
            (
                b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P",
                "a Python pickle (a PyTorch checkpoint of the old kind?)",
            ),
            (b"\x93NUMPY\x01\0v\0{'descr'", "a NumPy array"),
            (b"\x89HDF\r\n\x1a\n\0", "an HDF5 file (Keras)"),
            (b"\x08\x07\x12\x07pytorch\x1a\x03", "an ONNX model"),
            (b"\x1c\0\0\0TFL3\x14\0", "a TensorFlow Lite model"),
            (&tar, "a tar archive"),
            (b"\x1f\x8b\x08\0", "a gzip archive"),
            (b" {\"model_type\": \"bert\"}", "a JSON file"),
            (b"{\"abcd\":{\"a\":1}}", "a JSON file"),
            ("# Modèle\n".as_bytes(), "a text file"),
        ];
        for (bytes, what) in cases {
            for name in ["m.safetensors", "m"] {
                let expected = format!("{name}: {what}; this version reads safetensors");
                assert_eq!(message(name, bytes), (ErrorKind::Unsupported, expected));
            }
        }
    }

    #[test]
    fn a_file_that_stands_for_another_says_what_to_do() {
        let (kind, text) =
            message("m.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
        assert_eq!(kind, ErrorKind::Unsupported);
        assert_eq!(
            text,
            "m.safetensors: a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'"
        );
        let (_, text) = message("m.safetensors", b"<!DOCTYPE html><html>");
        assert_eq!(
            text,
            "m.safetensors: an HTML page, not a model; was a web page downloaded instead of the file?"
        );
    }

    #[test]
    fn unknown_bytes_and_no_bytes() {
        let (kind, text) = message("m", &[0xff; 600]);
        assert_eq!(kind, ErrorKind::Unsupported);
        assert_eq!(text, "m: not a kind of file that is known; this version reads safetensors");
        assert_eq!(message("m", b""), (ErrorKind::Malformed, "m: the file is empty".to_owned()));
    }

    #[test]
    fn text_may_be_cut_inside_a_character() {
        assert!(is_text(&"aé".as_bytes()[..2]));
        assert!(!is_text(b"a\xff b"));
        assert!(!is_text(b"a\0b"));
    }
}
