//! Any bytes as a `model.safetensors.index.json`: an error, or tensors in shards that are plain, sorted file names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spectrald::format::{Limits, parse_index};

fuzz_target!(|file: &[u8]| {
    let Ok(index) = parse_index(file, &Limits::default()) else { return };
    assert!(index.shards.is_sorted());
    assert!(index.shards.iter().all(|name| !name.is_empty() && !name.contains(['/', '\\', ':', '\0'])));
    assert!(index.tensors.iter().all(|(_, shard)| *shard < index.shards.len()));
});
