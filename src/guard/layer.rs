//! The layer of tonic's server that lets calls in.

use super::listen::PeerInfo;
use super::policy::Policy;
use crate::error::printable;
use futures_util::future::{Either, Ready, ready};
use http::{Request, Response};
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// Asks a [`Policy`] about each call before anything of its message is read; puts the [`super::Caller`] in the
/// request's extensions; answers refused calls and logs them.
#[derive(Clone)]
pub struct GuardLayer {
    policy: Arc<Policy>,
    told: Told,
}

/// Who is told of a refusal, by its reason word.
type Told = Arc<dyn Fn(&'static str) + Send + Sync>;

impl GuardLayer {
    /// A layer that follows `policy`.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self { policy, told: Arc::new(|_| ()) }
    }

    /// Tells `told` the reason word of each refusal, for metrics.
    #[must_use]
    pub fn on_refusal(mut self, told: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        self.told = Arc::new(told);
        self
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = GuardService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GuardService { policy: Arc::clone(&self.policy), told: Arc::clone(&self.told), inner }
    }
}

/// What [`GuardLayer`] makes of a service.
#[derive(Clone)]
pub struct GuardService<S> {
    policy: Arc<Policy>,
    told: Told,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for GuardService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<R>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let peer = request.extensions().get::<PeerInfo>();
        let path = request.uri().path();
        match self.policy.authorize(path, request.headers(), peer) {
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                Either::Right(self.inner.call(request))
            }
            Err(refusal) => {
                let peer = peer.map(|peer| peer.address().to_string()).unwrap_or_default();
                tracing::warn!(
                    method = %printable(path),
                    caller = refusal.caller.as_deref().unwrap_or("unknown"),
                    peer,
                    reason = refusal.reason,
                    "call refused"
                );
                (self.told)(refusal.reason);
                Either::Left(ready(Ok(refusal.into_status().into_http())))
            }
        }
    }
}
