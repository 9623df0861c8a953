//! A coordinator and workers as processes of their own, which tests may kill, stop and start again.

use super::models::Numbers;
use spectrald::analysis::{ModelReport, Options};
use spectrald::rpc::client::{Client, Target, Watched, is_ended};
use spectrald::rpc::convert::options_to_proto;
use spectrald::rpc::proto::v1;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Far longer than anything takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(90);
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(10);
/// Clusters fight for the same cores: one at a time, so that time-outs mean what they say.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The program with nothing in its environment that configures it.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spectrald"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["SPECTRALD_", "OTEL_", "AWS_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Looks until `found` gives something.
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < LONG, "waited in vain until {what}");
        std::thread::sleep(LOOK);
    }
}

/// A process that does not outlive this one's test.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its stderr in `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        Self { child: command.stderr(file).spawn().unwrap(), log: log.to_owned() }
    }

    pub(crate) fn signal(&self, name: &str) {
        // the shell's own kill: no program need be installed
        let id = self.child.id();
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap();
        assert!(sent.success(), "SIG{name} to {id}");
    }

    /// SIGKILL, and its end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// How it ends by itself, within `limit`.
    pub(crate) fn end_within(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < limit, "still there after {limit:?}:\n{}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // one that has ended already cannot be killed
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A coordinator on one data directory and one port, and workers by name.
pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    pub(crate) coordinator: Option<Process>,
    pub(crate) workers: BTreeMap<String, Process>,
    pub(crate) runtime: Runtime,
    address: SocketAddr,
    _alone: MutexGuard<'static, ()>,
}

/// Settings with which failures are noticed soon.
const SETTINGS: &str = r#"
[coordinator]
allow_local_files = true
http_listen = "off"
shutdown_grace = "5s"
[worker]
report_every = "100ms"
drain_grace = "20s"
[leases]
lease_timeout = "2s"
progress_timeout = "1m"
retry_backoff = "100ms"
retry_backoff_max = "500ms"
max_kills = 1000
max_world_failures = 1000
batch_layers = 4
[store]
min_free_bytes = "1MiB"
"#;

impl Cluster {
    /// A coordinator alone.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// A coordinator alone, with settings that differ: `("leases.max_kills = 1", …)` by key and new line.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = TempDir::new().unwrap();
        let mut text = SETTINGS.to_owned();
        for (section, line) in settings {
            let key = line.split('=').next().unwrap();
            text = text.lines().filter(|old| !old.starts_with(key)).collect::<Vec<_>>().join("\n");
            let header = format!("[{section}]");
            assert!(section.starts_with('[') || text.contains(&header), "{section}");
            text = match section.starts_with('[') {
                true => format!("{text}\n{section}\n{line}\n"),
                false => text.replacen(&header, &format!("{header}\n{line}"), 1),
            };
        }
        std::fs::write(folder.path().join("spectrald.toml"), text).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let (coordinator, workers) = (None, BTreeMap::new());
        let mut cluster = Self { folder, coordinator, workers, runtime, address, _alone: alone };
        cluster.start_coordinator();
        cluster
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        let file = self.file(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, bytes).unwrap();
        file.into_os_string().into_string().unwrap()
    }

    /// What starts a coordinator on the same data, at this address.
    pub(crate) fn coordinator_command(&self, address: SocketAddr) -> Command {
        let mut command = program();
        command.arg("coordinator").arg("--config").arg(self.file("spectrald.toml"));
        command.arg("--data-dir").arg(self.file("data"));
        command.args(["--listen", &address.to_string()]).stdout(Stdio::piped());
        command
    }

    /// Starts the coordinator; again, on the port that it had.
    pub(crate) fn start_coordinator(&mut self) {
        let mut process =
            Process::start(self.coordinator_command(self.address), &self.file("coordinator.log"));
        self.address = announced(process.child.stdout.take().unwrap())
            .unwrap_or_else(|| panic!("the coordinator does not start:\n{}", process.log()));
        self.coordinator = Some(process);
    }

    pub(crate) fn kill_coordinator(&mut self) {
        self.coordinator.take().unwrap().kill();
    }

    pub(crate) fn start_worker(&mut self, name: &str) {
        self.start_worker_with(name, &["--memory", "1GiB"]);
    }

    /// A worker of one thread, with further flags.
    pub(crate) fn start_worker_with(&mut self, name: &str, flags: &[&str]) {
        let mut command = program();
        command.arg("worker").arg("--config").arg(self.file("spectrald.toml"));
        command.args(["--coordinator", &self.url(), "--id", name, "--threads", "1"]).args(flags);
        command.stdout(Stdio::null());
        let process = Process::start(command, &self.file(&format!("{name}.log")));
        self.workers.insert(name.to_owned(), process);
    }

    pub(crate) fn kill_worker(&mut self, name: &str) {
        self.workers.remove(name).unwrap().kill();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn client(&self) -> Client {
        let _entered = self.runtime.enter();
        Client::connect(&Target { addr: self.address.to_string(), ..Target::default() }).unwrap()
    }

    /// A command of a client.
    pub(crate) fn client_command(&self, args: &[&str]) -> Command {
        let mut command = program();
        command.args(args).env("SPECTRALD_ADDR", self.address.to_string());
        command
    }

    /// Asks for an analysis.
    pub(crate) fn submit(&self, model: &str, options: &Options) -> String {
        let request = request(model, options);
        self.runtime.block_on(self.client().create(request)).unwrap().id
    }

    pub(crate) fn get(&self, id: &str) -> v1::Analysis {
        self.runtime.block_on(self.client().get(id)).unwrap()
    }

    /// Looks at an analysis until it is as told.
    pub(crate) fn until(&self, id: &str, what: &str, is: impl Fn(&v1::Analysis) -> bool) -> v1::Analysis {
        until(what, || Some(self.get(id)).filter(&is))
    }

    /// Watches an analysis to its end.
    pub(crate) fn ended(&self, id: &str) -> v1::Analysis {
        self.runtime.block_on(async {
            let mut watch = self.client().watch(id, 0);
            let mut last = None;
            let follow = async {
                while let Some(watched) = watch.next().await.unwrap() {
                    if let Watched::Progress(message) = watched {
                        last = message.analysis;
                    }
                }
            };
            let in_time = tokio::time::timeout(LONG, follow).await;
            assert!(in_time.is_ok(), "{id} does not end: {last:?}");
            let last = last.unwrap();
            assert!(is_ended(&last), "{last:?}");
            last
        })
    }

    /// The report of an analysis that is to succeed, once it has.
    pub(crate) fn report(&self, id: &str) -> ModelReport {
        self.ended(id);
        self.runtime.block_on(self.client().report(id)).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut text = String::new();
        for entry in std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(40).collect();
                let _ = writeln!(text, "--- {}", entry.path().display());
                tail.iter().rev().for_each(|line| _ = writeln!(text, "{line}"));
            }
        }
        eprintln!("{text}");
    }
}

/// The address that a daemon says on its stdout; `None` if it ends before.
pub(crate) fn announced(stdout: ChildStdout) -> Option<SocketAddr> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("listening on ") {
                // whoever waited may have given up
                let _ = send.send(address.parse().unwrap());
            }
        }
    });
    receive.recv_timeout(LONG).ok()
}

/// Takes the address off a process whose stdout is piped.
pub(crate) fn address_of(process: &mut Process) -> SocketAddr {
    let stdout = process.child.stdout.take().unwrap();
    announced(stdout).unwrap_or_else(|| panic!("it does not start:\n{}", process.log()))
}

pub(crate) fn request(model: &str, options: &Options) -> v1::CreateAnalysisRequest {
    v1::CreateAnalysisRequest {
        model: model.to_owned(),
        options: Some(options_to_proto(options, &[])),
        ..Default::default()
    }
}

/// Numbers in [lo, hi).
pub(crate) fn between(numbers: &mut Numbers, lo: u64, hi: u64) -> u64 {
    lo + numbers.bits() % (hi - lo)
}
