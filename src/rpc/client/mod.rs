//! What a client in Rust needs: calls that wait and try again with measure, a watch that outlives a broken
//! connection, and the very report that `analyze` would have given.
//!
//! Every call is safe to repeat: a creation always has a request_id.

mod report;
mod retry;
mod stream;
mod target;
mod upload;
mod watch;

pub use report::{failure, is_ended};
pub use retry::Patience;
pub use stream::{Described, Eigenvalues};
pub use target::{DEFAULT_PORT, Target};
pub use watch::{Watch, Watched};

use super::proto::v1;
use super::proto::v1::analysis_service_client::AnalysisServiceClient;
use super::proto::v1::system_service_client::SystemServiceClient;
use super::proto::v1::worker_service_client::WorkerServiceClient;
use super::status;
use crate::{Error, ErrorKind, Result};
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

/// Most pages of one listing: a server that never ends one is at fault.
const MOST_PAGES: usize = 100_000;

/// A coordinator, as its clients see it. Clones share one connection, which is made when it is first needed.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    bearer: Bearer,
    addr: String,
    patience: Patience,
}

/// Adds the token to every call.
#[derive(Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> std::result::Result<tonic::Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

type Transport = InterceptedService<Channel, Bearer>;

impl Client {
    /// A client of this coordinator. Nothing is sent yet: a coordinator that is not there shows at the first call.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `InvalidArgument`: an address that is none; certificates that cannot be used; a token that would leave this
    /// machine in clear.
    pub fn connect(target: &Target) -> Result<Self> {
        let addr = target.address()?.uri();
        let bearer = Bearer(target.authorization()?);
        Ok(Self { channel: target.endpoint()?.connect_lazy(), bearer, addr, patience: Patience::default() })
    }

    /// A client over a connection made elsewhere, such as a simulated one. `addr` names it in messages.
    pub fn over(channel: Channel, addr: impl Into<String>) -> Self {
        Self { channel, bearer: Bearer(None), addr: addr.into(), patience: Patience::default() }
    }

    /// With another patience.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The coordinator's address, for messages.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Asks for an analysis. Without a request_id it is given one, so that trying again asks for no second analysis.
    ///
    /// # Errors
    /// What the coordinator says; `Unavailable` if it cannot be reached.
    pub async fn create(&self, mut request: v1::CreateAnalysisRequest) -> Result<v1::Analysis> {
        if request.request_id.is_empty() && !request.validate_only {
            request.request_id = uuid::Uuid::new_v4().to_string();
        }
        let call = || {
            let (mut service, request) = (self.analyses(), self.request(request.clone()));
            async move { service.create_analysis(request).await }
        };
        self.present(self.unary(call).await?.analysis, "analysis")
    }

    /// An analysis as it stands.
    ///
    /// # Errors
    /// `NotFound`; otherwise as [`Client::create`].
    pub async fn get(&self, id: &str) -> Result<v1::Analysis> {
        let call = || {
            let request = self.request(v1::GetAnalysisRequest { id: id.to_owned() });
            let mut service = self.analyses();
            async move { service.get_analysis(request).await }
        };
        self.present(self.unary(call).await?.analysis, "analysis")
    }

    /// The newest `most` analyses, the newest first; of one state, unless it is `Unspecified`.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn list(&self, state: v1::AnalysisState, most: usize) -> Result<Vec<v1::Analysis>> {
        let (mut found, mut token) = (Vec::new(), String::new());
        for _ in 0..MOST_PAGES {
            let request = v1::ListAnalysesRequest {
                page_size: i32::try_from((most - found.len()).min(1000)).unwrap_or(1000),
                page_token: std::mem::take(&mut token),
                state: state.into(),
                model_prefix: String::new(),
            };
            let call = || {
                let (mut service, request) = (self.analyses(), self.request(request.clone()));
                async move { service.list_analyses(request).await }
            };
            let page = self.unary(call).await?;
            found.extend(page.analyses);
            if page.next_page_token.is_empty() || found.len() >= most {
                found.truncate(most);
                return Ok(found);
            }
            token = page.next_page_token;
        }
        Err(self.strange("a list that does not end"))
    }

    /// Ends an analysis; one that has ended stays as it is.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn cancel(&self, id: &str) -> Result<v1::Analysis> {
        let call = || {
            let request = self.request(v1::CancelAnalysisRequest { id: id.to_owned() });
            let mut service = self.analyses();
            async move { service.cancel_analysis(request).await }
        };
        self.present(self.unary(call).await?.analysis, "analysis")
    }

    /// Every worker that has reported lately, by name.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn workers(&self) -> Result<Vec<v1::Worker>> {
        let (mut found, mut token) = (Vec::new(), String::new());
        for _ in 0..MOST_PAGES {
            let request = v1::ListWorkersRequest { page_size: 1000, page_token: std::mem::take(&mut token) };
            let call = || {
                let (mut service, request) = (self.worker_service(), self.request(request.clone()));
                async move { service.list_workers(request).await }
            };
            let page = self.unary(call).await?;
            found.extend(page.workers);
            if page.next_page_token.is_empty() {
                return Ok(found);
            }
            token = page.next_page_token;
        }
        Err(self.strange("a list that does not end"))
    }

    /// Gives a worker no further work.
    ///
    /// # Errors
    /// `NotFound`; otherwise as [`Client::create`].
    pub async fn drain(&self, id: &str) -> Result<v1::Worker> {
        let call = || {
            let request = self.request(v1::DrainWorkerRequest { id: id.to_owned() });
            let mut service = self.worker_service();
            async move { service.drain_worker(request).await }
        };
        self.present(self.unary(call).await?.worker, "worker")
    }

    /// How the coordinator stands.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn status(&self) -> Result<v1::GetStatusResponse> {
        let call = || {
            let request = self.request(v1::GetStatusRequest {});
            let mut service =
                SystemServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone());
            async move { service.get_status(request).await }
        };
        self.unary(call).await
    }

    fn analyses(&self) -> AnalysisServiceClient<Transport> {
        AnalysisServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    fn worker_service(&self) -> WorkerServiceClient<Transport> {
        WorkerServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// A request that tells the server how long we wait.
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.patience.answer);
        request
    }

    /// A call with one answer.
    async fn unary<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<Response<T>, Status>>,
    {
        let one = || {
            let answer = within(self.patience.answer, call());
            async move { answer.await.map(Response::into_inner) }
        };
        self.retried(one).await
    }

    /// Calls until there is an answer, or no hope of one.
    async fn retried<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, Status>>,
    {
        let mut failures = 0;
        loop {
            let status = match call().await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            failures += 1;
            match self.patience.pause(failures, &status) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(self.told(&status)),
            }
        }
    }

    /// A failure as the user is told it.
    fn told(&self, status: &Status) -> Error {
        let error = status::error(status);
        match error.kind() {
            ErrorKind::Unavailable if retry::is_lost(status) || status::is_of_transport(status) => {
                let message = format!("cannot reach a coordinator: {}", error.message());
                Error::new(ErrorKind::Unavailable, message).in_file(&self.addr)
            }
            ErrorKind::DeadlineExceeded => {
                let message = format!("no answer within {} s", self.patience.answer.as_secs_f64());
                Error::new(ErrorKind::DeadlineExceeded, message).in_file(&self.addr)
            }
            _ if status.code() == Code::Unimplemented => {
                let message = format!("is no coordinator of this version: {}", error.message());
                Error::new(ErrorKind::Unsupported, message).in_file(&self.addr)
            }
            _ => error,
        }
    }

    /// What an answer must have.
    fn present<T>(&self, part: Option<T>, name: &str) -> Result<T> {
        part.ok_or_else(|| self.strange(&format!("an answer without '{name}'")))
    }

    /// An answer that no coordinator of this version gives.
    fn strange(&self, what: &str) -> Error {
        Error::new(ErrorKind::Internal, format!("the coordinator gave {what}")).in_file(&self.addr)
    }
}

/// An answer within `limit`.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = std::result::Result<T, Status>>,
) -> std::result::Result<T, Status> {
    let late = |_| Err(Status::deadline_exceeded("no answer in time"));
    tokio::time::timeout(limit, answer).await.unwrap_or_else(late)
}
