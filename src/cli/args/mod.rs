//! What can be typed.

mod daemon;
mod local;
mod remote;
mod what;

pub(super) use daemon::{
    ConfigCommand, ConfigCommandArgs, CoordinatorArgs, DataDir, Role, ServeArgs, StoreArgs, StoreCommand,
    TokenArgs, WorkerArgs, WorkerMeans,
};
pub(super) use local::{AnalyzeArgs, DescribeArgs, EsdArgs};
pub(super) use remote::{
    CancelArgs, DrainArgs, JobArgs, JobsArgs, ResultsArgs, ServerArgs, SpectrumArgs, SubmitArgs, SystemArgs,
    WatchArgs,
};
pub(super) use what::{DescribeFormat, EsdFormat, Format, ListFormat, MeansArgs, ReportArgs, Sort, WhatArgs};

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  spectrald analyze model.safetensors
  spectrald analyze ./Llama-3-8B --format csv -o llama.csv
  spectrald analyze s3://models/bert/ --erg --mp --randomize
  spectrald analyze model.safetensors --compat ww-0.7.7 --format json
  spectrald describe ./Llama-3-8B
  spectrald esd model.safetensors encoder.layer.0.output.dense --format npy -o esd.npy
  spectrald serve
  spectrald submit s3://models/bert/ --wait --format csv -o bert.csv

Exit codes: 0 done; 2 usage, or could not complete; 3 nothing analysable; 130 interrupted.";

/// Audits the weights of neural networks without data.
#[derive(Debug, Parser)]
#[command(name = "spectrald", version, about, long_about = None, after_help = EXAMPLES)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Analyse every weight matrix: power-law tail, norms, ranks, entropy, random-matrix baselines
    Analyze(AnalyzeArgs),
    /// Show what would be analysed, why the rest is skipped, and the cost; reads headers only
    Describe(DescribeArgs),
    /// Print the eigenvalues of one layer
    Esd(EsdArgs),
    /// A coordinator and a worker in one process, on 127.0.0.1:7600, without configuration
    Serve(ServeArgs),
    /// The coordinator: plans, leases, collects, remembers
    Coordinator(CoordinatorArgs),
    /// A worker: pulls tasks and weights, computes
    Worker(WorkerArgs),
    /// Ask a coordinator for an analysis; prints its id, or with --wait the report
    Submit(SubmitArgs),
    /// Follow an analysis to its end
    Watch(WatchArgs),
    /// List a coordinator's analyses, the newest first
    Jobs(JobsArgs),
    /// Show one analysis as it stands
    Job(JobArgs),
    /// Print the report of an analysis that has succeeded
    Results(ResultsArgs),
    /// Print the eigenvalues of one layer of an analysis that keeps them (submit --keep-spectra)
    Spectrum(SpectrumArgs),
    /// End an analysis
    Cancel(CancelArgs),
    /// List a coordinator's workers
    Workers(SystemArgs),
    /// Give a worker no further work
    Drain(DrainArgs),
    /// Show how a coordinator stands
    Status(SystemArgs),
    /// Verify, export, import, compact the store of a coordinator that is stopped
    Store(StoreArgs),
    /// Check or show a configuration
    Config(ConfigCommandArgs),
    /// Make a token for a client or worker
    Token(TokenArgs),
}
