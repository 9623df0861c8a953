//! The one asynchronous runtime behind the blocking [`ReadAt`](super::ReadAt).

use crate::{Error, ErrorKind, Result};
use std::sync::{OnceLock, mpsc};
use tokio::runtime::{Builder, Runtime};

/// Sockets wait more than they work: two threads keep many connections busy.
const WORKERS: usize = 2;

static RUNTIME: OnceLock<std::result::Result<Runtime, String>> = OnceLock::new();

/// Runs `future` on the shared runtime and waits for it. Unlike `Runtime::block_on` this may be called from a thread
/// of another runtime.
pub(super) fn wait_for<T, F>(future: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let runtime = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("source")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())
    });
    let runtime = runtime.as_ref().map_err(|error| internal(format!("cannot start the reader: {error}")))?;
    let (send, receive) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        // The receiver below cannot be gone: it waits until this is sent or dropped.
        let _ = send.send(future.await);
    });
    receive.recv().unwrap_or_else(|_| Err(internal("the reader stopped unexpectedly")))
}

fn internal(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Internal, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn can_be_called_inside_another_runtime() {
        let other = Builder::new_current_thread().build().unwrap();
        let answer = other.block_on(async {
            wait_for(async {
                tokio::task::yield_now().await;
                Ok(7)
            })
        });
        assert_eq!(answer.unwrap(), 7);
    }

    #[test]
    fn a_panic_inside_is_an_error_outside() {
        let answer: Result<()> = wait_for(async { std::panic::resume_unwind(Box::new("quiet")) });
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Internal);
    }
}
