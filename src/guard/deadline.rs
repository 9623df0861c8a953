//! Deadlines: the client's `grpc-timeout` and a limit of ours, answered with DEADLINE_EXCEEDED.
//!
//! tonic answers CANCELLED, and lets a stream that has begun run on. Here the handler's future is dropped when its
//! time is over, and a stream ends with a status.

use super::policy::DOMAIN;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::{Layer, Service};

/// When the client stops waiting: in the extensions of a request that named a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(pub Instant);

/// Ends calls whose time is over. It must be the outermost layer, or tonic's own timer may answer first.
#[derive(Debug, Clone)]
pub struct DeadlineLayer {
    most: Duration,
    unlimited: &'static [&'static str],
}

impl DeadlineLayer {
    /// A layer that allows `most` until a call's first answer, whatever its client allows.
    pub fn new(most: Duration) -> Self {
        Self { most, unlimited: &[] }
    }

    /// Exempts the methods of these paths (`/package.Service/Method`) from our limit, such as those whose request is a
    /// long stream; the client's deadline still counts.
    #[must_use]
    pub fn except(mut self, paths: &'static [&'static str]) -> Self {
        self.unlimited = paths;
        self
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { rules: self.clone(), inner }
    }
}

/// What [`DeadlineLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct DeadlineService<S> {
    rules: DeadlineLayer,
    inner: S,
}

impl<S, B> Service<Request<B>> for DeadlineService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Limited<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let client = match client_timeout(request.headers()) {
            Ok(client) => client,
            Err(status) => return Limited { state: State::Refused(Some(status)) },
        };
        // The timers start here, before tonic starts its own: at the same tick ours is asked first.
        let now = Instant::now();
        let client = client.and_then(|client| now.checked_add(client));
        if let Some(client) = client {
            request.extensions_mut().insert(Deadline(client));
        }
        let is_limited = !self.rules.unlimited.contains(&request.uri().path());
        let ours = is_limited.then(|| now.checked_add(self.rules.most)).flatten();
        let first = [client, ours].into_iter().flatten().min();
        let by_client = first == client;
        Limited {
            state: State::Running(Box::new(Running {
                inner: Box::pin(self.inner.call(request)),
                sleep: first.map(|first| Box::pin(sleep_until(first))),
                client,
                by_client,
            })),
        }
    }
}

/// A call with its timer.
pub struct Limited<F> {
    state: State<F>,
}

enum State<F> {
    Running(Box<Running<F>>),
    Refused(Option<Status>),
}

struct Running<F> {
    inner: Pin<Box<F>>,
    sleep: Option<Pin<Box<Sleep>>>,
    client: Option<Instant>,
    by_client: bool,
}

impl<F, E> Future for Limited<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let state = &mut self.get_mut().state;
        let running = match state {
            State::Running(running) => running,
            State::Refused(status) => {
                let status = status.take().unwrap_or_else(|| Status::internal("the call is over"));
                return Poll::Ready(Ok(status.into_http()));
            }
        };
        if let Poll::Ready(answer) = running.inner.as_mut().poll(cx) {
            let client = running.client;
            return Poll::Ready(answer.map(|response| match client {
                None => response,
                Some(client) => response.map(|body| Body::new(LimitedBody::new(body, client))),
            }));
        }
        let is_over = match &mut running.sleep {
            Some(sleep) => sleep.as_mut().poll(cx).is_ready(),
            None => false,
        };
        if !is_over {
            return Poll::Pending;
        }
        let status = exceeded(running.by_client);
        // The handler's future is dropped now, and the work that it paid for with it.
        *state = State::Refused(None);
        Poll::Ready(Ok(status.into_http()))
    }
}

fn exceeded(by_client: bool) -> Status {
    let (reason, message) = if by_client {
        ("DEADLINE_EXCEEDED", "the client's deadline has passed")
    } else {
        ("SERVER_TIME_LIMIT", "the call took longer than limits.max_rpc_time allows")
    };
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(Code::DeadlineExceeded, message, details)
}

/// The time that a client allows: up to 8 digits and a unit (gRPC over HTTP/2).
fn client_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit());
        let number: u64 = digits.parse().ok().filter(|_| is_number)?;
        Some(match unit {
            "H" => Duration::from_secs(number * 3600),
            "M" => Duration::from_secs(number * 60),
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            _ => return None,
        })
    });
    parsed.map(Some).ok_or_else(|| {
        let details = ErrorDetails::with_error_info("BAD_TIMEOUT", DOMAIN, HashMap::new());
        let message = "the header grpc-timeout must be 1 to 8 digits and one of H, M, S, m, u, n";
        Status::with_error_details(Code::InvalidArgument, message, details)
    })
}

/// The body of an answer that ends when the client's time is over.
struct LimitedBody {
    inner: Option<Body>,
    sleep: Pin<Box<Sleep>>,
}

impl LimitedBody {
    fn new(inner: Body, until: Instant) -> Self {
        Self { inner: Some(inner), sleep: Box::pin(sleep_until(until)) }
    }
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        // The timer first: a body that is always ready must end too.
        if this.sleep.as_mut().poll(cx).is_ready() && !inner.is_end_stream() {
            this.inner = None;
            let mut trailers = HeaderMap::new();
            return match exceeded(true).add_header(&mut trailers) {
                Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Err(status) => Poll::Ready(Some(Err(status))),
            };
        }
        Pin::new(inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(|inner| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map(|inner| inner.size_hint()).unwrap_or_default()
    }
}
