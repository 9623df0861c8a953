//! A span and a measured duration for every gRPC call, by the semantic conventions for RPC.
//!
//! The layer goes around the whole server, outside authentication, so that refused calls are seen too. Calls of
//! `grpc.health.v1.Health` are passed through unseen: a probe every few seconds says nothing.

mod call;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::HttpBody;
use prost::Message as _;
use tonic::metadata::MetadataValue;
use tracing::Instrument as _;

use super::metrics::Metrics;
use super::propagate::{self, TRACEPARENT};
use crate::{Error, ErrorKind, Result};
use call::Call;
pub use call::TracedBody;

/// Stands for a method that this server does not have. Anyone may call a method of any name, so that such names would
/// be labels without bound.
const OTHER: &str = "_OTHER";

/// Names of all methods in an encoded `FileDescriptorSet`, as `package.Service/Method`.
///
/// # Errors
/// [`ErrorKind::Internal`] if the bytes are no such set; they are part of the program.
pub fn methods(descriptor_set: &[u8]) -> Result<Vec<String>> {
    let set = prost_types::FileDescriptorSet::decode(descriptor_set)
        .map_err(|why| Error::new(ErrorKind::Internal, format!("the descriptors cannot be read: {why}")))?;
    let mut names = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                names.push(format!("{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    Ok(names)
}

/// For `Server::builder().layer(…)`.
#[derive(Clone)]
pub struct RpcLayer {
    shared: Arc<Shared>,
}

struct Shared {
    metrics: Arc<Metrics>,
    methods: HashSet<String>,
}

impl RpcLayer {
    /// A layer that counts in `metrics` and knows these methods, named `package.Service/Method`; see [`methods`].
    pub fn new(metrics: Arc<Metrics>, methods: impl IntoIterator<Item = String>) -> Self {
        let methods = methods.into_iter().collect();
        Self { shared: Arc::new(Shared { metrics, methods }) }
    }
}

impl<S> tower::Layer<S> for RpcLayer {
    type Service = RpcService<S>;

    fn layer(&self, inner: S) -> RpcService<S> {
        RpcService { inner, shared: Arc::clone(&self.shared) }
    }
}

/// A service whose calls are seen.
#[derive(Clone)]
pub struct RpcService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, B, R> tower::Service<http::Request<B>> for RpcService<S>
where
    S: tower::Service<http::Request<B>, Response = http::Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: HttpBody + Unpin,
{
    type Response = http::Response<TracedBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        // The one that was polled ready is the one to call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let mut call = self.shared.begin(&request);
        Box::pin(async move {
            let span = call.as_ref().map_or_else(tracing::Span::none, |call| call.span().clone());
            let response = inner.call(request).instrument(span).await;
            Ok(match response {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    // An answer without a body has its status among the headers.
                    if let Some(call) = &mut call {
                        call.see(&parts.headers);
                    }
                    http::Response::from_parts(parts, TracedBody::new(body, call))
                }
                Err(why) => {
                    if let Some(mut call) = call {
                        call.end("UNKNOWN");
                    }
                    return Err(why);
                }
            })
        })
    }
}

impl Shared {
    /// `None` for what is not to be seen.
    fn begin<B>(&self, request: &http::Request<B>) -> Option<Call> {
        let path = request.uri().path().trim_start_matches('/');
        if path.starts_with("grpc.health.v1.Health/") {
            return None;
        }
        let method = if self.methods.contains(path) { path } else { OTHER };
        let authority = request.uri().authority();
        let span = tracing::info_span!(
            "rpc",
            otel.name = method,
            otel.kind = "server",
            otel.status_code = tracing::field::Empty,
            rpc.system.name = "grpc",
            rpc.method = method,
            rpc.status_code = tracing::field::Empty,
            error.r#type = tracing::field::Empty,
            server.address = authority.map(|authority| authority.host()),
            server.port = authority.and_then(|authority| authority.port_u16()),
        );
        if let Some(traceparent) = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()) {
            propagate::set_parent(&span, traceparent);
        }
        Some(Call::new(Arc::clone(&self.metrics), method.to_owned(), span))
    }
}

/// For clients: sends the current span along with each call.
#[derive(Debug, Clone, Copy, Default)]
pub struct TraceInterceptor;

impl tonic::service::Interceptor for TraceInterceptor {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> std::result::Result<tonic::Request<()>, tonic::Status> {
        add_traceparent(&mut request);
        Ok(request)
    }
}

/// Adds the current span to a request that is about to be sent.
pub fn add_traceparent<T>(request: &mut tonic::Request<T>) {
    if let Some(value) = propagate::inject().and_then(|text| MetadataValue::try_from(text).ok()) {
        request.metadata_mut().insert(TRACEPARENT, value);
    }
}
