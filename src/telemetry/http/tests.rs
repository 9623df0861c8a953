use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::*;

struct Port {
    address: std::net::SocketAddr,
    metrics: Arc<Metrics>,
    ready: watch::Sender<Readiness>,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

const LIMITS: Limits =
    Limits { head: HEAD_TIMEOUT, connection: CONNECTION_TIMEOUT, connections: MAX_CONNECTIONS };

async fn port(limits: Limits) -> Port {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Arc::new(Metrics::standalone("coordinator").unwrap());
    let (ready, receiver) = watch::channel(Readiness::NotReady("starting"));
    let state = HttpState { metrics: Arc::clone(&metrics), ready: receiver };
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(serve_within(limits, listener, state, shutdown.clone()));
    Port { address, metrics, ready, shutdown, served }
}

impl Port {
    /// Sends these bytes and reads until the other side closes.
    async fn send(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good as an end.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }
}

fn status(answer: &str) -> &str {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or(answer)
}

#[tokio::test]
async fn metrics_are_text_for_prometheus() {
    let port = port(LIMITS).await;
    port.metrics.fetched(12);
    let answer = port.get("/metrics").await;
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("\nspectrald_fetch_bytes_total 12\n"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn health_and_readiness() {
    let port = port(LIMITS).await;
    assert_eq!(status(&port.get("/healthz").await), "200");
    for reason in ["starting", "recovering the store", "draining", "low on disk"] {
        port.ready.send_replace(Readiness::NotReady(reason));
        let answer = port.get("/readyz").await;
        assert_eq!(status(&answer), "503");
        assert!(answer.ends_with(&format!("\r\n\r\n{reason}\n")), "{answer}");
        assert_eq!(status(&port.get("/healthz").await), "200");
    }
    port.ready.send_replace(Readiness::Ready);
    assert!(port.get("/readyz").await.ends_with("\r\n\r\nready\n"));
    assert_eq!(status(&port.get("/").await), "404");
    // A body is announced and never sent: the answer does not wait for it.
    let post = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
    assert_eq!(status(&port.send(post).await), "405");
    let body = "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
    assert_eq!(status(&port.send(body).await), "200");
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_off() {
    let port = port(Limits { head: Duration::from_millis(50), ..LIMITS }).await;
    let began = std::time::Instant::now();
    let answer = port.send("GET /metrics HTTP/1.1\r\nHost: ").await;
    assert!(!answer.contains("200"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let answer = port.send(&format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(MAX_HEAD))).await;
    assert_eq!(status(&answer), "431");
    assert_eq!(status(&port.send("\0\0nonsense\r\n\r\n").await), "400");
}

#[tokio::test]
async fn a_whole_connection_has_a_limit() {
    let port = port(Limits { connection: Duration::from_millis(50), ..LIMITS }).await;
    let began = std::time::Instant::now();
    assert_eq!(port.send("").await, "");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn connections_are_counted() {
    let port = port(Limits { connections: 1, ..LIMITS }).await;
    let mut first = TcpStream::connect(port.address).await.unwrap();
    // The second comes after the first in the queue of the listener, so the place is taken.
    assert_eq!(port.get("/healthz").await, "");
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    first.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), "200");
    // The place is free again once the task has ended, soon after the close that we saw.
    let again = async {
        while status(&port.get("/healthz").await) != "200" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.unwrap();
}

#[tokio::test]
async fn shutdown_ends_it() {
    let port = port(LIMITS).await;
    let idle = TcpStream::connect(port.address).await.unwrap();
    assert_eq!(status(&port.get("/healthz").await), "200");
    port.shutdown.cancel();
    tokio::time::timeout(DRAIN + Duration::from_secs(3), port.served).await.unwrap().unwrap();
    assert!(TcpStream::connect(port.address).await.is_err());
    drop(idle);
}
