//! What is counted, by one set of instruments that feeds /metrics and, when it is on, OTLP.
//!
//! An instrument `spectrald.fetch` of unit `By` is `spectrald_fetch_bytes_total` in Prometheus: the exporter writes dots as
//! underscores and adds the unit and `_total` itself. docs/telemetry.md lists the names as printed, and a test holds the
//! list to it. No label ever holds the name of a model, a tensor, an object or a client: their number has no bound, and
//! /metrics asks no one who they are.

mod process;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, MeterProvider as _};
use opentelemetry_sdk::metrics::{MeterProviderBuilder, SdkMeterProvider};
use prometheus::{Registry, TextEncoder};

use crate::{Error, ErrorKind, Result};

/// Buckets of a call, in seconds: those of the semantic conventions.
const CALL_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Buckets of one stage of one layer, in seconds.
const LAYER_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];
/// Buckets of a whole analysis, in seconds.
const ANALYSIS_BUCKETS: [f64; 12] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14_400.0, 86_400.0];

/// Labels whose series exist from the start with the value 0, so that the first event is seen as a rise.
const ANALYSIS_STATES: [&str; 3] = ["succeeded", "failed", "cancelled"];
const LAYER_OUTCOMES: [&str; 3] = ["analysed", "failed", "skipped"];
const CACHE_KINDS: [&str; 2] = ["content", "object"];

/// Which cache answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// The same bytes were analysed before.
    Content,
    /// The same object of the store was read before.
    Object,
}

impl Cache {
    fn label(self) -> &'static str {
        match self {
            Self::Content => CACHE_KINDS[0],
            Self::Object => CACHE_KINDS[1],
        }
    }
}

/// How full the store is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSize {
    /// What the store takes on disk.
    pub used: u64,
    /// What is free on its file system.
    pub free: u64,
}

/// The instruments. Labels are fixed words of the program, hence `&'static str`.
pub struct Metrics {
    registry: Registry,
    provider: SdkMeterProvider,
    analyses: Counter<u64>,
    analysis_duration: Histogram<f64>,
    layers: Counter<u64>,
    layer_duration: Histogram<f64>,
    fetch_bytes: Counter<u64>,
    cache_hits: Counter<u64>,
    cache_misses: Counter<u64>,
    queue_work: Gauge<f64>,
    desired_workers: Gauge<u64>,
    workers: Gauge<u64>,
    units: Gauge<u64>,
    leases_expired: Counter<u64>,
    retries: Counter<u64>,
    stale_results: Counter<u64>,
    store_commits: Counter<u64>,
    store_syncs: Counter<u64>,
    store_bytes: Gauge<u64>,
    store_free_bytes: Gauge<u64>,
    store_evictions: Counter<u64>,
    connections: Gauge<u64>,
    refusals: Counter<u64>,
    calls: Histogram<f64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Instruments that feed /metrics and nothing else.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the exporter cannot be made.
    pub fn standalone(service: &str) -> Result<Self> {
        Self::with(SdkMeterProvider::builder(), service)
    }

    /// Instruments that feed /metrics and the readers of `builder`.
    pub(super) fn with(builder: MeterProviderBuilder, service: &str) -> Result<Self> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .map_err(|why| Error::new(ErrorKind::Internal, format!("metrics cannot be exported: {why}")))?;
        let provider = builder.with_reader(exporter).build();
        let meter = provider.meter("spectrald");
        build_info(&meter, service);
        process::observe(&meter);
        let metrics = Self::instruments(&meter, registry, provider.clone());
        metrics.start_at_zero();
        Ok(metrics)
    }

    fn instruments(meter: &Meter, registry: Registry, provider: SdkMeterProvider) -> Self {
        let count = |name, help| meter.u64_counter(name).with_description(help).build();
        let bytes = |name, help| meter.u64_gauge(name).with_unit("By").with_description(help).build();
        let gauge = |name, help| meter.u64_gauge(name).with_description(help).build();
        let seconds = |name, help, buckets: &[f64]| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(help)
                .with_boundaries(buckets.to_vec())
                .build()
        };
        Self {
            analyses: count("spectrald.analyses", "Analyses that came to an end, by state"),
            analysis_duration: seconds(
                "spectrald.analysis.duration",
                "Time from creation to the end of an analysis",
                &ANALYSIS_BUCKETS,
            ),
            layers: count("spectrald.layers", "Layers with a row, by outcome"),
            layer_duration: seconds(
                "spectrald.layer.duration",
                "Time of one layer, by stage",
                &LAYER_BUCKETS,
            ),
            fetch_bytes: meter
                .u64_counter("spectrald.fetch")
                .with_unit("By")
                .with_description("Bytes read from object stores")
                .build(),
            cache_hits: count(
                "spectrald.cache.hits",
                "Layers that were answered without computing, by cache",
            ),
            cache_misses: count("spectrald.cache.misses", "Layers that no cache could answer"),
            queue_work: meter
                .f64_gauge("spectrald.queue.work")
                .with_unit("s")
                .with_description("Work that waits or runs, in seconds of one core")
                .build(),
            desired_workers: gauge("spectrald.desired_workers", "Workers that the work at hand could use"),
            workers: gauge("spectrald.workers", "Workers known, by state"),
            units: gauge("spectrald.units", "Units of work, by state"),
            leases_expired: count("spectrald.leases_expired", "Leases that ran out"),
            retries: count("spectrald.retries", "Units given out again, by cause"),
            stale_results: count("spectrald.stale_results", "Results of an attempt that was no longer valid"),
            store_commits: count("spectrald.store.commits", "Groups of writes made durable"),
            store_syncs: count("spectrald.store.syncs", "Times that the disk was waited for"),
            store_bytes: bytes("spectrald.store", "Size of the store on disk"),
            store_free_bytes: bytes("spectrald.store.free", "Free space on the file system of the store"),
            store_evictions: count("spectrald.store.evictions", "Results dropped to keep within the limit"),
            connections: gauge("spectrald.connections", "Connections open on the gRPC port"),
            refusals: count("spectrald.refusals", "Calls and connections refused, by reason"),
            calls: seconds("rpc.server.call.duration", "Time of a gRPC call", &CALL_BUCKETS),
            registry,
            provider,
        }
    }

    fn start_at_zero(&self) {
        for state in ANALYSIS_STATES {
            self.analyses.add(0, &[KeyValue::new("state", state)]);
        }
        for outcome in LAYER_OUTCOMES {
            self.layers.add(0, &[KeyValue::new("outcome", outcome)]);
        }
        for kind in CACHE_KINDS {
            self.cache_hits.add(0, &[KeyValue::new("kind", kind)]);
        }
        for counter in [
            &self.fetch_bytes,
            &self.cache_misses,
            &self.leases_expired,
            &self.stale_results,
            &self.store_commits,
            &self.store_syncs,
            &self.store_evictions,
        ] {
            counter.add(0, &[]);
        }
    }

    /// The text of /metrics, in the exposition format 0.0.4.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the values cannot be written as text.
    pub fn render(&self) -> Result<String> {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .map_err(|why| Error::new(ErrorKind::Internal, format!("metrics cannot be printed: {why}")))
    }

    pub(super) fn provider(&self) -> &SdkMeterProvider {
        &self.provider
    }

    /// An analysis came to its end: `succeeded`, `failed` or `cancelled`.
    pub fn analysis_ended(&self, state: &'static str, took: Duration) {
        self.analyses.add(1, &[KeyValue::new("state", state)]);
        self.analysis_duration.record(took.as_secs_f64(), &[]);
    }

    /// This many layers got their row: `analysed`, `failed` or `skipped`.
    pub fn layers_done(&self, outcome: &'static str, number: u64) {
        self.layers.add(number, &[KeyValue::new("outcome", outcome)]);
    }

    /// A worker said how long a layer, or a row block of one, took in all.
    pub fn layer_took(&self, took: Duration) {
        self.layer_duration.record(took.as_secs_f64(), &[]);
    }

    /// Bytes read from object stores.
    pub fn fetched(&self, bytes: u64) {
        self.fetch_bytes.add(bytes, &[]);
    }

    /// Layers answered by a cache.
    pub fn cache_hit(&self, cache: Cache, layers: u64) {
        self.cache_hits.add(layers, &[KeyValue::new("kind", cache.label())]);
    }

    /// Layers that have to be computed.
    pub fn cache_miss(&self, layers: u64) {
        self.cache_misses.add(layers, &[]);
    }

    /// The work that waits or runs, in core-seconds, and the workers that it could use.
    pub fn queue(&self, core_seconds: f64, desired_workers: u64) {
        self.queue_work.record(core_seconds, &[]);
        self.desired_workers.record(desired_workers, &[]);
    }

    /// Workers in each state. Name every state each time: one that is left out keeps its last number.
    pub fn workers(&self, states: &[(&'static str, u64)]) {
        set_states(&self.workers, states);
    }

    /// Units of work in each state. Name every state each time: one that is left out keeps its last number.
    pub fn units(&self, states: &[(&'static str, u64)]) {
        set_states(&self.units, states);
    }

    /// Leases ran out.
    pub fn leases_expired(&self, number: u64) {
        self.leases_expired.add(number, &[]);
    }

    /// A unit is given out again, and why.
    pub fn retried(&self, cause: &'static str) {
        self.retries.add(1, &[KeyValue::new("cause", cause)]);
    }

    /// A result came from an attempt that was no longer valid.
    pub fn stale_result(&self) {
        self.stale_results.add(1, &[]);
    }

    /// This many writes became durable, after the disk was waited for this often.
    pub fn store_committed(&self, commits: u64, syncs: u64) {
        self.store_commits.add(commits, &[]);
        self.store_syncs.add(syncs, &[]);
    }

    /// How full the store is.
    pub fn store_size(&self, size: StoreSize) {
        self.store_bytes.record(size.used, &[]);
        self.store_free_bytes.record(size.free, &[]);
    }

    /// Results were dropped to keep within the limit.
    pub fn store_evicted(&self, results: u64) {
        self.store_evictions.add(results, &[]);
    }

    /// Connections that are open on the gRPC port.
    pub fn connections(&self, open: u64) {
        self.connections.record(open, &[]);
    }

    /// A call or connection was refused, and why.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// A gRPC call ended. `method` is one that this server has, or `_OTHER`.
    pub(super) fn call_ended(&self, method: String, status: &'static str, took: Duration) {
        let attributes = [
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", method),
            KeyValue::new("rpc.status_code", status),
        ];
        self.calls.record(took.as_secs_f64(), &attributes);
    }
}

fn set_states(gauge: &Gauge<u64>, states: &[(&'static str, u64)]) {
    for (state, number) in states {
        gauge.record(*number, &[KeyValue::new("state", *state)]);
    }
}

fn build_info(meter: &Meter, service: &str) {
    let gauge =
        meter.u64_gauge("spectrald.build.info").with_description("1, with the version as a label").build();
    let attributes =
        [KeyValue::new("version", env!("CARGO_PKG_VERSION")), KeyValue::new("service", service.to_owned())];
    gauge.record(1, &attributes);
}
