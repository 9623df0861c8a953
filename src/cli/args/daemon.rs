//! What daemons and their keepers type.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Where a daemon's settings come from.
#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigArgs {
    /// Configuration file; spectrald.example.toml shows every key. Environment variables and flags go over it
    #[arg(long, value_name = "FILE", env = "SPECTRALD_CONFIG")]
    pub(in crate::cli) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CoordinatorArgs {
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
    /// Address of the gRPC port
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::cli) listen: Option<String>,
    /// Address of the HTTP port with /metrics, /healthz and /readyz; `off`: none
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::cli) http_listen: Option<String>,
    /// Folder of the database, of uploads and exports
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) data_dir: Option<PathBuf>,
    /// A place that analyses may name, NAME=URI; may be given several times
    #[arg(long, value_name = "NAME=URI")]
    pub(in crate::cli) root: Vec<String>,
    /// Most bytes of results that are kept
    #[arg(long, value_name = "BYTES")]
    pub(in crate::cli) cache_max_bytes: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ServeArgs {
    #[command(flatten)]
    pub(in crate::cli) coordinator: CoordinatorArgs,
    #[command(flatten)]
    pub(in crate::cli) means: WorkerMeans,
}

/// What a worker computes with.
#[derive(Debug, Args)]
pub(in crate::cli) struct WorkerMeans {
    /// Layers computed at the same time (default: the number of processors)
    #[arg(long, value_name = "N")]
    pub(in crate::cli) threads: Option<u16>,
    /// Most memory that layers under way may take together, e.g. 8GiB (default: half of what is available)
    #[arg(long, value_name = "BYTES")]
    pub(in crate::cli) memory: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WorkerArgs {
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
    /// URL of the coordinator
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) coordinator: Option<String>,
    /// Name of the worker (default: that of the machine and eight random letters)
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) id: Option<String>,
    /// File with the worker's token
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) token_file: Option<PathBuf>,
    /// A root that this worker reads itself, NAME=URI; others are read through the coordinator
    #[arg(long, value_name = "NAME=URI")]
    pub(in crate::cli) root: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) means: WorkerMeans,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StoreArgs {
    #[command(subcommand)]
    pub(in crate::cli) command: StoreCommand,
}

/// The folder that a store is in.
#[derive(Debug, Args)]
pub(in crate::cli) struct DataDir {
    /// Folder of the store; no coordinator may be using it
    #[arg(long, value_name = "DIR", env = "SPECTRALD_COORDINATOR_DATA_DIR")]
    pub(in crate::cli) data_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum StoreCommand {
    /// Read every record and check it; exit code 2 if one is corrupt
    Verify(DataDir),
    /// Show what is in it
    Stats(DataDir),
    /// Write every record to a file, read it back and check it
    Export {
        #[command(flatten)]
        at: DataDir,
        /// The file, which must not exist (default: a new one in the folder's exports/)
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Write every record of an export into it, over what is there
    Import {
        #[command(flatten)]
        at: DataDir,
        /// The export
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Write it anew without what is no longer needed
    Compact(DataDir),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigCommandArgs {
    #[command(subcommand)]
    pub(in crate::cli) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    /// Check a configuration and say every mistake
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// Check the rules of this process as well
        #[arg(long, value_enum, default_value_t)]
        role: Role,
    },
    /// Print every setting with where it came from; secrets are hidden
    Show {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print what results from file and environment (the only kind there is)
        #[arg(long)]
        resolved: bool,
    },
    /// Print the commented sample with every default
    Example,
}

/// Whose rules a configuration is checked against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Role {
    /// Both processes
    #[default]
    Both,
    /// The coordinator alone
    Coordinator,
    /// A worker alone
    Worker,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TokenArgs {
    /// Name of the token, for logs and the list of analyses
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: String,
    /// What its holder may do: read, submit, admin, worker; may be given several times
    #[arg(long, value_name = "ROLE", required = true, value_parser = ["read", "submit", "admin", "worker"])]
    pub(in crate::cli) role: Vec<String>,
}
