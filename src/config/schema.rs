//! Every key of the configuration: what it means, what it may be, what it is when nothing is said.
//!
//! The sample file, the checks, `config show` and the names of environment variables all follow from this table.

use super::value::Kind;

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// `section.key`, or `section.part.key`.
    pub name: &'static str,
    pub kind: Kind,
    /// The default as text; `None` where there is none.
    pub default: Option<&'static str>,
    /// A value for the sample file where there is no default.
    pub example: &'static str,
    /// One sentence: meaning, unit, and what holds when nothing is said.
    pub about: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Key {
    Key { name, kind, default: Some(default), example: "", about }
}

const fn optional(name: &'static str, kind: Kind, example: &'static str, about: &'static str) -> Key {
    Key { name, kind, default: None, example, about }
}

/// Sections in the order of the sample file, each with one sentence on what it rules.
pub(super) const SECTIONS: [(&str, &str); 9] = [
    ("coordinator", "The process that plans, leases, collects and remembers."),
    ("coordinator.tls", "TLS of the coordinator's gRPC port. The files are read again when they change."),
    ("worker", "A process that pulls tasks and computes."),
    ("worker.tls", "TLS towards the coordinator; needs a coordinator URL that begins with https://."),
    ("limits", "What one client, one model or one connection may take."),
    ("leases", "When work is taken from a worker, tried again, or given up."),
    ("store", "The database in the data directory."),
    ("log", "Log lines on stderr."),
    ("root", "A place that jobs may name; any number of [[root]] tables."),
];

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const EIB: u64 = 1 << 60;
/// Counts that are kept in memory, one entry each.
const MANY: u64 = 100_000_000;

/// Keys outside of `[[root]]`, in the order of the sample file.
pub(super) const KEYS: &[Key] = &[
    key(
        "coordinator.listen",
        Kind::Address,
        "127.0.0.1:7600",
        "IP address and port of gRPC. Other than loopback needs tokens_file or tls.client_ca.",
    ),
    key(
        "coordinator.http_listen",
        Kind::AddressOrOff,
        "127.0.0.1:7601",
        "IP address and port of /metrics, /healthz and /readyz, or \"off\". `serve` leaves it off unless it is set.",
    ),
    key(
        "coordinator.data_dir",
        Kind::Path,
        "/var/lib/spectrald",
        "Folder of the database, of uploads and of exports; one coordinator a folder. `serve` takes a folder of its user's unless it is set.",
    ),
    optional(
        "coordinator.tokens_file",
        Kind::Path,
        "/etc/spectrald/tokens.toml",
        "File of [[token]] tables (name, sha256, roles). It is read again when it changes. None: no bearer tokens.",
    ),
    key(
        "coordinator.allow_local_files",
        Kind::Bool,
        "false",
        "Whether jobs may name any path that the coordinator's user may read. Only on loopback; `serve` sets it.",
    ),
    key(
        "coordinator.shutdown_grace",
        Kind::Time(0, HOUR),
        "15s",
        "Longest wait for calls under way when the coordinator is told to stop.",
    ),
    optional(
        "coordinator.tls.cert",
        Kind::Path,
        "/etc/spectrald/tls.crt",
        "PEM file of the certificate chain, leaf first. None: no TLS.",
    ),
    optional(
        "coordinator.tls.key",
        Kind::Path,
        "/etc/spectrald/tls.key",
        "PEM file of the private key. Needed with cert.",
    ),
    optional(
        "coordinator.tls.client_ca",
        Kind::Path,
        "/etc/spectrald/workers-ca.crt",
        "PEM file of the authorities whose client certificates make a worker. None: certificates are not asked for.",
    ),
    key("worker.coordinator", Kind::Url, "http://127.0.0.1:7600", "URL of the coordinator."),
    optional(
        "worker.id",
        Kind::Name,
        "worker-1",
        "Name of this worker, unique among those alive. None: a random one at every start.",
    ),
    optional(
        "worker.threads",
        Kind::Count(1, 4096),
        "8",
        "Threads that compute. None: as many as there are CPU cores.",
    ),
    optional(
        "worker.memory",
        Kind::Bytes(64 * MIB, EIB),
        "8GiB",
        "Memory for tasks under way, in bytes. None: a part of what the machine, or its cgroup, has.",
    ),
    optional(
        "worker.token_file",
        Kind::Path,
        "/etc/spectrald/worker.token",
        "File whose only line is the worker's token. None: no token is sent.",
    ),
    key("worker.report_every", Kind::Time(100, MINUTE), "1s", "Time between two reports to the coordinator."),
    key(
        "worker.drain_grace",
        Kind::Time(0, 24 * HOUR),
        "25s",
        "Longest wait for tasks under way when the worker is told to stop; what is left is handed back.",
    ),
    optional(
        "worker.tls.ca",
        Kind::Path,
        "/etc/spectrald/ca.crt",
        "PEM file of the authorities that vouch for the coordinator. None: those of the operating system.",
    ),
    optional(
        "worker.tls.cert",
        Kind::Path,
        "/etc/spectrald/worker.crt",
        "PEM file of this worker's certificate chain, leaf first. None: no certificate is shown.",
    ),
    optional(
        "worker.tls.key",
        Kind::Path,
        "/etc/spectrald/worker.key",
        "PEM file of the private key. Needed with cert.",
    ),
    optional(
        "worker.tls.server_name",
        Kind::Text,
        "spectrald.example",
        "Name expected in the coordinator's certificate. None: the host of the URL.",
    ),
    key("limits.max_tensors", Kind::Count(1, MANY), "200000", "Most tensors of one model."),
    key("limits.max_tensor_bytes", Kind::Bytes(KIB, EIB), "64GiB", "Most stored bytes of one tensor."),
    key("limits.max_layers", Kind::Count(1, MANY), "200000", "Most layers of one job."),
    key(
        "limits.max_units",
        Kind::Count(1, MANY),
        "1000000",
        "Most units of work (tasks and shards) of one job.",
    ),
    key(
        "limits.max_jobs_queued",
        Kind::Count(1, 1_000_000),
        "1000",
        "Most jobs that are queued or running; more are refused with RESOURCE_EXHAUSTED.",
    ),
    key(
        "limits.max_connections",
        Kind::Count(1, 1_000_000),
        "1024",
        "Most connections to the gRPC port; one more is closed at once.",
    ),
    key(
        "limits.max_connections_per_peer",
        Kind::Count(1, 1_000_000),
        "256",
        "Most connections from one IP address.",
    ),
    key("limits.max_streams", Kind::Count(1, 100_000), "128", "Most calls at a time on one connection."),
    key("limits.max_message_bytes", Kind::Bytes(MIB, 64 * MIB), "4MiB", "Longest gRPC message, in and out."),
    key(
        "limits.max_upload_bytes",
        Kind::Bytes(0, EIB),
        "16GiB",
        "Most bytes of one uploaded model; 0 allows no uploads.",
    ),
    key("limits.max_uploads", Kind::Count(0, 100_000), "16", "Most uploads under way."),
    key(
        "limits.max_rpc_time",
        Kind::Time(SECOND, 24 * HOUR),
        "60s",
        "Longest time until a call's first answer, whatever the client allows.",
    ),
    key("limits.handshake_timeout", Kind::Time(100, MINUTE), "5s", "Longest time for a TLS handshake."),
    key(
        "leases.lease_timeout",
        Kind::Time(SECOND, 24 * HOUR),
        "30s",
        "Silence of a worker after which its tasks are given to others.",
    ),
    key(
        "leases.progress_timeout",
        Kind::Time(SECOND, 7 * 24 * HOUR),
        "10m",
        "Time without progress after which a task is taken from a worker that still reports.",
    ),
    key(
        "leases.max_kills",
        Kind::Count(1, 1000),
        "3",
        "Workers that a task may kill before it is set aside.",
    ),
    key(
        "leases.max_world_failures",
        Kind::Count(1, 1_000_000),
        "20",
        "Failures of the world (an expired lease, a store that answers 503) that a task survives.",
    ),
    key(
        "leases.retry_backoff",
        Kind::Time(1, HOUR),
        "1s",
        "Wait before the first repetition; each later one is twice as long.",
    ),
    key("leases.retry_backoff_max", Kind::Time(1, 24 * HOUR), "5m", "Longest wait before a repetition."),
    key(
        "leases.unplaceable_timeout",
        Kind::Time(SECOND, 30 * 24 * HOUR),
        "1h",
        "How long a task waits that no live worker has memory for.",
    ),
    key(
        "leases.no_worker_timeout",
        Kind::Time(SECOND, 365 * 24 * HOUR),
        "1day",
        "How long jobs wait when there is no worker at all.",
    ),
    key(
        "leases.batch_flops",
        Kind::Count(0, 1 << 62),
        "2000000000",
        "Floating-point operations up to which small layers travel together; 0 sends each alone.",
    ),
    key("leases.batch_layers", Kind::Count(1, 100_000), "256", "Most layers that travel together."),
    key(
        "leases.combine_memory",
        Kind::Bytes(16 * MIB, EIB),
        "1GiB",
        "Memory for partial Gram matrices under way; beyond it they wait on disk.",
    ),
    key("store.page_cache_bytes", Kind::Bytes(MIB, EIB), "128MiB", "Memory of the database's page cache."),
    key(
        "store.cache_max_bytes",
        Kind::Bytes(0, EIB),
        "10GiB",
        "Most bytes of results; the least recently used go first. 0 keeps all.",
    ),
    key(
        "store.min_free_bytes",
        Kind::Bytes(0, EIB),
        "1GiB",
        "Free disk space below which new jobs are refused.",
    ),
    key(
        "store.export_every",
        Kind::Time(MINUTE, 365 * 24 * HOUR),
        "1h",
        "Time between two exports of the database.",
    ),
    key("store.export_keep", Kind::Count(1, 10_000), "3", "Exports that are kept."),
    key("log.format", Kind::Choice(&["text", "json"]), "text", "text or json."),
    key(
        "log.filter",
        Kind::Text,
        "info",
        "Which lines: a level (error, warn, info, debug, trace) or directives such as \"info,spectrald=debug\".",
    ),
];

/// Keys of a `[[root]]` table, without their section. `settings` is a table and is not among them.
pub(super) const ROOT_KEYS: &[Key] = &[
    optional("name", Kind::Name, "models", "Name of the root, in messages and metrics. Needed."),
    optional(
        "uri",
        Kind::Text,
        "s3://models/",
        "What jobs may name: everything under this URI, which ends in '/'. Of two roots that hold a URI the longer one counts. Needed.",
    ),
    optional(
        "endpoint",
        Kind::Url,
        "https://s3.example",
        "URL of the store's server, where it is not the cloud's own.",
    ),
    optional(
        "region",
        Kind::Text,
        "eu-central-1",
        "Region of an S3 bucket. None: as AWS_REGION says, or us-east-1.",
    ),
    key("allow_http", Kind::Bool, "false", "Whether the endpoint may be reached without TLS."),
    optional(
        "access_key_id",
        Kind::Text,
        "AKIAEXAMPLE",
        "Identity at an S3 store. None: as the environment says (AWS_ACCESS_KEY_ID, web identity, …).",
    ),
    optional(
        "secret_access_key_file",
        Kind::Path,
        "/etc/spectrald/s3-secret",
        "File whose only line is the secret of access_key_id.",
    ),
    key("skip_signature", Kind::Bool, "false", "Whether requests go unsigned, for public buckets."),
];

/// The key of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Splits `section.key` at its last dot.
pub(super) fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

/// The environment variable of a key: `SPECTRALD_`, then section and key joined by `_`, in upper case.
pub(super) fn variable(name: &str) -> String {
    format!("SPECTRALD_{}", name.replace('.', "_").to_uppercase())
}
