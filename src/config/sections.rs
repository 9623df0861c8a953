//! The configuration as plain values. Meaning, unit and default of each field are those of its key in the sample
//! file, `spectrald.example.toml`.

use super::read::Values;
use super::schema;
use super::value::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// `[coordinator]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coordinator {
    /// Address of gRPC (127.0.0.1:7600).
    pub listen: SocketAddr,
    /// Address of /metrics, /healthz and /readyz (127.0.0.1:7601); `None`: off.
    pub http_listen: Option<SocketAddr>,
    /// Folder of the database, of uploads and of exports (/var/lib/spectrald).
    pub data_dir: PathBuf,
    /// File of bearer tokens.
    pub tokens_file: Option<PathBuf>,
    /// Whether jobs may name any path that the coordinator's user may read (no).
    pub allow_local_files: bool,
    /// Longest wait for calls under way at the end (15 s).
    pub shutdown_grace: Duration,
    /// TLS of the gRPC port; `None`: none.
    pub tls: Option<CoordinatorTls>,
}

/// `[coordinator.tls]`. The files are PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorTls {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Authorities whose client certificates make a worker; `None`: certificates are not asked for.
    pub client_ca: Option<PathBuf>,
}

/// `[worker]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// URL of the coordinator (http://127.0.0.1:7600).
    pub coordinator: String,
    /// Name of the worker; `None`: a random one.
    pub id: Option<String>,
    /// Threads that compute; `None`: one a core.
    pub threads: Option<usize>,
    /// Memory for tasks, in bytes; `None`: a part of the machine's.
    pub memory: Option<u64>,
    /// File with the worker's token.
    pub token_file: Option<PathBuf>,
    /// Time between two reports (1 s).
    pub report_every: Duration,
    /// Longest wait for tasks under way at the end (25 s).
    pub drain_grace: Duration,
    /// TLS towards the coordinator.
    pub tls: WorkerTls,
}

/// `[worker.tls]`. The files are PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerTls {
    /// Authorities that vouch for the coordinator; `None`: those of the operating system.
    pub ca: Option<PathBuf>,
    /// The worker's certificate chain, leaf first.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`.
    pub key: Option<PathBuf>,
    /// Name expected in the coordinator's certificate; `None`: the URL's host.
    pub server_name: Option<String>,
}

/// `[limits]`: what one client, one model or one connection may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Tensors of one model (200,000).
    pub max_tensors: u64,
    /// Stored bytes of one tensor (64 GiB).
    pub max_tensor_bytes: u64,
    /// Layers of one job (200,000).
    pub max_layers: u64,
    /// Tasks and shards of one job (1,000,000).
    pub max_units: u64,
    /// Jobs queued or running (1000).
    pub max_jobs_queued: usize,
    /// Connections to the gRPC port (1024).
    pub max_connections: usize,
    /// Connections from one IP address (256).
    pub max_connections_per_peer: usize,
    /// Calls at a time on one connection (128).
    pub max_streams: u32,
    /// Bytes of one gRPC message, in and out (4 MiB).
    pub max_message_bytes: usize,
    /// Bytes of one uploaded model (16 GiB).
    pub max_upload_bytes: u64,
    /// Uploads under way (16).
    pub max_uploads: usize,
    /// Time until a call's first answer (60 s).
    pub max_rpc_time: Duration,
    /// Time for a TLS handshake (5 s).
    pub handshake_timeout: Duration,
}

/// `[leases]`: when work is taken away, tried again, or given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leases {
    /// Silence of a worker after which its tasks go to others (30 s).
    pub lease_timeout: Duration,
    /// Time without progress after which a task is taken away (10 min).
    pub progress_timeout: Duration,
    /// Workers that a task may kill (3).
    pub max_kills: u32,
    /// Failures of the world that a task survives (20).
    pub max_world_failures: u32,
    /// Wait before the first repetition (1 s).
    pub retry_backoff: Duration,
    /// Longest wait before a repetition (5 min).
    pub retry_backoff_max: Duration,
    /// Wait of a task that no live worker has memory for (1 h).
    pub unplaceable_timeout: Duration,
    /// Wait of jobs when there is no worker (24 h).
    pub no_worker_timeout: Duration,
    /// Operations up to which small layers travel together (2e9).
    pub batch_flops: u64,
    /// Layers that travel together (256).
    pub batch_layers: usize,
    /// Bytes for partial Gram matrices in memory (1 GiB).
    pub combine_memory: u64,
}

/// `[store]`: the database in the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Bytes of the page cache (128 MiB).
    pub page_cache_bytes: u64,
    /// Bytes of results; 0 keeps all (10 GiB).
    pub cache_max_bytes: u64,
    /// Free disk space below which new jobs are refused, in bytes (1 GiB).
    pub min_free_bytes: u64,
    /// Time between two exports (1 h).
    pub export_every: Duration,
    /// Exports that are kept (3).
    pub export_keep: usize,
}

/// `[log]`: log lines on stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// text or json (text).
    pub format: LogFormat,
    /// A level, or directives such as `info,spectrald=debug` (info).
    pub filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Reads typed values. A key that is absent because its value was wrong gives an empty value: the mistake is reported
/// and nobody sees this configuration.
pub(super) struct Typed<'a>(pub &'a Values);

impl Typed<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        debug_assert!(schema::find(name).is_some(), "{name} is in the schema");
        self.0.get(name).map(|(value, _)| value)
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        match self.get(name) {
            Some(Value::Path(path)) => Some(path.clone()),
            _ => None,
        }
    }

    fn address(&self, name: &str) -> Option<SocketAddr> {
        match self.get(name) {
            Some(Value::Address(address)) => Some(*address),
            _ => None,
        }
    }

    fn is_set(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Bool(true)))
    }

    fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// A number whose range in the schema fits `T`.
    fn count<T: TryFrom<u64> + Default>(&self, name: &str) -> T {
        self.number(name).and_then(|number| T::try_from(number).ok()).unwrap_or_default()
    }

    fn time(&self, name: &str) -> Duration {
        match self.get(name) {
            Some(Value::Time(time)) => *time,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn coordinator(&self) -> Coordinator {
        let tls = self.path("coordinator.tls.cert").zip(self.path("coordinator.tls.key"));
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Coordinator {
            listen: self.address("coordinator.listen").unwrap_or(nowhere),
            http_listen: self.address("coordinator.http_listen"),
            data_dir: self.path("coordinator.data_dir").unwrap_or_default(),
            tokens_file: self.path("coordinator.tokens_file"),
            allow_local_files: self.is_set("coordinator.allow_local_files"),
            shutdown_grace: self.time("coordinator.shutdown_grace"),
            tls: tls.map(|(cert, key)| CoordinatorTls {
                cert,
                key,
                client_ca: self.path("coordinator.tls.client_ca"),
            }),
        }
    }

    pub(super) fn worker(&self) -> Worker {
        Worker {
            coordinator: self.text("worker.coordinator").unwrap_or_default(),
            id: self.text("worker.id"),
            threads: self.number("worker.threads").and_then(|number| usize::try_from(number).ok()),
            memory: self.number("worker.memory"),
            token_file: self.path("worker.token_file"),
            report_every: self.time("worker.report_every"),
            drain_grace: self.time("worker.drain_grace"),
            tls: WorkerTls {
                ca: self.path("worker.tls.ca"),
                cert: self.path("worker.tls.cert"),
                key: self.path("worker.tls.key"),
                server_name: self.text("worker.tls.server_name"),
            },
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            max_tensors: self.count("limits.max_tensors"),
            max_tensor_bytes: self.count("limits.max_tensor_bytes"),
            max_layers: self.count("limits.max_layers"),
            max_units: self.count("limits.max_units"),
            max_jobs_queued: self.count("limits.max_jobs_queued"),
            max_connections: self.count("limits.max_connections"),
            max_connections_per_peer: self.count("limits.max_connections_per_peer"),
            max_streams: self.count("limits.max_streams"),
            max_message_bytes: self.count("limits.max_message_bytes"),
            max_upload_bytes: self.count("limits.max_upload_bytes"),
            max_uploads: self.count("limits.max_uploads"),
            max_rpc_time: self.time("limits.max_rpc_time"),
            handshake_timeout: self.time("limits.handshake_timeout"),
        }
    }

    pub(super) fn leases(&self) -> Leases {
        Leases {
            lease_timeout: self.time("leases.lease_timeout"),
            progress_timeout: self.time("leases.progress_timeout"),
            max_kills: self.count("leases.max_kills"),
            max_world_failures: self.count("leases.max_world_failures"),
            retry_backoff: self.time("leases.retry_backoff"),
            retry_backoff_max: self.time("leases.retry_backoff_max"),
            unplaceable_timeout: self.time("leases.unplaceable_timeout"),
            no_worker_timeout: self.time("leases.no_worker_timeout"),
            batch_flops: self.count("leases.batch_flops"),
            batch_layers: self.count("leases.batch_layers"),
            combine_memory: self.count("leases.combine_memory"),
        }
    }

    pub(super) fn store(&self) -> Store {
        Store {
            page_cache_bytes: self.count("store.page_cache_bytes"),
            cache_max_bytes: self.count("store.cache_max_bytes"),
            min_free_bytes: self.count("store.min_free_bytes"),
            export_every: self.time("store.export_every"),
            export_keep: self.count("store.export_keep"),
        }
    }

    pub(super) fn log(&self) -> Log {
        let json = self.text("log.format").as_deref() == Some("json");
        Log {
            format: if json { LogFormat::Json } else { LogFormat::Text },
            filter: self.text("log.filter").unwrap_or_default(),
        }
    }
}
