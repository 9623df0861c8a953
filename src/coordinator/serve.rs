//! A coordinator from its start to its end.

use super::analyses::Analyses;
use super::core::Core;
use super::settings::Settings;
use super::tasks::{Tasks, Versions};
use super::uploads::{self, Uploads};
use super::workers::Workers;
use crate::config::Config;
use crate::guard::{DeadlineLayer, GuardLayer, Incoming, ListenOptions, Listener, Policy};
use crate::job::Time;
use crate::rpc::proto::DESCRIPTORS;
use crate::rpc::proto::v1::analysis_service_server::AnalysisServiceServer;
use crate::rpc::proto::v1::system_service_server::SystemServiceServer;
use crate::rpc::proto::v1::upload_service_server::UploadServiceServer;
use crate::rpc::proto::v1::worker_service_server::WorkerServiceServer;
use crate::rpc::proto::worker::v1::task_service_server::TaskServiceServer;
use crate::store::{Batch, Records, Space, Store, StoreOptions, commit};
use crate::telemetry::Metrics;
use crate::telemetry::http::Readiness;
use crate::telemetry::rpc::{RpcLayer, methods};
use crate::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::ServingStatus;

/// How often gauges are set and exports are thought of.
const SAMPLE: Duration = Duration::from_secs(5);
/// Window of a connection: progress comes in many small messages.
const WINDOW: u32 = 8 << 20;
/// Calls that last as long as there is something to say.
const LONG: &[&str] = &[
    "/spectrald.v1.AnalysisService/WatchAnalysis",
    "/grpc.health.v1.Health/Watch",
    "/spectrald.worker.v1.TaskService/SendPartialGram",
    "/spectrald.worker.v1.TaskService/SendSpectrum",
];

/// A coordinator that listens.
pub struct Coordinator {
    core: Arc<Core>,
    store: Arc<Store>,
    config: Config,
    policy: Arc<Policy>,
    listener: Listener,
    incoming: Incoming,
    ready: watch::Sender<Readiness>,
}

impl Coordinator {
    /// Opens the data directory, takes up what had not ended, and binds the port. To be called inside a runtime.
    ///
    /// # Errors
    /// `Unavailable` if another coordinator holds the data directory or the port; `InvalidArgument` for files of the
    /// configuration that are wrong; what the store gives.
    pub async fn start(
        config: &Config,
        metrics: Arc<Metrics>,
        ready: watch::Sender<Readiness>,
    ) -> Result<Self> {
        let policy = Arc::new(Policy::from_config(&config.coordinator)?);
        let options = ListenOptions::from_config(config.coordinator.tls.as_ref(), &config.limits);
        let (listener, incoming) = Listener::bind(config.coordinator.listen, &options).await?;
        ready.send_replace(Readiness::NotReady("recovering the store"));
        let settings = Settings::new(config, tokio::runtime::Handle::current());
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opening)).await;
        let (store, epoch, recovery) =
            opened.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, format!("the store: {e}"))))?;
        let store = Arc::new(store);
        let records: Arc<dyn Records> = Arc::clone(&store) as Arc<dyn Records>;
        let core = Arc::new(Core::new(settings, records, (epoch, recovery), metrics));
        core.sums.clear()?;
        let taken_up = core.restore()?;
        if taken_up > 0 {
            tracing::info!(analyses = taken_up, "taken up where they were");
        }
        ready.send_replace(Readiness::Ready);
        Ok(Self { core, store, config: config.clone(), policy, listener, incoming, ready })
    }

    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// A connection for a worker in this process: over loopback where the port takes callers without credentials.
    ///
    /// # Errors
    /// `InvalidArgument` if it does not.
    pub fn local_channel(&self) -> Result<Channel> {
        if !self.policy.is_open() || self.config.coordinator.tls.is_some() {
            let message = "a coordinator with tokens or TLS needs workers with credentials: start `spectrald \
                           coordinator` and `spectrald worker` by themselves";
            return Err(Error::invalid(message).in_field("serve"));
        }
        let address = format!("http://{}", self.address());
        let endpoint = Endpoint::from_shared(address).map_err(|e| Error::invalid(e.to_string()))?;
        Ok(endpoint.tcp_nodelay(true).connect_lazy())
    }

    /// Serves until `shutdown`, then lets calls under way end within `coordinator.shutdown_grace`.
    ///
    /// # Errors
    /// `Unavailable` if the server fails.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<()> {
        let Self { core, store, config, policy, listener, incoming, ready } = self;
        tracing::info!(address = %listener.address(), data_dir = %config.coordinator.data_dir.display(),
            open = policy.is_open(), "the coordinator listens");
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status("", ServingStatus::Serving).await;
        for name in ["v1.AnalysisService", "v1.UploadService", "v1.WorkerService", "v1.SystemService"] {
            health.set_service_status(format!("spectrald.{name}"), ServingStatus::Serving).await;
        }
        health.set_service_status("spectrald.worker.v1.TaskService", ServingStatus::Serving).await;
        let open = listener.open_connections();
        let accepting = tokio::spawn(listener.run());
        let gauges = Arc::clone(&core.metrics);
        let (disk, room) = (ready.clone(), Arc::clone(&core));
        let sample = move || {
            gauges.connections(open());
            tell_room(&disk, &room);
        };
        let background =
            tokio::spawn(keep_time(Arc::clone(&core), Arc::clone(&store), config.clone(), sample));
        let refusals = Arc::clone(&core.metrics);
        let layers = tower::ServiceBuilder::new()
            .layer(RpcLayer::new(Arc::clone(&core.metrics), methods(DESCRIPTORS)?))
            .layer(DeadlineLayer::new(config.limits.max_rpc_time).except(LONG))
            .layer(GuardLayer::new(policy).on_refusal(move |reason| refusals.refused(reason)))
            .into_inner();
        let stop = shutdown.clone();
        let told = async move {
            stop.cancelled().await;
            ready.send_replace(Readiness::NotReady("draining"));
            health.set_service_status("", ServingStatus::NotServing).await;
        };
        let server = Server::builder()
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW / 2)
            .max_concurrent_streams(config.limits.max_streams)
            .http2_keepalive_interval(Some(Duration::from_secs(60)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .http2_max_pending_accept_reset_streams(Some(20))
            .tcp_nodelay(true)
            .layer(layers)
            .add_routes(routes(&core, health_service)?)
            .serve_with_incoming_shutdown(incoming, told);
        // The server waits for streams that may never end by themselves.
        let grace = config.coordinator.shutdown_grace;
        let cut = async move {
            shutdown.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        let outcome = tokio::select! {
            served = server => served.map_err(|e| Error::new(ErrorKind::Unavailable, format!("the server: {e}"))),
            () = cut => Ok(()),
        };
        accepting.abort();
        background.abort();
        tracing::info!("the coordinator has stopped");
        outcome
    }
}

fn routes<H>(core: &Arc<Core>, health: H) -> Result<tonic::service::Routes>
where
    H: tower::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    H::Future: Send + 'static,
{
    let most = core.settings.max_message_bytes;
    let versions = Arc::new(Versions::default());
    let workers = Workers { core: Arc::clone(core), versions: Arc::clone(&versions) };
    let tasks = Tasks { core: Arc::clone(core), versions };
    macro_rules! limited {
        ($server:expr) => {
            $server.max_decoding_message_size(most).max_encoding_message_size(most)
        };
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let broken =
        |e: tonic_reflection::server::Error| Error::new(ErrorKind::Internal, format!("reflection: {e}"));
    Ok(tonic::service::Routes::new(health)
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?)
        .add_service(limited!(AnalysisServiceServer::new(Analyses(Arc::clone(core)))))
        .add_service(limited!(UploadServiceServer::new(Uploads(Arc::clone(core)))))
        .add_service(limited!(WorkerServiceServer::new(workers.clone())))
        .add_service(limited!(SystemServiceServer::new(workers)))
        .add_service(limited!(TaskServiceServer::new(tasks))))
}

/// Opens the store and takes the next epoch.
fn open(config: &Config) -> Result<(Store, u32, String)> {
    const EPOCH: &[u8] = b"epoch";
    let options = StoreOptions {
        cache_bytes: config.store.page_cache_bytes,
        max_result_bytes: match config.store.cache_max_bytes {
            0 => u64::MAX,
            most => most,
        },
        min_free_bytes: config.store.min_free_bytes,
        ..StoreOptions::default()
    };
    let (store, opened) = Store::open(&config.coordinator.data_dir, &options)?;
    let recovery = opened.recovered.as_ref().map(ToString::to_string).unwrap_or_default();
    if !recovery.is_empty() {
        tracing::error!("{recovery}");
    }
    for bad in &opened.bad {
        tracing::error!(record = ?bad, "a corrupt record was set aside");
    }
    let last =
        store.get(Space::Meta, EPOCH)?.and_then(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)));
    // A database that was restored may have lost the newest epoch; the wall clock is above it in any case.
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let clock = u32::try_from(seconds).unwrap_or(u32::MAX);
    let epoch = last.map_or(0, |last| last.saturating_add(1)).max(clock);
    let mut batch = Batch::new();
    batch.put(Space::Meta, EPOCH, epoch.to_le_bytes().to_vec());
    commit(&store, batch)?;
    Ok((store, epoch, recovery))
}

/// Not ready while the disk is nearly full; nothing that says otherwise is touched.
fn tell_room(ready: &watch::Sender<Readiness>, core: &Core) {
    const LOW: Readiness = Readiness::NotReady("low on disk");
    let is_low = core.records.health().low_on_disk;
    ready.send_if_modified(|now| {
        let next = match (is_low, *now) {
            (true, Readiness::Ready) => LOW,
            (false, now) if now == LOW => Readiness::Ready,
            (_, now) => now,
        };
        std::mem::replace(now, next) != next
    });
}

/// Time-outs, gauges, exports, old uploads.
async fn keep_time(core: Arc<Core>, store: Arc<Store>, config: Config, sample: impl Fn() + Send + 'static) {
    let leases = tokio::spawn(expire(Arc::clone(&core)));
    let mut ticks = tokio::time::interval(SAMPLE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = core.records.health();
    let _stop = AbortOnDrop(leases);
    loop {
        ticks.tick().await;
        core.sample(&mut before);
        sample();
        let (core, store) = (Arc::clone(&core), Arc::clone(&store));
        let (every, keep) = (config.store.export_every, config.store.export_keep);
        let done = tokio::task::spawn_blocking(move || {
            uploads::clean(&core);
            match store.export_if_due(SystemTime::now(), every, keep) {
                Ok(Some(report)) => {
                    tracing::info!(path = %report.path.display(), records = report.records, "exported");
                    core.note_export();
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "the store cannot be exported"),
            }
        });
        if let Err(error) = done.await {
            tracing::error!(%error, "housekeeping failed");
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Does what is due in the job table, when it is due.
async fn expire(core: Arc<Core>) {
    loop {
        let next = core.table().next_deadline();
        let now = core.now();
        let wait = next.map(|at: Time| Duration::from_millis(at.since(now)));
        match wait {
            Some(wait) => {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = core.wake.notified() => continue,
                }
            }
            None => {
                core.wake.notified().await;
                continue;
            }
        }
        let events = core.table().expire(core.now());
        core.follow_up(events);
    }
}
