//! Hostile and broken safetensors files and indexes: each gives one clear error of the right kind, quickly, and
//! without reading or allocating what the file merely claims to have. Items are numbered as in the list of hostile
//! inputs that the readers are held to: 11 to 27 single files, 28 to 33 indexes.

use bytes::Bytes;
use spectrald::format::{Limits, parse_index, parse_safetensors, read_catalog};
use spectrald::source::{ModelSource, ObjectIdentity, ReadAt};
use spectrald::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ErrorKind::{Malformed, NotFound, TooLarge, Unsupported};

/// A file in memory that claims to have `identity.size` bytes; reading past those it really has gives an error.
#[derive(Clone)]
struct File {
    identity: ObjectIdentity,
    bytes: Bytes,
}

impl ReadAt for File {
    fn name(&self) -> &str {
        &self.identity.uri
    }

    fn identity(&self) -> &ObjectIdentity {
        &self.identity
    }

    fn read_at(&self, range: Range<u64>) -> Result<Bytes> {
        if range.end > self.bytes.len() as u64 {
            return Err(Error::new(ErrorKind::Internal, format!("the test has no bytes {range:?}")));
        }
        Ok(self.bytes.slice(range.start as usize..range.end as usize))
    }
}

/// A directory in memory.
struct Directory {
    names: Vec<String>,
    files: BTreeMap<String, File>,
}

impl ModelSource for Directory {
    fn uri(&self) -> &str {
        "mem:model"
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ReadAt>> {
        match self.files.get(name) {
            Some(file) => Ok(Arc::new(file.clone())),
            None => Err(Error::new(NotFound, "no such object")),
        }
    }

    fn is_single_file(&self) -> bool {
        false
    }
}

fn file(name: &str, bytes: impl Into<Bytes>) -> File {
    let bytes = bytes.into();
    let identity = ObjectIdentity { uri: name.to_owned(), size: bytes.len() as u64, pin: None };
    File { identity, bytes }
}

/// The error of a directory of these files.
fn failure(files: Vec<File>) -> (ErrorKind, String) {
    let names = files.iter().map(|file| file.name().to_owned()).collect();
    let files = files.into_iter().map(|file| (file.name().to_owned(), file)).collect();
    let error = read_catalog(&Directory { names, files }).err().expect("the model is refused");
    (error.kind(), error.to_string())
}

#[track_caller]
fn refused(bytes: impl Into<Bytes>, kind: ErrorKind, message: &str) {
    assert_eq!(failure(vec![file("m.safetensors", bytes)]), (kind, format!("m.safetensors: {message}")));
}

/// A safetensors file of this header and `data` zero bytes.
fn safetensors(header: impl AsRef<[u8]>, data: usize) -> Vec<u8> {
    let header = header.as_ref();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.resize(file.len() + data, 0);
    file
}

/// A safetensors file of one tensor `a` of 8 bytes of data.
fn one(dtype: &str, shape: &str, offsets: &str) -> Vec<u8> {
    safetensors(format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#), 8)
}

/// A safetensors file of U8 tensors at these offsets of `data` bytes.
fn bytes_at(tensors: &[(&str, usize, usize)], data: usize) -> Vec<u8> {
    let entry = |&(name, begin, end): &(&str, usize, usize)| {
        format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end - begin)
    };
    safetensors(format!("{{{}}}", tensors.iter().map(entry).collect::<Vec<_>>().join(",")), data)
}

#[test]
fn item_11_too_short_for_a_length() {
    let message = "3 bytes are too few for safetensors, which begins with 8 bytes of length";
    refused(&b"\x08\0\0"[..], Malformed, message);
    refused(&b""[..], Malformed, "the file is empty");
    refused(
        &b"\x08\0\0\0\0\0\0\0"[..],
        Malformed,
        "the header length 8 passes the end of the file (8 bytes)",
    );
}

#[test]
fn item_12_a_length_of_all_ones() {
    let message = "the header length 18446744073709551615 passes the end of the file (18 bytes)";
    refused(&b"\xff\xff\xff\xff\xff\xff\xff\xff{\"a\":null}"[..], Malformed, message);
}

#[test]
fn item_13_a_length_over_the_cap_is_not_read() {
    let mut lying = file("m.safetensors", safetensors("{}              ", 0));
    let start: Vec<u8> = 100_000_001_u64.to_le_bytes().into_iter().chain(*b"{\"a\":{}}").collect();
    lying.bytes = start.into();
    lying.identity.size = 1 << 40;
    let message = "m.safetensors: the header length 100000001 is over the limit of 100000000 bytes";
    assert_eq!(failure(vec![lying]), (TooLarge, message.to_owned()));
}

#[test]
fn item_14_a_length_past_the_end() {
    let mut bytes = safetensors("{}", 4);
    bytes[0] = 7;
    refused(bytes, Malformed, "the header length 7 passes the end of the file (14 bytes)");
}

#[test]
fn item_15_not_utf8() {
    refused(safetensors(b"{\"a\xff\":1}", 0), Malformed, "the header is not UTF-8 at byte 3");
}

#[test]
fn item_16_not_a_json_object() {
    refused(safetensors("[1,2]", 0), Malformed, "the header does not begin with '{'");
    refused(safetensors("", 0), Malformed, "the header does not begin with '{'");
    refused(safetensors(" {}", 0), Malformed, "the header does not begin with '{'");
    refused(safetensors("{}\n", 0), Malformed, "the header does not end with '}' and spaces");
    refused(safetensors("{\"a\":", 0), Malformed, "the header does not end with '}' and spaces");
    refused(safetensors("{x}", 0), Malformed, "not valid JSON: key must be a string at line 1 column 2");
    refused(safetensors("{}{}", 0), Malformed, "not valid JSON: trailing characters at line 1 column 3");
    refused(&b"{\"weights\": [1, 2, 3]}"[..], Unsupported, "a JSON file; this version reads safetensors");
}

#[test]
fn item_17_deep_json() {
    let message = "tensor 'a': invalid type: sequence, expected an object with dtype, shape and data_offsets \
                   at line 1 column 5";
    refused(safetensors(format!("{{\"a\":{}}}", "[".repeat(100_000)), 0), Malformed, message);
    let message = "tensor 'a': field 'a': not a field of a tensor";
    refused(safetensors("{\"a\":".repeat(100_000) + "}", 0), Malformed, message);
    let message = "field '__metadata__': key 'a': invalid type: map, expected a string at line 1 column 21";
    let deep = "{\"a\":".repeat(100_000);
    refused(safetensors(format!("{{\"__metadata__\":{deep}}}"), 0), Malformed, message);
}

#[test]
fn item_18_a_name_given_twice() {
    refused(bytes_at(&[("a", 0, 4), ("a", 4, 8)], 8), Malformed, "tensor 'a': named twice in the header");
    let escaped = bytes_at(&[("a", 0, 4), ("\\u0061", 4, 8)], 8);
    refused(escaped, Malformed, "tensor 'a': named twice in the header");
}

/// `count` tensors that all name the same range.
fn many_on_one_range(count: usize) -> Vec<u8> {
    let mut header = String::from("{");
    for i in 0..count {
        let comma = if i == 0 { "" } else { "," };
        write!(header, r#"{comma}"{i}":{{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}"#)
            .expect("a string");
    }
    safetensors(header + "}", 8)
}

#[test]
fn item_19_very_many_entries_on_one_range() {
    refused(many_on_one_range(1_000_001), TooLarge, "more than 1000000 tensors, the limit in force");
    let message = "tensor '1': field 'data_offsets': begins at 0, inside the bytes of tensor '0'";
    refused(many_on_one_range(10_000), Malformed, message);
}

#[test]
fn item_20_overlap() {
    let message = "tensor 'b': field 'data_offsets': begins at 3, inside the bytes of tensor 'a'";
    refused(bytes_at(&[("b", 3, 8), ("a", 0, 4)], 8), Malformed, message);
    let message = "tensor 'empty': field 'data_offsets': begins at 3, inside the bytes of tensor 'a'";
    refused(bytes_at(&[("a", 0, 8), ("empty", 3, 3)], 8), Malformed, message);
}

#[test]
fn item_21_hole() {
    let message = "tensor 'b': field 'data_offsets': bytes 2..4 of the data, before it, belong to no tensor";
    refused(bytes_at(&[("a", 0, 2), ("b", 4, 8)], 8), Malformed, message);
    let message = "tensor 'b': field 'data_offsets': bytes 0..4 of the data, before it, belong to no tensor";
    refused(bytes_at(&[("b", 4, 8)], 8), Malformed, message);
}

#[test]
fn item_22_trailing_bytes() {
    let message = "bytes 4..8 of the data, after the last tensor, belong to no tensor";
    refused(bytes_at(&[("a", 0, 4)], 8), Malformed, message);
    let message = "bytes 0..8 of the data, after the last tensor, belong to no tensor";
    refused(safetensors("{}", 8), Malformed, message);
}

#[test]
fn item_23_begin_after_end_and_end_after_the_data() {
    let message = "tensor 'a': field 'data_offsets': begin 8 > end 0";
    refused(one("U8", "[8]", "[8,0]"), Malformed, message);
    let message =
        "tensor 'a': field 'data_offsets': end 9 is past the 8 bytes of data in the file (cut short?)";
    refused(one("U8", "[9]", "[0,9]"), Malformed, message);
}

#[test]
fn item_24_offsets_that_are_not_unsigned_integers() {
    let invalid = |what: &str, column: u32| {
        format!("{what}, expected an integer of 64 bits without sign at line 1 column {column}")
    };
    for (offset, error) in [
        ("-1", invalid("invalid type: integer `-1`", 51)),
        ("1.5", invalid("invalid type: floating point `1.5`", 52)),
        ("8.0", invalid("invalid type: floating point `8.0`", 52)),
        ("1e400", "number out of range at line 1 column 54".to_owned()),
        ("18446744073709551616", invalid("invalid type: floating point `1.8446744073709552e+19`", 69)),
        ("\"8\"", invalid("invalid type: string \"8\"", 52)),
        ("null", invalid("invalid type: null", 53)),
    ] {
        let message = format!("tensor 'a': field 'data_offsets': {error}");
        refused(one("U8", "[8]", &format!("[0,{offset}]")), Malformed, &message);
    }
}

#[test]
fn item_25_shapes_that_overflow() {
    let message = "tensor 'a': field 'shape': the number of elements overflows 64 bits";
    refused(one("U8", "[4294967296,4294967296]", "[0,8]"), Malformed, message);
    refused(one("U8", "[4294967296,4294967296,0]", "[0,0]"), Malformed, message);
    let message = "tensor 'a': field 'shape': the number of bits overflows 64 bits";
    refused(
        one("F64", "[288230376151711745]", "[0,64]").into_iter().chain([0; 56]).collect::<Vec<u8>>(),
        Malformed,
        message,
    );
}

#[test]
fn item_26_size_of_dtype_and_shape_against_the_span() {
    let message = "tensor 'a': field 'data_offsets': 8 bytes, but 3 elements of F32 need 12";
    refused(one("F32", "[3]", "[0,8]"), Malformed, message);
    let message = "tensor 'a': field 'data_offsets': 8 bytes, but 0 elements of F32 need 0";
    refused(one("F32", "[0]", "[0,8]"), Malformed, message);
}

#[test]
fn item_27_unknown_and_misaligned_element_types() {
    let message = "tensor 'a': field 'dtype': unknown element type 'F128'";
    refused(one("F128", "[1]", "[0,8]"), Malformed, message);
    let message = "tensor 'a': field 'dtype': unknown element type 'f32\\u{1b}'";
    refused(one("f32\\u001b", "[2]", "[0,8]"), Malformed, message);
    let message = "tensor 'a': field 'shape': 15 elements of F4 do not fill whole bytes";
    refused(one("F4", "[15]", "[0,8]"), Malformed, message);
}

const INDEX: &str = "model.safetensors.index.json";

fn index(text: impl Into<Bytes>) -> File {
    file(INDEX, text)
}

/// An index of these tensors and shards.
fn index_of(map: &[(&str, &str)]) -> File {
    let map: serde_json::Map<_, _> =
        map.iter().map(|&(tensor, shard)| (tensor.to_owned(), shard.into())).collect();
    index(serde_json::json!({ "weight_map": map }).to_string())
}

fn shard(name: &str, tensor: &str) -> File {
    file(name, bytes_at(&[(tensor, 0, 4)], 4))
}

#[test]
fn item_28_shard_names_that_leave_the_directory() {
    let path = "is a path; only files in the model's own directory are read";
    let scheme = "has a scheme or drive; only files in the model's own directory are read";
    let encoded = "has percent-encoded characters of a path";
    let control = "has a control character";
    for (name, shown, wrong) in [
        ("../x", "../x", path),
        ("..", "..", path),
        ("/etc/passwd", "/etc/passwd", path),
        ("sub/x", "sub/x", path),
        ("s3://other/x", "s3://other/x", path),
        ("file:x", "file:x", scheme),
        ("C:x", "C:x", scheme),
        ("..\\x", "..\\x", path),
        ("%2e%2e%2fx", "%2e%2e%2fx", encoded),
        ("%252e", "%252e", encoded),
        ("x\0.safetensors", "x\\u{0}.safetensors", control),
        ("x\n", "x\\n", control),
        ("", "", "is empty"),
    ] {
        let message = format!("{INDEX}: tensor 'a': field 'weight_map': shard name '{shown}' {wrong}");
        assert_eq!(failure(vec![index_of(&[("a", name)])]), (Malformed, message));
    }
}

#[test]
fn item_29_a_missing_shard() {
    let files =
        vec![index_of(&[("a", "1.safetensors"), ("b", "2.safetensors")]), shard("1.safetensors", "a")];
    let message = format!("{INDEX}: field 'weight_map': shard '2.safetensors' does not exist");
    assert_eq!(failure(files), (NotFound, message));
}

#[test]
fn item_30_a_tensor_that_its_shard_does_not_have() {
    let files =
        vec![index_of(&[("a", "1.safetensors"), ("b", "1.safetensors")]), shard("1.safetensors", "a")];
    let message = format!("{INDEX}: tensor 'b': listed in shard '1.safetensors', which does not have it");
    assert_eq!(failure(files), (Malformed, message));

    let files = vec![
        index_of(&[("a", "1.safetensors"), ("b", "1.safetensors"), ("c", "2.safetensors")]),
        file("1.safetensors", bytes_at(&[("a", 0, 4)], 4)),
        file("2.safetensors", bytes_at(&[("b", 0, 4), ("c", 4, 8)], 8)),
    ];
    let message =
        format!("{INDEX}: tensor 'b': listed in shard '1.safetensors', but it is in '2.safetensors'");
    assert_eq!(failure(files), (Malformed, message));
}

#[test]
fn item_31_a_tensor_in_two_shards() {
    let files = vec![
        index_of(&[("a", "1.safetensors"), ("b", "2.safetensors")]),
        shard("1.safetensors", "a"),
        file("2.safetensors", bytes_at(&[("a", 0, 4), ("b", 4, 8)], 8)),
    ];
    let message = "tensor 'a': is in both '1.safetensors' and '2.safetensors'";
    assert_eq!(failure(files), (Malformed, message.to_owned()));

    let text = r#"{"weight_map": {"a": "1.safetensors", "a": "2.safetensors"}}"#;
    let files = vec![index(text), shard("1.safetensors", "a"), shard("2.safetensors", "a")];
    assert_eq!(failure(files), (Malformed, format!("{INDEX}: tensor 'a': field 'weight_map': named twice")));
}

#[test]
fn item_32_an_index_of_1_gb_is_not_read() {
    let mut huge = index("{");
    huge.identity.size = 1 << 30;
    let message = format!("{INDEX}: 1073741824 bytes, over the limit of 268435456 for an index");
    assert_eq!(failure(vec![huge]), (TooLarge, message));
}

#[test]
fn item_33_a_million_shards() {
    let mut text = String::from("{\"weight_map\":{");
    for i in 0..1_000_000 {
        let comma = if i == 0 { "" } else { "," };
        write!(text, "{comma}\"{i}\":\"{i}.safetensors\"").expect("a string");
    }
    text.push_str("}}");
    let message =
        format!("{INDEX}: tensor '10000': field 'weight_map': more than 10000 shards, the limit in force");
    assert_eq!(failure(vec![index(text)]), (TooLarge, message));
}

/// Every seed of a fuzz target, in order.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> = std::fs::read_dir(&folder)
        .expect("the seeds are in the repository")
        .map(|entry| {
            let entry = entry.expect("a seed");
            let bytes = std::fs::read(entry.path()).expect("a seed");
            (entry.file_name().to_string_lossy().into_owned(), bytes)
        })
        .collect();
    seeds.sort();
    seeds
}

/// The fuzz targets call these two functions. Seeds named `ok-…` are read, all others are refused; a seed that a fuzzer
/// finds is added here under a name that says which it is to be.
#[test]
fn fuzz_seeds_give_what_their_names_say() {
    let limits = Limits::default();
    let header = seeds("safetensors_header");
    let index = seeds("index_json");
    assert!(header.len() >= 10 && index.len() >= 5, "seeds are missing");
    for (name, bytes) in header {
        assert_eq!(parse_safetensors(&bytes, &limits).is_ok(), name.starts_with("ok-"), "{name}");
    }
    for (name, bytes) in index {
        assert_eq!(parse_index(&bytes, &limits).is_ok(), name.starts_with("ok-"), "{name}");
    }
}
