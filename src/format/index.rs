//! `model.safetensors.index.json`: which shard holds which tensor.

use super::Limits;
use super::json::{Trap, utf8};
use crate::source::ReadAt;
use crate::{Error, ErrorKind, Result};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// The name that Hugging Face gives the index.
pub(super) const INDEX_NAME: &str = "model.safetensors.index.json";

/// How the names of indexes end.
pub(super) const INDEX_EXTENSION: &str = ".safetensors.index.json";

const WEIGHT_MAP: &str = "weight_map";

/// A sharded model's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// File names of the shards, sorted: plain names in the model's own directory.
    pub shards: Vec<String>,
    /// Every tensor with the place of its shard in [`Index::shards`], in the order of the file. Names are unique.
    pub tensors: Vec<(String, usize)>,
}

/// Reads an index; its size is checked before it is read.
pub(super) fn read_index(file: &dyn ReadAt, limits: &Limits) -> Result<Index> {
    let read = || {
        if file.len() > limits.index_bytes {
            let message =
                format!("{} bytes, over the limit of {} for an index", file.len(), limits.index_bytes);
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        parse_index(&file.read_at(0..file.len())?, limits)
    };
    read().map_err(|error| error.in_file(file.name()))
}

/// Parses an index.
///
/// # Errors
/// `Malformed` if it is not a JSON object whose `weight_map` gives each tensor, once, the plain file name of its shard
/// (no path, scheme, or characters that could make one); `TooLarge` past the limits on tensors and shards.
pub fn parse_index(bytes: &[u8], limits: &Limits) -> Result<Index> {
    let trap = Trap::default();
    let map = trap.object(utf8(bytes)?, IndexVisitor { trap: &trap, limits })?;
    let mut seen = HashSet::with_capacity(map.tensors.len());
    if let Some((name, _)) = map.tensors.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        return Err(Error::malformed("named twice").in_field(WEIGHT_MAP).in_tensor(name));
    }
    Ok(map.into_index())
}

/// A shard's name must be a plain file name, whichever system or store resolves it.
fn check_shard_name(name: &str) -> Result<()> {
    let lower = name.to_ascii_lowercase();
    let encoded = ["%2e", "%2f", "%5c", "%00", "%25"].iter().any(|code| lower.contains(code));
    let wrong = if name.is_empty() {
        "is empty"
    } else if name == "." || name == ".." || name.contains(['/', '\\']) {
        "is a path; only files in the model's own directory are read"
    } else if name.contains(':') {
        "has a scheme or drive; only files in the model's own directory are read"
    } else if name.chars().any(char::is_control) {
        "has a control character"
    } else if encoded {
        "has percent-encoded characters of a path"
    } else {
        return Ok(());
    };
    Err(Error::malformed(format!("shard name '{name}' {wrong}")))
}

/// A `weight_map` in the order of the file: shards numbered as they first appear.
#[derive(Default)]
struct WeightMap {
    shards: HashMap<String, usize>,
    tensors: Vec<(String, usize)>,
}

impl WeightMap {
    /// The number of a shard, new or known.
    fn shard(&mut self, name: &str, limits: &Limits) -> Result<usize> {
        if let Some(&shard) = self.shards.get(name) {
            return Ok(shard);
        }
        check_shard_name(name)?;
        let shard = self.shards.len();
        Limits::check("shards", shard as u64 + 1, limits.shards as u64)?;
        self.shards.insert(name.to_owned(), shard);
        Ok(shard)
    }

    /// Renumbers the shards in sorted order.
    fn into_index(self) -> Index {
        let mut shards: Vec<(String, usize)> = self.shards.into_iter().collect();
        shards.sort_unstable();
        let place: HashMap<usize, usize> =
            shards.iter().enumerate().map(|(place, (_, number))| (*number, place)).collect();
        let place_of = |number| place.get(&number).copied().unwrap_or(number);
        let tensors = self.tensors.into_iter().map(|(name, number)| (name, place_of(number))).collect();
        Index { shards: shards.into_iter().map(|(name, _)| name).collect(), tensors }
    }
}

/// The whole file: `weight_map` once; everything else (`metadata`) is passed over.
struct IndexVisitor<'a> {
    trap: &'a Trap,
    limits: &'a Limits,
}

impl<'de> Visitor<'de> for IndexVisitor<'_> {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a weight_map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<WeightMap, A::Error> {
        let Self { trap, limits } = self;
        let mut weight_map = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != WEIGHT_MAP {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if weight_map.is_some() {
                return Err(trap.stop(Error::malformed("given twice").in_field(WEIGHT_MAP)));
            }
            let read = map.next_value_seed(WeightMapSeed { trap, limits });
            weight_map = Some(trap.at(read, |error| error.in_field(WEIGHT_MAP))?);
        }
        trap.check(weight_map.ok_or_else(|| Error::malformed("missing").in_field(WEIGHT_MAP)))
    }
}

/// `weight_map`: tensor → shard.
struct WeightMapSeed<'a> {
    trap: &'a Trap,
    limits: &'a Limits,
}

impl<'de> DeserializeSeed<'de> for WeightMapSeed<'_> {
    type Value = WeightMap;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<WeightMap, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WeightMapSeed<'_> {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of shard names by tensor name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<WeightMap, A::Error> {
        let Self { trap, limits } = self;
        let mut weights = WeightMap::default();
        while let Some(name) = map.next_key::<String>()? {
            trap.check(Limits::check("tensors", weights.tensors.len() as u64 + 1, limits.tensors))?;
            let read = map.next_value_seed(ShardSeed { trap, limits, weights: &mut weights });
            let shard = trap.at(read, |error| error.in_tensor(&name))?;
            weights.tensors.push((name, shard));
        }
        Ok(weights)
    }
}

/// One shard name, turned into its number without a copy of a name that is known already.
struct ShardSeed<'a> {
    trap: &'a Trap,
    limits: &'a Limits,
    weights: &'a mut WeightMap,
}

impl<'de> DeserializeSeed<'de> for ShardSeed<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<usize, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for ShardSeed<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the file name of a shard")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> std::result::Result<usize, E> {
        self.trap.check(self.weights.shard(name, self.limits))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::MemoryFile;
    use super::*;

    fn parse(text: &str) -> Result<Index> {
        parse_index(text.as_bytes(), &Limits::default())
    }

    fn message(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn shards_are_sorted_and_tensors_point_at_them() {
        let text = r#"{"metadata": {"total_size": 8, "deep": [[1]]}, "weight_map": {"b": "2.st", "a": "1.st", "c": "2.st"}}"#;
        let index = parse(text).unwrap();
        assert_eq!(index.shards, ["1.st", "2.st"]);
        assert_eq!(index.tensors, [("b".to_owned(), 1), ("a".to_owned(), 0), ("c".to_owned(), 1)]);
    }

    #[test]
    fn a_weight_map_is_given_once_with_each_tensor_once() {
        assert_eq!(message("{}"), "field 'weight_map': missing");
        assert_eq!(message(r#"{"weight_map": {}, "weight_map": {}}"#), "field 'weight_map': given twice");
        assert_eq!(
            message(r#"{"weight_map": {"a": "1", "b": "1", "a": "2"}}"#),
            "tensor 'a': field 'weight_map': named twice"
        );
        assert_eq!(
            message(r#"{"weight_map": ["a"]}"#),
            "field 'weight_map': invalid type: sequence, expected an object of shard names by tensor name \
             at line 1 column 15"
        );
        assert_eq!(
            message(r#"{"weight_map": {"a": 1}}"#),
            "tensor 'a': field 'weight_map': invalid type: integer `1`, expected the file name of a shard \
             at line 1 column 22"
        );
    }

    #[test]
    fn it_is_one_object_in_utf8() {
        assert_eq!(
            message(r#"{"weight_map": {}} x"#),
            "not valid JSON: trailing characters at line 1 column 20"
        );
        assert_eq!(
            message("[]"),
            "not valid JSON: invalid type: sequence, expected an object with a weight_map at line 1 column 0"
        );
        assert_eq!(
            parse_index(b"{\xff}", &Limits::default()).unwrap_err().to_string(),
            "not UTF-8 at byte 1"
        );
        assert!(message(&"[".repeat(100_000)).starts_with("not valid JSON: "));
        let deep = format!(r#"{{"x": {}, "weight_map": {{}}}}"#, "[".repeat(100_000));
        assert!(message(&deep).starts_with("not valid JSON: "));
    }

    #[test]
    fn plain_names_are_allowed_and_paths_are_not() {
        for name in ["model-00001-of-00002.safetensors", "..a", "a..b", "é 50%.safetensors", "~a"] {
            check_shard_name(name).unwrap();
        }
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/a",
            "\\\\host\\a",
            "C:a",
            "s3://b/k",
            "%2E%2e",
            "a%2Fb",
            "a\0",
            "a\nb",
        ] {
            assert_eq!(check_shard_name(name).unwrap_err().kind(), ErrorKind::Malformed, "{name:?}");
        }
    }

    #[test]
    fn size_and_counts_are_limited() {
        let file = MemoryFile::with_size("i.json", &b"{"[..], 1 << 30);
        let error = read_index(&file, &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(error.to_string(), "i.json: 1073741824 bytes, over the limit of 268435456 for an index");
        assert_eq!(file.read_up_to(), 0);

        let limits = Limits { tensors: 2, ..Limits::default() };
        let error = parse_index(br#"{"weight_map": {"a": "1", "b": "1", "c": "1"}}"#, &limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(error.to_string(), "field 'weight_map': more than 2 tensors, the limit in force");
    }
}
