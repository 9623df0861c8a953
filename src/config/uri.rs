//! URIs of configured roots and of what jobs name, read strictly: one spelling, one meaning.
//!
//! A URI that two programs could read differently is refused, not repaired: the check here and the store's client
//! must never disagree on what is asked for.

use crate::error::printable;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use url::Host;

/// Schemes, as they must be spelt.
const SCHEMES: [&str; 8] = ["s3", "gs", "az", "abfs", "abfss", "http", "https", "file"];
/// Longest URI, in bytes: the longest key of any store (1024), each byte percent-encoded, and a host.
const LONGEST: usize = 4096;
/// Names under which clouds serve a machine's own credentials.
const METADATA_HOSTS: [&str; 4] =
    ["metadata", "metadata.google.internal", "instance-data", "metadata.azure.internal"];

/// A URI in its only spelling: scheme in lower case, no user, query or fragment, no empty, `.` or `..` part,
/// percent-encoding only where it is needed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StrictUri {
    scheme: &'static str,
    /// The bucket, the container (`container@account…` for abfs), `host` or `host:port`; empty for `file`.
    authority: String,
    /// Parts of the path, decoded.
    parts: Vec<String>,
    is_directory: bool,
}

impl StrictUri {
    /// Reads `text`.
    ///
    /// # Errors
    /// What is wrong, in words that repeat no part of `text` that may be secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        check_characters(text)?;
        let (scheme, rest) = text.split_once("://").ok_or(
            "has no scheme: it must begin with one of s3, gs, az, abfs, abfss, http, https, file and ://",
        )?;
        let known = SCHEMES.iter().find(|known| **known == scheme);
        let scheme = *known.ok_or_else(|| unknown_scheme(scheme))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authority = match scheme {
            "file" if !authority.is_empty() => {
                return Err("a file URI must read file:///absolute/path".to_owned());
            }
            "file" => String::new(),
            "http" | "https" => host(scheme, authority)?,
            "abfs" | "abfss" => account(authority)?,
            _ => bucket(authority)?,
        };
        let (parts, is_directory) = split(path)?;
        Ok(Self { scheme, authority, parts, is_directory })
    }

    /// The scheme, in lower case: one of s3, gs, az, abfs, abfss, http, https, file.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Whether it ends in `/` (a bucket without a path does).
    pub fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// Whether this is `root` or lies under it; parts are compared whole.
    pub fn is_under(&self, root: &Self) -> bool {
        self.scheme == root.scheme && self.authority == root.authority && self.parts.starts_with(&root.parts)
    }

    /// How many parts the path has: of two roots that hold the same URI, the one with more is nearer.
    pub fn depth(&self) -> usize {
        self.parts.len()
    }

    /// The path of a `file` URI.
    pub fn file_path(&self) -> Option<PathBuf> {
        (self.scheme == "file").then(|| PathBuf::from(format!("/{}", self.parts.join("/"))))
    }

    /// A `file` URI without `/` at its end names a folder all the same; this is its spelling as a root.
    #[must_use]
    pub fn as_directory(mut self) -> Self {
        self.is_directory = true;
        self
    }
}

impl fmt::Display for StrictUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)?;
        for part in &self.parts {
            f.write_str("/")?;
            part.bytes().try_for_each(|byte| encode(f, byte))?;
        }
        if self.is_directory { f.write_str("/") } else { Ok(()) }
    }
}

fn encode(f: &mut fmt::Formatter<'_>, byte: u8) -> fmt::Result {
    let plain = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
    if plain { write!(f, "{}", char::from(byte)) } else { write!(f, "%{byte:02X}") }
}

/// `text` as it may be shown to people: no user, password, query or fragment, no control characters.
pub fn shown(text: &str) -> String {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let text = &text[..end];
    let Some((scheme, rest)) = text.split_once("://") else { return printable(text) };
    let authority = rest.split(['/', '\\']).next().unwrap_or_default();
    let secret = rest.rsplit_once('@').is_some_and(|(before, _)| before.contains(':'))
        || (authority.contains('@') && !scheme.starts_with("abfs"));
    if secret { format!("{}://…", printable(scheme)) } else { printable(text) }
}

fn unknown_scheme(scheme: &str) -> String {
    let lower = scheme.to_ascii_lowercase();
    if SCHEMES.contains(&lower.as_str()) {
        return format!("the scheme must be written in lower case: {lower}");
    }
    if lower == "s3a" || lower == "s3n" {
        return "the scheme must be written s3".to_owned();
    }
    // What stands before the first `://` may be anything, a secret too.
    "has an unknown scheme: we know s3, gs, az, abfs, abfss, http, https, file".to_owned()
}

fn check_characters(text: &str) -> Result<(), String> {
    if text.len() > LONGEST {
        return Err(format!("is {} bytes long, the most is {LONGEST}", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err("has control characters".to_owned());
    }
    if text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
        return Err("begins or ends with white space".to_owned());
    }
    match text.chars().find(|c| matches!(c, '\\' | '?' | '#')) {
        Some(found) => Err(format!("has a '{found}'")),
        None => Ok(()),
    }
}

fn bucket(authority: &str) -> Result<String, String> {
    refuse_user(authority)?;
    if authority.is_empty() {
        return Err("names no bucket".to_owned());
    }
    is_name(authority)
        .then(|| authority.to_owned())
        .ok_or_else(|| "the bucket's name may have A-Z a-z 0-9 . _ - only".to_owned())
}

fn account(authority: &str) -> Result<String, String> {
    let (container, host) = authority.split_once('@').unwrap_or((authority, "-"));
    if !is_name(container) || !is_name(host) {
        return Err("must read abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/".to_owned());
    }
    Ok(authority.to_owned())
}

fn is_name(text: &str) -> bool {
    let known = text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'));
    known && !text.is_empty() && text != "." && !text.contains("..")
}

fn refuse_user(authority: &str) -> Result<(), String> {
    if authority.contains('@') {
        return Err("has credentials in it: they belong in the root's configuration".to_owned());
    }
    Ok(())
}

/// `host` or `host:port`, the standard port left out.
fn host(scheme: &str, authority: &str) -> Result<String, String> {
    refuse_user(authority)?;
    let ends =
        if authority.starts_with('[') { authority.find(']').map(|at| at + 1) } else { authority.find(':') };
    let (name, port) = authority.split_at(ends.unwrap_or(authority.len()));
    if name.is_empty() {
        return Err("names no host".to_owned());
    }
    check_host(name)?;
    let standard = if scheme == "http" { 80 } else { 443 };
    let Some(digits) = port.strip_prefix(':') else {
        return if port.is_empty() {
            Ok(name.to_owned())
        } else {
            Err("the host is not well formed".to_owned())
        };
    };
    let plain = !digits.starts_with('0') && digits.bytes().all(|c| c.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if plain && port == standard => Ok(name.to_owned()),
        Ok(port) if plain => Ok(format!("{name}:{port}")),
        _ => Err("the port is not a number from 1 to 65535".to_owned()),
    }
}

/// A host in its only spelling, and not one that serves a machine's own secrets.
fn check_host(name: &str) -> Result<(), String> {
    let spelling = || {
        "the host must be written plainly: lower case, without a dot at its end, an address in its usual form"
            .to_owned()
    };
    let parsed = Host::parse(name).map_err(|_| "the host is not well formed".to_owned())?;
    // 2130706433, 0x7f.1, 127.1 and fullwidth letters are read as other hosts than they look like.
    if parsed.to_string() != name || name.ends_with('.') {
        return Err(spelling());
    }
    let forbidden = match parsed {
        Host::Domain(name) => METADATA_HOSTS.contains(&name.as_str()),
        Host::Ipv4(address) => is_forbidden_v4(address),
        Host::Ipv6(address) => is_forbidden_v6(address),
    };
    if forbidden {
        return Err("the host is a link-local, metadata, multicast or unspecified address".to_owned());
    }
    Ok(())
}

fn is_forbidden_v4(address: Ipv4Addr) -> bool {
    // 168.63.129.16 is Azure's, 100.100.100.200 is Alibaba's, 192.0.0.192 is Oracle's metadata address.
    let metadata = [[168, 63, 129, 16], [100, 100, 100, 200], [192, 0, 0, 192]];
    address.is_link_local()
        || address.is_unspecified()
        || address.octets()[0] == 0
        || address.is_multicast()
        || address.is_broadcast()
        || metadata.contains(&address.octets())
}

fn is_forbidden_v6(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    let link_local = first & 0xffc0 == 0xfe80;
    // fd00:ec2::254 is the metadata address of Amazon.
    let metadata = address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    // An IPv4 address in another dress (mapped, translated or 6to4) is a second spelling.
    let dressed = address.to_ipv4().is_some_and(|_| !address.is_loopback())
        || address.segments()[..2] == [0x64, 0xff9b]
        || first == 0x2002;
    link_local || metadata || dressed || address.is_unspecified() || address.is_multicast()
}

/// Parts of a path, decoded, and whether it is a directory.
fn split(path: &str) -> Result<(Vec<String>, bool), String> {
    let Some(path) = path.strip_prefix('/') else { return Ok((Vec::new(), true)) };
    if path.is_empty() {
        return Ok((Vec::new(), true));
    }
    let (path, is_directory) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
    let parts: Result<Vec<String>, String> = path.split('/').map(part).collect();
    Ok((parts?, is_directory))
}

fn part(encoded: &str) -> Result<String, String> {
    let decoded = decode(encoded)?;
    if matches!(decoded.as_str(), "" | "." | "..") {
        return Err("the path has an empty, '.' or '..' part".to_owned());
    }
    if decoded.chars().any(char::is_control) || decoded.contains(['/', '\\']) {
        return Err("the path has an encoded '/', '\\' or control character".to_owned());
    }
    // A `%` that survives decoding would be decoded again by somebody.
    if decoded.contains('%') {
        return Err("the path is percent-encoded twice".to_owned());
    }
    Ok(decoded)
}

fn decode(encoded: &str) -> Result<String, String> {
    let bad = || "the path has a '%' that is not followed by two hexadecimal digits".to_owned();
    let mut out = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(bad()) };
        out.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
    }
    String::from_utf8(out).map_err(|_| "the path is not UTF-8 once decoded".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_comes_out() {
        for (text, normal) in [
            ("s3://bucket", "s3://bucket/"),
            ("s3://bucket/", "s3://bucket/"),
            ("s3://bucket/a%20b/c", "s3://bucket/a%20b/c"),
            ("s3://bucket/a b/c", "s3://bucket/a%20b/c"),
            ("s3://bucket/%61/b", "s3://bucket/a/b"),
            ("s3://bucket/ü/", "s3://bucket/%C3%BC/"),
            ("https://h.example:443/m/", "https://h.example/m/"),
            ("http://h.example:8080/m", "http://h.example:8080/m"),
            ("http://[::1]:9000/m", "http://[::1]:9000/m"),
            ("http://127.0.0.1:80/m", "http://127.0.0.1/m"),
            ("abfss://c@a.dfs.core.windows.net/m/", "abfss://c@a.dfs.core.windows.net/m/"),
            ("file:///srv/my models/", "file:///srv/my%20models/"),
            ("file:///", "file:///"),
        ] {
            let uri = StrictUri::parse(text).unwrap();
            assert_eq!(uri.to_string(), normal, "{text}");
            assert_eq!(StrictUri::parse(normal).unwrap(), uri, "{text}: the normal form is read as itself");
        }
    }

    #[test]
    fn a_root_holds_whole_parts_only() {
        let under =
            |uri: &str, root: &str| StrictUri::parse(uri).unwrap().is_under(&StrictUri::parse(root).unwrap());
        assert!(
            under("s3://b/m/x", "s3://b/m/")
                && under("s3://b/m/", "s3://b/m/")
                && under("s3://b/x", "s3://b/")
        );
        assert!(!under("s3://b/models", "s3://b/m/") && !under("s3://b", "s3://b/m/"));
        assert!(!under("s3://c/m/x", "s3://b/m/") && !under("gs://b/m/x", "s3://b/m/"));
        assert!(!under("http://h:81/m/x", "http://h/m/"));
    }

    #[test]
    fn shown_text_has_no_secret() {
        for (text, expected) in [
            ("s3://b/a?X-Amz-Signature=s", "s3://b/a"),
            ("https://u:p@h/a#x", "https://…"),
            ("s3://KEY:SEC/RET@b/a", "s3://…"),
            ("s3://b/a@b", "s3://b/a@b"),
            ("abfss://c@a/x", "abfss://c@a/x"),
            ("s3://b/\n", "s3://b/\\n"),
            ("/etc/passwd", "/etc/passwd"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }
}
