//! Untrusted JSON read as a stream, with errors that name the tensor and the field.
//!
//! serde's own errors carry only text. A [`Trap`] keeps the first typed [`Error`] while serde unwinds, and lets each
//! level on the way out add its place.

use crate::{Error, Result};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::cell::RefCell;
use std::fmt;

/// Holds the first error of a parse.
#[derive(Default)]
pub(super) struct Trap {
    first: RefCell<Option<Error>>,
}

impl Trap {
    /// Stops the parse with this error.
    pub(super) fn stop<E: de::Error>(&self, error: Error) -> E {
        self.first.borrow_mut().get_or_insert(error);
        E::custom("stopped")
    }

    /// Stops the parse if `result` is an error of ours.
    pub(super) fn check<T, E: de::Error>(&self, result: Result<T>) -> std::result::Result<T, E> {
        result.map_err(|error| self.stop(error))
    }

    /// Adds a place to the error of an inner level, whether it is ours or serde's.
    pub(super) fn at<T, E: de::Error>(
        &self,
        result: std::result::Result<T, E>,
        place: impl FnOnce(Error) -> Error,
    ) -> std::result::Result<T, E> {
        result.inspect_err(|error| {
            let mut slot = self.first.borrow_mut();
            let inner = slot.take().unwrap_or_else(|| Error::malformed(error.to_string()));
            *slot = Some(place(inner));
        })
    }

    /// Parses `text`, which must be one JSON object and nothing else, with `visitor`.
    pub(super) fn object<'de, V: Visitor<'de>>(&self, text: &'de str, visitor: V) -> Result<V::Value> {
        let mut json = serde_json::Deserializer::from_str(text);
        let result = json.deserialize_map(visitor).and_then(|value| json.end().map(|()| value));
        result.map_err(|error| {
            let ours = self.first.borrow_mut().take();
            ours.unwrap_or_else(|| Error::malformed(format!("not valid JSON: {error}")))
        })
    }
}

/// The text of a JSON file.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|error| Error::malformed(format!("not UTF-8 at byte {}", error.valid_up_to())))
}

/// A JSON integer in 0..2^64; a negative, fractional or larger number is refused.
pub(super) struct Unsigned(pub(super) u64);

impl<'de> Deserialize<'de> for Unsigned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct UnsignedVisitor;
        impl Visitor<'_> for UnsignedVisitor {
            type Value = Unsigned;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer of 64 bits without sign")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<Unsigned, E> {
                Ok(Unsigned(value))
            }
        }
        deserializer.deserialize_u64(UnsignedVisitor)
    }
}
