//! The HTTP port: /metrics for Prometheus, /healthz and /readyz for whoever restarts or routes.
//!
//! It asks no one who they are, so it says nothing about models, and it is hard to tie up: heads have a time limit and a
//! size limit, bodies are not read, connections are few, short and not kept.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::Metrics;

/// Connections at once; one more is closed at once.
const MAX_CONNECTIONS: usize = 64;
/// Time for a client to send its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole connection: a client that does not read its answer is cut off.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Size of a head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Time that connections have to end after the shutdown began.
const DRAIN: Duration = Duration::from_secs(2);

/// Whether traffic is welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It is.
    Ready,
    /// It is not, for this reason: `starting`, `recovering the store`, `draining`, `low on disk`. A fixed phrase,
    /// since it is shown to anyone.
    NotReady(&'static str),
}

/// What the port shows.
#[derive(Debug, Clone)]
pub struct HttpState {
    /// Shown at /metrics.
    pub metrics: Arc<Metrics>,
    /// Shown at /readyz. If its sender is gone, the last value stands.
    pub ready: watch::Receiver<Readiness>,
}

/// Time limits of [`serve_within`].
#[derive(Debug, Clone, Copy)]
struct Limits {
    head: Duration,
    connection: Duration,
    connections: usize,
}

/// Serves until `shutdown`, then waits two seconds for answers under way.
pub async fn serve(listener: TcpListener, state: HttpState, shutdown: CancellationToken) {
    let limits = Limits { head: HEAD_TIMEOUT, connection: CONNECTION_TIMEOUT, connections: MAX_CONNECTIONS };
    serve_within(limits, listener, state, shutdown).await;
}

async fn serve_within(limits: Limits, listener: TcpListener, state: HttpState, shutdown: CancellationToken) {
    let router = router(state);
    let places = Arc::new(Semaphore::new(limits.connections));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(why) => {
                // Out of descriptors, most likely; trying again at once would spin.
                tracing::warn!(error = %why, "the HTTP port cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let connection = connection(limits, stream, router.clone(), shutdown.clone());
        tasks.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    tasks.close();
    // Connections that outstay this are dropped with the runtime.
    let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
}

/// One request and its answer. Faults of a client are its own business.
async fn connection(limits: Limits, stream: TcpStream, router: Router, shutdown: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let served = async {
        tokio::select! {
            result = connection.as_mut() => return result,
            () = shutdown.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    match tokio::time::timeout(limits.connection, served).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::debug!(error = %why, "a connection to the HTTP port failed"),
        Err(_) => tracing::debug!("a connection to the HTTP port took too long"),
    }
}

fn router(state: HttpState) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(state)
}

async fn metrics(State(state): State<HttpState>) -> Response {
    match state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(why) => {
            tracing::error!(error = %why, "/metrics failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(state): State<HttpState>) -> Response {
    match *state.ready.borrow() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::NotReady(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
