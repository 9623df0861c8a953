//! W3C trace context: a trace goes on in another process.
//!
//! A call carries `traceparent` in its metadata, a lease in the unit that it gives out. `tracestate` is not carried: nothing
//! here writes any.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The name of the header and of the metadata entry.
pub const TRACEPARENT: &str = "traceparent";

/// Cleared by `OTEL_PROPAGATORS=none`. One for the process, like the subscriber.
static ON: AtomicBool = AtomicBool::new(true);

pub(super) fn switch(on: bool) {
    ON.store(on, Ordering::Relaxed);
}

/// The current span as `traceparent`, for a call or a lease. `None` outside any trace.
pub fn inject() -> Option<String> {
    inject_span(&Span::current())
}

/// This span as `traceparent`.
pub fn inject_span(span: &Span) -> Option<String> {
    if !ON.load(Ordering::Relaxed) {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid()
        .then(|| format!("00-{}-{}-{:02x}", ids.trace_id(), ids.span_id(), ids.trace_flags().to_u8() & 1))
}

/// What a `traceparent` says; `None` if it is malformed, which is no reason to refuse a call.
pub fn parse(traceparent: &str) -> Option<SpanContext> {
    // A version of the future may be longer; nothing is this long.
    if traceparent.len() > 128 {
        return None;
    }
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    let ids = context.span().span_context().clone();
    ids.is_valid().then_some(ids)
}

/// Makes `span` a child of a span elsewhere. To be called before the span is entered. Returns whether it was done.
pub fn set_parent(span: &Span, traceparent: &str) -> bool {
    if !ON.load(Ordering::Relaxed) {
        return false;
    }
    let Some(ids) = parse(traceparent) else { return false };
    span.set_parent(Context::new().with_remote_span_context(ids)).is_ok()
}

/// Points from `span` to another one without being its child: a summary of many tasks would make a trace of too many
/// spans.
pub fn add_link(span: &Span, traceparent: &str) -> bool {
    let ids = parse(traceparent);
    let found = ids.is_some();
    if let Some(ids) = ids {
        span.add_link(ids);
    }
    found
}

/// A span for work that was given out elsewhere: `process NAME`, its parent the one that gave it out.
pub fn span_from(traceparent: &str, name: &'static str) -> Span {
    let span = tracing::info_span!("process", otel.name = format!("process {name}"), otel.kind = "consumer");
    set_parent(&span, traceparent);
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_headers_are_taken() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let ids = parse(good).unwrap();
        assert_eq!(ids.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(ids.is_sampled() && ids.is_remote());
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473x-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert!(parse(&format!("01-{}", "a-".repeat(100_000))).is_none());
    }

    #[test]
    fn outside_a_trace_there_is_nothing_to_inject() {
        assert_eq!(inject(), None);
    }
}
