//! Any bytes as a whole safetensors file: an error, or tensors that tile the data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spectrald::format::{Limits, parse_safetensors};

fuzz_target!(|file: &[u8]| {
    let Ok(contents) = parse_safetensors(file, &Limits::default()) else { return };
    let mut end = contents.tensors.first().map(|tensor| tensor.range.start);
    for tensor in &contents.tensors {
        assert_eq!(Some(tensor.range.start), end);
        assert_eq!(tensor.elements() * tensor.dtype.bits(), tensor.bytes() * 8);
        end = Some(tensor.range.end);
    }
    assert!(end.is_none_or(|end| end == file.len() as u64));
});
