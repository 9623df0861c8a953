//! What the standard `OTEL_*` variables ask for, resolved before anything is built.
//!
//! The Rust SDK reads only some of them, and reads those in silence: a misspelt value is dropped. Here each is read once,
//! from a function rather than from the process, so that tests set them side by side.
//!
//! The rule for what cannot be honoured: if data would go elsewhere, in clear, to no one, or in another amount than asked
//! (endpoint, protocol, headers, certificates, sampler, exporter names), it is an error and the program does not
//! start. If only a tuning is lost (compression, batch sizes, intervals), it is a warning in the log and the
//! default holds.

mod otlp;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use crate::{Error, Result};

pub use otlp::{Otlp, Protocol};

/// Where one signal goes. Nowhere, if both are off.
#[derive(Debug, Clone, Default)]
pub struct Signal {
    /// An OTLP collector.
    pub otlp: Option<Otlp>,
    /// Lines on standard error, for a look by eye.
    pub console: bool,
}

impl Signal {
    /// Whether anything is exported.
    pub fn is_on(&self) -> bool {
        self.otlp.is_some() || self.console
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.otlp, self.console) {
            (None, false) => f.write_str("off"),
            (None, true) => f.write_str("console"),
            (Some(otlp), false) => otlp.fmt(f),
            (Some(otlp), true) => write!(f, "{otlp}; console"),
        }
    }
}

/// `OTEL_TRACES_SAMPLER`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampler {
    /// Every trace, whatever the caller decided.
    AlwaysOn,
    /// No trace.
    AlwaysOff,
    /// This part of all traces, by trace id.
    Ratio(f64),
    /// What the caller decided; every trace that starts here.
    ParentOn,
    /// What the caller decided; no trace that starts here.
    ParentOff,
    /// What the caller decided; this part of the traces that start here.
    ParentRatio(f64),
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlwaysOn => f.write_str("always_on"),
            Self::AlwaysOff => f.write_str("always_off"),
            Self::Ratio(part) => write!(f, "traceidratio {part}"),
            Self::ParentOn => f.write_str("parentbased_always_on"),
            Self::ParentOff => f.write_str("parentbased_always_off"),
            Self::ParentRatio(part) => write!(f, "parentbased_traceidratio {part}"),
        }
    }
}

/// How sums are reported to a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temporality {
    /// Since the start of the process. The default.
    Cumulative,
    /// Since the last report.
    Delta,
    /// Delta for counters and histograms, cumulative for the rest.
    LowMemory,
}

/// The resolved configuration of telemetry.
#[derive(Debug, Clone)]
pub struct Config {
    /// `OTEL_SDK_DISABLED`: no export and no trace ids. /metrics stays.
    pub disabled: bool,
    /// Where spans go.
    pub traces: Signal,
    /// Where metrics go, besides /metrics.
    pub metrics: Signal,
    /// Which traces are kept.
    pub sampler: Sampler,
    /// Whether `traceparent` is sent and obeyed.
    pub propagate: bool,
    /// What this process is, by the names of the semantic conventions.
    pub resource: Vec<(String, String)>,
    /// Spans held while the collector is slow; those beyond are dropped.
    pub queue_spans: usize,
    /// Spans a request.
    pub batch_spans: usize,
    /// Time between two requests with spans.
    pub batch_delay: Duration,
    /// Time between two requests with metrics.
    pub metric_interval: Duration,
    /// How sums are reported.
    pub temporality: Temporality,
    /// What was asked for and is not done, in words.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the variables through `get`. `service` is the part of the program, for `service.name`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] with the variable as the field, never with its value if that can hold a
    /// secret.
    pub fn from_env(get: impl Fn(&str) -> Option<String>, service: &str) -> Result<Self> {
        let vars = Vars { get: &get, warnings: RefCell::default() };
        let disabled = vars.flag("OTEL_SDK_DISABLED");
        let (traces, metrics) = if disabled {
            (Signal::default(), Signal::default())
        } else {
            (otlp::signal(&vars, "TRACES")?, otlp::signal(&vars, "METRICS")?)
        };
        vars.warn_of_what_is_not_done();
        let queue_spans = vars.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048);
        let mut batch_spans = vars.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512);
        if batch_spans > queue_spans {
            vars.warn("OTEL_BSP_MAX_EXPORT_BATCH_SIZE is larger than the queue, whose size is used");
            batch_spans = queue_spans;
        }
        Ok(Self {
            disabled,
            traces,
            metrics,
            sampler: sampler(&vars)?,
            propagate: propagators(&vars)? && !disabled,
            resource: resource(&vars, service)?,
            queue_spans,
            batch_spans,
            batch_delay: vars.millis("OTEL_BSP_SCHEDULE_DELAY", 5_000),
            metric_interval: vars.millis("OTEL_METRIC_EXPORT_INTERVAL", 60_000),
            temporality: temporality(&vars),
            warnings: vars.warnings.into_inner(),
        })
    }

    /// The resource as one line.
    pub fn resource_line(&self) -> String {
        let pairs: Vec<String> =
            self.resource.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(",")
    }
}

/// The variables, and what is to be said about them.
struct Vars<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    warnings: RefCell<Vec<String>>,
}

impl Vars<'_> {
    /// The value; an empty one counts as unset, as the specification has it.
    fn text(&self, name: &str) -> Option<String> {
        (self.get)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn warn(&self, message: impl Into<String>) {
        let (message, mut warnings) = (message.into(), self.warnings.borrow_mut());
        // Both signals may meet the same variable.
        if !warnings.contains(&message) {
            warnings.push(message);
        }
    }

    fn flag(&self, name: &str) -> bool {
        match self.text(name) {
            None => false,
            Some(value) if value.eq_ignore_ascii_case("true") => true,
            Some(value) if value.eq_ignore_ascii_case("false") => false,
            Some(value) => {
                self.warn(format!("{name}: '{value}' is neither true nor false; false is used"));
                false
            }
        }
    }

    fn number(&self, name: &str, default: usize) -> usize {
        let Some(value) = self.text(name) else { return default };
        match value.parse() {
            Ok(number) if (1..=1_000_000_000).contains(&number) => number,
            _ => {
                self.warn(format!("{name}: '{value}' is not a positive whole number; {default} is used"));
                default
            }
        }
    }

    fn millis(&self, name: &str, default: usize) -> Duration {
        Duration::from_millis(self.number(name, default) as u64)
    }

    /// Variables of the specification that have no effect here.
    fn warn_of_what_is_not_done(&self) {
        for name in ["OTEL_BSP_EXPORT_TIMEOUT", "OTEL_METRIC_EXPORT_TIMEOUT"] {
            if self.text(name).is_some() {
                self.warn(format!("{name} has no effect; OTEL_EXPORTER_OTLP_TIMEOUT limits each request"));
            }
        }
        let logs = ["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "OTEL_LOGS_EXPORTER"];
        if logs.iter().any(|name| self.text(name).is_some_and(|value| value != "none")) {
            self.warn("logs are not sent by OTLP; they are lines on standard error");
        }
    }
}

fn invalid(variable: &str, message: impl Into<String>) -> Error {
    Error::invalid(message).in_field(variable)
}

fn sampler(vars: &Vars<'_>) -> Result<Sampler> {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    const KNOWN: &str = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, \
                         parentbased_traceidratio";
    let Some(name) = vars.text(NAME) else { return Ok(Sampler::ParentOn) };
    Ok(match name.as_str() {
        "always_on" => Sampler::AlwaysOn,
        "always_off" => Sampler::AlwaysOff,
        "traceidratio" => Sampler::Ratio(ratio(vars)?),
        "parentbased_always_on" => Sampler::ParentOn,
        "parentbased_always_off" => Sampler::ParentOff,
        "parentbased_traceidratio" => Sampler::ParentRatio(ratio(vars)?),
        other => return Err(invalid(NAME, format!("no sampler '{other}'; there are {KNOWN}"))),
    })
}

fn ratio(vars: &Vars<'_>) -> Result<f64> {
    const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
    let Some(text) = vars.text(NAME) else {
        vars.warn("OTEL_TRACES_SAMPLER_ARG is not set: every trace is sampled");
        return Ok(1.0);
    };
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(invalid(NAME, format!("'{text}' is not a number from 0 to 1"))),
    }
}

/// Whether W3C trace context is on. Baggage is allowed for and empty: nothing here sets any.
fn propagators(vars: &Vars<'_>) -> Result<bool> {
    const NAME: &str = "OTEL_PROPAGATORS";
    let Some(list) = vars.text(NAME) else { return Ok(true) };
    let mut on = false;
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name {
            "tracecontext" => on = true,
            "baggage" | "none" => {}
            other => {
                return Err(invalid(
                    NAME,
                    format!("no propagator '{other}'; there are tracecontext, baggage, none"),
                ));
            }
        }
    }
    Ok(on)
}

fn temporality(vars: &Vars<'_>) -> Temporality {
    const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    match vars.text(NAME).map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("cumulative") => Temporality::Cumulative,
        Some("delta") => Temporality::Delta,
        Some("lowmemory") => Temporality::LowMemory,
        Some(other) => {
            vars.warn(format!(
                "{NAME}: '{other}' is none of cumulative, delta, lowmemory; cumulative is used"
            ));
            Temporality::Cumulative
        }
    }
}

/// Defaults, then `OTEL_RESOURCE_ATTRIBUTES`, then `OTEL_SERVICE_NAME`: later ones win.
fn resource(vars: &Vars<'_>, service: &str) -> Result<Vec<(String, String)>> {
    const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let mut pairs = vec![
        ("service.name".to_owned(), format!("spectrald-{service}")),
        ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id".to_owned(), uuid::Uuid::new_v4().to_string()),
    ];
    let mut set = |name: String, value: String| match pairs.iter_mut().find(|pair| pair.0 == name) {
        Some(pair) => pair.1 = value,
        None => pairs.push((name, value)),
    };
    if let Some(list) = vars.text(NAME) {
        for (name, value) in otlp::pairs(NAME, &list)? {
            set(name, value);
        }
    }
    if let Some(name) = vars.text("OTEL_SERVICE_NAME") {
        set("service.name".to_owned(), name);
    }
    Ok(pairs)
}
