//! One layer opened and computed: what this process's threads and a worker of a cluster both do. What fails by the
//! layer's own numbers, its size or a fault in a solver is a row that says so.

use super::RunOptions;
use crate::analysis::{self, Analysed, LayerInput, LayerReport, Options};
use crate::format::Catalog;
use crate::layer::Layer;
use crate::spectrum::PartialGram;
use crate::{Error, ErrorKind, Result};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A layer that is ready to be computed, or the row that says why not.
pub enum Opened<'a> {
    /// Opened, and read ahead as far as it can be.
    Ready(Box<LayerInput<'a>>),
    /// It needs more memory than there is, or its scales are not finite.
    Failed(Box<LayerReport>),
}

/// Opens a layer whose task takes `peak_bytes` (of [`crate::plan`]) and reads ahead; of `run`, its memory and whether it
/// is cancelled count.
///
/// # Errors
/// What the source gives; `Internal` if the layer is not of this catalog.
pub fn open_layer<'a>(
    catalog: &'a Catalog,
    layer: &'a Layer,
    options: &Options,
    peak_bytes: u64,
    run: &RunOptions,
) -> Result<Opened<'a>> {
    let failed = |e: &Error| Ok(Opened::Failed(Box::new(analysis::failed_row(catalog, layer, options, e))));
    if peak_bytes > run.memory {
        return failed(&needs_memory(peak_bytes, run.memory));
    }
    let mut input = match LayerInput::open(catalog, layer, &run.cancel) {
        Err(e) if e.kind() == ErrorKind::NonFinite => return failed(&e),
        other => other?,
    };
    input.prefetch()?;
    Ok(Opened::Ready(Box::new(input)))
}

/// [`analysis::analyze_layer`]; a panic is a failed row.
///
/// # Errors
/// As [`analysis::analyze_layer`].
pub fn compute_layer(input: &mut LayerInput<'_>, options: &Options) -> Result<Analysed> {
    match catch_unwind(AssertUnwindSafe(|| analysis::analyze_layer(input, options))) {
        Ok(analysed) => analysed,
        Err(panic) => Ok(Analysed::Row(Box::new(input.failed_row(options, &fault(panic.as_ref()))))),
    }
}

/// [`analysis::shard_gram`]; a panic is an `Internal` error, of which [`analysis::failed_row`] makes the layer's row.
///
/// # Errors
/// As [`analysis::shard_gram`].
pub fn compute_shard(input: &mut LayerInput<'_>, rows: Range<u64>) -> Result<PartialGram> {
    let threads = input.threads;
    catch_unwind(AssertUnwindSafe(|| analysis::shard_gram(input, rows, threads)))
        .unwrap_or_else(|panic| Err(fault(panic.as_ref())))
}

/// A layer that does not fit.
pub fn needs_memory(needed: u64, allowed: u64) -> Error {
    let (needed, allowed) = (bytesize::ByteSize(needed), bytesize::ByteSize(allowed));
    Error::new(ErrorKind::TooLarge, format!("needs {needed}, more than the {allowed} that --memory allows"))
}

/// A fault in a solver ends the layer, not the run.
fn fault(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "panic".to_owned());
    Error::new(ErrorKind::Internal, format!("internal fault: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::DType;
    use crate::layer::layers;
    use crate::layer::testing::{catalog, tensor};
    use crate::source::{ObjectIdentity, ReadAt};
    use bytes::Bytes;
    use std::sync::Arc;

    /// Gives zeros, or panics.
    struct Zeros {
        identity: ObjectIdentity,
        panics: bool,
    }

    impl ReadAt for Zeros {
        fn name(&self) -> &str {
            "zeros"
        }
        fn identity(&self) -> &ObjectIdentity {
            &self.identity
        }
        fn read_at(&self, range: Range<u64>) -> Result<Bytes> {
            assert!(!self.panics, "a fault");
            Ok(vec![0; (range.end - range.start) as usize].into())
        }
    }

    fn model(shape: [u64; 2], panics: bool) -> (Catalog, Layer) {
        let mut catalog = catalog(vec![tensor("a.weight", DType::F32, &shape)], None);
        let identity = ObjectIdentity { uri: "zeros".to_owned(), size: u64::MAX, pin: None };
        catalog.files.push(Arc::new(Zeros { identity, panics }));
        let layer = layers(&catalog, &Options::default().layers).layers.remove(0);
        (catalog, layer)
    }

    fn means(memory: u64) -> RunOptions {
        RunOptions { threads: 1, memory, cancel: Arc::default() }
    }

    fn opened<'a>(model: &'a (Catalog, Layer), memory: u64) -> Opened<'a> {
        let (catalog, layer) = model;
        open_layer(catalog, layer, &Options::default(), 1000, &means(memory)).unwrap()
    }

    #[test]
    fn a_layer_above_the_memory_is_a_row_before_a_byte_is_read() {
        let model = model([40, 30], true);
        let Opened::Failed(row) = opened(&model, 999) else { panic!("it was opened") };
        assert_eq!(row.reason.as_deref(), Some("NEEDS_MEMORY"));
        let said = "needs 1000 B, more than the 999 B that --memory allows";
        assert_eq!(row.detail.as_deref(), Some(said));
    }

    #[test]
    fn a_panic_is_a_row_of_the_layer_and_an_error_of_a_shard() {
        let small = model([40, 30], false);
        let Opened::Ready(mut input) = opened(&small, 1000) else { panic!("it was not opened") };
        input.on_digest = Some(Box::new(|digest| panic!("at {}", digest.len())));
        let row = compute_layer(&mut input, &Options::default()).unwrap().into_row().unwrap();
        assert_eq!(row.detail.as_deref(), Some("internal fault: at 64"));
        assert_eq!(row.reason.as_deref(), Some("INTERNAL"));
        let tall = model([262_144, 640], true);
        let Opened::Ready(mut input) = opened(&tall, 1000) else { panic!("it was not opened") };
        let error = compute_shard(&mut input, 24_576..49_152).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(error.to_string(), "internal fault: a scoped thread panicked");
    }
}
