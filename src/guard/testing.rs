//! Certificates and servers for tests.

use super::*;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;
use tonic::Status;
use tonic::body::Body;
use tonic_prost::ProstCodec;

/// An authority of its own.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes NAME.crt and NAME.key for `localhost`; valid until that year.
    pub(super) fn issue(&self, folder: &Path, name: &str, until: i32) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(folder.join(format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    pub(super) fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.crt")), self.0.pem()).unwrap();
    }
}

/// A service that answers every method of AnalysisService: `Watch…` with one message and then silence, `Create…`
/// never, others at once.
#[derive(Clone, Default)]
pub(super) struct Stub {
    /// Callers seen, in order.
    pub(super) callers: Arc<Mutex<Vec<Option<Caller>>>>,
    /// Handlers and streams under way.
    pub(super) alive: Arc<AtomicUsize>,
    /// Told whenever `alive` falls.
    pub(super) ended: Arc<Notify>,
}

impl tonic::server::NamedService for Stub {
    const NAME: &'static str = "spectrald.v1.AnalysisService";
}

/// Counts down when dropped.
struct Alive(Stub);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
        self.0.ended.notify_waiters();
    }
}

impl Stub {
    fn start(&self) -> Alive {
        self.alive.fetch_add(1, Ordering::SeqCst);
        Alive(self.clone())
    }

    /// Waits until nothing is under way.
    pub(super) async fn idle(&self) {
        loop {
            let ended = self.ended.notified();
            if self.alive.load(Ordering::SeqCst) == 0 {
                return;
            }
            ended.await;
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl tower::Service<Request<Body>> for Stub {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        self.callers.lock().unwrap().push(request.extensions().get::<Caller>().cloned());
        let alive = self.start();
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<(), ()>::default());
            if method.starts_with("Create") {
                std::future::pending::<()>().await;
            }
            if !method.starts_with("Watch") {
                let unary = tower::service_fn(|_: tonic::Request<()>| async {
                    Ok::<_, Status>(tonic::Response::new(()))
                });
                return Ok(grpc.unary(unary, request).await);
            }
            let stream = futures_util::stream::once(async { Ok::<_, Status>(()) })
                .chain(futures_util::stream::pending());
            let stream = stream
                .inspect(move |_| {
                    let _ = &alive;
                })
                .boxed();
            let mut stream = Some(stream);
            let watch = tower::service_fn(move |_: tonic::Request<()>| {
                let stream = stream.take().unwrap();
                async { Ok::<_, Status>(tonic::Response::new(stream)) }
            });
            Ok(grpc.server_streaming(watch, request).await)
        })
    }
}

/// A running server.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    pub(super) counts: Arc<Counts>,
    pub(super) stub: Stub,
}

/// Serves a stub behind both layers.
pub(super) async fn serve(options: &ListenOptions, policy: Policy) -> Served {
    let (listener, incoming) = Listener::bind("127.0.0.1:0".parse().unwrap(), options).await.unwrap();
    let (address, counts, stub) = (listener.address(), listener.counts(), Stub::default());
    tokio::spawn(listener.run());
    let server = tonic::transport::Server::builder()
        .layer(DeadlineLayer::new(Duration::from_secs(60)))
        .layer(GuardLayer::new(Arc::new(policy)))
        .add_service(stub.clone());
    tokio::spawn(server.serve_with_incoming(incoming));
    Served { address, counts, stub }
}

/// A call of a method of AnalysisService with an empty message.
pub(super) fn request(method: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post(format!("http://localhost/spectrald.v1.AnalysisService/{method}"));
    for (name, value) in headers.iter().chain(&[("content-type", "application/grpc"), ("te", "trailers")]) {
        request = request.header(*name, *value);
    }
    request.body(Body::new(Message(Some(Bytes::from_static(&[0; 5]))))).unwrap()
}

/// One message as a body.
struct Message(Option<Bytes>);

impl http_body::Body for Message {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

/// Reads an answer to its end: messages in bytes, and the status.
pub(super) async fn finish<B>(response: Response<B>) -> (usize, Status)
where
    B: http_body::Body + Unpin,
    B::Error: std::fmt::Debug,
{
    use bytes::Buf as _;
    let (head, mut body) = response.into_parts();
    let mut status = Status::from_header_map(&head.headers);
    let mut length = 0;
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.unwrap().into_data() {
            Ok(data) => length += data.remaining(),
            Err(frame) => status = frame.trailers_ref().and_then(Status::from_header_map),
        }
    }
    (length, status.expect("an answer has a status"))
}

/// The reason word of a status.
pub(super) fn reason(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    let info = status.get_details_error_info().expect("ErrorInfo");
    assert_eq!(info.domain, DOMAIN);
    info.reason
}
