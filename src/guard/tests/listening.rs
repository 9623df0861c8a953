//! The listener: certificates, their reload, stalls and caps, over real sockets.

use super::policies::capture;
use crate::config::{CoordinatorTls, WorkerTls};
use crate::guard::testing::{Authority, Served, reason, serve};
use crate::guard::*;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

const GET: &str = "/spectrald.v1.AnalysisService/GetAnalysis";
const REPORT: &str = "/spectrald.worker.v1.TaskService/Report";

/// Long enough for anything that does end.
const SOON: Duration = Duration::from_secs(30);

/// A folder with server.crt, server.key and ca.crt of one authority, and clients.crt of the clients' authority.
fn folder() -> (tempfile::TempDir, Authority, Authority) {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    servers.issue(folder.path(), "server", 2090);
    servers.write(folder.path(), "ca");
    clients.write(folder.path(), "clients");
    (folder, servers, clients)
}

fn options(folder: &Path) -> ListenOptions {
    let file = |name: &str| folder.join(name);
    let tls = CoordinatorTls {
        cert: file("server.crt"),
        key: file("server.key"),
        client_ca: Some(file("clients.crt")),
    };
    ListenOptions { tls: Some(tls), reload_every: Duration::ZERO, ..ListenOptions::default() }
}

fn by_certificate() -> Policy {
    Policy::new(None, true, "10.0.0.1:1".parse().unwrap()).unwrap()
}

fn open() -> Policy {
    Policy::new(None, false, "127.0.0.1:1".parse().unwrap()).unwrap()
}

/// A client that trusts `ca` and shows the certificate of that name.
fn client(folder: &Path, ca: &str, cert: Option<&str>) -> WorkerTls {
    WorkerTls {
        ca: Some(folder.join(format!("{ca}.crt"))),
        cert: cert.map(|name| folder.join(format!("{name}.crt"))),
        key: cert.map(|name| folder.join(format!("{name}.key"))),
        server_name: Some("localhost".to_owned()),
    }
}

async fn connect(address: SocketAddr, tls: Option<&WorkerTls>) -> Result<Channel, tonic::transport::Error> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).unwrap();
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(client_tls(tls).unwrap()).unwrap();
    }
    endpoint.connect().await
}

async fn call(channel: &Channel, path: &'static str) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary::<(), (), _>(tonic::Request::new(()), path, ProstCodec::default()).await.map(|_| ())
}

/// Connects and calls; a connection that fails is `Unavailable`.
async fn once(served: &Served, tls: &WorkerTls, path: &'static str) -> Result<(), Status> {
    let channel = connect(served.address, Some(tls)).await;
    call(&channel.map_err(|error| Status::unavailable(error.to_string()))?, path).await
}

/// Waits until `what` holds; the test is one thread, and the server runs meanwhile.
async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("in time");
}

#[tokio::test]
async fn a_verified_certificate_makes_a_worker_and_nothing_else() {
    let (folder, _, clients) = folder();
    clients.issue(folder.path(), "good", 2090);
    let served = serve(&options(folder.path()), by_certificate()).await;
    let tls = client(folder.path(), "ca", Some("good"));
    // Nobody serves the worker's method here: tonic's own answer, without our ErrorInfo, shows that the guard let it in.
    let status = once(&served, &tls, REPORT).await.unwrap_err();
    assert_eq!((status.code(), status.details().len()), (Code::Unimplemented, 0), "{status:?}");
    let status = once(&served, &tls, GET).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "ROLE_MISSING"));
    // Without a certificate the connection stands, and the call is refused.
    let status = once(&served, &client(folder.path(), "ca", None), REPORT).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "NO_CREDENTIALS"));
    assert_eq!((served.counts.accepted(), served.counts.failed_handshakes()), (3, 0));
    assert!(served.stub.callers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn expired_and_foreign_certificates_do_not_connect() {
    let (folder, servers, clients) = folder();
    clients.issue(folder.path(), "expired", 2001);
    servers.issue(folder.path(), "foreign", 2090);
    Authority::new("clients").issue(folder.path(), "namesake", 2090);
    let served = serve(&options(folder.path()), by_certificate()).await;
    for (failures, name) in [(1, "expired"), (2, "foreign"), (3, "namesake")] {
        let status = once(&served, &client(folder.path(), "ca", Some(name)), REPORT).await.unwrap_err();
        assert!(matches!(status.code(), Code::Unavailable | Code::Unknown), "{name}: {status:?}");
        assert!(status.details().is_empty(), "{name}: no rpc was answered");
        until(|| served.counts.failed_handshakes() == failures).await;
    }
    // A server that the client's authority does not vouch for is refused by the client.
    let status = once(&served, &client(folder.path(), "clients", None), REPORT).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    until(|| served.counts.failed_handshakes() == 4).await;
    assert_eq!(served.counts.accepted(), 0);
}

#[tokio::test]
async fn new_files_count_from_the_next_connection_and_broken_ones_do_not() {
    let (folder, _, clients) = folder();
    clients.issue(folder.path(), "good", 2090);
    let served = serve(&options(folder.path()), by_certificate()).await;
    let tls = client(folder.path(), "ca", Some("good"));
    let old = connect(served.address, Some(&tls)).await.unwrap();
    assert_eq!(call(&old, REPORT).await.unwrap_err().code(), Code::Unimplemented);

    let next = Authority::new("next");
    next.write(folder.path(), "next");
    next.issue(folder.path(), "server", 2090);
    assert_eq!(once(&served, &tls, REPORT).await.unwrap_err().code(), Code::Unavailable);
    let tls = client(folder.path(), "next", Some("good"));
    assert_eq!(once(&served, &tls, REPORT).await.unwrap_err().code(), Code::Unimplemented);
    assert_eq!(
        call(&old, REPORT).await.unwrap_err().code(),
        Code::Unimplemented,
        "the old connection stands"
    );

    let (log, guard) = capture();
    fs::write(folder.path().join("server.key"), "broken").unwrap();
    for _ in 0..2 {
        assert_eq!(once(&served, &tls, REPORT).await.unwrap_err().code(), Code::Unimplemented);
    }
    assert_eq!(log.text().matches("the old ones stay in force").count(), 1, "{}", log.text());
    assert!(log.text().contains("server.key: holds no private key in PEM form"), "{}", log.text());
    drop(guard);

    // Another authority of clients: those of the first are out.
    next.issue(folder.path(), "server", 2090);
    Authority::new("other").write(folder.path(), "clients");
    let before = served.counts.failed_handshakes();
    let status = once(&served, &tls, REPORT).await.unwrap_err();
    assert_ne!(status.code(), Code::Unimplemented);
    until(|| served.counts.failed_handshakes() == before + 1).await;
}

#[tokio::test]
async fn a_handshake_that_stalls_is_cut_off_and_holds_up_nobody() {
    let (folder, _, clients) = folder();
    clients.issue(folder.path(), "good", 2090);
    let served = serve(&options(folder.path()), by_certificate()).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    let tls = client(folder.path(), "ca", Some("good"));
    assert_eq!(once(&served, &tls, REPORT).await.unwrap_err().code(), Code::Unimplemented);
    assert_eq!(served.counts.slow_handshakes(), 0);

    let short = ListenOptions { handshake_timeout: Duration::from_millis(20), ..options(folder.path()) };
    let served = serve(&short, by_certificate()).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    // The first bytes of a handshake, and no more.
    stream.write_all(&[22, 3, 1, 0, 200, 1]).await.unwrap();
    assert!(is_closed(&mut stream).await);
    until(|| served.counts.slow_handshakes() == 1).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert!(is_closed(&mut stream).await);
    until(|| served.counts.failed_handshakes() == 1).await;
    assert_eq!(served.counts.accepted(), 0);
}

/// Whether the other end closes the connection, in time; what it sends before is read.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await;
    // Closed, or reset.
    read.is_ok()
}

#[tokio::test]
async fn a_connection_over_the_cap_is_closed_at_once_and_a_place_comes_back() {
    for (most, per_peer) in [(2, 10), (10, 2)] {
        let caps = ListenOptions {
            max_connections: most,
            max_connections_per_peer: per_peer,
            ..ListenOptions::default()
        };
        let served = serve(&caps, open()).await;
        let first = connect(served.address, None).await.unwrap();
        call(&first, GET).await.unwrap();
        let second = TcpStream::connect(served.address).await.unwrap();
        until(|| served.counts.accepted() == 2).await;
        let mut third = TcpStream::connect(served.address).await.unwrap();
        assert!(is_closed(&mut third).await);
        let over = (served.counts.over_total(), served.counts.over_peer());
        assert_eq!(over, if most == 2 { (1, 0) } else { (0, 1) });
        call(&first, GET).await.unwrap();
        drop(second);
        let again = async {
            loop {
                if let Ok(channel) = connect(served.address, None).await
                    && call(&channel, GET).await.is_ok()
                {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, again).await.expect("the place came back");
    }
}

#[tokio::test]
async fn wrong_files_are_named_before_a_port_is_bound() {
    let (folder, servers, _) = folder();
    servers.issue(folder.path(), "another", 2090);
    fs::write(folder.path().join("garbage"), "hunter2").unwrap();
    let listen = |change: fn(&mut CoordinatorTls, &Path)| {
        let mut options = options(folder.path());
        change(options.tls.as_mut().unwrap(), folder.path());
        async move {
            Listener::bind("127.0.0.1:0".parse().unwrap(), &options).await.err().unwrap().message().to_owned()
        }
    };
    let message = listen(|tls, folder| tls.cert = folder.join("garbage")).await;
    assert!(message.ends_with("garbage: holds no certificate in PEM form"), "{message}");
    let message = listen(|tls, folder| tls.key = folder.join("garbage")).await;
    assert!(message.ends_with("garbage: holds no private key in PEM form"), "{message}");
    let message = listen(|tls, folder| tls.client_ca = Some(folder.join("none.crt"))).await;
    assert!(message.contains("none.crt: cannot be read: No such file"), "{message}");
    let message = listen(|tls, folder| tls.key = folder.join("another.key")).await;
    assert!(message.contains("another.key: "), "the key of another certificate: {message}");
    let message = listen(|tls, folder| tls.cert = folder.to_path_buf()).await;
    assert!(message.contains("not a regular file"), "{message}");
    for change in [
        |tls: &mut WorkerTls| tls.ca = Some("/nowhere/ca".into()),
        |tls: &mut WorkerTls| tls.key = tls.ca.clone(),
    ] {
        let mut tls = client(folder.path(), "ca", Some("another"));
        change(&mut tls);
        let error = client_tls(&tls).unwrap_err();
        assert!(
            error.message().contains("ca: cannot be read")
                || error.message().contains("ca.crt: holds no private key"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_address_in_use_is_said_and_dropping_the_stream_frees_it() {
    let any = "127.0.0.1:0".parse().unwrap();
    let (listener, incoming) = Listener::bind(any, &ListenOptions::default()).await.unwrap();
    let address = listener.address();
    let error = Listener::bind(address, &ListenOptions::default()).await.err().unwrap();
    assert_eq!(error.kind(), crate::ErrorKind::Unavailable);
    assert!(error.message().starts_with(&format!("cannot listen on {address}: ")), "{error}");
    let running = tokio::spawn(listener.run());
    drop(incoming);
    tokio::time::timeout(SOON, running).await.expect("it ends").unwrap();
    Listener::bind(address, &ListenOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_token_file_of_a_worker_holds_one_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    for (text, good) in
        [("spd_x\n", true), ("spd_x", true), ("", false), ("a b", false), ("a\nb", false), ("ü", false)]
    {
        fs::write(&file, text).unwrap();
        let read = read_token(&file);
        assert_eq!(
            read.map(|token| token.expose().to_owned()).ok().as_deref(),
            good.then_some("spd_x"),
            "{text:?}"
        );
    }
}
