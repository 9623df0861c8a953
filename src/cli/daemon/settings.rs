//! From flags, environment and file to a configuration; every mistake at once, before a port is bound.

use crate::cli::args::{CoordinatorArgs, WorkerArgs, WorkerMeans};
use crate::config::{Config, Overrides, Process};
use crate::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

pub(super) fn coordinator(args: &CoordinatorArgs) -> Result<Config> {
    let mut overrides = Overrides::from_environment();
    add_coordinator(args, &mut overrides);
    load(Process::Coordinator, args.config.config.as_deref(), &overrides)
}

/// As for a coordinator that needs no configuration: on loopback its user is the only one whom it serves.
pub(super) fn serve(args: &CoordinatorArgs, means: &WorkerMeans) -> Result<Config> {
    let mut overrides = Overrides::from_environment();
    let mut standard = |key: &str, value: &str| overrides.command_default(key, value, "serve");
    standard("coordinator.http_listen", "off");
    standard("coordinator.allow_local_files", "true");
    standard("coordinator.data_dir", &own_folder()?.to_string_lossy());
    add_coordinator(args, &mut overrides);
    add_means(means, &mut overrides);
    load(Process::Coordinator, args.config.config.as_deref(), &overrides)
}

pub(super) fn worker(args: &WorkerArgs) -> Result<Config> {
    let mut overrides = Overrides::from_environment();
    let mut flag = |key: &str, value: Option<String>, name: &str| {
        if let Some(value) = value {
            overrides.flag(key, value, name);
        }
    };
    flag("worker.coordinator", args.coordinator.clone(), "--coordinator");
    flag("worker.id", args.id.clone(), "--id");
    flag("worker.token_file", args.token_file.as_deref().map(shown), "--token-file");
    flag("root", joined(&args.root), "--root");
    add_means(&args.means, &mut overrides);
    load(Process::Worker, args.config.config.as_deref(), &overrides)
}

fn add_coordinator(args: &CoordinatorArgs, overrides: &mut Overrides) {
    let mut flag = |key: &str, value: Option<String>, name: &str| {
        if let Some(value) = value {
            overrides.flag(key, value, name);
        }
    };
    flag("coordinator.listen", args.listen.clone(), "--listen");
    flag("coordinator.http_listen", args.http_listen.clone(), "--http-listen");
    flag("coordinator.data_dir", args.data_dir.as_deref().map(shown), "--data-dir");
    flag("store.cache_max_bytes", args.cache_max_bytes.clone(), "--cache-max-bytes");
    flag("root", joined(&args.root), "--root");
}

fn add_means(means: &WorkerMeans, overrides: &mut Overrides) {
    if let Some(threads) = means.threads {
        overrides.flag("worker.threads", threads.to_string(), "--threads");
    }
    if let Some(memory) = &means.memory {
        overrides.flag("worker.memory", memory, "--memory");
    }
}

fn joined(roots: &[String]) -> Option<String> {
    (!roots.is_empty()).then(|| roots.join(","))
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Reads the configuration and says its warnings.
pub(super) fn load(process: Process, file: Option<&Path>, overrides: &Overrides) -> Result<Config> {
    let config = Config::load_for(process, file, overrides)?;
    for warning in config.warnings(process) {
        anstream::eprintln!("warning: {warning}");
    }
    Ok(config)
}

/// Where `serve` keeps its data unless it is told: the user's own folder for that.
fn own_folder() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local").join("share")));
    let none =
        || Error::new(ErrorKind::InvalidArgument, "there is no home folder; give one").in_field("--data-dir");
    Ok(data.or_else(|| set("LOCALAPPDATA")).ok_or_else(none)?.join("spectrald"))
}
