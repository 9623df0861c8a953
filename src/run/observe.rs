//! Who is told how a run goes.

use crate::layer::Layer;

/// Told of a run's progress; called from its threads.
pub trait Observer: Sync {
    /// Before the first layer: how many there are and how many bytes they have.
    fn planned(&self, layers: usize, bytes: u64) {
        let _ = (layers, bytes);
    }
    /// A layer's computation starts.
    fn started(&self, layer: &Layer) {
        let _ = layer;
    }
    /// A layer is done; `bytes_done` of the planned bytes are.
    fn finished(&self, layer: &Layer, bytes_done: u64) {
        let _ = (layer, bytes_done);
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
