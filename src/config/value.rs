//! What a value may be, and its reading from TOML or from the text of a variable or flag.

use super::uri::StrictUri;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Which values a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// One line of text that is not empty.
    Text,
    /// A name: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    Name,
    /// `host:port`, the host an IP address.
    Address,
    /// [`Kind::Address`], or `off`.
    AddressOrOff,
    /// An `http` or `https` URL of a server: host and port, no path.
    Url,
    /// A path; whether something is there is checked by the role that needs it.
    Path,
    /// `true` or `false`.
    Bool,
    /// A whole number between two bounds, both allowed.
    Count(u64, u64),
    /// A size in bytes between two bounds: `"8GiB"`, `"500MB"`, or a whole number of bytes.
    Bytes(u64, u64),
    /// A duration between two bounds in milliseconds: `"30s"`, `"1h 30m"`, `"250ms"`.
    Time(u64, u64),
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Address(SocketAddr),
    Off,
    Path(PathBuf),
    Bool(bool),
    /// A count or a number of bytes.
    Number(u64),
    Time(Duration),
}

/// A value as it stands in a file, or as a variable or flag gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// A TOML string.
    Text(String),
    /// A TOML integer; `None` where it is beyond 128 bits.
    Whole(Option<i128>),
    Bool(bool),
    /// Any other TOML type, by its name.
    Other(&'static str),
    /// From a variable or a flag: text whose type follows from the key.
    Untyped(String),
}

impl Raw {
    fn found(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Untyped(_) => "a string",
            Self::Whole(_) => "a whole number",
            Self::Bool(_) => "true or false",
            Self::Other(name) => name,
        }
    }

    /// The text, where text is expected.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Untyped(text) => Some(text),
            _ => None,
        }
    }
}

/// Reads `raw` as `kind`. The error says what is wrong, without the place.
pub(super) fn read(kind: Kind, raw: &Raw) -> Result<Value, String> {
    match kind {
        Kind::Bool => boolean(raw),
        Kind::Count(least, most) => count(raw, least, most),
        Kind::Bytes(least, most) => bytes(raw, least, most),
        Kind::Time(least, most) => time(raw, least, most),
        _ => {
            let text = raw.text().ok_or_else(|| format!("expected {}, found {}", name(kind), raw.found()))?;
            one_line(text)?;
            from_text(kind, text)
        }
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Address => "a string \"IP:PORT\"",
        Kind::AddressOrOff => "a string \"IP:PORT\" or \"off\"",
        Kind::Url => "a string with a URL",
        Kind::Path => "a string with a path",
        _ => "a string",
    }
}

fn one_line(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("has control characters".to_owned());
    }
    Ok(())
}

fn from_text(kind: Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Name => {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if text.len() > 64 || !text.chars().all(known) {
                return Err(format!("'{text}' is not a name: 1 to 64 of A-Z a-z 0-9 . _ -"));
            }
            Ok(Value::Text(text.to_owned()))
        }
        Kind::AddressOrOff if text == "off" => Ok(Value::Off),
        Kind::Address | Kind::AddressOrOff => {
            let address = text.parse::<SocketAddr>();
            address
                .map(Value::Address)
                .map_err(|_| format!("'{text}' is not IP:PORT, such as 127.0.0.1:7600 or [::1]:7600"))
        }
        Kind::Url => server_url(text).map(Value::Text),
        Kind::Path => Ok(Value::Path(PathBuf::from(text))),
        Kind::Choice(words) if !words.contains(&text) => {
            Err(format!("'{text}' is not one of {}", words.join(", ")))
        }
        _ => Ok(Value::Text(text.to_owned())),
    }
}

/// `http://host:port` of a server, without anything else.
fn server_url(text: &str) -> Result<String, String> {
    // The text is not repeated where it may hold a password.
    let url = url::Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("scheme '{}': a server's URL begins with http:// or https://", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials in a URL are not supported: use a token file".to_owned());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("a server's URL has no path, '?' or '#' part".to_owned());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn boolean(raw: &Raw) -> Result<Value, String> {
    match raw {
        Raw::Bool(value) => Ok(Value::Bool(*value)),
        Raw::Untyped(text) if text == "true" || text == "1" => Ok(Value::Bool(true)),
        Raw::Untyped(text) if text == "false" || text == "0" => Ok(Value::Bool(false)),
        Raw::Untyped(text) => Err(format!("'{text}' is neither true nor false")),
        other => Err(format!("expected true or false, found {}", other.found())),
    }
}

fn count(raw: &Raw, least: u64, most: u64) -> Result<Value, String> {
    let value = match raw {
        Raw::Whole(value) => *value,
        Raw::Untyped(text) => {
            Some(text.replace('_', "").parse().map_err(|_| format!("'{text}' is not a whole number"))?)
        }
        other => return Err(format!("expected a whole number, found {}", other.found())),
    };
    let number = value.and_then(|value| u64::try_from(value).ok()).filter(|n| (least..=most).contains(n));
    let shown = value.map_or_else(|| "the number".to_owned(), |value| value.to_string());
    number.map(Value::Number).ok_or_else(|| format!("{shown} is out of range: {least} to {most}"))
}

fn bytes(raw: &Raw, least: u64, most: u64) -> Result<Value, String> {
    let (value, shown) = match raw {
        Raw::Whole(value) => {
            (value.and_then(|value| u64::try_from(value).ok()), value.unwrap_or(i128::MAX).to_string())
        }
        Raw::Text(text) | Raw::Untyped(text) => {
            let size = text.parse::<bytesize::ByteSize>();
            let size = size.map_err(|_| format!("'{text}' is not a size, such as \"8GiB\" or 8589934592"))?;
            (Some(size.as_u64()), text.clone())
        }
        other => return Err(format!("expected a size such as \"8GiB\", found {}", other.found())),
    };
    value
        .filter(|n| (least..=most).contains(n))
        .map(Value::Number)
        .ok_or_else(|| format!("{shown} is out of range: {} to {}", show_bytes(least), show_bytes(most)))
}

fn time(raw: &Raw, least: u64, most: u64) -> Result<Value, String> {
    let Some(text) = raw.text() else {
        return Err(format!("expected a duration such as \"30s\", found {}", raw.found()));
    };
    let value = parse_time(text)
        .ok_or_else(|| format!("'{text}' is not a duration, such as \"30s\" or \"1h 30m\""))?;
    let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
    if value < least || value > most {
        return Err(format!("{text} is out of range: {} to {}", show_time(least), show_time(most)));
    }
    Ok(Value::Time(value))
}

fn parse_time(text: &str) -> Option<Duration> {
    humantime_serde::re::humantime::parse_duration(text).ok()
}

/// A duration as the file writes it.
pub(super) fn show_time(value: Duration) -> String {
    humantime_serde::re::humantime::format_duration(value).to_string()
}

/// A number of bytes in the largest binary unit that holds it exactly.
pub(super) fn show_bytes(value: u64) -> String {
    let units = [("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = |shift: &u32| value != 0 && value.trailing_zeros() >= *shift;
    let unit = units.iter().find(|(_, shift)| whole(shift));
    unit.map_or_else(|| format!("{value}B"), |(unit, shift)| format!("{}{unit}", value >> shift))
}

/// `value` as TOML.
pub(super) fn to_toml(kind: Kind, value: &Value) -> String {
    let text = match value {
        Value::Bool(value) => return value.to_string(),
        Value::Number(value) if matches!(kind, Kind::Count(..)) => return value.to_string(),
        Value::Number(value) => show_bytes(*value),
        Value::Text(text) => text.clone(),
        Value::Address(address) => address.to_string(),
        Value::Off => "off".to_owned(),
        Value::Path(path) => path.display().to_string(),
        Value::Time(value) => show_time(*value),
    };
    quoted(&text)
}

/// `text` as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Reads a root's URI, which must end in `/`.
pub(super) fn root_uri(text: &str) -> Result<StrictUri, String> {
    let uri = StrictUri::parse(text)?;
    if !uri.is_directory() {
        return Err("does not end in '/': a root is a bucket or a folder".to_owned());
    }
    Ok(uri)
}
