//! Small floats: special encodings, and block-scaled F8 as DeepSeek-V3 stores it, against plain decoders of the tests.

use super::assert_failed;
use crate::support::models::{Entry, Numbers, analyze_entries, row};
use spectrald::analysis::{LayerReport, Options};

/// F8_E4M3 (fn): no infinity, 0x7f and 0xff are NaN, bias 7.
fn e4m3(code: u8) -> f64 {
    let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
    match (exponent, code & 7) {
        (15, 7) => f64::NAN,
        (0, _) => sign * mantissa / 8.0 * 2_f64.powi(-6),
        _ => sign * (1.0 + mantissa / 8.0) * 2_f64.powi(exponent - 7),
    }
}

/// F8_E5M2: as IEEE, bias 15.
fn e5m2(code: u8) -> f64 {
    let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(code >> 2 & 31), f64::from(code & 3));
    match (exponent, code & 3) {
        (31, 0) => sign * f64::INFINITY,
        (31, _) => f64::NAN,
        (0, _) => sign * mantissa / 4.0 * 2_f64.powi(-14),
        _ => sign * (1.0 + mantissa / 4.0) * 2_f64.powi(exponent - 15),
    }
}

fn bf16(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

fn assert_same(one: &LayerReport, other: &LayerReport, tolerance: f64) {
    let numbers = |row: &LayerReport| {
        let mut columns = serde_json::to_value(row).unwrap();
        for column in ["tensor", "dtype", "digest", "layer_id", "name", "longname", "noise_floor", "detail"] {
            columns.as_object_mut().unwrap().remove(column);
        }
        columns
    };
    let (one, other) = (numbers(one), numbers(other));
    for (column, a) in one.as_object().unwrap() {
        let b = &other[column];
        let close = match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= tolerance * a.abs().max(b.abs()),
            _ => a == b,
        };
        assert!(close, "{column}: {a} against {b}");
    }
}

/// Rows of the same numbers stored as they are and as F64.
fn assert_decodes(entry: Entry, values: &[f64]) {
    let shape = entry.shape.clone();
    let options = Options { erg: true, mp: true, ..Options::default() };
    let ours = analyze_entries(&[Entry { name: "x.weight".to_owned(), ..entry }], &options);
    let reference = analyze_entries(&[Entry::f64("x.weight", &shape, values)], &options);
    assert!(row(&ours, "x").has_esd);
    assert_same(row(&ours, "x"), row(&reference, "x"), 1e-12);
}

#[test]
fn every_finite_f8_code() {
    for (dtype, decode) in [("F8_E4M3", e4m3 as fn(u8) -> f64), ("F8_E5M2", e5m2)] {
        let finite: Vec<u8> = (0..=255).filter(|&code| decode(code).is_finite()).collect();
        let mut numbers = Numbers::new(1);
        // every code at least once, the signed zeros and denormals among them
        let codes: Vec<u8> = (0..64 * 32)
            .map(|i| finite[if i < finite.len() { i } else { numbers.bits() as usize % finite.len() }])
            .collect();
        let values: Vec<f64> = codes.iter().map(|&code| decode(code)).collect();
        assert_decodes(Entry::new("x", dtype, &[64, 32], codes), &values);
    }
}

#[test]
fn f8_codes_that_are_not_finite() {
    for (dtype, code, detail) in [
        ("F8_E4M3", 0x7f_u8, "1 NaN and 0 infinite elements"),
        ("F8_E4M3", 0xff, "1 NaN and 0 infinite elements"),
        ("F8_E5M2", 0x7c, "0 NaN and 1 infinite elements"),
        ("F8_E5M2", 0xfc, "0 NaN and 1 infinite elements"),
        ("F8_E5M2", 0x7d, "1 NaN and 0 infinite elements"),
        ("F8_E5M2", 0xff, "1 NaN and 0 infinite elements"),
    ] {
        let mut codes: Vec<u8> = (0..64 * 32).map(|i| 0x20 + (i * 7 % 32) as u8).collect();
        codes[1000] = code;
        let report = analyze_entries(&[Entry::new("x.weight", dtype, &[64, 32], codes)], &Options::default());
        assert_failed(row(&report, "x"), "NON_FINITE", detail);
    }
}

#[test]
fn bf16_denormals_zeros_and_the_largest() {
    // one magnitude each: over all of bf16's range small eigenvalues are lost beside the largest
    for (first, last) in [(0x0000_u16, 0x007f), (0x3f00, 0x3fff), (0x7f00, 0x7f7f)] {
        let mut numbers = Numbers::new(u64::from(first));
        let span = u64::from(last - first) + 1;
        let bits: Vec<u16> = (0..64 * 32)
            .map(|_| numbers.bits())
            .map(|random| (first + (random % span) as u16) | ((random >> 40) as u16 & 0x8000))
            .collect();
        let values: Vec<f64> = bits.iter().map(|&bits| bf16(bits)).collect();
        let bytes = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        assert_decodes(Entry::new("x", "BF16", &[64, 32], bytes), &values);
    }
}

#[test]
fn deepseeks_blocks_equal_the_dequantised_weights() {
    // 300 × 200 in blocks of 128 × 128: 3 × 2 scales, the last row and column of blocks cut short
    let (rows, cols) = (300_usize, 200_usize);
    let mut numbers = Numbers::new(20);
    let codes: Vec<u8> = (0..rows * cols)
        .map(|_| numbers.bits() as u8)
        .map(|code| if e4m3(code).is_nan() { 0x30 } else { code })
        .collect();
    // powers of two, so that the products are f32 values
    let scales: Vec<f64> = [-3, 1, 0, -5, 2, -1].map(|exponent| 2_f64.powi(exponent)).to_vec();
    let values: Vec<f64> = codes
        .iter()
        .enumerate()
        .map(|(i, &code)| e4m3(code) * scales[(i / cols / 128) * 2 + i % cols / 128])
        .collect();
    let options = Options { erg: true, mp: true, vectors: true, ..Options::default() };
    let quantised = analyze_entries(
        &[
            Entry::new("x.weight", "F8_E4M3", &[300, 200], codes),
            Entry::f32("x.weight_scale_inv", &[3, 2], &scales),
        ],
        &options,
    );
    let reference = analyze_entries(&[Entry::f32("x.weight", &[300, 200], &values)], &options);
    let ours = row(&quantised, "x");
    assert_eq!((ours.dtype.as_str(), ours.esd.num_evals), ("F8_E4M3*F32", Some(200)));
    assert_same(ours, row(&reference, "x"), 1e-12);
    let scale = quantised.layers.iter().find(|row| row.tensor == "x.weight_scale_inv").unwrap();
    assert_eq!(scale.reason.as_deref(), Some("SCALE"));
}
