//! Models: those in tests/fixtures, those that scripts/fetch-models fetches, and those that a test writes itself.

use spectrald::analysis::{LayerReport, ModelReport, Options};
use spectrald::run::{self, Model, RunOptions, Silent};
use spectrald::source::{self, SourceOptions};
use spectrald::{Result, format, layer};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A file of tests/fixtures.
pub(crate) fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// A file below models/, which scripts/fetch-models fills. `None`, with the reason on stderr, where it is absent:
/// the caller then skips. With SPECTRALD_REQUIRE_MODELS set that is a failure.
pub(crate) fn fetched(path: &str) -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(path);
    if file.is_file() {
        return Some(file);
    }
    let reason = format!("models/{path} is absent: run scripts/fetch-models");
    assert!(std::env::var_os("SPECTRALD_REQUIRE_MODELS").is_none(), "{reason}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // not eprintln!, which is shown only where the test fails
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
    None
}

/// A tensor to write.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(name: &str, dtype: &'static str, shape: &[u64], bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes }
    }

    pub(crate) fn f32(name: &str, shape: &[u64], values: &[f64]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect();
        assert_eq!(bytes.len() as u64, 4 * shape.iter().product::<u64>(), "{name}");
        Self::new(name, "F32", shape, bytes)
    }

    pub(crate) fn f64(name: &str, shape: &[u64], values: &[f64]) -> Self {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self::new(name, "F64", shape, bytes)
    }

    /// Rounded towards zero.
    pub(crate) fn bf16(name: &str, shape: &[u64], values: &[f64]) -> Self {
        let bytes = values.iter().flat_map(|&x| [(x as f32).to_le_bytes()[2], (x as f32).to_le_bytes()[3]]);
        Self::new(name, "BF16", shape, bytes.collect())
    }

    /// Gaussian elements.
    pub(crate) fn gaussian(name: &str, shape: &[u64], seed: u64) -> Self {
        let count = shape.iter().product::<u64>() as usize;
        Self::f32(name, shape, &Numbers::new(seed).gaussian(count))
    }
}

/// A safetensors file of these tensors, in this order, header and bytes alike.
pub(crate) fn safetensors(entries: &[Entry]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for entry in entries {
        let end = at + entry.bytes.len();
        let declared = serde_json::json!({
            "dtype": entry.dtype, "shape": entry.shape, "data_offsets": [at, end],
        });
        header.insert(entry.name.clone(), declared);
        at = end;
    }
    let mut header = serde_json::Value::from(header).to_string();
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    entries.iter().for_each(|entry| file.extend_from_slice(&entry.bytes));
    file
}

/// The tensors of a safetensors file, in the order of its header.
pub(crate) fn entries(file: &[u8]) -> Vec<Entry> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let (header, data) = file[8..].split_at(length);
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).unwrap();
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    tensors
        .map(|(name, tensor)| {
            let offset = |i: usize| tensor["data_offsets"][i].as_u64().unwrap() as usize;
            Entry {
                name,
                dtype: format::DType::from_name(tensor["dtype"].as_str().unwrap()).unwrap().name(),
                shape: tensor["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect(),
                bytes: data[offset(0)..offset(1)].to_vec(),
            }
        })
        .collect()
}

/// Reproducible numbers: SplitMix64.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    pub(crate) fn gaussian(&mut self, count: usize) -> Vec<f64> {
        let mut draw = || {
            let radius = (-2.0 * self.uniform().ln()).sqrt();
            radius * (std::f64::consts::TAU * self.uniform()).cos()
        };
        (0..count).map(|_| draw()).collect()
    }
}

/// A model opened as the command line opens it.
pub(crate) fn open(uri: &str, options: &Options, source: &SourceOptions) -> Result<Model> {
    let source = source::open(uri, source)?;
    let catalog = format::read_catalog(source.as_ref())?;
    let layers = layer::layers(&catalog, &options.layers);
    Ok(Model { catalog, layers })
}

pub(crate) fn analyze_from(uri: &str, options: &Options, source: &SourceOptions) -> Result<ModelReport> {
    analyze_with(&open(uri, options, source)?, options, 2)
}

/// A model of this machine.
pub(crate) fn analyze(path: &Path, options: &Options) -> ModelReport {
    analyze_from(path.to_str().unwrap(), options, &SourceOptions::default()).unwrap()
}

/// Enough memory for every model of the tests.
const MEMORY: u64 = 4 << 30;

pub(crate) fn analyze_with(model: &Model, options: &Options, threads: usize) -> Result<ModelReport> {
    let run = RunOptions { threads, memory: MEMORY, cancel: Arc::new(AtomicBool::new(false)) };
    run::analyze(model, options, &run, &Silent)
}

/// A model of these tensors, written and analysed.
pub(crate) fn analyze_entries(entries: &[Entry], options: &Options) -> ModelReport {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("model.safetensors");
    std::fs::write(&file, safetensors(entries)).unwrap();
    analyze(&file, options)
}

/// The row of this name; there must be exactly one.
pub(crate) fn row<'a>(report: &'a ModelReport, name: &str) -> &'a LayerReport {
    let mut found = report.layers.iter().filter(|row| row.name == name);
    match (found.next(), found.next()) {
        (Some(row), None) => row,
        (first, _) => panic!("{} rows '{name}'", if first.is_some() { "several" } else { "no" }),
    }
}
