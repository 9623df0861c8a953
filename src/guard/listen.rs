//! The listener: connections for `tonic::transport::Server::serve_with_incoming`.

use super::slots::{Counts, Event, Slot, Slots};
use super::tls::Tls;
use super::tokens::hex;
use crate::config::{CoordinatorTls, Limits};
use crate::{Error, ErrorKind, Result};
use sha2::{Digest as _, Sha256};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Connections that wait for the server.
const WAITING: usize = 64;
/// Wait after a failure to accept, doubled up to the longest.
const BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// Connections as they come: what `serve_with_incoming` takes. Dropping it closes the port.
pub type Incoming = ReceiverStream<io::Result<Io>>;

/// How a port listens.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// Certificates, key and authorities; `None`: no TLS.
    pub tls: Option<CoordinatorTls>,
    /// Connections in all (1024).
    pub max_connections: usize,
    /// Connections from one IP address, or one IPv6 network of 64 bits (256).
    pub max_connections_per_peer: usize,
    /// Longest time for a TLS handshake (5 s).
    pub handshake_timeout: Duration,
    /// How often, at most, the files of `tls` are looked at for changes (1 s).
    pub reload_every: Duration,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            tls: None,
            max_connections: 1024,
            max_connections_per_peer: 256,
            handshake_timeout: Duration::from_secs(5),
            reload_every: Duration::from_secs(1),
        }
    }
}

impl ListenOptions {
    /// The options that the configuration asks for.
    pub fn from_config(tls: Option<&CoordinatorTls>, limits: &Limits) -> Self {
        Self {
            tls: tls.cloned(),
            max_connections: limits.max_connections,
            max_connections_per_peer: limits.max_connections_per_peer,
            handshake_timeout: limits.handshake_timeout,
            ..Self::default()
        }
    }
}

/// A bound port.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    accept: Accept,
}

/// What is done with each connection.
#[derive(Clone)]
struct Accept {
    tls: Option<Arc<Tls>>,
    handshake_timeout: Duration,
    slots: Arc<Slots>,
    counts: Arc<Counts>,
    sender: mpsc::Sender<io::Result<Io>>,
}

impl Listener {
    /// Reads certificates and binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// `InvalidArgument` for files that are wrong, `Unavailable` if the address cannot be bound.
    pub async fn bind(address: SocketAddr, options: &ListenOptions) -> Result<(Self, Incoming)> {
        let tls = options.tls.as_ref().map(|tls| Tls::new(tls, options.reload_every)).transpose()?;
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Unavailable, format!("cannot listen on {address}: {error}"))
        };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let accept = Accept {
            tls: tls.map(Arc::new),
            handshake_timeout: options.handshake_timeout,
            slots: Slots::new(options.max_connections, options.max_connections_per_peer),
            counts: Arc::default(),
            sender,
        };
        Ok((Self { socket, address, accept }, ReceiverStream::new(receiver)))
    }

    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What becomes of connections, for metrics.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.accept.counts)
    }

    /// Counts the connections that are open, for metrics.
    pub fn open_connections(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let slots = Arc::clone(&self.accept.slots);
        move || slots.open()
    }

    /// Accepts until the [`Incoming`] is dropped. Handshakes run in tasks of their own.
    pub async fn run(self) {
        let mut wait = BACKOFF;
        loop {
            let accepted = tokio::select! {
                () = self.accept.sender.closed() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    wait = BACKOFF;
                    self.accept.take(stream, address).await;
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    self.accept.counts.add(Event::FailedAccept);
                    tracing::error!(%error, wait_ms = wait.as_millis(), "cannot accept connections");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_BACKOFF);
                }
            }
        }
    }
}

/// Whether the next connection may be accepted at once: the failure was the last one's, and not, say, too many open
/// files, which would fail again at once and for ever.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

impl Accept {
    async fn take(&self, stream: TcpStream, address: SocketAddr) {
        let slot = match self.slots.take(address.ip()) {
            Ok(slot) => slot,
            Err(event) => {
                self.counts.add(event);
                tracing::warn!(peer = %address, cap = ?event, "connection closed: too many");
                return;
            }
        };
        // Small messages must not wait for the acknowledgement of those before them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(peer = %address, %error, "cannot set TCP_NODELAY");
        }
        let Some(tls) = &self.tls else {
            let peer = PeerInfo { address, certificates: None };
            return self.hand_over(Io { stream: Stream::Plain(stream), peer, _slot: slot }).await;
        };
        let (acceptor, this) = (tls.acceptor(), self.clone());
        tokio::spawn(async move {
            let handshake = tokio::time::timeout(this.handshake_timeout, acceptor.accept(stream));
            match handshake.await {
                Ok(Ok(stream)) => {
                    let certificates = stream.get_ref().1.peer_certificates().map(Certificates::new);
                    let peer = PeerInfo { address, certificates: certificates.map(Arc::new) };
                    this.hand_over(Io { stream: Stream::Tls(Box::new(stream)), peer, _slot: slot }).await;
                }
                Ok(Err(error)) => {
                    this.counts.add(Event::FailedHandshake);
                    tracing::warn!(peer = %address, %error, "TLS handshake failed");
                }
                Err(_) => {
                    this.counts.add(Event::SlowHandshake);
                    tracing::warn!(peer = %address, "TLS handshake took too long");
                }
            }
        });
    }

    async fn hand_over(&self, io: Io) {
        // The server may be gone: then so is the connection.
        if self.sender.send(Ok(io)).await.is_ok() {
            self.counts.add(Event::Accepted);
        }
    }
}

/// Who is at the other end: found in the extensions of each request.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    address: SocketAddr,
    certificates: Option<Arc<Certificates>>,
}

#[derive(Debug)]
struct Certificates {
    chain: Vec<CertificateDer<'static>>,
    fingerprint: String,
}

impl Certificates {
    fn new(chain: &[CertificateDer<'_>]) -> Self {
        let leaf = chain.first().map(|leaf| hex(&Sha256::digest(leaf))).unwrap_or_default();
        Self { chain: chain.iter().map(|one| one.clone().into_owned()).collect(), fingerprint: leaf }
    }
}

impl PeerInfo {
    /// The address at the other end, of a connection without a certificate.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, certificates: None }
    }

    /// The address at the other end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The verified certificates of the other end, leaf first; empty if it showed none.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        self.certificates.as_ref().map(|all| all.chain.as_slice()).unwrap_or_default()
    }

    /// SHA-256 of the verified leaf certificate, in hexadecimal.
    pub fn fingerprint(&self) -> Option<&str> {
        self.certificates.as_ref().map(|all| all.fingerprint.as_str())
    }
}

/// A connection, with TLS or without.
pub struct Io {
    stream: Stream,
    peer: PeerInfo,
    _slot: Slot,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Io {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

/// Calls the same method of whichever stream it is.
macro_rules! either {
    ($io:expr, $method:ident($($arg:expr),*)) => {
        match &mut $io.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).$method($($arg),*),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).$method($($arg),*),
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_open_files_is_no_matter_of_one_connection() {
        // EMFILE, ENFILE, ENOMEM would come again at once; ECONNABORTED, ECONNRESET and EINTR are over.
        for (code, one) in [(24, false), (23, false), (12, false), (103, true), (104, true), (4, true)] {
            assert_eq!(concerns_one_connection(&io::Error::from_raw_os_error(code)), one, "{code}");
        }
    }
}
