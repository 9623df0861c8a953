//! The loop: report, take the answer, wait. Everything that it decides is decided in `board`.

use super::board::{Board, Task};
use super::link::{Link, Pause};
use super::models::Models;
use super::pool::Pool;
use super::{PROTOCOL, WorkerOptions, work};
use crate::analysis::ALGORITHM_VERSION;
use crate::rpc::proto::worker::v1::{ReportRequest, ReportResponse};
use crate::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// Longest wait for the answer to a report.
const ANSWER: Duration = Duration::from_secs(10);
/// Units that end within this time of one another are reported together.
const BATCH: Duration = Duration::from_millis(3);
/// How long handing back may take once the grace is over.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often an absent coordinator is logged.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// What the loop and the threads that compute share.
pub(super) struct Shared {
    pub(super) options: WorkerOptions,
    pub(super) link: Link,
    pub(super) models: Models,
    /// Something is to be reported at once.
    pub(super) changed: Notify,
    board: Mutex<Board>,
    pool: Pool,
    bytes_read: Arc<AtomicU64>,
    /// For tests: called before each unit, where it may panic.
    #[cfg(test)]
    pub(super) before_unit: Box<dyn Fn(&crate::rpc::proto::worker::v1::Unit) + Send + Sync>,
}

impl Shared {
    pub(super) fn new(options: WorkerOptions, link: Link) -> Self {
        let bytes_read = Arc::new(AtomicU64::new(0));
        Self {
            models: Models::new(&options, link.clone(), Arc::clone(&bytes_read)),
            changed: Notify::new(),
            board: Mutex::new(Board::new(options.cores, options.memory)),
            pool: Pool::new(options.cores),
            link,
            options,
            bytes_read,
            #[cfg(test)]
            before_unit: Box::new(|_| {}),
        }
    }

    /// The board, locked: for a moment, never across an await.
    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts every lease that fits.
fn start(shared: &Arc<Shared>) {
    loop {
        let Some(task) = shared.board().next() else { return };
        let running = Started { shared: Arc::clone(shared), task };
        let submitted = shared.pool.submit(Box::new(move || work::lease(&running.shared, &running.task)));
        if let Err(error) = submitted {
            tracing::error!(%error, "a lease could not be started and is handed back");
        }
    }
}

/// A lease on a thread, or on its way there. However it ends, its core and its memory are free then.
struct Started {
    shared: Arc<Shared>,
    task: Task,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.shared.board().end(self.task.lease.attempt);
        self.shared.changed.notify_one();
        start(&self.shared);
    }
}

/// Why a report was not answered.
enum Unanswered {
    /// It may be next time.
    ForNow(Status),
    /// It will not be.
    ForGood(Error),
}

/// The worker's loop.
pub(super) struct Agent {
    shared: Arc<Shared>,
    /// When this process's worker was started, in milliseconds since 1970.
    session: u64,
    /// Until when leases may go on, once the shutdown was asked for.
    grace: Option<Instant>,
    /// Whether what was left has been handed back.
    handed_back: bool,
    /// Whether the coordinator knows that this worker wants nothing more.
    said_farewell: bool,
    away: Option<Away>,
}

/// A coordinator that does not answer.
struct Away {
    pause: Pause,
    since: Instant,
    logged: Instant,
    /// Since when it refuses the worker's credentials.
    refused: Option<Instant>,
}

impl Drop for Agent {
    /// Nobody reports any more: threads need not go on.
    fn drop(&mut self) {
        self.shared.board().drain();
        self.shared.board().hand_back_all();
        self.shared.pool.close();
    }
}

impl Agent {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            session: milliseconds(),
            grace: None,
            handed_back: false,
            said_farewell: false,
            away: None,
        }
    }

    /// See [`super::run`].
    pub(super) async fn run(mut self, shutdown: &CancellationToken) -> Result<()> {
        let options = &self.shared.options;
        let (cores, memory) = (options.cores, options.memory);
        tracing::info!(worker = options.id, session = self.session, cores, memory, "the worker starts");
        loop {
            if shutdown.is_cancelled() && self.drained() {
                return Ok(());
            }
            match self.report().await {
                Ok((answer, is_cut)) => {
                    // There is more to tell, and it is being heard.
                    let goes_on = is_cut && !answer.acknowledged.is_empty();
                    let next = self.take(answer);
                    if !goes_on {
                        self.wait_for_change(next, shutdown).await;
                    }
                }
                Err(Unanswered::ForGood(error)) => return Err(error),
                Err(Unanswered::ForNow(status)) => self.wait_for_coordinator(status, shutdown).await?,
            }
        }
    }

    /// Once the shutdown was asked for: whether there is nothing left to do. Starts the grace, and ends it.
    fn drained(&mut self) -> bool {
        let now = Instant::now();
        let Some(grace) = self.grace else {
            self.shared.board().drain();
            let (units, results) = self.shared.board().open();
            tracing::info!(units, results, "the worker drains");
            self.grace = Some(now + self.shared.options.drain_grace);
            return false;
        };
        let is_done = self.shared.board().is_done();
        if is_done && self.said_farewell {
            tracing::info!("the worker has drained");
            return true;
        }
        if now >= grace + FAREWELL || (is_done && self.away.as_ref().is_some_and(|away| away.is_long(now))) {
            let (_, results) = self.shared.board().open();
            tracing::warn!(results, "the worker stops; its last report was not answered");
            return true;
        }
        if now >= grace && !self.handed_back {
            self.shared.board().hand_back_all();
            self.handed_back = true;
        }
        false
    }

    /// One report; the answer, and whether results were left for the next.
    async fn report(&mut self) -> std::result::Result<(ReportResponse, bool), Unanswered> {
        let shared = &self.shared;
        let report = shared.board().report(shared.bytes_read.load(Ordering::Relaxed));
        let request = ReportRequest {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            algorithm_version: ALGORITHM_VERSION,
            worker: shared.options.id.clone(),
            session: self.session,
            ..report.request
        };
        let draining = request.draining;
        let limit = self.deadline().map_or(ANSWER, |end| ANSWER.min(end.duration_since(Instant::now())));
        match shared.link.report(request, limit.max(BATCH)).await {
            Ok(answer) if answer.sequence == 0 => {
                // Whoever bears the name now has the work.
                shared.board().cancel(&answer.cancelled);
                let message = format!(
                    "it ignores this worker: has another of the name '{}' been started later?",
                    shared.options.id
                );
                Err(Unanswered::ForNow(Status::aborted(message)))
            }
            Ok(answer) => {
                self.said_farewell = draining;
                Ok((answer, report.is_cut))
            }
            Err(status) if status.code() == Code::FailedPrecondition => {
                Err(Unanswered::ForGood(another_version(&status)))
            }
            Err(status) => Err(Unanswered::ForNow(status)),
        }
    }

    /// When the worker must have ended.
    fn deadline(&self) -> Option<Instant> {
        let grace = self.grace?;
        Some(if self.handed_back { grace + FAREWELL } else { grace })
    }

    /// Takes the answer; when the next report is due.
    fn take(&mut self, answer: ReportResponse) -> Instant {
        if let Some(away) = self.away.take() {
            tracing::info!(seconds = away.since.elapsed().as_secs_f64(), "the coordinator answers again");
        }
        let asked = Duration::from_millis(answer.report_after_ms.into());
        let every = self.shared.options.report_every;
        let after = if asked.is_zero() { every } else { asked.min(every) };
        self.shared.board().answered(answer);
        start(&self.shared);
        self.shared.models.tidy();
        Instant::now() + after
    }

    async fn wait_for_change(&self, next: Instant, shutdown: &CancellationToken) {
        if self.grace.is_some() && self.shared.board().is_done() {
            return;
        }
        let next = self.deadline().map_or(next, |deadline| next.min(deadline));
        tokio::select! {
            () = sleep_until(next) => {}
            () = self.shared.changed.notified() => sleep(BATCH).await,
            () = shutdown.cancelled(), if self.grace.is_none() => {}
        }
    }

    async fn wait_for_coordinator(&mut self, status: Status, shutdown: &CancellationToken) -> Result<()> {
        let now = Instant::now();
        let first = self.away.is_none();
        let away = self.away.get_or_insert_with(|| Away {
            pause: Pause::new(),
            since: now,
            logged: now,
            refused: None,
        });
        let refuses =
            matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented);
        away.refused = refuses.then(|| away.refused.unwrap_or(now));
        if away.refused.is_some_and(|since| now - since >= self.shared.options.refused_for) {
            return Err(refused(&status, self.shared.options.refused_for));
        }
        if first || now - away.logged >= LOG_AGAIN {
            away.logged = now;
            let seconds = (now - away.since).as_secs_f64();
            tracing::warn!(code = ?status.code(), message = status.message(), seconds, "the coordinator does not answer");
        }
        let until = now + away.pause.next();
        let until = self.deadline().map_or(until, |deadline| until.min(deadline));
        tokio::select! {
            () = sleep_until(until) => {}
            () = shutdown.cancelled(), if self.grace.is_none() => {}
        }
        Ok(())
    }
}

impl Away {
    fn is_long(&self, now: Instant) -> bool {
        now - self.since >= FAREWELL
    }
}

fn milliseconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn another_version(status: &Status) -> Error {
    let message = format!(
        "the coordinator refuses this worker (spectrald {}, protocol {PROTOCOL}, algorithm {ALGORITHM_VERSION}): {}",
        env!("CARGO_PKG_VERSION"),
        status.message()
    );
    Error::new(ErrorKind::Unsupported, message)
}

fn refused(status: &Status, patience: Duration) -> Error {
    let message = format!("the coordinator has refused this worker for {patience:?}: {}", status.message());
    Error::new(ErrorKind::PermissionDenied, message)
}
