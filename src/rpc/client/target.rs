//! Where a coordinator is, and how it is reached: address, TLS, token.

use crate::config::Secret;
use crate::{Error, ErrorKind, Result};
use http::uri::{Authority, Uri};
use std::net::IpAddr;
use std::time::Duration;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// The port of a coordinator, where an address names none.
pub const DEFAULT_PORT: u16 = 7600;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// A coordinator and how to reach it.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// `host:port`, `http://host:port` or `https://host:port`; the port may be left out. Without a scheme it is
    /// https if `ca`, `cert` or `server_name` is given.
    pub addr: String,
    /// Bearer token.
    pub token: Option<Secret>,
    /// Certificates (PEM) of the authorities to trust, instead of those of the system.
    pub ca: Option<Vec<u8>>,
    /// Our own certificate (PEM), for mutual TLS.
    pub cert: Option<Vec<u8>>,
    /// Its key (PEM).
    pub key: Option<Secret>,
    /// The name that the server's certificate must have, if it is not the host of `addr`.
    pub server_name: Option<String>,
    /// Send the token over plain http to another machine all the same.
    pub insecure: bool,
}

/// An address that has been understood.
pub(super) struct Address {
    pub(super) secure: bool,
    authority: Authority,
}

impl Address {
    /// `http://host:port` or `https://host:port`.
    pub(super) fn uri(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    fn is_loopback(&self) -> bool {
        is_loopback_host(self.authority.host())
    }
}

/// Refuses a file of authorities that tonic would take for an empty one: without a certificate, or with a broken one.
fn check_authorities(pem: &[u8]) -> Result<()> {
    let wrong = |message: String| Error::invalid(message).in_field("--ca-cert");
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| wrong(format!("is not PEM: {e}")))?;
        store.add(certificate).map_err(|e| wrong(format!("has a broken certificate: {e}")))?;
    }
    if store.is_empty() { Err(wrong("has no certificate (PEM)".to_owned())) } else { Ok(()) }
}

/// Whether a host is this machine.
fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Target {
    /// Whether the coordinator is on this machine, so that a path means the same to it.
    ///
    /// # Errors
    /// `InvalidArgument`: an address that is none.
    pub fn is_loopback(&self) -> Result<bool> {
        Ok(self.address()?.is_loopback())
    }

    /// What the address says.
    pub(super) fn address(&self) -> Result<Address> {
        let wrong = |message: String| Error::invalid(message).in_field("--addr");
        let typed = self.addr.trim();
        let with_tls = self.ca.is_some() || self.cert.is_some() || self.server_name.is_some();
        let (secure, rest) = match typed.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", _)) if with_tls => {
                let message =
                    "http:// is without TLS; use https:// with --ca-cert, --client-cert, --server-name";
                return Err(wrong(message.to_owned()));
            }
            Some(("http", rest)) => (false, rest),
            Some((scheme, _)) => {
                return Err(wrong(format!("unknown scheme '{scheme}': we know http, https")));
            }
            None => (with_tls, typed),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(wrong("credentials in an address are not supported; use --token-file".to_owned()));
        }
        let parsed = rest.parse::<Authority>().ok().filter(|parsed| !parsed.host().is_empty());
        let parsed = parsed.ok_or_else(|| wrong(format!("'{typed}' is not HOST:PORT")))?;
        let authority =
            match parsed.port_u16() {
                Some(port) if port > 0 => parsed,
                None if parsed.as_str() == parsed.host() => format!("{}:{DEFAULT_PORT}", parsed.host())
                    .parse()
                    .map_err(|_| wrong(format!("'{typed}' is not HOST:PORT")))?,
                _ => return Err(wrong(format!("'{typed}' has no port from 1 to 65535"))),
            };
        Ok(Address { secure, authority })
    }

    /// The endpoint, not connected yet.
    pub(super) fn endpoint(&self) -> Result<Endpoint> {
        let address = self.address()?;
        self.check_token(&address)?;
        let uri: Uri = address.uri().parse().map_err(|e| {
            Error::invalid(format!("'{}' is not HOST:PORT: {e}", self.addr)).in_field("--addr")
        })?;
        let endpoint = Endpoint::from(uri)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .initial_connection_window_size(4 << 20)
            .initial_stream_window_size(1 << 20)
            .user_agent(concat!("spectrald/", env!("CARGO_PKG_VERSION")))
            .map_err(|e| Error::new(ErrorKind::Internal, format!("user agent: {e}")))?;
        if address.secure { self.tls(endpoint) } else { Ok(endpoint) }
    }

    fn check_token(&self, address: &Address) -> Result<()> {
        if self.token.is_some() && !address.secure && !address.is_loopback() && !self.insecure {
            let message = format!(
                "the token would go to {} in clear; use https://, or --insecure to send it all the same",
                address.authority
            );
            return Err(Error::invalid(message).in_field("--addr"));
        }
        Ok(())
    }

    fn tls(&self, endpoint: Endpoint) -> Result<Endpoint> {
        let mut tls = ClientTlsConfig::new().timeout(CONNECT_TIMEOUT);
        tls = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => tls.identity(Identity::from_pem(cert, key.expose())),
            (None, None) => tls,
            (Some(_), None) => return Err(Error::invalid("needs --client-key").in_field("--client-cert")),
            (None, Some(_)) => return Err(Error::invalid("needs --client-cert").in_field("--client-key")),
        };
        tls = match &self.ca {
            Some(ca) => {
                check_authorities(ca)?;
                tls.ca_certificate(Certificate::from_pem(ca))
            }
            None => tls.with_native_roots(),
        };
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        endpoint.tls_config(tls).map_err(|e| {
            // tonic says "transport error"; what is wrong with a certificate is in its cause
            let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            Error::invalid(format!("certificates for TLS cannot be used: {cause}"))
        })
    }

    /// The value of the `authorization` header.
    pub(super) fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>> {
        let Some(token) = &self.token else { return Ok(None) };
        let value = format!("Bearer {}", token.expose()).parse::<MetadataValue<Ascii>>();
        // the parser's own message is left out: it may show the token
        let wrong = |_| Error::invalid("has characters that no header can carry").in_field("token");
        let mut value = value.map_err(wrong)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(addr: &str) -> Target {
        Target { addr: addr.to_owned(), ..Target::default() }
    }

    #[test]
    fn addresses_are_understood() {
        let tls = Target { ca: Some(Vec::new()), ..Target::default() };
        for (addr, uri, loopback) in [
            ("127.0.0.1:7600", "http://127.0.0.1:7600", true),
            ("localhost", "http://localhost:7600", true),
            ("LOCALHOST:1", "http://LOCALHOST:1", true),
            ("[::1]:80", "http://[::1]:80", true),
            ("[::1]", "http://[::1]:7600", true),
            ("http://host:1/", "http://host:1", false),
            ("https://host", "https://host:7600", false),
            ("127.0.0.1.example:9", "http://127.0.0.1.example:9", false),
            ("10.0.0.1", "http://10.0.0.1:7600", false),
        ] {
            let address = target(addr).address().unwrap();
            assert_eq!((address.uri().as_str(), address.is_loopback()), (uri, loopback));
        }
        let address = Target { addr: "host:1".to_owned(), ..tls }.address().unwrap();
        assert_eq!(address.uri(), "https://host:1");
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        for (addr, message) in [
            ("", "'' is not HOST:PORT"),
            ("ftp://h", "unknown scheme 'ftp': we know http, https"),
            ("h/path", "'h/path' is not HOST:PORT"),
            ("h:0", "'h:0' has no port from 1 to 65535"),
            ("h:70000", "'h:70000' has no port from 1 to 65535"),
            ("http://u:p@h", "credentials in an address are not supported; use --token-file"),
        ] {
            let error = target(addr).endpoint().map(|_| ()).unwrap_err();
            assert_eq!(error.to_string(), format!("field '--addr': {message}"));
        }
        let plain = Target { ca: Some(Vec::new()), ..target("http://h:1") };
        let message = plain.endpoint().map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("http:// is without TLS"), "{message}");
    }

    #[test]
    fn a_token_does_not_leave_the_machine_in_clear() {
        let with_token = |addr: &str| Target { token: Some(Secret::new("hunter2")), ..target(addr) };
        assert!(with_token("127.0.0.1:1").endpoint().is_ok() && with_token("https://h:1").endpoint().is_ok());
        let error = with_token("h:1").endpoint().map(|_| ()).unwrap_err().to_string();
        let message = "field '--addr': the token would go to h:1 in clear; use https://, or --insecure to send it all the same";
        assert_eq!(error, message);
        assert!(Target { insecure: true, ..with_token("h:1") }.endpoint().is_ok());
        let odd = Target { token: Some(Secret::new("a\nhunter2")), ..target("h:1") };
        let error = odd.authorization().unwrap_err().to_string();
        assert!(!error.contains("hunter2") && error.contains("no header can carry"), "{error}");
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        let tls = |ca: &[u8]| Target { ca: Some(ca.to_vec()), ..target("https://h:1") };
        let alone = Target { cert: Some(Vec::new()), ..tls(b"") };
        let message = alone.endpoint().map(|_| ()).unwrap_err().to_string();
        assert_eq!(message, "field '--client-cert': needs --client-key");
        let rotten = tls(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let error = rotten.endpoint().map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("field '--ca-cert': has a broken certificate: "), "{error}");
        let error = tls(b"nothing").endpoint().map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, "field '--ca-cert': has no certificate (PEM)");
    }
}
