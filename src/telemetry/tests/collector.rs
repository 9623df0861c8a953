//! A collector of OTLP in the test process, by either protocol, with or without mutual TLS.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

/// How the collector is reached. With TLS, one certificate is the authority, the server and the client.
pub(super) enum Security {
    Plain,
    Tls { folder: tempfile::TempDir, certificate: String, key: String },
}

impl Security {
    pub(super) fn mutual_tls() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), &certificate).unwrap();
        std::fs::write(folder.path().join("key.pem"), &key).unwrap();
        Self::Tls { folder, certificate, key }
    }

    /// The variables that name the files.
    pub(super) fn files(&self) -> Vec<(&'static str, String)> {
        let Self::Tls { folder, .. } = self else { return Vec::new() };
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        vec![
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", file("cert.pem")),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", file("cert.pem")),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", file("key.pem")),
        ]
    }

    fn acceptor(&self) -> Option<TlsAcceptor> {
        let Self::Tls { certificate, key, .. } = self else { return None };
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
            .unwrap();
        Some(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Runs on a runtime of its own, so that a test may block.
pub(super) struct Collector {
    _runtime: Runtime,
    address: SocketAddr,
    tls: bool,
    spans: Receiver<(String, ExportTraceServiceRequest)>,
    metrics: Receiver<ExportMetricsServiceRequest>,
}

#[derive(Clone)]
struct Inbox {
    spans: Sender<(String, ExportTraceServiceRequest)>,
    metrics: Sender<ExportMetricsServiceRequest>,
}

impl Collector {
    pub(super) fn start(protocol: &str, security: &Security) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let ((spans_in, spans), (metrics_in, metrics)) = (channel(), channel());
        let inbox = Inbox { spans: spans_in, metrics: metrics_in };
        match protocol {
            "grpc" => {
                let mut server = Server::builder();
                if let Security::Tls { certificate, key, .. } = security {
                    let tls = ServerTlsConfig::new()
                        .identity(Identity::from_pem(certificate, key))
                        .client_ca_root(Certificate::from_pem(certificate));
                    server = server.tls_config(tls).unwrap();
                }
                let server = server
                    .add_service(TraceServiceServer::new(inbox.clone()))
                    .add_service(MetricsServiceServer::new(inbox));
                runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            }
            _ => drop(runtime.spawn(http(listener, security.acceptor(), inbox))),
        }
        Self { _runtime: runtime, address, tls: matches!(security, Security::Tls { .. }), spans, metrics }
    }

    pub(super) fn endpoint(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://localhost:{}", self.address.port())
    }

    /// The header `authorization` and the spans.
    pub(super) fn spans(&self) -> (String, ExportTraceServiceRequest) {
        self.spans.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    pub(super) fn metrics(&self) -> ExportMetricsServiceRequest {
        self.metrics.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    pub(super) fn nothing_came(&self) -> bool {
        self.spans.try_recv().is_err() && self.metrics.try_recv().is_err()
    }
}

async fn http(listener: TcpListener, tls: Option<TlsAcceptor>, inbox: Inbox) {
    let inbox = Arc::new(Mutex::new(inbox));
    let (spans, metrics) = (Arc::clone(&inbox), inbox);
    let router = Router::new()
        .route(
            "/v1/traces",
            post(move |headers: HeaderMap, body: Bytes| async move {
                let authorization = headers.get("authorization").map_or("", |value| value.to_str().unwrap());
                let request = ExportTraceServiceRequest::decode(body).unwrap();
                spans.lock().unwrap().spans.send((authorization.to_owned(), request)).unwrap();
            }),
        )
        .route(
            "/v1/metrics",
            post(move |body: Bytes| async move {
                let request = ExportMetricsServiceRequest::decode(body).unwrap();
                metrics.lock().unwrap().metrics.send(request).unwrap();
            }),
        );
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            let service = TowerToHyperService::new(router);
            match tls {
                None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        let _ = http.serve_connection(TokioIo::new(stream), service).await;
                    }
                }
            }
        });
    }
}

#[tonic::async_trait]
impl TraceService for Inbox {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let authorization =
            request.metadata().get("authorization").map_or("", |value| value.to_str().unwrap());
        self.spans.send((authorization.to_owned(), request.into_inner())).unwrap();
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Inbox {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.metrics.send(request.into_inner()).unwrap();
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}
