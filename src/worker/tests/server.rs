//! A coordinator that does as a test tells it: a real gRPC server in this process.

use crate::rpc::proto::worker::v1::task_service_server::{TaskService, TaskServiceServer};
use crate::rpc::proto::worker::v1::*;
use crate::rpc::status::status;
use crate::source::{self, ModelSource, SourceOptions};
use crate::spectrum::{GramSum, PartialGram};
use futures_util::stream::{self, StreamExt as _};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;
type Sent<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

/// What was told, and what to answer.
#[derive(Default)]
pub(super) struct State {
    /// Handed out with the next answer, whatever the worker has free.
    pub(super) leases: VecDeque<Lease>,
    /// Sent with the next answer.
    pub(super) cancel: Vec<u64>,
    /// Sent with the next answer.
    pub(super) skip: Vec<UnitKey>,
    /// So many answers to reports are lost, once the report was taken.
    pub(super) lose_answers: usize,
    /// Whether results are acknowledged.
    pub(super) deaf: bool,
    /// Answer to every report.
    pub(super) refuse: Option<Status>,
    /// Reads under this attempt are refused.
    pub(super) refuse_attempt: u64,
    /// Streams of a range break off after so many bytes; once each.
    pub(super) breaks: VecDeque<usize>,
    /// Contents that are known.
    pub(super) known: HashSet<String>,
    /// Identity that is told of every object instead of its own.
    pub(super) pin: Option<String>,
    pub(super) reports: Vec<ReportRequest>,
    /// Each once.
    pub(super) results: Vec<UnitResult>,
    /// How often any came.
    pub(super) deliveries: usize,
    pub(super) lookups: Vec<String>,
    pub(super) spectra: HashMap<(u64, u32), Vec<f64>>,
    pub(super) grams: BTreeMap<u32, (PartialGram, String)>,
    pub(super) lists: usize,
    pub(super) reads: usize,
    pub(super) authorization: Vec<String>,
    models: HashMap<String, String>,
    sequence: u64,
}

pub(super) struct Stub {
    state: Mutex<State>,
    changed: Notify,
    /// Ranges wait for it.
    pub(super) gate: Semaphore,
    pub(super) channel: Channel,
}

impl Stub {
    /// Serves until the test ends.
    pub(super) async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        let gate = Semaphore::new(Semaphore::MAX_PERMITS);
        let stub = Arc::new(Self { state: Mutex::default(), changed: Notify::new(), gate, channel });
        let service = TaskServiceServer::from_arc(Arc::clone(&stub));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        stub
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until something is so.
    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if is_so(&self.state()) {
                return;
            }
            let waited = tokio::time::timeout(Duration::from_secs(60), changed).await;
            assert!(waited.is_ok(), "{what}");
        }
    }

    /// Waits until so many results came.
    pub(super) async fn until_results(&self, count: usize) {
        self.until(&format!("{count} results"), |s| s.results.len() >= count).await;
    }

    /// Hands out a lease.
    pub(super) fn lease(&self, lease: Lease) {
        let mut state = self.state();
        let uri = lease.model.as_ref().unwrap().uri.clone();
        state.models.insert(lease.analysis.clone(), uri);
        state.leases.push_back(lease);
    }

    /// No range is answered from now on.
    pub(super) fn close_gate(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(super) fn open_gate(&self) {
        self.gate.add_permits(1000);
    }

    fn model(&self, attempt: u64, analysis: &str) -> Result<String, Status> {
        let state = self.state();
        if attempt == state.refuse_attempt {
            return Err(Status::not_found(format!("no lease {attempt}")));
        }
        state.models.get(analysis).cloned().ok_or_else(|| Status::not_found("no such analysis"))
    }
}

fn open(uri: &str) -> Result<Arc<dyn ModelSource>, Status> {
    source::open(uri, &SourceOptions::default()).map_err(|error| status(&error))
}

#[tonic::async_trait]
impl TaskService for Stub {
    async fn report(&self, request: Request<ReportRequest>) -> Answer<ReportResponse> {
        let authorization = request.metadata().get("authorization").map(|v| v.to_str().unwrap().to_owned());
        let report = request.into_inner();
        let mut state = self.state();
        state.authorization.extend(authorization);
        state.reports.push(report.clone());
        self.changed.notify_waiters();
        if let Some(status) = &state.refuse {
            return Err(status.clone());
        }
        for result in &report.results {
            state.deliveries += 1;
            let same = |r: &UnitResult| r.attempt == result.attempt && r.unit == result.unit;
            if !state.results.iter().any(same) {
                state.results.push(result.clone());
            }
        }
        if state.lose_answers > 0 {
            state.lose_answers -= 1;
            return Err(Status::unavailable("lost"));
        }
        state.sequence += 1;
        let key = |r: &UnitResult| UnitKey { analysis: r.analysis.clone(), unit: r.unit, attempt: r.attempt };
        let acknowledged = if state.deaf { Vec::new() } else { report.results.iter().map(key).collect() };
        Ok(Response::new(ReportResponse {
            sequence: state.sequence,
            leases: state.leases.drain(..).collect(),
            cancelled: std::mem::take(&mut state.cancel),
            acknowledged,
            report_after_ms: 20,
            skip: std::mem::take(&mut state.skip),
        }))
    }

    async fn lookup(&self, request: Request<LookupRequest>) -> Answer<LookupResponse> {
        let digest = request.into_inner().digest;
        let mut state = self.state();
        let known = state.known.contains(&digest);
        state.lookups.push(digest);
        Ok(Response::new(LookupResponse { known }))
    }

    type ListObjectsStream = Sent<ListObjectsResponse>;

    async fn list_objects(&self, request: Request<ListObjectsRequest>) -> Answer<Self::ListObjectsStream> {
        let request = request.into_inner();
        let uri = self.model(request.attempt, &request.analysis)?;
        let source = open(&uri)?;
        self.state().lists += 1;
        let is_single_file = source.is_single_file();
        let one = |name: &String| Ok(ListObjectsResponse { names: vec![name.clone()], is_single_file });
        let messages: Vec<_> = source.names().iter().map(one).collect();
        Ok(Response::new(stream::iter(messages).boxed()))
    }

    type ReadObjectStream = Sent<ReadObjectResponse>;

    async fn read_object(&self, request: Request<ReadObjectRequest>) -> Answer<Self::ReadObjectStream> {
        let request = request.into_inner();
        let uri = self.model(request.attempt, &request.analysis)?;
        let object = open(&uri)?.open(&request.name).map_err(|error| status(&error))?;
        self.state().reads += 1;
        self.changed.notify_waiters();
        self.gate.acquire().await.unwrap().forget();
        let bytes = object.read_at(request.begin..request.end).map_err(|error| status(&error))?;
        let mut identity = crate::rpc::proto::v1::ObjectIdentity::from(object.identity());
        let mut state = self.state();
        identity.pin = state.pin.clone().or(identity.pin);
        let breaks = if bytes.is_empty() { None } else { state.breaks.pop_front() };
        let head = ReadObjectResponse { identity: Some(identity), data: Vec::new() };
        let end = breaks.unwrap_or(bytes.len()).min(bytes.len());
        let pieces = bytes[..end].chunks(1 << 20);
        let mut messages = vec![Ok(head)];
        messages.extend(pieces.map(|data| Ok(ReadObjectResponse { identity: None, data: data.to_vec() })));
        messages.extend(breaks.map(|_| Err(Status::unavailable("broken"))));
        Ok(Response::new(stream::iter(messages).boxed()))
    }

    async fn send_spectrum(
        &self,
        request: Request<Streaming<SendSpectrumRequest>>,
    ) -> Answer<SendSpectrumResponse> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.unwrap();
        let (unit, total) = (first.unit.unwrap(), first.total);
        let mut values = first.values;
        while let Some(next) = messages.message().await? {
            assert!(next.values.len() <= 32 << 10);
            values.extend(next.values);
        }
        assert_eq!(values.len() as u64, total);
        self.state().spectra.insert((unit.attempt, unit.unit), values);
        Ok(Response::new(SendSpectrumResponse {}))
    }

    async fn send_partial_gram(
        &self,
        request: Request<Streaming<SendPartialGramRequest>>,
    ) -> Answer<SendPartialGramResponse> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.unwrap();
        let mut bytes = first.data;
        while let Some(next) = messages.message().await? {
            assert!(next.data.len() <= 1 << 20);
            bytes.extend(next.data);
        }
        assert_eq!(bytes.len() as u64, first.length);
        assert_eq!(blake3::hash(&bytes).as_bytes().as_slice(), first.digest);
        let gram = PartialGram::from_bytes(&bytes).unwrap();
        self.state().grams.insert(first.unit.unwrap().unit, (gram, first.worker));
        Ok(Response::new(SendPartialGramResponse {}))
    }

    type ReadGramSumStream = Sent<ReadGramSumResponse>;

    async fn read_gram_sum(&self, _: Request<ReadGramSumRequest>) -> Answer<Self::ReadGramSumStream> {
        let state = self.state();
        let mut grams = state.grams.values();
        let mut sum = GramSum::new(grams.clone().next().unwrap().0.head.m).unwrap();
        grams.try_for_each(|(part, _)| sum.add(part)).unwrap();
        let bytes = sum.to_bytes().unwrap();
        let length = bytes.len() as u64;
        let pieces: Vec<_> = bytes
            .chunks(1_000_003)
            .map(|data| Ok(ReadGramSumResponse { length, data: data.to_vec() }))
            .collect();
        Ok(Response::new(stream::iter(pieces).boxed()))
    }
}
