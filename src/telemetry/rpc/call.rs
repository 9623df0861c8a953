//! One call, from its first header to its last byte.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::HttpBody;
use hyper::body::{Frame, SizeHint};
use tonic::Code;
use tracing::Span;

use super::super::metrics::Metrics;

/// A call under way. Dropped before its end, it counts as cancelled: the client went away or its deadline passed.
pub(super) struct Call {
    metrics: Arc<Metrics>,
    method: String,
    span: Span,
    began: Instant,
    /// What the headers or trailers said.
    status: Option<Code>,
    ended: bool,
}

impl Call {
    pub(super) fn new(metrics: Arc<Metrics>, method: String, span: Span) -> Self {
        Self { metrics, method, span, began: Instant::now(), status: None, ended: false }
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Looks for the status in headers or trailers.
    pub(super) fn see(&mut self, headers: &http::HeaderMap) {
        if let Some(value) = headers.get("grpc-status") {
            self.status = Some(Code::from_bytes(value.as_bytes()));
        }
    }

    /// The body is at its end. A gRPC answer without a status is broken.
    fn finish(&mut self) {
        self.end(name(self.status.unwrap_or(Code::Unknown)));
    }

    pub(super) fn end(&mut self, status: &'static str) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.span.record("rpc.status_code", status);
        if is_fault_of_server(status) {
            self.span.record("otel.status_code", "ERROR");
            self.span.record("error.type", status);
        }
        self.metrics.call_ended(std::mem::take(&mut self.method), status, self.began.elapsed());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // The status is known though the end of the body was not asked for: then that is how the call ended.
        self.end(name(self.status.unwrap_or(Code::Cancelled)));
    }
}

/// The codes that the conventions count as errors of a server; the others are a client's doing.
fn is_fault_of_server(status: &str) -> bool {
    matches!(
        status,
        "UNKNOWN" | "DEADLINE_EXCEEDED" | "UNIMPLEMENTED" | "INTERNAL" | "UNAVAILABLE" | "DATA_LOSS"
    )
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The body of an answer, watched for its trailers.
pub struct TracedBody<B> {
    inner: B,
    call: Option<Call>,
}

impl<B: HttpBody> TracedBody<B> {
    pub(super) fn new(inner: B, mut call: Option<Call>) -> Self {
        if inner.is_end_stream()
            && let Some(call) = &mut call
        {
            call.finish();
        }
        Self { inner, call }
    }
}

impl<B: Default> Default for TracedBody<B> {
    fn default() -> Self {
        Self { inner: B::default(), call: None }
    }
}

impl<B: HttpBody + Unpin> HttpBody for TracedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        // What the handler logs while its stream is read belongs to the call.
        let _entered = this.call.as_ref().map(|call| call.span().clone().entered());
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        if let Some(call) = &mut this.call {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        call.see(trailers);
                        call.finish();
                    }
                }
                Some(Err(_)) => call.end("UNKNOWN"),
                None => call.finish(),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
