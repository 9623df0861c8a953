//! Progress on stderr: layers, bytes, the layer under way, the time left. None where stderr is no terminal.

use crate::error::printable;
use crate::layer::Layer;
use crate::rpc::proto::v1;
use crate::run::Observer;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that follows bytes.
pub(super) struct Bar {
    bar: ProgressBar,
    layers: std::sync::atomic::AtomicUsize,
    total: std::sync::atomic::AtomicUsize,
}

impl Bar {
    /// Drawn on stderr if `visible`.
    pub(super) fn new(visible: bool) -> Self {
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        let style = "{prefix} layers  {binary_bytes}/{binary_total_bytes}  {wide_bar}  {eta} left  {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self { bar, layers: 0.into(), total: 0.into() }
    }

    /// Wipes the bar.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Prints with the bar out of the way.
    pub(super) fn suspend(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Shows how far a coordinator's analysis is, and the layer that has got its row last.
    pub(super) fn follow(&self, analysis: &v1::Analysis, finished: Option<String>) {
        let progress = analysis.progress.unwrap_or_default();
        self.bar.set_length(progress.bytes);
        self.bar.set_position(progress.bytes_done);
        self.bar.set_prefix(format!("{}/{}", progress.done + progress.failed, progress.layers));
        if let Some(name) = finished {
            self.bar.set_message(printable(&name));
        }
    }

    /// Shows how much of a model has been sent.
    pub(super) fn bytes(&self, done: u64, all: u64) {
        self.bar.set_length(all);
        self.bar.set_position(done);
        self.bar.set_message("sending the model");
    }

    fn prefix(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        self.bar.set_prefix(format!("{}/{}", self.layers.load(Relaxed), self.total.load(Relaxed)));
    }
}

/// A wait that is broken off leaves no bar behind.
impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Observer for Bar {
    fn planned(&self, layers: usize, bytes: u64) {
        self.total.store(layers, std::sync::atomic::Ordering::Relaxed);
        self.bar.set_length(bytes);
        self.prefix();
    }

    fn started(&self, layer: &Layer) {
        self.bar.set_message(printable(&layer.name));
    }

    fn finished(&self, _layer: &Layer, bytes_done: u64) {
        self.layers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.bar.set_position(bytes_done);
        self.prefix();
    }
}
