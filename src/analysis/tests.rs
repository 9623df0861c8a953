//! What is told and kept beside the row; layers that are known; sums that are not the layer's.

use super::*;
use crate::format::testing::MemorySource;
use crate::format::testing::{Entry, MemoryFile, safetensors};
use crate::format::{Catalog, DType, read_catalog};
use crate::layer::{Layer, layers};
use crate::spectrum::{GramSum, MethodChoice, SOLVED};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A model of one matrix whose element i is `value(i)`, and its one layer.
fn model(rows: u64, cols: u64, value: impl Fn(u64) -> f32) -> (Catalog, Layer) {
    let data: Vec<u8> = (0..rows * cols).flat_map(|i| value(i).to_le_bytes()).collect();
    let entry = Entry { name: "a.weight", dtype: DType::F32.name(), shape: &[rows, cols], data: &data };
    let file = MemoryFile::new("m.safetensors", safetensors(&[entry], &[]));
    let catalog = read_catalog(&MemorySource::single("m.safetensors", [file])).unwrap();
    let layer = layers(&catalog, &Options::default().layers).layers.remove(0);
    (catalog, layer)
}

fn noise(i: u64) -> f32 {
    ((i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / 16_777_216.0) - 0.5
}

fn solved() -> usize {
    SOLVED.with(std::cell::Cell::get)
}

/// Held whole, and read in two chunks.
const SHAPES: [(u64, u64); 2] = [(300, 40), (50_000, 48)];

#[test]
fn what_is_known_is_not_computed() {
    for method in [MethodChoice::Auto, MethodChoice::Svd] {
        for (rows, cols) in SHAPES {
            let (catalog, layer) = model(rows, cols, noise);
            let options = Options { method, ..Options::default() };
            let cancel = Arc::default();
            let mut input = LayerInput::open(&catalog, &layer, &cancel).unwrap();
            let row = analyze_layer(&mut input, &options).unwrap().into_row().unwrap();
            let told = Arc::new(Mutex::new(Vec::new()));
            for known in [true, false] {
                let mut input = LayerInput::open(&catalog, &layer, &cancel).unwrap();
                let heard = Arc::clone(&told);
                input.on_digest = Some(Box::new(move |digest| {
                    heard.lock().unwrap().push(digest.to_owned());
                    known
                }));
                input.keep_spectrum = true;
                let before = solved();
                match analyze_layer(&mut input, &options).unwrap() {
                    Analysed::Known { digest } => {
                        assert!(known && row.digest.as_deref() == Some(digest.as_str()));
                        assert_eq!((solved(), input.take_spectrum()), (before, None));
                    }
                    Analysed::Row(again) => {
                        assert!(!known && solved() > before, "{rows} × {cols}");
                        assert_eq!(again.fit.alpha.map(f64::to_bits), row.fit.alpha.map(f64::to_bits));
                    }
                }
            }
            let told = told.lock().unwrap().clone();
            assert_eq!(told, vec![row.digest.clone().unwrap(); 2], "once each time, {rows} × {cols}");
        }
    }
}

#[test]
fn bytes_that_are_held_are_known_before_they_are_decoded() {
    let calls = Arc::new(AtomicUsize::new(0));
    let (catalog, layer) = model(300, 40, |_| f32::NAN);
    let mut input = LayerInput::open(&catalog, &layer, &Arc::default()).unwrap();
    let heard = Arc::clone(&calls);
    input.on_digest = Some(Box::new(move |_| heard.fetch_add(1, Ordering::Relaxed) == 0));
    assert!(matches!(analyze_layer(&mut input, &Options::default()), Ok(Analysed::Known { .. })));
    // it is told once; the next pass is not stopped
    let row = analyze_layer(&mut input, &Options::default()).unwrap().into_row().unwrap();
    assert_eq!(row.detail.as_deref(), Some("12000 NaN and 0 infinite elements"));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn the_spectrum_is_kept_on_request_alone() {
    for method in [MethodChoice::Auto, MethodChoice::Randomized(Some(5))] {
        let (catalog, layer) = model(300, 40, noise);
        let options = Options { method, erg: true, vectors: false, ..Options::default() };
        let mut input = LayerInput::open(&catalog, &layer, &Arc::default()).unwrap();
        analyze_layer(&mut input, &options).unwrap();
        assert_eq!(input.take_spectrum(), None);
        input.keep_spectrum = true;
        let row = analyze_layer(&mut input, &options).unwrap().into_row().unwrap();
        let kept = input.take_spectrum().unwrap();
        assert_eq!(kept, layer_spectrum(&mut input, &options).unwrap().pooled());
        assert!(kept.is_sorted() && kept.last().copied() == row.esd.lambda_max);
        assert_eq!(input.take_spectrum(), None, "taken");
    }
    let (catalog, layer) = model(300, 40, |_| f32::NAN);
    let mut input = LayerInput::open(&catalog, &layer, &Arc::default()).unwrap();
    input.keep_spectrum = true;
    analyze_layer(&mut input, &Options::default()).unwrap();
    assert_eq!(input.take_spectrum(), None, "there is none");
}

#[test]
fn a_layer_that_is_one_task_takes_no_sum_and_has_no_shard() {
    let (catalog, layer) = model(300, 40, noise);
    let mut input = LayerInput::open(&catalog, &layer, &Arc::default()).unwrap();
    input.gram = Some(GramSum::new(40).unwrap());
    let error = analyze_layer(&mut input, &Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "tensor 'a.weight': the layer is not computed in parts");
    let error = shard_gram(&mut input, 0..300, 1).unwrap_err();
    assert_eq!(error.to_string(), "tensor 'a.weight': rows 0 to 300 are not a shard of the layer");
}
