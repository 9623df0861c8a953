//! The variables of the OTLP exporter, general and for one signal.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::{Signal, Vars, invalid};
use crate::Result;

/// `OTEL_EXPORTER_OTLP_PROTOCOL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Protobuf over HTTP/1.1. The default.
    Http,
    /// gRPC.
    Grpc,
}

/// One collector as one signal sees it. `Debug` and `Display` show no value of a header.
#[derive(Clone)]
pub struct Otlp {
    /// How it is spoken to.
    pub protocol: Protocol,
    /// The whole URL, with the path of the signal where the protocol is HTTP.
    pub endpoint: Url,
    /// Names and values, the values being secrets.
    pub headers: Vec<(String, String)>,
    /// Limit of one request with its retries.
    pub timeout: Duration,
    /// PEM file of the authorities that are trusted instead of the system's.
    pub certificate: Option<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl fmt::Display for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Http => "http/protobuf",
            Protocol::Grpc => "grpc",
        };
        // A query may hold a key.
        let mut endpoint = self.endpoint.clone();
        if endpoint.query().is_some() {
            endpoint.set_query(Some("hidden"));
        }
        write!(f, "otlp {protocol} {endpoint} timeout={}ms", self.timeout.as_millis())?;
        for (name, _) in &self.headers {
            write!(f, " header {name}=<hidden>")?;
        }
        if let Some(file) = &self.certificate {
            write!(f, " certificate={}", file.display())?;
        }
        if let Some((certificate, key)) = &self.identity {
            write!(f, " client_certificate={} client_key={}", certificate.display(), key.display())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A variable of the exporter for one signal, which falls back to the general one.
struct Lookup<'a> {
    vars: &'a Vars<'a>,
    signal: &'a str,
}

impl Lookup<'_> {
    /// The value and the name of the variable that has it.
    fn find(&self, what: &str) -> Option<(String, String)> {
        let names =
            [format!("OTEL_EXPORTER_OTLP_{}_{what}", self.signal), format!("OTEL_EXPORTER_OTLP_{what}")];
        names.into_iter().find_map(|name| self.vars.text(&name).map(|value| (name, value)))
    }

    fn file(&self, what: &str) -> Option<PathBuf> {
        self.find(what).map(|(_, value)| PathBuf::from(value))
    }
}

/// Where `signal` (`TRACES` or `METRICS`) goes.
pub(super) fn signal(vars: &Vars<'_>, signal: &str) -> Result<Signal> {
    let lookup = Lookup { vars, signal };
    let name = format!("OTEL_{signal}_EXPORTER");
    let Some(list) = vars.text(&name) else {
        // Nothing is sent unless someone said where: no errors about a collector on localhost.
        let otlp = lookup.find("ENDPOINT").is_some().then(|| otlp(&lookup)).transpose()?;
        return Ok(Signal { otlp, console: false });
    };
    let mut out = Signal::default();
    for exporter in list.split(',').map(str::trim).filter(|exporter| !exporter.is_empty()) {
        match exporter {
            "otlp" => out.otlp = Some(otlp(&lookup)?),
            "console" => out.console = true,
            "none" => {}
            // Always there, on the HTTP port.
            "prometheus" if signal == "METRICS" => {}
            other => {
                return Err(invalid(&name, format!("no exporter '{other}'; there are otlp, console, none")));
            }
        }
    }
    Ok(out)
}

fn otlp(lookup: &Lookup<'_>) -> Result<Otlp> {
    let protocol = protocol(lookup)?;
    let endpoint = endpoint(lookup, protocol)?;
    let headers = match lookup.find("HEADERS") {
        None => Vec::new(),
        Some((name, list)) => headers(&name, &list)?,
    };
    let timeout =
        lookup.find("TIMEOUT").map_or(Duration::from_secs(10), |(name, _)| lookup.vars.millis(&name, 10_000));
    if let Some((name, value)) = lookup.find("COMPRESSION")
        && !value.eq_ignore_ascii_case("none")
    {
        lookup.vars.warn(format!("{name}: '{value}' is not built in; requests are sent uncompressed"));
    }
    let identity = match (lookup.file("CLIENT_CERTIFICATE"), lookup.file("CLIENT_KEY")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => {
            return Err(invalid("OTEL_EXPORTER_OTLP_CLIENT_KEY", "the certificate has no key"));
        }
        (None, Some(_)) => {
            return Err(invalid("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "the key has no certificate"));
        }
    };
    let certificate = lookup.file("CERTIFICATE");
    if endpoint.scheme() == "http" && (certificate.is_some() || identity.is_some()) {
        return Err(invalid(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "certificates are set, but the scheme is http, which uses none; write https",
        ));
    }
    Ok(Otlp { protocol, endpoint, headers, timeout, certificate, identity })
}

fn protocol(lookup: &Lookup<'_>) -> Result<Protocol> {
    match lookup.find("PROTOCOL") {
        None => Ok(Protocol::Http),
        Some((_, value)) if value == "http/protobuf" => Ok(Protocol::Http),
        Some((_, value)) if value == "grpc" => Ok(Protocol::Grpc),
        Some((name, value)) => {
            Err(invalid(&name, format!("protocol '{value}' is not built in; there are http/protobuf, grpc")))
        }
    }
}

/// The URL. A general HTTP endpoint gets the path of the signal, one for the signal is used as it stands.
fn endpoint(lookup: &Lookup<'_>, protocol: Protocol) -> Result<Url> {
    let (name, mut text) = lookup.find("ENDPOINT").unwrap_or_else(|| {
        let port = if protocol == Protocol::Grpc { 4317 } else { 4318 };
        ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), format!("http://localhost:{port}"))
    });
    let insecure = lookup.find("INSECURE").is_some_and(|(name, _)| lookup.vars.flag(&name));
    if !text.contains("://") {
        if protocol == Protocol::Http {
            return Err(invalid(&name, "an endpoint starts with http:// or https://"));
        }
        text.insert_str(0, if insecure { "http://" } else { "https://" });
    } else if insecure && text.starts_with("https://") {
        lookup.vars.warn(format!("{name} says https, so OTEL_EXPORTER_OTLP_INSECURE has no effect"));
    }
    // The text is not repeated in errors: it may hold a password.
    let mut url = Url::parse(&text).map_err(|why| invalid(&name, format!("not a URL: {why}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid(&name, format!("scheme '{}' is neither http nor https", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(&name, "a URL with a password would be logged; use OTEL_EXPORTER_OTLP_HEADERS"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(invalid(&name, "the URL names no host"));
    }
    if protocol == Protocol::Http && name == "OTEL_EXPORTER_OTLP_ENDPOINT" {
        let path = format!("{}/v1/{}", url.path().trim_end_matches('/'), lookup.signal.to_ascii_lowercase());
        url.set_path(&path);
    }
    Ok(url)
}

/// Headers as `name=value,name=value`, the values percent-encoded.
fn headers(variable: &str, list: &str) -> Result<Vec<(String, String)>> {
    let pairs = pairs(variable, list)?;
    for (name, value) in &pairs {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(invalid(variable, format!("'{name}' is not the name of a header")));
        }
        if http::HeaderValue::from_str(value).is_err() {
            return Err(invalid(
                variable,
                format!("the value of header '{name}' has characters that none may have"),
            ));
        }
    }
    Ok(pairs)
}

/// `name=value,name=value` with percent-encoded values. Errors count the pairs and do not show them.
pub(super) fn pairs(variable: &str, list: &str) -> Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    for (index, pair) in list.split(',').map(str::trim).enumerate().filter(|(_, pair)| !pair.is_empty()) {
        let wrong = |what: &str| invalid(variable, format!("pair {} {what}", index + 1));
        let (name, value) = pair.split_once('=').ok_or_else(|| wrong("has no '='"))?;
        let name = name.trim();
        if name.is_empty() {
            return Err(wrong("has no name"));
        }
        let value = percent_decoded(value.trim()).ok_or_else(|| wrong("is not percent-encoded UTF-8"))?;
        out.push((name.to_owned(), value));
    }
    Ok(out)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}
