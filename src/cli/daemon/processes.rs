//! `spectrald coordinator`, `spectrald worker`, `spectrald serve`.

use super::settings;
use crate::cli::args::{CoordinatorArgs, ServeArgs, WorkerArgs};
use crate::cli::interrupt::Signals;
use crate::config::{Config, LogFormat};
use crate::coordinator::Coordinator;
use crate::guard::{client_tls, read_token};
use crate::run;
use crate::source::SourceOptions;
use crate::telemetry::http::{self, HttpState, Readiness};
use crate::telemetry::{self, Format, LogOptions, Metrics};
use crate::worker::{self, Token, WorkerOptions, WorkerRoot};
use crate::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// `spectrald coordinator`.
pub(in crate::cli) fn coordinator(args: &CoordinatorArgs) -> Result<ExitCode> {
    let config = settings::coordinator(args)?;
    let guard = telemetry::init(&logs(&config, "coordinator"))?;
    let metrics = guard.metrics();
    let ended = runtime()?.block_on(async {
        let shutdown = on_signal()?;
        let (ready, readiness) = watch::channel(Readiness::NotReady("starting"));
        serve_http(&config, &metrics, readiness, &shutdown).await?;
        let coordinator = Coordinator::start(&config, Arc::clone(&metrics), ready).await?;
        announce(coordinator.address());
        coordinator.serve(shutdown).await
    });
    flush(&guard);
    ended.map(|()| ExitCode::SUCCESS)
}

/// `spectrald serve`: a coordinator and a worker in one process.
pub(in crate::cli) fn serve(args: &ServeArgs) -> Result<ExitCode> {
    let config = settings::serve(&args.coordinator, &args.means)?;
    let guard = telemetry::init(&logs(&config, "serve"))?;
    let metrics = guard.metrics();
    let ended = runtime()?.block_on(async {
        let shutdown = on_signal()?;
        let (ready, readiness) = watch::channel(Readiness::NotReady("starting"));
        serve_http(&config, &metrics, readiness, &shutdown).await?;
        let coordinator = Coordinator::start(&config, Arc::clone(&metrics), ready).await?;
        let address = coordinator.address();
        let mut options = worker_options(&config);
        options.embedded = true;
        options.drain_grace = Duration::from_secs(2);
        let channel = coordinator.local_channel()?;
        announce(address);
        let (stop_worker, stop_coordinator) = (shutdown.clone(), CancellationToken::new());
        let working = tokio::spawn(worker::run(options, channel, no_token(), stop_worker));
        let stop = stop_coordinator.clone();
        let worker_ended = async move {
            let ended = working.await;
            // The worker hands back what it holds before the coordinator goes.
            stop.cancel();
            ended.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, format!("the worker: {e}"))))
        };
        let (served, worked) = tokio::join!(coordinator.serve(stop_coordinator), worker_ended);
        served.and(worked)
    });
    flush(&guard);
    ended.map(|()| ExitCode::SUCCESS)
}

/// `spectrald worker`.
pub(in crate::cli) fn worker(args: &WorkerArgs) -> Result<ExitCode> {
    let config = settings::worker(args)?;
    let guard = telemetry::init(&logs(&config, "worker"))?;
    let ended = runtime()?.block_on(async {
        let shutdown = on_signal()?;
        worker::run(worker_options(&config), channel(&config)?, token(&config)?, shutdown).await
    });
    flush(&guard);
    ended.map(|()| ExitCode::SUCCESS)
}

fn logs(config: &Config, service: &'static str) -> LogOptions {
    let format = match config.log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    LogOptions { format, filter: config.log.filter.clone(), service }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| Error::new(ErrorKind::Internal, format!("no threads are to be had: {error}")))
}

/// Cancelled by the first SIGINT or SIGTERM; a second one ends the process.
fn on_signal() -> Result<CancellationToken> {
    let mut signals = Signals::listen()?;
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    tokio::spawn(async move {
        signals.next().await;
        told.cancel();
        signals.next().await;
        std::process::exit(130);
    });
    Ok(shutdown)
}

/// The address on stdout: port 0 takes a free one, and whoever started us wants to know.
fn announce(address: SocketAddr) {
    anstream::println!("listening on {address}");
}

async fn serve_http(
    config: &Config,
    metrics: &Arc<Metrics>,
    ready: watch::Receiver<Readiness>,
    shutdown: &CancellationToken,
) -> Result<()> {
    let Some(address) = config.coordinator.http_listen else { return Ok(()) };
    let bound = tokio::net::TcpListener::bind(address).await;
    let listener = bound.map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("cannot listen on {address}: {error}"))
            .in_field("coordinator.http_listen")
    })?;
    let state = HttpState { metrics: Arc::clone(metrics), ready };
    tokio::spawn(http::serve(listener, state, shutdown.clone()));
    Ok(())
}

fn worker_options(config: &Config) -> WorkerOptions {
    let worker = &config.worker;
    let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let id = worker.id.clone().unwrap_or_else(own_name);
    let cores = worker.threads.unwrap_or_else(processors);
    let mut options = WorkerOptions::new(id, cores, worker.memory.unwrap_or_else(run::default_memory));
    options.report_every = worker.report_every;
    options.drain_grace = worker.drain_grace;
    options.roots = config
        .roots
        .iter()
        .map(|root| WorkerRoot {
            name: root.name.clone(),
            source: SourceOptions::of_service(root.store_config()),
        })
        .collect();
    options
}

/// The machine's name and something of this process alone.
fn own_name() -> String {
    let host = sysinfo::System::host_name().unwrap_or_else(|_| "worker".to_owned());
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{host}-{}", random.get(..8).unwrap_or_default())
}

fn channel(config: &Config) -> Result<Channel> {
    let worker = &config.worker;
    let wrong = |error: tonic::transport::Error| {
        Error::invalid(format!("'{}': {error}", worker.coordinator)).in_field("worker.coordinator")
    };
    let mut endpoint = Endpoint::from_shared(worker.coordinator.clone()).map_err(wrong)?;
    if worker.coordinator.starts_with("https://") {
        endpoint = endpoint.tls_config(client_tls(&worker.tls)?).map_err(wrong)?;
    }
    Ok(patient(endpoint).connect_lazy())
}

fn patient(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .initial_connection_window_size(8 << 20)
        .initial_stream_window_size(4 << 20)
        .tcp_nodelay(true)
}

/// The token, read again for each call: it may be rotated. A file that cannot be read now is a mistake; later, it is a
/// call without a token.
fn token(config: &Config) -> Result<Token> {
    let Some(file) = config.worker.token_file.clone() else { return Ok(no_token()) };
    read_token(&file)?;
    Ok(Arc::new(move || read_token(&file).ok().map(|secret| secret.expose().to_owned())))
}

fn no_token() -> Token {
    Arc::new(|| None)
}

fn flush(guard: &telemetry::Guard) {
    if let Err(error) = guard.shutdown() {
        tracing::warn!(%error, "telemetry");
    }
}
