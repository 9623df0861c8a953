//! A coordinator that answers from a list: the services of the API over one analysis, with faults as a test scripts
//! them. It runs on threads of its own, on a port of its own, and can be stopped and started again there.

use spectrald::analysis::ModelReport;
use spectrald::rpc::convert::options_to_proto;
use spectrald::rpc::proto::v1;
use spectrald::rpc::proto::v1::analysis_service_server::{AnalysisService, AnalysisServiceServer};
use spectrald::rpc::proto::v1::system_service_server::{SystemService, SystemServiceServer};
use spectrald::rpc::proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use spectrald::rpc::status::status;
use spectrald::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

pub(crate) const ID: &str = "a1";

/// What the coordinator knows, and how it fails.
pub(crate) struct Script {
    /// The analysis as it ends.
    pub(crate) analysis: Mutex<v1::Analysis>,
    rows: Vec<v1::LayerResult>,
    /// Messages of a watch; the last has the analysis as it ends.
    events: Vec<v1::WatchAnalysisResponse>,
    /// How many of them have happened.
    pub(crate) happened: watch::Sender<usize>,
    /// A watch's stream ends after so many messages.
    pub(crate) ends_after: AtomicUsize,
    /// So many calls are answered with this first.
    pub(crate) fails: AtomicU32,
    pub(crate) failure: Mutex<Status>,
    /// Calls are never answered.
    pub(crate) silent: Mutex<bool>,
    /// Eigenvalues that are sent, in chunks.
    pub(crate) spectrum: Mutex<Vec<v1::StreamSpectrumResponse>>,
    /// Every call with what it carried.
    calls: Mutex<Vec<String>>,
    called: Condvar,
    /// The token that each call carried.
    tokens: Mutex<Vec<Option<String>>>,
}

impl Script {
    /// A coordinator that has this report, with an event for each of its rows.
    pub(crate) fn of(report: &ModelReport) -> Arc<Self> {
        let mut analysis = v1::Analysis {
            id: ID.to_owned(),
            model: report.model.uri.clone(),
            options: Some(options_to_proto(&report.options, &[])),
            identity: Some((&report.model).into()),
            summary: Some((&report.summary).into()),
            progress: Some(v1::Progress { layers: 14, done: 14, from_cache: 2, ..Default::default() }),
            plan: Some(v1::Plan { layers: 14, skipped: 33, flops: 1e9, ..Default::default() }),
            start_time: Some(prost_types::Timestamp { seconds: 100, nanos: 0 }),
            end_time: Some(prost_types::Timestamp { seconds: 101, nanos: 500_000_000 }),
            created_by: "loopback".to_owned(),
            ..Default::default()
        };
        analysis.set_state(v1::AnalysisState::Succeeded);
        let mut running = v1::Analysis { identity: None, summary: None, end_time: None, ..analysis.clone() };
        running.set_state(v1::AnalysisState::Running);
        let event = |(row, layer): (usize, &spectrald::analysis::LayerReport)| v1::WatchAnalysisResponse {
            sequence: row as u64 + 1,
            analysis: Some(running.clone()),
            layers: vec![v1::LayerEvent {
                sequence: row as u64 + 1,
                row: row as u64,
                name: layer.name.clone(),
                status: 1,
            }],
        };
        let mut events: Vec<_> = report.layers.iter().enumerate().map(event).collect();
        let sequence = events.len() as u64 + 1;
        events.push(v1::WatchAnalysisResponse {
            sequence,
            analysis: Some(analysis.clone()),
            layers: Vec::new(),
        });
        Arc::new(Self {
            analysis: Mutex::new(analysis),
            rows: report.layers.iter().map(Into::into).collect(),
            happened: watch::Sender::new(events.len()),
            events,
            ends_after: AtomicUsize::new(usize::MAX),
            fails: AtomicU32::new(0),
            failure: Mutex::new(Status::unavailable("starting")),
            silent: Mutex::new(false),
            spectrum: Mutex::new(Vec::new()),
            calls: Mutex::new(Vec::new()),
            called: Condvar::new(),
            tokens: Mutex::new(Vec::new()),
        })
    }

    /// How many messages a watch has in all.
    pub(crate) fn events(&self) -> usize {
        self.events.len()
    }

    /// The next `count` calls are answered with `failure`.
    pub(crate) fn fail(&self, count: u32, failure: Status) {
        *self.failure.lock().unwrap() = failure;
        self.fails.store(count, Ordering::SeqCst);
    }

    /// Calls until now, and forgets them.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Waits until so many calls have come.
    pub(crate) fn wait_for_calls(&self, count: usize) {
        let calls = self.calls.lock().unwrap();
        let limit = std::time::Duration::from_secs(60);
        let (_calls, waited) =
            self.called.wait_timeout_while(calls, limit, |calls| calls.len() < count).unwrap();
        assert!(!waited.timed_out(), "{count} calls did not come");
    }

    /// Tokens until now.
    pub(crate) fn tokens(&self) -> Vec<Option<String>> {
        self.tokens.lock().unwrap().clone()
    }

    /// Notes a call, and fails it if that is scripted.
    async fn enter<T>(&self, request: &Request<T>, what: String) -> Result<(), Status> {
        let token = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        self.tokens.lock().unwrap().push(token);
        self.calls.lock().unwrap().push(what);
        self.called.notify_all();
        if *self.silent.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        let failed = self.fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if failed.is_ok() { Err(self.failure.lock().unwrap().clone()) } else { Ok(()) }
    }

    fn known(&self, id: &str) -> Result<v1::Analysis, Status> {
        if id == ID {
            return Ok(self.analysis.lock().unwrap().clone());
        }
        let error = Error::new(ErrorKind::NotFound, format!("no analysis '{id}'")).in_field("id");
        Err(status(&error))
    }
}

#[derive(Clone)]
struct Service(Arc<Script>);

type Messages<T> = ReceiverStream<Result<T, Status>>;

/// A stream of these messages.
fn streamed<T: Send + 'static>(messages: Vec<T>) -> Response<Messages<T>> {
    let (send, receive) = mpsc::channel(1);
    tokio::spawn(async move {
        for message in messages {
            if send.send(Ok(message)).await.is_err() {
                break;
            }
        }
    });
    Response::new(ReceiverStream::new(receive))
}

#[tonic::async_trait]
impl AnalysisService for Service {
    async fn create_analysis(
        &self,
        request: Request<v1::CreateAnalysisRequest>,
    ) -> Result<Response<v1::CreateAnalysisResponse>, Status> {
        let asked = request.get_ref();
        self.0.enter(&request, format!("create {} {}", asked.model, asked.request_id)).await?;
        let analysis = Some(self.0.known(ID)?);
        Ok(Response::new(v1::CreateAnalysisResponse { analysis }))
    }

    async fn get_analysis(
        &self,
        request: Request<v1::GetAnalysisRequest>,
    ) -> Result<Response<v1::GetAnalysisResponse>, Status> {
        self.0.enter(&request, "get".to_owned()).await?;
        let analysis = Some(self.0.known(&request.get_ref().id)?);
        Ok(Response::new(v1::GetAnalysisResponse { analysis }))
    }

    /// Three analyses, two a page.
    async fn list_analyses(
        &self,
        request: Request<v1::ListAnalysesRequest>,
    ) -> Result<Response<v1::ListAnalysesResponse>, Status> {
        let asked = request.get_ref();
        self.0.enter(&request, format!("list {} '{}'", asked.page_size, asked.page_token)).await?;
        let one = |id: &str| v1::Analysis { id: id.to_owned(), ..self.0.analysis.lock().unwrap().clone() };
        let (analyses, next) = match asked.page_token.as_str() {
            "" => (vec![one("a3"), one("a2")], "more"),
            _ => (vec![one("a1")], ""),
        };
        Ok(Response::new(v1::ListAnalysesResponse { analyses, next_page_token: next.to_owned() }))
    }

    type WatchAnalysisStream = Messages<v1::WatchAnalysisResponse>;

    async fn watch_analysis(
        &self,
        request: Request<v1::WatchAnalysisRequest>,
    ) -> Result<Response<Self::WatchAnalysisStream>, Status> {
        let after = request.get_ref().after_sequence;
        self.0.enter(&request, format!("watch after {after}")).await?;
        self.0.known(&request.get_ref().id)?;
        let script = Arc::clone(&self.0);
        let (send, receive) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut happened = script.happened.subscribe();
            let first = usize::try_from(after).unwrap();
            let most = script.ends_after.load(Ordering::SeqCst);
            for (at, event) in script.events.iter().enumerate().skip(first).take(most) {
                tokio::select! {
                    found = happened.wait_for(|count| *count > at) => { found.unwrap(); }
                    () = send.closed() => return,
                }
                if send.send(Ok(event.clone())).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn cancel_analysis(
        &self,
        request: Request<v1::CancelAnalysisRequest>,
    ) -> Result<Response<v1::CancelAnalysisResponse>, Status> {
        self.0.enter(&request, "cancel".to_owned()).await?;
        self.0.known(&request.get_ref().id)?;
        let mut analysis = self.0.analysis.lock().unwrap();
        analysis.set_state(v1::AnalysisState::Cancelled);
        Ok(Response::new(v1::CancelAnalysisResponse { analysis: Some(analysis.clone()) }))
    }

    async fn list_layer_results(
        &self,
        _: Request<v1::ListLayerResultsRequest>,
    ) -> Result<Response<v1::ListLayerResultsResponse>, Status> {
        Err(Status::unimplemented("streamed only"))
    }

    type StreamLayerResultsStream = Messages<v1::StreamLayerResultsResponse>;

    async fn stream_layer_results(
        &self,
        request: Request<v1::StreamLayerResultsRequest>,
    ) -> Result<Response<Self::StreamLayerResultsStream>, Status> {
        self.0.enter(&request, "rows".to_owned()).await?;
        self.0.known(&request.get_ref().id)?;
        let pieces = self.0.rows.chunks(5);
        Ok(streamed(pieces.map(|rows| v1::StreamLayerResultsResponse { layers: rows.to_vec() }).collect()))
    }

    type StreamSpectrumStream = Messages<v1::StreamSpectrumResponse>;

    async fn stream_spectrum(
        &self,
        request: Request<v1::StreamSpectrumRequest>,
    ) -> Result<Response<Self::StreamSpectrumStream>, Status> {
        self.0.enter(&request, format!("spectrum {}", request.get_ref().layer)).await?;
        Ok(streamed(self.0.spectrum.lock().unwrap().clone()))
    }

    type DescribeModelStream = Messages<v1::DescribeModelResponse>;

    async fn describe_model(
        &self,
        request: Request<v1::DescribeModelRequest>,
    ) -> Result<Response<Self::DescribeModelStream>, Status> {
        self.0.enter(&request, "describe".to_owned()).await?;
        let analysis = self.0.known(ID)?;
        let layers = |rows: &[v1::LayerResult]| {
            let of =
                |row: &v1::LayerResult| v1::DescribedLayer { layer: Some(row.clone()), ..Default::default() };
            rows.iter().map(of).collect()
        };
        let head = v1::DescribeModelResponse {
            identity: analysis.identity,
            plan: analysis.plan,
            layers: Vec::new(),
        };
        let rest = v1::DescribeModelResponse { layers: layers(&self.0.rows), ..Default::default() };
        Ok(streamed(vec![head, rest]))
    }
}

#[tonic::async_trait]
impl WorkerService for Service {
    /// Two workers, one a page.
    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        self.0.enter(&request, "workers".to_owned()).await?;
        let worker = |id: &str| v1::Worker { id: id.to_owned(), state: 1, cores: 2, ..Default::default() };
        let (worker, next) = match request.get_ref().page_token.as_str() {
            "" => (worker("w1"), "more"),
            _ => (worker("w2"), ""),
        };
        let next_page_token = next.to_owned();
        Ok(Response::new(v1::ListWorkersResponse { workers: vec![worker], next_page_token }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        self.0.enter(&request, "drain".to_owned()).await?;
        let id = request.into_inner().id;
        let worker = Some(v1::Worker { id, state: 2, running: 1, ..Default::default() });
        Ok(Response::new(v1::DrainWorkerResponse { worker }))
    }
}

#[tonic::async_trait]
impl SystemService for Service {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        self.0.enter(&request, "status".to_owned()).await?;
        Ok(Response::new(v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            algorithm_version: spectrald::analysis::ALGORITHM_VERSION,
            accepting: true,
            ..Default::default()
        }))
    }
}

/// The coordinator under way. Stops, with every connection cut, when dropped.
pub(crate) struct Coordinator {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Coordinator {
    pub(crate) fn start(script: &Arc<Script>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script, None)
    }

    pub(crate) fn start_with_tls(script: &Arc<Script>, tls: ServerTlsConfig) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script, Some(tls))
    }

    /// Once more where it was.
    pub(crate) fn start_again(address: SocketAddr, script: &Arc<Script>) -> Self {
        Self::start_at(address, script, None)
    }

    fn start_at(address: SocketAddr, script: &Arc<Script>, tls: Option<ServerTlsConfig>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let service = Service(Arc::clone(script));
        let (bound, is_bound) = channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            let mut server = Server::builder();
            if let Some(tls) = tls {
                server = server.tls_config(tls).unwrap();
            }
            server
                .add_service(AnalysisServiceServer::new(service.clone()))
                .add_service(WorkerServiceServer::new(service.clone()))
                .add_service(SystemServiceServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self { address: is_bound.recv().unwrap(), runtime: Some(runtime) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // every task is dropped, and every socket with it, before this returns; on a thread of its own, as a test
        // may be within another runtime
        if let Some(runtime) = self.runtime.take() {
            let stop = move || runtime.shutdown_timeout(std::time::Duration::from_secs(10));
            std::thread::spawn(stop).join().unwrap();
        }
    }
}
