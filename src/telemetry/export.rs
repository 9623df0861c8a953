//! Providers and exporters, built from the resolved configuration.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, SpanExporter as OtlpSpans, WithExportConfig as _,
    WithHttpConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{
    MeterProviderBuilder, PeriodicReader, SdkMeterProvider, Temporality as SdkTemporality,
};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler as SdkSampler, SdkTracerProvider, SpanData, SpanExporter,
};
use tokio::runtime::Runtime;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use tracing::dispatcher::WeakDispatch;

use super::config::{Config, Otlp, Protocol, Sampler, Temporality};
use super::console::Console;
use super::logs::Sink;
use crate::{Error, ErrorKind, Result};

/// How often a collector that stays away is mentioned.
const REMIND: Duration = Duration::from_secs(60);

/// Where exporters log; set once the subscriber exists, which itself needs the exporters.
pub(super) type Log = Arc<OnceLock<WeakDispatch>>;

/// What the exporters are built with.
pub(super) struct Builder<'a> {
    pub(super) config: &'a Config,
    pub(super) sink: Sink,
    pub(super) log: Log,
    /// gRPC needs a runtime; this one is ours, so that it outlives the program's and serves callers that have none.
    pub(super) runtime: Option<&'a Runtime>,
}

/// Whether [`Builder::runtime`] is needed.
pub(super) fn needs_runtime(config: &Config) -> bool {
    [&config.traces, &config.metrics]
        .iter()
        .any(|signal| signal.otlp.as_ref().is_some_and(|otlp| otlp.protocol == Protocol::Grpc))
}

impl Builder<'_> {
    /// The provider of tracers. With nowhere to send spans it still gives them ids, for logs and for other processes.
    pub(super) fn tracer_provider(&self) -> Result<SdkTracerProvider> {
        let mut builder = SdkTracerProvider::builder()
            .with_resource(self.resource())
            .with_sampler(sampler(self.config.sampler));
        if let Some(otlp) = &self.config.traces.otlp {
            let exporter = self.spans(otlp)?;
            builder = builder.with_span_processor(self.batched(self.watched("traces", exporter)));
        }
        if self.config.traces.console {
            builder = builder.with_span_processor(self.batched(Console::new(Arc::clone(&self.sink))));
        }
        Ok(builder.build())
    }

    /// The provider of meters, without the reader for /metrics.
    pub(super) fn meter_provider(&self) -> Result<MeterProviderBuilder> {
        let mut builder = SdkMeterProvider::builder().with_resource(self.resource());
        if let Some(otlp) = &self.config.metrics.otlp {
            let exporter = self.watched("metrics", self.metrics(otlp)?);
            builder = builder.with_reader(self.periodic(exporter));
        }
        if self.config.metrics.console {
            builder = builder.with_reader(self.periodic(Console::new(Arc::clone(&self.sink))));
        }
        Ok(builder)
    }

    fn resource(&self) -> Resource {
        let attributes =
            self.config.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
        Resource::builder_empty().with_attributes(attributes).build()
    }

    fn batched(&self, exporter: impl SpanExporter + 'static) -> BatchSpanProcessor {
        let batch = BatchConfigBuilder::default()
            .with_max_queue_size(self.config.queue_spans)
            .with_max_export_batch_size(self.config.batch_spans)
            .with_scheduled_delay(self.config.batch_delay)
            .build();
        BatchSpanProcessor::builder(exporter).with_batch_config(batch).build()
    }

    fn periodic<E: PushMetricExporter>(&self, exporter: E) -> PeriodicReader<E> {
        PeriodicReader::builder(exporter).with_interval(self.config.metric_interval).build()
    }

    fn spans(&self, otlp: &Otlp) -> Result<OtlpSpans> {
        let built = match otlp.protocol {
            Protocol::Http => OtlpSpans::builder()
                .with_http()
                .with_http_client(http_client(otlp)?)
                .with_headers(otlp.headers.iter().cloned().collect())
                .with_endpoint(otlp.endpoint.as_str())
                .with_timeout(otlp.timeout)
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .build(),
            Protocol::Grpc => {
                let _entered = self.runtime.map(Runtime::enter);
                let builder = OtlpSpans::builder().with_tonic().with_metadata(metadata(otlp)?);
                let builder = builder.with_endpoint(otlp.endpoint.as_str()).with_timeout(otlp.timeout);
                match tls(otlp)? {
                    Some(tls) => builder.with_tls_config(tls).build(),
                    None => builder.build(),
                }
            }
        };
        built.map_err(|why| not_built(&why))
    }

    fn metrics(&self, otlp: &Otlp) -> Result<MetricExporter> {
        let builder = MetricExporter::builder().with_temporality(match self.config.temporality {
            Temporality::Cumulative => SdkTemporality::Cumulative,
            Temporality::Delta => SdkTemporality::Delta,
            Temporality::LowMemory => SdkTemporality::LowMemory,
        });
        let built = match otlp.protocol {
            Protocol::Http => builder
                .with_http()
                .with_http_client(http_client(otlp)?)
                .with_headers(otlp.headers.iter().cloned().collect())
                .with_endpoint(otlp.endpoint.as_str())
                .with_timeout(otlp.timeout)
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .build(),
            Protocol::Grpc => {
                let _entered = self.runtime.map(Runtime::enter);
                let builder = builder.with_tonic().with_metadata(metadata(otlp)?);
                let builder = builder.with_endpoint(otlp.endpoint.as_str()).with_timeout(otlp.timeout);
                match tls(otlp)? {
                    Some(tls) => builder.with_tls_config(tls).build(),
                    None => builder.build(),
                }
            }
        };
        built.map_err(|why| not_built(&why))
    }

    fn watched<E>(&self, signal: &'static str, exporter: E) -> Watched<E> {
        Watched { exporter, signal, log: Arc::clone(&self.log), state: Mutex::default() }
    }
}

fn sampler(sampler: Sampler) -> SdkSampler {
    let root = match sampler {
        Sampler::AlwaysOn | Sampler::ParentOn => SdkSampler::AlwaysOn,
        Sampler::AlwaysOff | Sampler::ParentOff => SdkSampler::AlwaysOff,
        Sampler::Ratio(part) | Sampler::ParentRatio(part) => SdkSampler::TraceIdRatioBased(part),
    };
    match sampler {
        Sampler::AlwaysOn | Sampler::AlwaysOff | Sampler::Ratio(_) => root,
        Sampler::ParentOn | Sampler::ParentOff | Sampler::ParentRatio(_) => {
            SdkSampler::ParentBased(Box::new(root))
        }
    }
}

fn not_built(why: &ExporterBuildError) -> Error {
    Error::invalid(format!("the OTLP exporter cannot be built: {why}"))
}

/// The blocking client, made on a thread of its own: it may not be made on one of tokio's. It follows no redirect, which
/// would carry our headers to another host.
fn http_client(otlp: &Otlp) -> Result<reqwest::blocking::Client> {
    let mut builder = reqwest::blocking::Client::builder()
        .timeout(otlp.timeout)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("spectrald/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = &otlp.certificate {
        let bad =
            |why: reqwest::Error| Error::invalid(format!("no PEM certificates: {why}")).in_file(shown(file));
        let certificates = reqwest::Certificate::from_pem_bundle(&read(file)?).map_err(bad)?;
        if certificates.is_empty() {
            return Err(Error::invalid("no PEM certificates").in_file(shown(file)));
        }
        builder = builder.tls_certs_only(certificates);
    }
    if let Some((certificate, key)) = &otlp.identity {
        let mut pem = read(certificate)?;
        pem.push(b'\n');
        pem.extend(read(key)?);
        let bad = |_| Error::invalid("no PEM certificate with its key").in_file(shown(certificate));
        builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(bad)?);
    }
    let thread = std::thread::Builder::new().name("telemetry-client".to_owned());
    let thread = thread
        .spawn(move || builder.build())
        .map_err(|why| Error::new(ErrorKind::Internal, format!("no thread for telemetry: {why}")))?;
    match thread.join() {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(why)) => Err(Error::invalid(format!("the OTLP client cannot be built: {}", chain(&why)))),
        Err(_) => Err(Error::new(ErrorKind::Internal, "the OTLP client cannot be built")),
    }
}

/// TLS for gRPC. The exporter's own default trusts no one.
fn tls(otlp: &Otlp) -> Result<Option<ClientTlsConfig>> {
    if otlp.endpoint.scheme() != "https" {
        return Ok(None);
    }
    let mut tls = match &otlp.certificate {
        Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(file)?)),
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    if let Some((certificate, key)) = &otlp.identity {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(Some(tls))
}

fn metadata(otlp: &Otlp) -> Result<MetadataMap> {
    let headers: HashMap<String, String> = otlp.headers.iter().cloned().collect();
    let mut headers: http::HeaderMap = http::HeaderMap::try_from(&headers)
        .map_err(|_| Error::invalid("a header cannot be sent").in_field("OTEL_EXPORTER_OTLP_HEADERS"))?;
    // HPACK keeps such values out of its tables, and `Debug` does not show them.
    headers.values_mut().for_each(|value: &mut http::HeaderValue| value.set_sensitive(true));
    Ok(MetadataMap::from_headers(headers))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(|why| Error::invalid(format!("cannot be read: {why}")).in_file(shown(file)))
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        out.push_str(": ");
        out.push_str(&cause.to_string());
        next = cause.source();
    }
    out
}

/// An exporter whose failures are logged: the first, then one a minute, then the recovery.
struct Watched<E> {
    exporter: E,
    signal: &'static str,
    log: Log,
    state: Mutex<Failing>,
}

#[derive(Default)]
struct Failing {
    /// Requests that failed since the last success.
    failed: u64,
    said: Option<Instant>,
}

impl<E: fmt::Debug> fmt::Debug for Watched<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({})", self.signal)
    }
}

impl<E> Watched<E> {
    fn note(&self, result: OTelSdkResult) -> OTelSdkResult {
        let Some(dispatch) = self.log.get().and_then(WeakDispatch::upgrade) else { return result };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let signal = self.signal;
        match &result {
            // Nothing was sent, by our own decision.
            Err(OTelSdkError::AlreadyShutdown) => {}
            Err(why) => {
                state.failed += 1;
                let failed = state.failed;
                if state.said.is_none_or(|at| at.elapsed() >= REMIND) {
                    state.said = Some(Instant::now());
                    tracing::dispatcher::with_default(&dispatch, || {
                        tracing::warn!(signal, failed, error = %why, "telemetry could not be exported");
                    });
                }
            }
            Ok(()) if state.failed > 0 => {
                let failed = state.failed;
                *state = Failing::default();
                tracing::dispatcher::with_default(&dispatch, || {
                    tracing::info!(signal, failed, "telemetry is exported again");
                });
            }
            Ok(()) => {}
        }
        result
    }
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.note(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Watched<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.note(self.exporter.export(metrics).await)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> SdkTemporality {
        self.exporter.temporality()
    }
}
