//! The `console` exporters: spans and metrics as lines on standard error, for a look by eye. Not for machines: the
//! layout may change.

use std::fmt::{self, Write as _};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use super::logs::{Sink, escape_text};

/// Writes lines to its sink.
#[derive(Clone)]
pub(super) struct Console(Sink);

impl Console {
    pub(super) fn new(sink: Sink) -> Self {
        Self(sink)
    }

    fn line(&self, text: &str) {
        let mut out = String::with_capacity(text.len() + 1);
        escape_text(&mut out, text);
        out.push('\n');
        (self.0)(out.as_bytes());
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Console")
    }
}

fn labels<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
    let mut out = String::new();
    for pair in attributes {
        // Writing to a string cannot fail.
        let _ = write!(out, " {}={}", pair.key, pair.value);
    }
    out
}

impl SpanExporter for Console {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        for span in batch {
            let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
            self.line(&format!(
                "span {} trace_id={} span_id={} parent={} seconds={}{}",
                span.name,
                span.span_context.trace_id(),
                span.span_context.span_id(),
                span.parent_span_id,
                took.as_secs_f64(),
                labels(span.attributes.iter()),
            ));
        }
        Ok(())
    }
}

impl PushMetricExporter for Console {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
            let name = metric.name();
            match metric.data() {
                AggregatedMetrics::F64(data) => self.points(name, data),
                AggregatedMetrics::U64(data) => self.points(name, data),
                AggregatedMetrics::I64(data) => self.points(name, data),
            }
        }
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

impl Console {
    fn points<T: fmt::Display + Copy>(&self, name: &str, data: &MetricData<T>) {
        match data {
            MetricData::Gauge(gauge) => {
                for point in gauge.data_points() {
                    self.line(&format!("metric {name} {}{}", point.value(), labels(point.attributes())));
                }
            }
            MetricData::Sum(sum) => {
                for point in sum.data_points() {
                    self.line(&format!("metric {name} {}{}", point.value(), labels(point.attributes())));
                }
            }
            MetricData::Histogram(histogram) => {
                for point in histogram.data_points() {
                    let (count, sum) = (point.count(), point.sum());
                    self.line(&format!(
                        "metric {name} count={count} sum={sum}{}",
                        labels(point.attributes())
                    ));
                }
            }
            // No instrument of ours makes one.
            MetricData::ExponentialHistogram(_) => {}
        }
    }
}
