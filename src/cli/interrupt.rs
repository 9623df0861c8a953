//! Ctrl-C: the first asks the run to stop; the second, or a run that does not stop soon, ends the process.

use crate::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// How long a run may take to stop by itself. A read of a store that has fallen silent waits for longer than anyone
/// does who has pressed Ctrl-C.
const GRACE: Duration = Duration::from_secs(1);

/// A flag that the first Ctrl-C (or SIGTERM) sets. The second, or [`GRACE`] later, ends the process with 130.
pub(super) fn flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&flag);
    let (ready, is_ready) = channel();
    // a thread that waits for signals; where none can be had, Ctrl-C ends the process as usual
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            let _ = runtime.block_on(wait(&shared, ready));
        }
    });
    let _ = is_ready.recv(); // an error if there is no such thread
    flag
}

async fn wait(flag: &AtomicBool, ready: Sender<()>) -> std::io::Result<()> {
    let mut signals = Signals::listen_io()?;
    let _ = ready.send(());
    signals.next().await;
    flag.store(true, Ordering::SeqCst);
    let _ = tokio::time::timeout(GRACE, signals.next()).await;
    std::process::exit(130)
}

impl Signals {
    /// From now on signals do not end the process, but [`Signals::next`]. Must be called within a runtime.
    ///
    /// # Errors
    /// `Internal` if there is no handler to be had.
    pub(super) fn listen() -> Result<Self> {
        let failed = |e| Error::new(ErrorKind::Internal, format!("cannot listen for signals: {e}"));
        Self::listen_io().map_err(failed)
    }
}

/// SIGINT and SIGTERM.
#[cfg(unix)]
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen_io() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) {
        let (interrupt, terminate) = (self.interrupt.recv(), self.terminate.recv());
        futures_util::future::select(Box::pin(interrupt), Box::pin(terminate)).await;
    }
}

/// Ctrl-C.
#[cfg(windows)]
pub(super) struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn listen_io() -> std::io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) {
        self.0.recv().await;
    }
}
