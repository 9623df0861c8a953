//! Commands that ask a coordinator.

use super::what::{EsdFormat, Format, ListFormat, ReportArgs, Sort, WhatArgs};
use crate::rpc::proto::v1::AnalysisState;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Which coordinator, and how it is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Coordinator")]
pub(in crate::cli) struct ServerArgs {
    /// Where the coordinator listens: HOST:PORT, http://HOST:PORT or https://HOST:PORT
    #[arg(long, value_name = "ADDR", env = "SPECTRALD_ADDR", default_value = "127.0.0.1:7600")]
    pub(in crate::cli) addr: String,
    /// File with the bearer token (or the token itself in SPECTRALD_TOKEN)
    #[arg(long, value_name = "FILE", env = "SPECTRALD_TOKEN_FILE")]
    pub(in crate::cli) token_file: Option<PathBuf>,
    /// PEM file of the authorities that may sign the coordinator's certificate [default: those of the system]
    #[arg(long, value_name = "FILE", env = "SPECTRALD_CA_CERT")]
    pub(in crate::cli) ca_cert: Option<PathBuf>,
    /// PEM file of our own certificate, for mutual TLS
    #[arg(long, value_name = "FILE", env = "SPECTRALD_CLIENT_CERT", requires = "client_key")]
    pub(in crate::cli) client_cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", env = "SPECTRALD_CLIENT_KEY", requires = "client_cert")]
    pub(in crate::cli) client_key: Option<PathBuf>,
    /// Name that the coordinator's certificate must have [default: the host of --addr]
    #[arg(long, value_name = "NAME", env = "SPECTRALD_SERVER_NAME")]
    pub(in crate::cli) server_name: Option<String>,
    /// Send the token over plain http to another machine all the same
    #[arg(long)]
    pub(in crate::cli) insecure: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SubmitArgs {
    /// A URI below the coordinator's roots, or a path: a coordinator of this machine reads it itself, to another one
    /// the model is sent
    #[arg(required = true, value_name = "MODEL")]
    pub(in crate::cli) models: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) what: WhatArgs,
    /// Wait for the end and print the report, as analyze does. Ctrl-C leaves the analysis running
    #[arg(long, conflicts_with = "validate_only")]
    pub(in crate::cli) wait: bool,
    /// With --wait: output format [default: table]
    #[arg(long, value_enum, requires = "wait")]
    format: Option<Format>,
    /// With --wait: write to FILE instead of stdout; it appears whole or not at all
    #[arg(short, long, value_name = "FILE", requires = "wait")]
    output: Option<PathBuf>,
    /// With --wait: order of the table [default: model]
    #[arg(long, value_enum, requires = "wait")]
    sort: Option<Sort>,
    /// With --wait: list every skipped tensor in the table
    #[arg(long, requires = "wait")]
    show_skipped: bool,
    /// Analyses of a higher priority go first
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(in crate::cli) priority: i32,
    /// Keep the eigenvalues, for the spectrum command
    #[arg(long)]
    pub(in crate::cli) keep_spectra: bool,
    /// A UUID: given again, it names the same analysis [default: a new one]
    #[arg(long, value_name = "UUID")]
    pub(in crate::cli) request_id: Option<String>,
    /// Check and plan the request without asking for it
    #[arg(long)]
    pub(in crate::cli) validate_only: bool,
    /// Send a model that is given by its path also to a coordinator of this machine
    #[arg(long)]
    pub(in crate::cli) upload: bool,
    /// No progress and no notes on stderr
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}

impl SubmitArgs {
    /// How the report is printed.
    pub(in crate::cli) fn report(&self) -> ReportArgs {
        ReportArgs {
            format: self.format.unwrap_or_default(),
            output: self.output.clone(),
            sort: self.sort.unwrap_or_default(),
            show_skipped: self.show_skipped,
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WatchArgs {
    /// The analysis
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    /// table: progress on stderr, a last line on stdout; json: one object for each message on stdout
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: ListFormat,
    /// No progress and no notes on stderr
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}

/// A state to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "those of the API")]
pub(in crate::cli) enum State {
    Planning,
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl From<State> for AnalysisState {
    fn from(state: State) -> Self {
        match state {
            State::Planning => Self::Planning,
            State::Queued => Self::Queued,
            State::Running => Self::Running,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct JobsArgs {
    /// Only those in this state
    #[arg(long, value_enum)]
    pub(in crate::cli) state: Option<State>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) limit: u32,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: ListFormat,
    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct JobArgs {
    /// The analysis
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: ListFormat,
    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ResultsArgs {
    /// The analysis
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    #[command(flatten)]
    pub(in crate::cli) report: ReportArgs,
    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SpectrumArgs {
    /// The analysis
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    /// The layer's name, as results prints it, or its tensor's full name
    #[arg(value_name = "LAYER")]
    pub(in crate::cli) layer: String,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: EsdFormat,
    /// Write to FILE instead of stdout; it appears whole or not at all
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CancelArgs {
    /// The analysis
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DrainArgs {
    /// The worker, by the name that workers prints
    #[arg(value_name = "WORKER")]
    pub(in crate::cli) worker: String,
    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SystemArgs {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: ListFormat,
    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
}
