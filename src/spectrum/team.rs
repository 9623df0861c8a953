//! Two threads in one layer, for when there are fewer layers than processors.
//!
//! What the threads share out is fixed by the shape, and every sum keeps its order: one thread and two give the same
//! bits.

/// Runs both; at the same time if `threads` is two or more.
pub(super) fn join(threads: usize, a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
    if threads < 2 {
        a();
        b();
        return;
    }
    std::thread::scope(|scope| {
        scope.spawn(a);
        b();
    });
}
