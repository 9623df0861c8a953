//! HTTP for models that others name: no redirect is followed, and no name may lead to an address of this machine's
//! own network.
//!
//! object_store's own connector follows redirects and takes whatever address a name resolves to. A service that reads
//! what its callers name must do neither: `http://names.example/x` could answer with a redirect to a metadata service,
//! or resolve to it. An address that is written out in an endpoint is the operator's choice and is left alone.

use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{ClientConfigKey as Key, ClientOptions};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, ClientBuilder, NoProxy, Proxy, StatusCode};
use std::error::Error as StdError;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// What the program calls itself, as object_store would.
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
/// The metadata service of AWS over IPv6; that over IPv4 is link-local.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// Settings of HTTP/2, which object_store does not use unless it is told to.
const NOT_HONOURED: [Key; 4] =
    [Key::Http2KeepAliveInterval, Key::Http2KeepAliveTimeout, Key::Http2MaxFrameSize, Key::Http2Only];

/// Why a request ended before the answer of the store that was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// By an answer that sends us elsewhere.
    Redirected(StatusCode),
    /// By a name that resolves to such an address.
    Forbidden(IpAddr),
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redirected(status) => {
                write!(f, "the store answers with a redirect ({status}), and redirects are not followed")
            }
            Self::Forbidden(address) => {
                write!(
                    f,
                    "its host resolves to {address}, a link-local or metadata address, which is not read"
                )
            }
        }
    }
}

impl StdError for Stopped {}

/// Connects as object_store's own connector, within the rules above.
#[derive(Debug)]
pub(super) struct Confined;

impl HttpConnector for Confined {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = builder(&Settings(options))?.build().map_err(|error| unsuitable(&error))?;
        Ok(HttpClient::new(Service(client)))
    }
}

/// Settings by their keys.
struct Settings<'a>(&'a ClientOptions);

impl Settings<'_> {
    fn text(&self, key: Key) -> Option<String> {
        self.0.get_config_value(&key)
    }

    /// As object_store reads its settings.
    fn is_on(&self, key: Key) -> object_store::Result<bool> {
        let Some(text) = self.text(key) else { return Ok(false) };
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "on" | "yes" | "y" => Ok(true),
            "0" | "false" | "off" | "no" | "n" => Ok(false),
            _ => Err(wrong(key, "is neither true nor false")),
        }
    }

    fn duration(&self, key: Key) -> object_store::Result<Option<Duration>> {
        let parse = |text: String| humantime_serde::re::humantime::parse_duration(&text);
        self.text(key).map(parse).transpose().map_err(|error| wrong(key, &error.to_string()))
    }

    fn number<T: FromStr>(&self, key: Key) -> object_store::Result<Option<T>> {
        let parse = |text: String| text.parse().map_err(|_| wrong(key, "is not a number"));
        self.text(key).map(parse).transpose()
    }
}

/// Of each setting either the effect or an error: none is passed over.
fn builder(settings: &Settings<'_>) -> object_store::Result<ClientBuilder> {
    for key in NOT_HONOURED {
        // An option that is off by default is shown as false.
        if settings.text(key).is_some_and(|value| value != "false") {
            return Err(wrong(key, "cannot be set where redirects are not followed"));
        }
    }
    if settings.is_on(Key::Http2KeepAliveWhileIdle)? {
        return Err(wrong(Key::Http2KeepAliveWhileIdle, "cannot be set where redirects are not followed"));
    }
    let mut builder = ClientBuilder::new()
        .redirect(reqwest::redirect::Policy::none())
        // Compressed answers would have another length than the object.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .dns_resolver(Arc::new(Names { shuffled: settings.is_on(Key::RandomizeAddresses)? }))
        .https_only(!settings.is_on(Key::AllowHttp)?)
        .user_agent(settings.text(Key::UserAgent).unwrap_or_else(|| USER_AGENT.to_owned()));
    if let Some(headers) = settings.0.get_default_headers() {
        builder = builder.default_headers(headers.clone());
    }
    if let Some(time) = settings.duration(Key::Timeout)? {
        builder = builder.timeout(time);
    }
    if let Some(time) = settings.duration(Key::ConnectTimeout)? {
        builder = builder.connect_timeout(time);
    }
    if let Some(time) = settings.duration(Key::ReadTimeout)? {
        builder = builder.read_timeout(time);
    }
    if let Some(time) = settings.duration(Key::PoolIdleTimeout)? {
        builder = builder.pool_idle_timeout(time);
    }
    if let Some(most) = settings.number(Key::PoolMaxIdlePerHost)? {
        builder = builder.pool_max_idle_per_host(most);
    }
    if settings.is_on(Key::Http1Only)? {
        builder = builder.http1_only();
    }
    if settings.is_on(Key::AllowInvalidCertificates)? {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if settings.is_on(Key::NoSystemCertificates)? {
        builder = builder.tls_certs_only(std::iter::empty());
    }
    with_proxy(settings, builder)
}

fn with_proxy(settings: &Settings<'_>, mut builder: ClientBuilder) -> object_store::Result<ClientBuilder> {
    let Some(url) = settings.text(Key::ProxyUrl) else { return Ok(builder) };
    // The address may hold a password, which the cause could repeat.
    let mut proxy = Proxy::all(url).map_err(|_| wrong(Key::ProxyUrl, "is not the URL of a proxy"))?;
    if let Some(pem) = settings.text(Key::ProxyCaCertificate) {
        let certificate = Certificate::from_pem(pem.as_bytes())
            .map_err(|_| wrong(Key::ProxyCaCertificate, "is not a certificate in PEM form"))?;
        builder = builder.tls_certs_merge(std::iter::once(certificate));
    }
    if let Some(hosts) = settings.text(Key::ProxyExcludes) {
        proxy = proxy.no_proxy(NoProxy::from_string(&hosts));
    }
    Ok(builder.proxy(proxy))
}

fn wrong(key: Key, what: &str) -> object_store::Error {
    generic(format!("'{}' {what}", key.as_ref()).into())
}

fn unsuitable(error: &(dyn StdError + 'static)) -> object_store::Error {
    let causes = std::iter::successors(Some(error), |error: &&(dyn StdError + 'static)| (*error).source());
    generic(causes.last().map(ToString::to_string).unwrap_or_default().into())
}

fn generic(source: Box<dyn StdError + Send + Sync>) -> object_store::Error {
    object_store::Error::Generic { store: "HTTP client", source }
}

/// A client whose redirects are errors.
#[derive(Debug)]
struct Service(reqwest::Client);

type Answer<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Service {
    fn call<'life0, 'async_trait>(&'life0 self, request: HttpRequest) -> Answer<'async_trait>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            // Of the kind that is not tried again.
            let stop = |why| HttpError::new(HttpErrorKind::Decode, why);
            match HttpService::call(&self.0, request).await {
                Ok(answer) => match answer.status() {
                    // The answer to a condition, which sends nobody anywhere.
                    StatusCode::NOT_MODIFIED => Ok(answer),
                    status if status.is_redirection() => Err(stop(Stopped::Redirected(status))),
                    _ => Ok(answer),
                },
                Err(error) => match stopped(&error) {
                    Some(why) => Err(stop(why)),
                    None => Err(error),
                },
            }
        })
    }
}

/// The rule that stopped a request, if one did.
pub(super) fn stopped(error: &(dyn StdError + 'static)) -> Option<Stopped> {
    std::iter::successors(Some(error), |error: &&(dyn StdError + 'static)| (*error).source())
        .find_map(|error| error.downcast_ref::<Stopped>().copied())
}

/// Resolves names as this machine does, but for addresses that nobody may be led to.
struct Names {
    /// Whether connections are to be spread over a name's addresses.
    shuffled: bool,
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let shuffled = self.shuffled;
        Box::pin(async move {
            // The port is put in its place by the caller.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let mut found = checked(found)?;
            if shuffled && !found.is_empty() {
                let random = RandomState::new().hash_one(name.as_str());
                let first = usize::try_from(random % found.len() as u64).unwrap_or_default();
                found.rotate_left(first);
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// All addresses of a name, or none: of a name that leads to one forbidden address, the others are not trusted.
fn checked(found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Stopped> {
    match found.iter().find(|address| is_forbidden(address.ip())) {
        Some(address) => Err(Stopped::Forbidden(address.ip())),
        None => Ok(found),
    }
}

/// Link-local addresses, among them the metadata services of clouds.
fn is_forbidden(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address == METADATA_V6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_and_metadata_addresses_are_forbidden() {
        let forbidden = |text: &str| is_forbidden(text.parse().unwrap());
        for text in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
        ] {
            assert!(forbidden(text), "{text}");
        }
        for text in ["127.0.0.1", "::1", "10.0.0.1", "169.253.1.1", "fec0::1", "fd00:ec2::253", "8.8.8.8"] {
            assert!(!forbidden(text), "{text}");
        }
    }

    #[test]
    fn one_forbidden_address_forbids_the_name() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let good = addresses(&["10.0.0.1:0", "[2001:db8::1]:0"]);
        assert_eq!(checked(good.clone()), Ok(good));
        let bad = addresses(&["10.0.0.1:0", "169.254.169.254:0"]);
        assert_eq!(checked(bad), Err(Stopped::Forbidden("169.254.169.254".parse().unwrap())));
    }

    fn refused(key: Key, value: &str) -> String {
        let options = ClientOptions::new().with_config(key, value);
        let error = builder(&Settings(&options)).map(|_| ()).unwrap_err();
        StdError::source(&error).unwrap().to_string()
    }

    #[test]
    fn a_setting_is_honoured_or_refused() {
        for key in NOT_HONOURED.into_iter().chain([Key::Http2KeepAliveWhileIdle]) {
            let value = match key {
                Key::Http2MaxFrameSize => "20000",
                Key::Http2Only | Key::Http2KeepAliveWhileIdle => "true",
                _ => "5s",
            };
            let expected = format!("'{}' cannot be set where redirects are not followed", key.as_ref());
            assert_eq!(refused(key, value), expected);
        }
        assert_eq!(refused(Key::AllowHttp, "perhaps"), "'allow_http' is neither true nor false");
        assert_eq!(refused(Key::PoolMaxIdlePerHost, "-1"), "'pool_max_idle_per_host' is not a number");
        assert!(refused(Key::Timeout, "soon").starts_with("'timeout' "));
        assert_eq!(refused(Key::ProxyUrl, "http://u:hunter2@[::1/"), "'proxy_url' is not the URL of a proxy");
        let all = [
            (Key::AllowHttp, "true"),
            (Key::Timeout, "1m 30s"),
            (Key::ConnectTimeout, "250ms"),
            (Key::ReadTimeout, "5 s"),
            (Key::PoolIdleTimeout, "9s"),
            (Key::PoolMaxIdlePerHost, "3"),
            (Key::Http1Only, "false"),
            (Key::AllowInvalidCertificates, "true"),
            (Key::RandomizeAddresses, "no"),
            (Key::UserAgent, "auditor/1"),
            (Key::ProxyUrl, "http://127.0.0.1:9/"),
            (Key::ProxyExcludes, "localhost"),
            (Key::DefaultContentType, "text/plain"),
        ];
        let options = all.into_iter().fold(ClientOptions::new(), |o, (key, value)| o.with_config(key, value));
        assert!(builder(&Settings(&options)).unwrap().build().is_ok());
    }
}
