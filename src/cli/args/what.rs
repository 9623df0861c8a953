//! What is computed, with what means, and how it is printed: shared by the commands.

use crate::Result;
use crate::analysis::{Asked, Compat, Naming, Options};
use crate::layer::Conv;
use crate::spectrum::MethodChoice;
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What is computed.
#[derive(Debug, Args)]
pub(in crate::cli) struct WhatArgs {
    /// Give the numbers of another tool, defects included: ww-0.7.7 (WeightWatcher 0.7.7 on a CPU)
    #[arg(long, value_name = "TOOL", value_parser = ["ww-0.7.7"])]
    pub(in crate::cli) compat: Option<String>,
    /// Only layers whose name matches a pattern (* and ? are wild); may be given several times
    #[arg(long = "layers", value_name = "PATTERN")]
    pub(in crate::cli) filters: Vec<String>,
    /// How convolutions unfold
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) conv: Conv,
    /// With --conv operator: points of the input grid along each dimension of a kernel [default: 32]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub(in crate::cli) grid: Option<u64>,
    /// Recurrent weights: one layer a gate
    #[arg(long)]
    pub(in crate::cli) split_gates: bool,
    /// Fused q/k/v and gate/up weights: one layer a part
    #[arg(long)]
    pub(in crate::cli) split_fused: bool,
    /// How eigenvalues are found: auto (the Gram matrix, the SVD where it cannot tell), svd, randomized:K (the K
    /// largest alone) or randomized:auto (as many as certify alpha; all where that is cheaper)
    #[arg(long, default_value_t, value_name = "METHOD")]
    pub(in crate::cli) method: MethodChoice,
    /// The ERG (trace-log, detX) condition
    #[arg(long)]
    pub(in crate::cli) erg: bool,
    /// The Marchenko-Pastur fit of the bulk
    #[arg(long)]
    pub(in crate::cli) mp: bool,
    /// The permuted matrix: its spectrum, Marchenko-Pastur fit and correlation traps
    #[arg(long)]
    pub(in crate::cli) randomize: bool,
    /// Localisation of the eigenvectors
    #[arg(long)]
    pub(in crate::cli) vectors: bool,
    /// Seed of permutations and random blocks (default: from each layer's content, or its shape for blocks)
    #[arg(long, value_name = "N")]
    pub(in crate::cli) seed: Option<u64>,
    /// Skip layers with fewer eigenvalues
    #[arg(long, value_name = "N")]
    pub(in crate::cli) min_evals: Option<u64>,
    /// Skip layers with more eigenvalues
    #[arg(long, value_name = "N")]
    pub(in crate::cli) max_evals: Option<u64>,
    /// Skip layers whose longer side is longer
    #[arg(long, value_name = "N")]
    pub(in crate::cli) max_n: Option<u64>,
}

/// With what means.
#[derive(Debug, Args)]
pub(in crate::cli) struct MeansArgs {
    /// Layers computed at the same time (default: the number of processors)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(in crate::cli) threads: Option<u16>,
    /// Most memory that layers under way may take together, e.g. 8GiB (default: half of what is available)
    #[arg(long, value_name = "BYTES")]
    pub(in crate::cli) memory: Option<ByteSize>,
    /// No progress on stderr
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
}

/// How a report is printed.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct ReportArgs {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: Format,
    /// Write to FILE instead of stdout; it appears whole or not at all
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
    /// Order of the table: the model's, or the layers farthest from 2 ≤ alpha ≤ 6 first
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) sort: Sort,
    /// Table: list every skipped tensor with its reason (json and csv always do)
    #[arg(long)]
    pub(in crate::cli) show_skipped: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// For people
    #[default]
    Table,
    /// The whole report
    Json,
    /// One JSON object a row
    Jsonl,
    /// One line a row
    Csv,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum DescribeFormat {
    /// For people
    #[default]
    Table,
    /// One object a model
    Json,
    /// One line a row
    Csv,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum EsdFormat {
    /// One eigenvalue a line
    #[default]
    Text,
    /// With the layer's name and the noise floor
    Json,
    /// NumPy array
    Npy,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Sort {
    /// As in the model
    #[default]
    Model,
    /// The layers farthest from 2 ≤ alpha ≤ 6 first
    Worst,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ListFormat {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

impl WhatArgs {
    /// What was asked for.
    pub(in crate::cli) fn asked(&self) -> Asked {
        Asked {
            compat: if self.compat.is_some() { Compat::Ww077 } else { Compat::None },
            layers: self.filters.clone(),
            conv: self.conv,
            grid: self.grid,
            split_gates: self.split_gates,
            split_fused: self.split_fused,
            method: self.method,
            erg: self.erg,
            mp: self.mp,
            randomize: self.randomize,
            vectors: self.vectors,
            seed: self.seed,
            min_evals: self.min_evals,
            max_evals: self.max_evals,
            max_n: self.max_n,
        }
    }

    /// The options that follow.
    ///
    /// # Errors
    /// `InvalidArgument` if options contradict each other.
    pub(in crate::cli) fn options(&self) -> Result<Options> {
        self.asked().options(Naming::Flags)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser;

    fn what(arguments: &[&str]) -> Result<Options> {
        let all = ["spectrald", "analyze", "model"].iter().chain(arguments);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Analyze(args) => args.what.options(),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn a_partial_spectrum_is_refused_where_the_whole_is_needed() {
        let needing = ["--erg", "--mp", "--randomize", "--vectors", "--compat=ww-0.7.7"];
        for method in ["randomized", "randomized:auto", "randomized:64"] {
            assert!(what(&["--method", method, "--seed", "3"]).is_ok());
            for option in needing {
                let error = what(&["--method", method, option]).unwrap_err().to_string();
                let name = option.split('=').next().unwrap();
                assert!(error.contains("--method randomized") && error.contains(name), "{error}");
            }
        }
        assert!(needing.iter().all(|option| what(&["--method", "svd", option]).is_ok()));
        assert!(Cli::try_parse_from(["spectrald", "analyze", "model", "--method", "randomized:x"]).is_err());
    }
}
