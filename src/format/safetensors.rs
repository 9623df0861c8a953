//! safetensors: an 8-byte little-endian header length, a JSON header, then the tensors' bytes without a gap.
//!
//! Format: <https://github.com/huggingface/safetensors#format>. Stricter than the reference reader in two things that
//! its text forbids or leaves open: a name given twice is refused (the reference keeps the last), and so is an
//! unknown field of a tensor.

use super::json::{Trap, Unsigned, utf8};
use super::kinds::Format;
use super::limits::Budget;
use super::{Contents, DType, Limits, Tensor};
use crate::source::ReadAt;
use crate::{Error, ErrorKind, Result};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// Bytes of the header length.
const LENGTH_BYTES: u64 = 8;

/// The key that holds metadata instead of a tensor.
const METADATA: &str = "__metadata__";

pub(super) const FORMAT: Format = Format { name: "safetensors", extension: ".safetensors", sniff, read };

/// A length below 4 GiB, then the header's first byte. (A text file's first eight bytes make a far larger length.)
fn sniff(head: &[u8]) -> bool {
    matches!(head, [_, _, _, _, 0, 0, 0, 0, b'{', ..])
}

/// Reads the header of a file; no tensor byte is read.
fn read(file: &dyn ReadAt, head: &[u8], budget: &Budget) -> Result<Contents> {
    let size = file.len();
    let header_end = header_end(head, size, &budget.limits)?;
    budget.take_header(header_end - LENGTH_BYTES)?;
    let header = file.read_at(LENGTH_BYTES..header_end)?;
    parse_header(&header, header_end, size - header_end, &budget.limits)
}

/// Parses a whole safetensors file that is in memory.
///
/// # Errors
/// `Malformed` or `TooLarge`, naming tensor and field, where the header breaks the format or passes `limits`.
pub fn parse_safetensors(file: &[u8], limits: &Limits) -> Result<Contents> {
    let size = file.len() as u64;
    let header_end = header_end(file, size, limits)?;
    let (start, data) = usize::try_from(header_end)
        .ok()
        .and_then(|end| file.split_at_checked(end))
        .ok_or_else(|| Error::malformed("the header passes the end of the file"))?;
    let header = start.get(LENGTH_BYTES as usize..).unwrap_or_default();
    parse_header(header, header_end, data.len() as u64, limits)
}

/// Where the header ends in a file of `size` bytes that begins with `start`.
fn header_end(start: &[u8], size: u64, limits: &Limits) -> Result<u64> {
    let length: [u8; 8] = start.first_chunk().copied().ok_or_else(|| {
        Error::malformed(format!(
            "{size} bytes are too few for safetensors, which begins with 8 bytes of length"
        ))
    })?;
    let length = u64::from_le_bytes(length);
    let end = length.checked_add(LENGTH_BYTES).filter(|&end| end <= size);
    let end = end.ok_or_else(|| {
        Error::malformed(format!("the header length {length} passes the end of the file ({size} bytes)"))
    })?;
    if length > limits.header_bytes {
        let limit = limits.header_bytes;
        let message = format!("the header length {length} is over the limit of {limit} bytes");
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(end)
}

/// Parses the JSON header of a file whose data starts at `data_start` and has `data_len` bytes.
fn parse_header(header: &[u8], data_start: u64, data_len: u64, limits: &Limits) -> Result<Contents> {
    let text =
        utf8(header).map_err(|error| Error::malformed(format!("the header is {}", error.message())))?;
    if !text.starts_with('{') {
        return Err(Error::malformed("the header does not begin with '{'"));
    }
    let json = text.trim_end_matches(' ');
    if !json.ends_with('}') {
        return Err(Error::malformed("the header does not end with '}' and spaces"));
    }
    let trap = Trap::default();
    let visitor = HeaderVisitor { trap: &trap, limits, data_start, data_len };
    let mut contents = trap.object(json, visitor)?;
    refuse_duplicates(&contents.tensors)?;
    contents.tensors.sort_unstable_by(|a, b| {
        (a.range.start, a.range.end, &a.name).cmp(&(b.range.start, b.range.end, &b.name))
    });
    check_coverage(&contents.tensors, data_start, data_len)?;
    Ok(contents)
}

fn refuse_duplicates(tensors: &[Tensor]) -> Result<()> {
    let mut seen = HashSet::with_capacity(tensors.len());
    match tensors.iter().find(|tensor| !seen.insert(tensor.name.as_str())) {
        Some(tensor) => Err(Error::malformed("named twice in the header").in_tensor(&tensor.name)),
        None => Ok(()),
    }
}

/// The tensors, sorted by offset, must cover the data from its first byte to its last, each byte once.
fn check_coverage(tensors: &[Tensor], data_start: u64, data_len: u64) -> Result<()> {
    let mut covered = data_start;
    let mut before: Option<&Tensor> = None;
    for tensor in tensors {
        let begin = tensor.range.start;
        let shown = begin - data_start;
        let message = match (begin.cmp(&covered), before) {
            (std::cmp::Ordering::Less, Some(before)) => {
                format!("begins at {shown}, inside the bytes of tensor '{}'", before.name)
            }
            (std::cmp::Ordering::Greater, _) => {
                format!("bytes {}..{shown} of the data, before it, belong to no tensor", covered - data_start)
            }
            _ => {
                covered = tensor.range.end;
                before = Some(tensor);
                continue;
            }
        };
        return Err(Error::malformed(message).in_field("data_offsets").in_tensor(&tensor.name));
    }
    let covered = covered - data_start;
    if covered < data_len {
        let message =
            format!("bytes {covered}..{data_len} of the data, after the last tensor, belong to no tensor");
        return Err(Error::malformed(message));
    }
    Ok(())
}

/// What the header says of one tensor, fields present and of the right JSON type.
struct Entry {
    dtype: DType,
    shape: Vec<u64>,
    offsets: [u64; 2],
}

impl Entry {
    /// Checks the fields against each other and against the data.
    fn into_tensor(self, name: String, data_start: u64, data_len: u64) -> Result<Tensor> {
        match self.check(data_len) {
            Ok([begin, end]) => {
                let range = data_start + begin..data_start + end;
                Ok(Tensor { name, dtype: self.dtype, shape: self.shape, file: 0, range })
            }
            Err(error) => Err(error.in_tensor(name)),
        }
    }

    /// The offsets, if they lie in the data and hold as many bytes as dtype and shape need.
    fn check(&self, data_len: u64) -> Result<[u64; 2]> {
        let [begin, end] = self.offsets;
        if begin > end {
            return Err(Error::malformed(format!("begin {begin} > end {end}")).in_field("data_offsets"));
        }
        if end > data_len {
            let message = format!("end {end} is past the {data_len} bytes of data in the file (cut short?)");
            return Err(Error::malformed(message).in_field("data_offsets"));
        }
        let elements = self.shape.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim));
        let elements = elements
            .ok_or_else(|| Error::malformed("the number of elements overflows 64 bits").in_field("shape"))?;
        let name = self.dtype.name();
        let bits = elements.checked_mul(self.dtype.bits());
        let bits =
            bits.ok_or_else(|| Error::malformed("the number of bits overflows 64 bits").in_field("shape"))?;
        if !bits.is_multiple_of(8) {
            let message = format!("{elements} elements of {name} do not fill whole bytes");
            return Err(Error::malformed(message).in_field("shape"));
        }
        let (needed, span) = (bits / 8, end - begin);
        if needed != span {
            let message = format!("{span} bytes, but {elements} elements of {name} need {needed}");
            return Err(Error::malformed(message).in_field("data_offsets"));
        }
        Ok(self.offsets)
    }
}

/// The whole header: tensor names and `__metadata__`.
struct HeaderVisitor<'a> {
    trap: &'a Trap,
    limits: &'a Limits,
    data_start: u64,
    data_len: u64,
}

impl<'de> Visitor<'de> for HeaderVisitor<'_> {
    type Value = Contents;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Contents, A::Error> {
        let Self { trap, limits, .. } = self;
        let mut tensors: Vec<Tensor> = Vec::new();
        let mut metadata = None;
        let mut nodes = 0_u64;
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                if metadata.is_some() {
                    return Err(trap.stop(Error::malformed("given twice").in_field(METADATA)));
                }
                let read = map.next_value_seed(MetadataSeed { trap, limits });
                let read = trap.at(read, |error| error.in_field(METADATA))?;
                nodes = nodes.saturating_add(read.len() as u64);
                metadata = Some(read);
            } else {
                trap.check(Limits::check("tensors", tensors.len() as u64 + 1, limits.tensors))?;
                let read = map.next_value_seed(EntrySeed { trap, limits });
                let entry = trap.at(read, |error| error.in_tensor(&name))?;
                nodes = nodes.saturating_add(6 + entry.shape.len() as u64);
                tensors.push(trap.check(entry.into_tensor(name, self.data_start, self.data_len))?);
            }
            trap.check(Limits::check("JSON values in the header", nodes, limits.nodes))?;
        }
        Ok(Contents { tensors, metadata: metadata.unwrap_or_default() })
    }
}

/// `__metadata__`: strings by string.
struct MetadataSeed<'a> {
    trap: &'a Trap,
    limits: &'a Limits,
}

impl<'de> DeserializeSeed<'de> for MetadataSeed<'_> {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MetadataSeed<'_> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut metadata = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let nodes = metadata.len() as u64 + 1;
            self.trap.check(Limits::check("JSON values in the header", nodes, self.limits.nodes))?;
            let value = self.trap.at(map.next_value::<String>(), |error| {
                Error::malformed(format!("key '{key}': {}", error.message()))
            })?;
            if metadata.contains_key(&key) {
                return Err(self.trap.stop(Error::malformed(format!("key '{key}' given twice"))));
            }
            metadata.insert(key, value);
        }
        Ok(metadata)
    }
}

/// One tensor's `dtype`, `shape` and `data_offsets`: each once, nothing else.
struct EntrySeed<'a> {
    trap: &'a Trap,
    limits: &'a Limits,
}

impl<'de> DeserializeSeed<'de> for EntrySeed<'_> {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Entry, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EntrySeed<'_> {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entry, A::Error> {
        let trap = self.trap;
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(field) = map.next_key::<String>()? {
            let read = match field.as_str() {
                "dtype" => {
                    map.next_value_seed(DTypeSeed { trap }).map(|value| dtype.replace(value).is_some())
                }
                "shape" => map
                    .next_value_seed(UnsignedsSeed { trap, most: self.limits.rank, what: "dimensions" })
                    .map(|value| shape.replace(value).is_some()),
                "data_offsets" => map
                    .next_value_seed(UnsignedsSeed { trap, most: 2, what: "offsets" })
                    .map(|value| offsets.replace(value).is_some()),
                _ => Err(trap.stop(Error::malformed("not a field of a tensor"))),
            };
            if trap.at(read, |error| error.in_field(&field))? {
                return Err(trap.stop(Error::malformed("given twice").in_field(field)));
            }
        }
        let dtype = trap.check(dtype.ok_or_else(|| missing("dtype")))?;
        let shape = trap.check(shape.ok_or_else(|| missing("shape")))?;
        let offsets = trap.check(offsets.ok_or_else(|| missing("data_offsets")))?;
        let offsets = <[u64; 2]>::try_from(offsets).map_err(|offsets| {
            let message = format!("{} offsets instead of 2", offsets.len());
            trap.stop(Error::malformed(message).in_field("data_offsets"))
        })?;
        Ok(Entry { dtype, shape, offsets })
    }
}

fn missing(field: &str) -> Error {
    Error::malformed("missing").in_field(field)
}

/// The name of an element type.
struct DTypeSeed<'a> {
    trap: &'a Trap,
}

impl<'de> DeserializeSeed<'de> for DTypeSeed<'_> {
    type Value = DType;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<DType, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for DTypeSeed<'_> {
    type Value = DType;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an element type")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> std::result::Result<DType, E> {
        let unknown = || Error::malformed(format!("unknown element type '{name}'"));
        self.trap.check(DType::from_name(name).ok_or_else(unknown))
    }
}

/// An array of at most `most` unsigned integers.
struct UnsignedsSeed<'a> {
    trap: &'a Trap,
    most: usize,
    what: &'static str,
}

impl<'de> DeserializeSeed<'de> for UnsignedsSeed<'_> {
    type Value = Vec<u64>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Vec<u64>, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for UnsignedsSeed<'_> {
    type Value = Vec<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of integers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Vec<u64>, A::Error> {
        let mut values = Vec::new();
        while let Some(Unsigned(value)) = seq.next_element()? {
            if values.len() == self.most {
                let message = format!("more than {} {}", self.most, self.what);
                return Err(self.trap.stop(Error::malformed(message)));
            }
            values.push(value);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Entry as Written, raw_safetensors, safetensors};
    use super::*;
    use proptest::prelude::*;

    fn parse(file: &[u8]) -> Result<Contents> {
        parse_safetensors(file, &Limits::default())
    }

    /// The error for one tensor `a` with these fields over 8 bytes of data.
    fn message(fields: &str) -> String {
        parse(&raw_safetensors(&format!("{{\"a\":{fields}}}"), &[0; 8])).unwrap_err().to_string()
    }

    #[test]
    fn tensors_are_in_the_order_of_their_bytes_empty_ones_first() {
        let header = r#"{"z":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},
            "b":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
            "y":{"dtype":"F32","shape":[0],"data_offsets":[4,4]},
            "c":{"dtype":"F32","shape":[3,0],"data_offsets":[4,4]},
            "e":{"dtype":"F4","shape":[0],"data_offsets":[8,8]}}  "#;
        let file = raw_safetensors(header, &[0; 8]);
        let contents = parse(&file).unwrap();
        let names: Vec<&str> = contents.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["b", "c", "y", "z", "e"]);
        let data_start = file.len() as u64 - 8;
        assert_eq!(contents.tensors[3].range, data_start + 4..data_start + 8);
        assert_eq!(contents.tensors[3].dtype, DType::F16);
        assert_eq!(contents.tensors[1].shape, [3, 0]);
    }

    #[test]
    fn no_tensors_no_data_is_a_file() {
        let contents = parse(&raw_safetensors("{}", &[])).unwrap();
        assert!(contents.tensors.is_empty() && contents.metadata.is_empty());
    }

    #[test]
    fn every_dtype_is_read() {
        for dtype in DType::ALL {
            let data = vec![0; dtype.bits() as usize];
            let written = Written { name: "a", dtype: dtype.name(), shape: &[4, 2], data: &data };
            assert_eq!(parse(&safetensors(&[written], &[])).unwrap().tensors[0].dtype, dtype);
        }
    }

    #[test]
    fn fields_are_each_given_once_and_no_others() {
        let whole = r#""dtype":"U8","shape":[8],"data_offsets":[0,8]"#;
        assert_eq!(message(r#"{"shape":[8],"data_offsets":[0,8]}"#), "tensor 'a': field 'dtype': missing");
        assert_eq!(message(r#"{"dtype":"U8","data_offsets":[0,8]}"#), "tensor 'a': field 'shape': missing");
        assert_eq!(message(r#"{"dtype":"U8","shape":[8]}"#), "tensor 'a': field 'data_offsets': missing");
        assert_eq!(message(&format!("{{{whole},\"shape\":[8]}}")), "tensor 'a': field 'shape': given twice");
        assert_eq!(
            message(&format!("{{{whole},\"x\":[8]}}")),
            "tensor 'a': field 'x': not a field of a tensor"
        );
        assert_eq!(
            message("[]"),
            "tensor 'a': invalid type: sequence, expected an object with dtype, shape and data_offsets \
             at line 1 column 5"
        );
    }

    #[test]
    fn offsets_are_two_and_rank_is_limited() {
        let fields = |shape: &str, offsets: &str| {
            message(&format!(r#"{{"dtype":"U8","shape":{shape},"data_offsets":{offsets}}}"#))
        };
        assert_eq!(fields("[8]", "[0]"), "tensor 'a': field 'data_offsets': 1 offsets instead of 2");
        assert_eq!(fields("[8]", "[0,8,8]"), "tensor 'a': field 'data_offsets': more than 2 offsets");
        let ones = |rank: usize| format!("[{}8]", "1,".repeat(rank - 1));
        assert_eq!(fields(&ones(65), "[0,8]"), "tensor 'a': field 'shape': more than 64 dimensions");
        assert_eq!(
            fields(&ones(64), "[0,7]"),
            "tensor 'a': field 'data_offsets': 7 bytes, but 8 elements of U8 need 8"
        );
    }

    #[test]
    fn metadata_is_strings_each_once() {
        let metadata = |json: &str| {
            parse(&raw_safetensors(&format!("{{\"__metadata__\":{json}}}"), &[]))
                .map_err(|error| error.to_string())
        };
        assert_eq!(metadata(r#"{"format":"pt"}"#).unwrap().metadata["format"], "pt");
        assert_eq!(
            metadata(r#"{"a":"x","a":"y"}"#).unwrap_err(),
            "field '__metadata__': key 'a' given twice"
        );
        assert_eq!(
            metadata(r#"{"a":1}"#).unwrap_err(),
            "field '__metadata__': key 'a': invalid type: integer `1`, expected a string at line 1 column 22"
        );
        assert_eq!(metadata(r#"{},"__metadata__":{}"#).unwrap_err(), "field '__metadata__': given twice");
    }

    #[test]
    fn counts_are_limited() {
        let entry = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
        let header = format!(r#"{{"a":{entry},"b":{entry},"c":{entry}}}"#);
        let within = |limits: Limits| {
            let error = parse_safetensors(&raw_safetensors(&header, &[]), &limits).unwrap_err();
            (error.kind(), error.to_string())
        };
        let message = "more than 2 tensors, the limit in force".to_owned();
        assert_eq!(within(Limits { tensors: 2, ..Limits::default() }), (ErrorKind::TooLarge, message));
        let message = "more than 20 JSON values in the header, the limit in force".to_owned();
        assert_eq!(within(Limits { nodes: 20, ..Limits::default() }), (ErrorKind::TooLarge, message));
        let message = format!("the header length {} is over the limit of 9 bytes", header.len());
        assert_eq!(within(Limits { header_bytes: 9, ..Limits::default() }), (ErrorKind::TooLarge, message));
    }

    #[test]
    fn a_header_of_100_000_tensors_is_read() {
        let names: Vec<String> =
            (0..100_000).map(|i| format!("model.layers.{i}.mlp.experts.weight")).collect();
        let written = |name| Written { name, dtype: "BF16", shape: &[1, 1], data: &[0, 0] };
        let written: Vec<_> = names.iter().map(|name| written(name.as_str())).collect();
        let contents = parse(&safetensors(&written, &[])).unwrap();
        assert!(contents.tensors.iter().map(|tensor| &tensor.name).eq(&names));
    }

    fn name() -> impl Strategy<Value = String> {
        proptest::collection::vec(any::<char>(), 0..6)
            .prop_map(String::from_iter)
            .prop_filter("a tensor's name", |name| name != METADATA)
    }

    /// Names, dtypes, shapes, in the order of their bytes; unique names.
    fn model() -> impl Strategy<Value = Vec<(String, DType, Vec<u64>)>> {
        let dtype = proptest::sample::select(DType::ALL.to_vec());
        let shape = proptest::collection::vec(0_u64..4, 0..4);
        let tensors = proptest::collection::btree_map(name(), (dtype, shape), 0..6);
        let tensors = tensors.prop_map(|tensors| {
            let whole = |(_, dtype, shape): &(_, DType, Vec<u64>)| {
                (shape.iter().product::<u64>() * dtype.bits()).is_multiple_of(8)
            };
            tensors
                .into_iter()
                .map(|(name, (dtype, shape))| (name, dtype, shape))
                .filter(whole)
                .collect::<Vec<_>>()
        });
        tensors.prop_shuffle()
    }

    fn bytes_of(dtype: DType, shape: &[u64]) -> usize {
        (shape.iter().product::<u64>() * dtype.bits() / 8) as usize
    }

    fn write(model: &[(String, DType, Vec<u64>)]) -> Vec<u8> {
        let data: Vec<Vec<u8>> =
            model.iter().map(|(_, dtype, shape)| vec![1; bytes_of(*dtype, shape)]).collect();
        let written = model.iter().zip(&data).map(|((name, dtype, shape), data)| Written {
            name,
            dtype: dtype.name(),
            shape,
            data,
        });
        safetensors(&written.collect::<Vec<_>>(), &[("format", "pt")])
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(model in model()) {
            let file = write(&model);
            let contents = parse(&file).unwrap();
            let mut at = 8 + u64::from_le_bytes(*file.first_chunk().unwrap());
            let mut expected = Vec::new();
            for (name, dtype, shape) in model {
                let end = at + bytes_of(dtype, &shape) as u64;
                expected.push(Tensor { name, dtype, shape, file: 0, range: at..end });
                at = end;
            }
            expected.sort_by(|a, b| {
                (a.range.start, a.range.end, &a.name).cmp(&(b.range.start, b.range.end, &b.name))
            });
            prop_assert_eq!(contents.tensors, expected);
            prop_assert_eq!(contents.metadata.len(), 1);
        }

        /// Whatever a byte of the header becomes, the answer is an error or a catalog whose ranges tile the data.
        #[test]
        fn a_changed_byte_gives_an_answer(model in model(), places in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 16)) {
            let file = write(&model);
            let header_end = 8 + u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
            for (place, byte) in places {
                let mut file = file.clone();
                file[place.index(header_end)] = byte;
                if let Ok(contents) = parse(&file) {
                    let tensors = &contents.tensors;
                    prop_assert!(tensors.windows(2).all(|pair| pair[0].range.end == pair[1].range.start));
                    prop_assert!(tensors.last().is_none_or(|tensor| tensor.range.end == file.len() as u64));
                    prop_assert!(tensors.iter().all(|t| t.elements() * t.dtype.bits() == t.bytes() * 8));
                }
            }
        }

        #[test]
        fn any_bytes_give_an_answer(mut bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
            let length = (bytes.len() as u64).saturating_sub(8);
            if let Some(start) = bytes.first_chunk_mut() {
                *start = length.to_le_bytes();
            }
            let _ = parse(&bytes);
            let _ = super::super::parse_index(&bytes, &Limits::default());
        }
    }
}
