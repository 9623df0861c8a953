//! `config.json` beside the weights: what Hugging Face's transformers says of the architecture.

use super::Limits;
use crate::source::ReadAt;
use crate::{Error, ErrorKind, Result};
use serde_json::Value;

/// The file's name.
pub(super) const CONFIG_NAME: &str = "config.json";

/// Reads a config; its size is checked before it is read. A key given twice has its last value, as in Python.
pub(super) fn read_config(file: &dyn ReadAt, limits: &Limits) -> Result<Value> {
    let read = || {
        if file.len() > limits.config_bytes {
            let message =
                format!("{} bytes, over the limit of {} for a config.json", file.len(), limits.config_bytes);
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        parse_config(&file.read_at(0..file.len())?)
    };
    read().map_err(|error| error.in_file(file.name()))
}

fn parse_config(bytes: &[u8]) -> Result<Value> {
    let config: Value = serde_json::from_slice(&without_python_floats(bytes))
        .map_err(|error| Error::malformed(format!("not valid JSON: {error}")))?;
    if config.is_object() { Ok(config) } else { Err(Error::malformed("not a JSON object")) }
}

/// Python writes `NaN`, `Infinity` and `-Infinity`, which JSON does not have (Mamba-2's `time_step_limit` does):
/// outside strings they become `null`, with spaces so that the columns of error messages stay right.
fn without_python_floats(bytes: &[u8]) -> Vec<u8> {
    const WORDS: [(&[u8], &[u8]); 3] =
        [(b"-Infinity", b"null     "), (b"Infinity", b"null    "), (b"NaN", b"null")];
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let mut in_string = false;
    while let Some((&byte, after)) = rest.split_first() {
        let word = WORDS.iter().find(|(word, _)| !in_string && rest.starts_with(word));
        if let Some((word, null)) = word {
            out.extend_from_slice(null);
            rest = rest.get(word.len()..).unwrap_or_default();
            continue;
        }
        out.push(byte);
        rest = after;
        match (byte, after.split_first()) {
            (b'"', _) => in_string = !in_string,
            (b'\\', Some((&escaped, after))) if in_string => {
                out.push(escaped);
                rest = after;
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::testing::MemoryFile;
    use super::*;

    #[test]
    fn python_floats_become_null_outside_strings() {
        let text = br#"{"a": [0.0, Infinity, -Infinity], "b\"NaN": "NaN \\", "c": NaN}"#;
        let config = parse_config(text).unwrap();
        assert_eq!(config["a"], serde_json::json!([0.0, null, null]));
        assert_eq!(config["b\"NaN"], "NaN \\");
        assert_eq!(config["c"], Value::Null);
    }

    #[test]
    fn errors_name_the_file_and_the_place() {
        let limits = Limits::default();
        let error =
            |bytes: &[u8]| read_config(&MemoryFile::new("config.json", bytes.to_vec()), &limits).unwrap_err();
        assert_eq!(
            error(b"{\"a\": NaN,\n  b}").to_string(),
            "config.json: not valid JSON: key must be a string at line 2 column 3"
        );
        assert_eq!(error(b"[1]").to_string(), "config.json: not a JSON object");
        let deep = error(&vec![b'['; 100_000]);
        assert_eq!(
            deep.to_string(),
            "config.json: not valid JSON: recursion limit exceeded at line 1 column 128"
        );
    }

    #[test]
    fn a_large_config_is_not_read() {
        let file = MemoryFile::with_size("config.json", &b"{"[..], (4 << 20) + 1);
        let error = read_config(&file, &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(
            error.to_string(),
            "config.json: 4194305 bytes, over the limit of 4194304 for a config.json"
        );
        assert_eq!(file.read_up_to(), 0);
    }
}
