//! The service as its clients see it: a coordinator in this process, on a port of its own.

mod auth;
mod commands;
mod discovery;
mod requests;
mod secrets;
mod uploads;

use futures_util::stream;
use spectrald::config::{Config, Overrides, Process};
use spectrald::coordinator::Coordinator;
use spectrald::rpc::proto::v1;
use spectrald::rpc::proto::v1::analysis_service_client::AnalysisServiceClient;
use spectrald::telemetry::Metrics;
use spectrald::telemetry::http::Readiness;
use spectrald::worker::{self, WorkerOptions};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

/// Far longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A coordinator, and perhaps a worker. Both stop when it is dropped.
struct Cluster {
    address: SocketAddr,
    runtime: Option<Runtime>,
    shutdown: CancellationToken,
    folder: TempDir,
}

impl Cluster {
    /// A coordinator with this configuration file; its address and data folder are given by flags.
    fn start(folder: TempDir, file: &str) -> Self {
        Self::start_with(folder, file, false)
    }

    /// A coordinator that takes any path of this machine, and a worker.
    fn working() -> Self {
        Self::start_with(TempDir::new().unwrap(), "[coordinator]\nallow_local_files = true\n", true)
    }

    fn start_with(folder: TempDir, file: &str, with_worker: bool) -> Self {
        let path = folder.path().join("spectrald.toml");
        std::fs::write(&path, file).unwrap();
        let mut overrides = Overrides::new();
        overrides.flag("coordinator.listen", "127.0.0.1:0", "--listen");
        overrides.flag("coordinator.http_listen", "off", "--http-listen");
        let data = folder.path().join("data").to_string_lossy().into_owned();
        overrides.flag("coordinator.data_dir", data, "--data-dir");
        let config = Config::load_for(Process::Coordinator, Some(&path), &overrides).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let shutdown = CancellationToken::new();
        let metrics = Arc::new(Metrics::standalone("test").unwrap());
        let (ready, _) = watch::channel(Readiness::NotReady("starting"));
        let coordinator = runtime.block_on(Coordinator::start(&config, metrics, ready)).unwrap();
        let address = coordinator.address();
        if with_worker {
            let mut options = WorkerOptions::new("test-worker", 1, 2 << 30);
            options.embedded = true;
            let _inside = runtime.enter();
            let channel = coordinator.local_channel().unwrap();
            runtime.spawn(worker::run(options, channel, Arc::new(|| None), shutdown.clone()));
        }
        runtime.spawn(coordinator.serve(shutdown.clone()));
        Self { address, runtime: Some(runtime), shutdown, folder }
    }

    /// Runs `future` to its end, which must come in time.
    fn wait<F: Future>(&self, future: F) -> F::Output {
        let runtime = self.runtime.as_ref().unwrap();
        runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("in time") })
    }

    /// A connection without TLS.
    fn channel(&self) -> Channel {
        let _inside = self.runtime.as_ref().unwrap().enter();
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy()
    }

    fn client(&self) -> AnalysisServiceClient<Channel> {
        AnalysisServiceClient::new(self.channel())
    }

    /// Creates an analysis and waits until it has ended.
    fn analysed(&self, request: v1::CreateAnalysisRequest) -> v1::Analysis {
        let mut client = self.client();
        self.wait(async {
            let created = client.create_analysis(request).await.unwrap().into_inner();
            let id = created.analysis.unwrap().id;
            let request = v1::WatchAnalysisRequest { id, after_sequence: 0 };
            let mut watched = client.watch_analysis(request).await.unwrap().into_inner();
            let mut last = None;
            while let Some(told) = watched.message().await.unwrap() {
                last = told.analysis;
            }
            last.unwrap()
        })
    }

    /// All rows of an analysis but those of skipped tensors.
    fn rows(&self, id: &str) -> Vec<v1::LayerResult> {
        let mut client = self.client();
        let request = v1::StreamLayerResultsRequest { id: id.to_owned(), status: 0 };
        let mut rows = self.wait(async {
            let mut stream = client.stream_layer_results(request).await.unwrap().into_inner();
            let mut rows = Vec::new();
            while let Some(some) = stream.message().await.unwrap() {
                rows.extend(some.layers);
            }
            rows
        });
        rows.retain(|row| row.status() != v1::LayerStatus::Skipped);
        rows
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Calls any method with one empty message, and waits for the first message of the answer or the refusal. What does
/// not answer within ten seconds is held by its handler, so it was let in: DEADLINE_EXCEEDED.
async fn call(channel: Channel, path: &str, token: Option<&str>) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    let mut request = Request::new(stream::iter([()]));
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let path = path.parse().unwrap();
    let called = async {
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let codec = ProstCodec::<(), ()>::default();
        let mut answer = grpc.streaming(request, path, codec).await?.into_inner();
        answer.message().await.map(|_| ())
    };
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, called).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("held")))
}

/// Code, reason and field of a refusal. A wrong field is named twice: for people's programs and in BadRequest.
fn told(status: &Status) -> (Code, String, String) {
    let details = status.get_error_details();
    let info = details.error_info();
    let field = info.and_then(|info| info.metadata.get("field").cloned()).unwrap_or_default();
    let reason = info.map(|info| info.reason.clone()).unwrap_or_default();
    if status.code() == Code::InvalidArgument {
        let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
        let named: Vec<&str> = violations.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(named, [field.as_str()], "{status:?}");
    }
    (status.code(), reason, field)
}

/// Asserts code, reason and field.
#[track_caller]
fn assert_refused<T>(what: &str, answer: Result<T, Status>, code: Code, reason: &str, field: &str) {
    match answer {
        Ok(_) => panic!("{what}: was let through"),
        Err(status) => {
            let expected = (code, reason.to_owned(), field.to_owned());
            assert_eq!(told(&status), expected, "{what}: {}", status.message());
        }
    }
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_string_lossy().into_owned()
}
