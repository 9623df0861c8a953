//! Every call to the coordinator: the report, and those of the threads that compute, which are blocking.

use super::Token;
use super::incoming::Incoming;
use crate::rpc::proto::worker::v1::task_service_client::TaskServiceClient;
use crate::rpc::proto::worker::v1::{
    ListObjectsRequest, LookupRequest, ReadGramSumRequest, ReadObjectRequest, ReportRequest, ReportResponse,
    SendPartialGramRequest, SendSpectrumRequest, UnitKey,
};
use crate::rpc::status;
use crate::source::ObjectIdentity;
use crate::spectrum::{GramSum, PartialGram, PartialHead};
use crate::{Error, ErrorKind, Result};
use futures_util::stream;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Longest wait for an answer, or for the next message of a stream.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest wait for the answer to a lookup: computing is the way out.
const LOOKUP: Duration = Duration::from_secs(2);
/// Least bytes a second that are sent, beside the silence.
const SLOWEST: u64 = 64 << 10;
/// How often a thread that waits looks whether its work is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// How long the coordinator is asked again for a sum that it cannot give: its parts may be lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Eigenvalues in one message: 256 KiB.
const VALUES: usize = 32 << 10;
/// Elements of a triangle in one message: 1 MiB.
const ELEMENTS: usize = 128 << 10;
/// Most names of objects that are taken; a directory of more is no model.
const NAMES: usize = 1 << 20;

/// Whether the work that waits is still wanted.
pub(super) type Wanted<'a> = &'a dyn Fn() -> bool;

/// A connection to the coordinator. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    client: TaskServiceClient<InterceptedService<Channel, Bearer>>,
    runtime: Handle,
    worker: String,
}

/// Adds the token to every request.
#[derive(Clone)]
struct Bearer(Token);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some(token) = (self.0)() {
            let value = AsciiMetadataValue::try_from(format!("Bearer {}", token.trim())).map_err(|_| {
                Status::unauthenticated("this worker's token has characters that are not ASCII")
            })?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// Under which lease an object is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Passport {
    /// The lease.
    pub(super) attempt: u64,
    /// Its analysis.
    pub(super) analysis: String,
}

/// What came of a range, whole or not.
pub(super) struct Part {
    /// The object as the answer says.
    pub(super) identity: Option<ObjectIdentity>,
    /// Bytes from the start of the range.
    pub(super) data: Vec<u8>,
    /// Why it is not whole.
    pub(super) error: Option<Status>,
}

impl Link {
    /// Calls are made on `runtime`, which must have threads of its own that run it.
    pub(super) fn new(channel: Channel, token: Token, runtime: Handle, worker: String) -> Self {
        Self { client: TaskServiceClient::with_interceptor(channel, Bearer(token)), runtime, worker }
    }

    /// The one call that is not blocking.
    pub(super) async fn report(
        &self,
        request: ReportRequest,
        limit: Duration,
    ) -> std::result::Result<ReportResponse, Status> {
        let mut client = self.client.clone();
        let mut request = Request::new(request);
        request.set_timeout(limit);
        within(limit, client.report(request)).await.map(tonic::Response::into_inner)
    }

    /// Whether the coordinator knows the result for this content. Any failure counts as no.
    pub(super) fn lookup(&self, unit: UnitKey, digest: &str, wanted: Wanted<'_>) -> bool {
        let mut client = self.client.clone();
        let request =
            LookupRequest { worker: self.worker.clone(), unit: Some(unit), digest: digest.to_owned() };
        let answer = self.wait(wanted, async move { within(LOOKUP, client.lookup(request)).await });
        answer.is_ok_and(|answer| answer.into_inner().known)
    }

    /// Sends eigenvalues; they are durable when this returns.
    pub(super) fn send_spectrum(
        &self,
        unit: &UnitKey,
        (digest, values): (&str, Vec<f64>),
        wanted: Wanted<'_>,
    ) -> Result<()> {
        let values: Arc<[f64]> = values.into();
        let total = values.len();
        self.until_done(wanted, Duration::MAX, || {
            let (values, mut client) = (Arc::clone(&values), self.client.clone());
            let head = SendSpectrumRequest {
                worker: self.worker.clone(),
                unit: Some(unit.clone()),
                digest: digest.to_owned(),
                total: total as u64,
                values: Vec::new(),
            };
            let messages = (0..total.div_ceil(VALUES).max(1)).map(move |piece| {
                let run = values.get(piece * VALUES..total.min((piece + 1) * VALUES)).unwrap_or_default();
                let head = if piece == 0 { head.clone() } else { SendSpectrumRequest::default() };
                SendSpectrumRequest { values: run.to_vec(), ..head }
            });
            let limit = sending(8 * total as u64);
            async move { within(limit, client.send_spectrum(stream::iter(messages))).await.map(|_| ()) }
        })
    }

    /// Sends a partial Gram matrix; the BLAKE3 of what was sent.
    pub(super) fn send_gram(
        &self,
        unit: &UnitKey,
        gram: PartialGram,
        wanted: Wanted<'_>,
    ) -> Result<[u8; 32]> {
        let gram = Arc::new(gram);
        let elements = gram.lower.len();
        let length = (PartialHead::BYTES + 8 * elements) as u64;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&gram.head.to_bytes());
        for start in (0..elements).step_by(ELEMENTS) {
            hasher.update(&gram.piece(start..start + ELEMENTS));
        }
        let digest = hasher.finalize();
        self.until_done(wanted, Duration::MAX, || {
            let (gram, mut client) = (Arc::clone(&gram), self.client.clone());
            let head = SendPartialGramRequest {
                worker: self.worker.clone(),
                unit: Some(unit.clone()),
                length,
                digest: digest.as_bytes().to_vec(),
                data: gram.head.to_bytes(),
            };
            let pieces = (0..elements).step_by(ELEMENTS).map(move |start| SendPartialGramRequest {
                data: gram.piece(start..start + ELEMENTS),
                ..SendPartialGramRequest::default()
            });
            let messages = stream::iter(std::iter::once(head).chain(pieces));
            async move { within(sending(length), client.send_partial_gram(messages)).await.map(|_| ()) }
        })?;
        Ok(*digest.as_bytes())
    }

    /// The sum of all partial Gram matrices of a layer with this M.
    pub(super) fn read_gram_sum(&self, unit: &UnitKey, m: u64, wanted: Wanted<'_>) -> Result<GramSum> {
        let found = self.until_done(wanted, PATIENCE, || {
            let mut client = self.client.clone();
            let request = ReadGramSumRequest { worker: self.worker.clone(), unit: Some(unit.clone()) };
            async move {
                let mut stream = within(SILENCE, client.read_gram_sum(request)).await?.into_inner();
                let mut sum = Incoming::new(m);
                while let Some(message) = within(SILENCE, stream.message()).await? {
                    if let Err(error) = sum.take(message.length, &message.data) {
                        return Ok(Err(error));
                    }
                }
                Ok(sum.finish())
            }
        })?;
        found.map_err(|e| Error::new(ErrorKind::Unavailable, format!("from the coordinator: {e}")))
    }

    /// Names of a model's objects, and whether it is a single file.
    pub(super) fn list(
        &self,
        passport: &Passport,
        wanted: Wanted<'_>,
    ) -> std::result::Result<(Vec<String>, bool), Status> {
        let mut client = self.client.clone();
        let Passport { attempt, analysis } = passport.clone();
        self.wait(wanted, async move {
            let request = ListObjectsRequest { attempt, analysis };
            let mut stream = within(SILENCE, client.list_objects(request)).await?.into_inner();
            let (mut names, mut single) = (Vec::new(), false);
            while let Some(message) = within(SILENCE, stream.message()).await? {
                names.extend(message.names);
                single |= message.is_single_file;
                if names.len() > NAMES {
                    return Err(Status::out_of_range(format!("more than {NAMES} objects")));
                }
            }
            Ok((names, single))
        })
    }

    /// As much of an object's range as comes; `buffer` has room for it and is given back filled.
    pub(super) fn read(&self, request: ReadObjectRequest, buffer: Vec<u8>, wanted: Wanted<'_>) -> Part {
        let mut client = self.client.clone();
        let part = self.wait(wanted, async move {
            let mut part = Part { identity: None, data: buffer, error: None };
            part.error = receive(&mut client, request, &mut part).await.err();
            Ok(part)
        });
        part.unwrap_or_else(|status| Part { identity: None, data: Vec::new(), error: Some(status) })
    }

    /// Calls until it succeeds, with pauses, as long as failures may pass, the work is wanted and there is patience: what
    /// was computed is not thrown away because the coordinator is away for a while.
    fn until_done<T, F>(
        &self,
        wanted: Wanted<'_>,
        patience: Duration,
        mut call: impl FnMut() -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, Status>> + Send + 'static,
    {
        let (mut pause, since) = (Pause::new(), Instant::now());
        loop {
            match self.wait(wanted, call()) {
                Ok(done) => return Ok(done),
                Err(_) if !wanted() => return Err(stopped()),
                Err(status) => {
                    let error = status::error(&status);
                    if !may_pass(&error) || since.elapsed() > patience {
                        // Whatever it is, it is not the model's fault.
                        let message = format!("the coordinator does not do its part: {error}");
                        return Err(Error::new(ErrorKind::Unavailable, message));
                    }
                    tracing::debug!(%error, "a call to the coordinator failed and is repeated");
                    std::thread::sleep(pause.next());
                }
            }
        }
    }

    /// Runs `call` on the runtime and waits for it, while it is wanted. May be called from any thread.
    fn wait<T: Send + 'static>(
        &self,
        wanted: Wanted<'_>,
        call: impl Future<Output = std::result::Result<T, Status>> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        let (send, receive) = sync_channel(1);
        let running = self.runtime.spawn(async move {
            // Nobody waits any more if this fails.
            let _ = send.send(call.await);
        });
        loop {
            match receive.recv_timeout(LOOK) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Disconnected) => return Err(Status::unavailable("the worker stops")),
                Err(RecvTimeoutError::Timeout) if wanted() => {}
                Err(RecvTimeoutError::Timeout) => {
                    running.abort();
                    return Err(Status::cancelled("not wanted any more"));
                }
            }
        }
    }
}

async fn receive(
    client: &mut TaskServiceClient<InterceptedService<Channel, Bearer>>,
    request: ReadObjectRequest,
    part: &mut Part,
) -> std::result::Result<(), Status> {
    let length = request.end.saturating_sub(request.begin);
    let mut stream = within(SILENCE, client.read_object(request)).await?.into_inner();
    while let Some(message) = within(SILENCE, stream.message()).await? {
        if let Some(identity) = message.identity {
            part.identity = Some(ObjectIdentity::from(identity));
        }
        let room = length.saturating_sub(part.data.len() as u64);
        if message.data.len() as u64 > room {
            return Err(Status::out_of_range(format!("more than the {length} bytes that were asked for")));
        }
        part.data.extend_from_slice(&message.data);
    }
    if (part.data.len() as u64) < length {
        return Err(Status::unavailable(format!("{} of {length} bytes came", part.data.len())));
    }
    Ok(())
}

/// How long sending so many bytes may take.
fn sending(bytes: u64) -> Duration {
    SILENCE + Duration::from_secs(bytes / SLOWEST)
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = std::result::Result<T, Status>>,
) -> std::result::Result<T, Status> {
    timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {limit:?}"))))
}

/// Whether trying again may help, as it may where the coordinator is started anew or the token is rotated.
pub(super) fn may_pass(error: &Error) -> bool {
    use ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::Unavailable
            | Kind::DeadlineExceeded
            | Kind::Exhausted
            | Kind::Interrupted
            | Kind::Internal
            | Kind::Unauthenticated
    )
}

/// The work is not wanted any more.
pub(super) fn stopped() -> Error {
    Error::new(ErrorKind::Interrupted, "not wanted any more")
}

/// Pauses that grow, with jitter, so that many workers do not come back at once.
pub(super) struct Pause(Duration);

impl Pause {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(3);

    /// The first is 25 to 50 ms.
    pub(super) fn new() -> Self {
        Self(Self::FIRST)
    }

    /// Half of it is random.
    pub(super) fn next(&mut self) -> Duration {
        let whole = self.0;
        self.0 = (whole * 2).min(Self::LONGEST);
        whole / 2 + (whole / 2).mul_f64(rand::random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut pause = Pause::new();
        let pauses: Vec<Duration> = (0..20).map(|_| pause.next()).collect();
        assert!(pauses[0] >= Duration::from_millis(25) && pauses[0] <= Duration::from_millis(50));
        assert!(pauses[19] >= Duration::from_millis(1500) && pauses[19] <= Duration::from_secs(3));
    }
}
