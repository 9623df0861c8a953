//! Seen from outside: logs, traces, metrics, and the HTTP port that shows the last.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | the `OTEL_*` variables, resolved; pure |
//! | [`logs`] | lines of JSON or text that no value can break |
//! | [`metrics`] | every counter, gauge and histogram |
//! | [`propagate`] | `traceparent`, in and out |
//! | [`rpc`] | a span and a duration for each gRPC call |
//! | [`http`] | /metrics, /healthz, /readyz |
//!
//! docs/telemetry.md has the variables and the metrics.
//!
//! Nothing is sent anywhere unless the environment says where.

pub mod config;
mod console;
mod export;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod propagate;
pub mod rpc;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Runtime;
use tracing::{Dispatch, Level};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use crate::{Error, ErrorKind, Result};
use config::Config;
use export::Builder;
pub use logs::Format;
use logs::{Lines, Sink};
pub use metrics::Metrics;

/// How long [`Guard::shutdown`] waits for collectors.
const FLUSH: Duration = Duration::from_secs(5);

/// What the program says about itself.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// How a line looks.
    pub format: Format,
    /// Which lines: `info`, or `info,spectrald::store=debug`.
    pub filter: String,
    /// `coordinator`, `worker`, `serve` or `cli`.
    pub service: &'static str,
}

/// Keeps telemetry going; dropped, it sends what is left, for five seconds at most.
pub struct Guard {
    metrics: Arc<Metrics>,
    tracers: Option<SdkTracerProvider>,
    /// For gRPC exporters.
    runtime: Option<Runtime>,
    exports: bool,
    limit: Duration,
    done: AtomicBool,
}

/// Starts telemetry for the process, by the environment: lines on standard error, exporters where they are asked for.
/// To be called once, inside or outside a runtime.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for a filter or variable that cannot be obeyed, [`ErrorKind::Internal`] if it was called
/// before.
pub fn init(options: &LogOptions) -> Result<Guard> {
    let get = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let config = Config::from_env(get, options.service)?;
    let (dispatch, guard) = build(options, &config, logs::stderr())?;
    tracing::dispatcher::set_global_default(dispatch)
        .map_err(|_| Error::new(ErrorKind::Internal, "telemetry was started before"))?;
    propagate::switch(config.propagate);
    announce(options, &config);
    Ok(guard)
}

/// The same for a given configuration and sink, without making it the process's own. For tests and for programs that
/// hold several.
///
/// # Errors
/// As [`init`].
pub fn build(options: &LogOptions, config: &Config, sink: Sink) -> Result<(Dispatch, Guard)> {
    let filter = EnvFilter::builder()
        .parse(&options.filter)
        .map_err(|why| Error::invalid(format!("'{}': {why}", options.filter)).in_field("log filter"))?;
    let runtime = export::needs_runtime(config).then(runtime).transpose()?;
    let log = export::Log::default();
    let builder =
        Builder { config, sink: Arc::clone(&sink), log: Arc::clone(&log), runtime: runtime.as_ref() };
    let metrics = Arc::new(Metrics::with(builder.meter_provider()?, options.service)?);
    let tracers = if config.disabled { None } else { Some(builder.tracer_provider()?) };
    let traces = tracers.as_ref().map(|provider| {
        // Our own spans alone: those of the HTTP and gRPC libraries would trace the sending of traces.
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("spectrald"))
            .with_location(false)
            .with_threads(false)
            .with_filter(
                filter_fn(|metadata| {
                    metadata.is_span()
                        && *metadata.level() <= Level::INFO
                        && metadata.target().starts_with("spectrald")
                })
                // Finer events stay as cheap as if there were no traces.
                .with_max_level_hint(Level::INFO),
            )
    });
    let lines = Lines::new(options.format, options.service, sink).with_filter(filter);
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(traces).with(lines));
    // Set here alone, so it cannot be set already.
    let _ = log.set(dispatch.downgrade());
    let exports = config.traces.is_on() || config.metrics.is_on();
    let guard = Guard { metrics, tracers, runtime, exports, limit: FLUSH, done: AtomicBool::new(false) };
    Ok((dispatch, guard))
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("telemetry")
        .enable_all()
        .build()
        .map_err(|why| Error::new(ErrorKind::Internal, format!("no thread for telemetry: {why}")))
}

/// Logs what was resolved, so that no one has to believe that a variable was read. Values of headers are not in it.
pub fn announce(options: &LogOptions, config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let exports = config.traces.is_on() || config.metrics.is_on();
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                traces = %config.traces,
                metrics = %config.metrics,
                sampler = %config.sampler,
                propagators = if config.propagate { "tracecontext" } else { "none" },
                resource = config.resource_line(),
                disabled = config.disabled,
                "telemetry"
            )
        };
    }
    // Someone at a terminal did not ask.
    if options.service == "cli" && !exports {
        line!(debug);
    } else {
        line!(info);
    }
}

impl Guard {
    /// The instruments of this process.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Sends what is left and stops the exporters, in five seconds or not at all. A second call does nothing. The last
    /// thing to do: it also ends /metrics, which has nothing to show from then on if anything was exported.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if a collector did not take everything in time.
    pub fn shutdown(&self) -> Result<()> {
        if self.done.swap(true, Ordering::SeqCst) || !self.exports {
            return Ok(());
        }
        let until = Instant::now() + self.limit;
        // On threads: a call to the SDK may outlast the limit that it is given, and may not be made on tokio's threads.
        let (sender, receiver) = mpsc::channel();
        let mut waiting = 0;
        if let Some(tracers) = self.tracers.clone() {
            let (sender, limit) = (sender.clone(), self.limit);
            waiting += usize::from(spawn(move || {
                let _ = sender.send(tracers.shutdown_with_timeout(limit).is_ok());
            }));
        }
        let meters = self.metrics.provider().clone();
        let limit = self.limit;
        waiting += usize::from(spawn(move || {
            let _ = sender.send(meters.shutdown_with_timeout(limit).is_ok());
        }));
        let mut sent = true;
        for _ in 0..waiting {
            sent &= receiver.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap_or(false);
        }
        if sent {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "the last telemetry could not be exported"))
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> bool {
    std::thread::Builder::new().name("telemetry-flush".to_owned()).spawn(work).is_ok()
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.shutdown();
        if let Some(runtime) = self.runtime.take() {
            // Dropping a runtime on a thread of another one panics, and would wait.
            runtime.shutdown_background();
        }
    }
}
