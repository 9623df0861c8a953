//! Lines of log: JSON for machines, text for people.
//!
//! Values in a log come from untrusted files: a tensor may be called anything, at any length. Here no value splits a
//! line, reaches a terminal as an escape sequence or turns text around; none is longer than its limit.

mod escape;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::sync::Arc;

use opentelemetry::trace::TraceContextExt as _;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

pub use escape::{escape_json, escape_text};

/// Longest value of a field, in bytes.
pub const MAX_FIELD: usize = 1024;
/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 4096;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where whole lines go, each with its line feed.
pub type Sink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// Standard error. A closed one loses the line and nothing else.
pub fn stderr() -> Sink {
    Arc::new(|line| {
        let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), line);
    })
}

/// A value as it will stand in a line.
enum Value {
    /// A number or truth value, which needs no quotes.
    Bare(String),
    Text(String),
}

/// Collects fields; the same name again replaces the value.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        // Words to the exporter of traces, not to readers.
        if field.name().starts_with("otel.") {
            return;
        }
        match self.0.iter_mut().find(|(name, _)| *name == field.name()) {
            Some(known) => known.1 = value,
            None => self.0.push((field.name(), value)),
        }
    }

    /// Text of anything, cut off while it is being written: a huge value is never built.
    fn set_text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let limit = if field.name() == "message" { MAX_MESSAGE } else { MAX_FIELD };
        let mut out = Capped { text: String::new(), limit };
        // An error here says that the limit was met.
        if out.write_fmt(value).is_err() {
            out.text.push('…');
        }
        self.set(field, Value::Text(out.text));
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let index = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.remove(index).1)
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = value.to_string();
        self.set(field, if value.is_finite() { Value::Bare(text) } else { Value::Text(text) });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::Bare(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::Bare(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::Bare(value.to_string()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set_text(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set_text(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set_text(field, format_args!("{value:?}"));
    }
}

struct Capped {
    text: String,
    limit: usize,
}

impl fmt::Write for Capped {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = self.limit - self.text.len();
        if part.len() <= room {
            self.text.push_str(part);
            return Ok(());
        }
        self.text.push_str(&part[..part.floor_char_boundary(room)]);
        Err(fmt::Error)
    }
}

/// The layer that writes lines.
pub struct Lines {
    format: Format,
    /// `coordinator`, `worker`, …
    service: &'static str,
    sink: Sink,
}

impl Lines {
    /// Lines of this look about this part of the program, written to `sink`.
    pub fn new(format: Format, service: &'static str, sink: Sink) -> Self {
        Self { format, service, sink }
    }
}

impl<S> Layer<S> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = Line {
            level: *event.metadata().level(),
            target: event.metadata().target(),
            message: match fields.take("message") {
                Some(Value::Text(text) | Value::Bare(text)) => text,
                None => event.metadata().name().to_owned(),
            },
            fields,
        };
        let mut out = String::with_capacity(256);
        // Writing to a string cannot fail, but for a clock before 1970.
        let _ = match self.format {
            Format::Json => self.json(&mut out, &line, event, &context),
            Format::Text => text(&mut out, &line, event, &context),
        };
        out.push('\n');
        (self.sink)(out.as_bytes());
    }
}

/// An event, taken apart.
struct Line {
    level: Level,
    target: &'static str,
    message: String,
    fields: Fields,
}

impl Lines {
    fn json<S>(
        &self,
        out: &mut String,
        line: &Line,
        event: &Event<'_>,
        context: &Context<'_, S>,
    ) -> fmt::Result
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        out.push_str("{\"timestamp\":\"");
        timestamp(out)?;
        write!(out, "\",\"level\":\"{}\",\"service\":\"{}\",\"target\":", line.level, self.service)?;
        escape_json(out, line.target);
        out.push_str(",\"message\":");
        escape_json(out, &line.message);
        let current = opentelemetry::Context::current();
        let ids = current.span().span_context().clone();
        if ids.is_valid() {
            write!(out, ",\"trace_id\":\"{}\",\"span_id\":\"{}\"", ids.trace_id(), ids.span_id())?;
        }
        if !line.fields.0.is_empty() {
            out.push_str(",\"fields\":{");
            json_fields(out, &line.fields);
            out.push('}');
        }
        let mut first = true;
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            out.push_str(if first { ",\"spans\":[{\"name\":" } else { ",{\"name\":" });
            first = false;
            escape_json(out, span.name());
            if let Some(fields) = span.extensions().get::<Fields>()
                && !fields.0.is_empty()
            {
                out.push(',');
                json_fields(out, fields);
            }
            out.push('}');
        }
        out.push_str(if first { "}" } else { "]}" });
        Ok(())
    }
}

fn json_fields(out: &mut String, fields: &Fields) {
    for (index, (name, value)) in fields.0.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        escape_json(out, name);
        out.push(':');
        match value {
            Value::Bare(text) => out.push_str(text),
            Value::Text(text) => escape_json(out, text),
        }
    }
}

fn text<S>(out: &mut String, line: &Line, event: &Event<'_>, context: &Context<'_, S>) -> fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    timestamp(out)?;
    write!(out, " {:>5} ", line.level)?;
    for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
        out.push_str(span.name());
        if let Some(fields) = span.extensions().get::<Fields>()
            && !fields.0.is_empty()
        {
            out.push('{');
            text_fields(out, fields);
            out.push('}');
        }
        out.push_str(": ");
    }
    escape_text(out, &line.message);
    if !line.fields.0.is_empty() {
        out.push(' ');
        text_fields(out, &line.fields);
    }
    Ok(())
}

fn text_fields(out: &mut String, fields: &Fields) {
    for (index, (name, value)) in fields.0.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        out.push_str(name);
        out.push('=');
        match value {
            Value::Bare(text) => out.push_str(text),
            Value::Text(text) => escape_text(out, text),
        }
    }
}

/// RFC 3339 in UTC with microseconds.
fn timestamp(out: &mut String) -> fmt::Result {
    SystemTime.format_time(&mut Writer::new(out))
}
