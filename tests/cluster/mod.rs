//! Coordinators and workers as processes of their own: the report is that of one process, bit for bit, whatever
//! happens to them on the way.

mod cache;
mod chaos;
mod commits;
mod faults;
mod refused;
mod same;
mod waits;

use crate::support::models::{Entry, Numbers, analyze, fixture, safetensors};
use spectrald::analysis::{ModelReport, Options};
use std::path::Path;

/// The report as it is written, without its timings.
fn text(report: &ModelReport) -> String {
    let mut report = serde_json::to_value(report).unwrap();
    assert!(report.as_object_mut().unwrap().remove("timings").is_some());
    report.to_string()
}

/// That of one process.
fn alone(model: &str, options: &Options) -> String {
    text(&analyze(Path::new(model), options))
}

fn assert_same(found: &str, expected: &str, what: &str) {
    if found == expected {
        return;
    }
    let at = found.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| text.chars().skip(at.saturating_sub(80)).take(160).collect::<String>();
    panic!("{what} differs:\n{}\n{}", around(found), around(expected));
}

fn fracast() -> String {
    fixture("models/fracast/model.safetensors").into_os_string().into_string().unwrap()
}

fn everything() -> Options {
    Options { erg: true, mp: true, randomize: true, ..Options::default() }
}

/// Elements of size ½ to 2, of either sign: quick to make.
fn brain(name: &str, shape: &[u64], numbers: &mut Numbers) -> Entry {
    let count = shape.iter().product::<u64>() as usize;
    let mut bytes = Vec::with_capacity(2 * count + 8);
    while bytes.len() < 2 * count {
        bytes.extend_from_slice(
            &(numbers.bits() & 0x80ff_80ff_80ff_80ff | 0x3f00_3f00_3f00_3f00).to_le_bytes(),
        );
    }
    bytes.truncate(2 * count);
    Entry::new(name, "BF16", shape, bytes)
}

/// A model of `count` layers of order `n`.
fn many(count: u64, n: u64, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    let layers: Vec<Entry> =
        (0..count).map(|i| brain(&format!("layers.{i}.weight"), &[n, n], &mut numbers)).collect();
    safetensors(&layers)
}

/// A model of one layer that is cut in three row blocks, and a small one.
fn tall(seed: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    safetensors(&[
        brain("tall.weight", &[11_620, 1344], &mut numbers),
        brain("small.weight", &[120, 90], &mut numbers),
    ])
}
