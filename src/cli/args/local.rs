//! Commands that compute in this process.

use super::what::{DescribeFormat, EsdFormat, MeansArgs, ReportArgs, WhatArgs};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(in crate::cli) struct AnalyzeArgs {
    /// A safetensors file, a directory (Hugging Face layout), or an s3://, gs://, az:// or https:// URI of either
    #[arg(required = true, value_name = "MODEL")]
    pub(in crate::cli) models: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) what: WhatArgs,
    #[command(flatten)]
    pub(in crate::cli) means: MeansArgs,
    #[command(flatten)]
    pub(in crate::cli) report: ReportArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DescribeArgs {
    /// A safetensors file, a directory (Hugging Face layout), or an s3://, gs://, az:// or https:// URI of either
    #[arg(required = true, value_name = "MODEL")]
    pub(in crate::cli) models: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) what: WhatArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: DescribeFormat,
    /// Write to FILE instead of stdout; it appears whole or not at all
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EsdArgs {
    /// A model, as for analyze
    #[arg(value_name = "MODEL")]
    pub(in crate::cli) model: String,
    /// The layer's name, as analyze prints it, or its tensor's full name
    #[arg(value_name = "LAYER")]
    pub(in crate::cli) layer: String,
    #[command(flatten)]
    pub(in crate::cli) what: WhatArgs,
    #[command(flatten)]
    pub(in crate::cli) means: MeansArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: EsdFormat,
    /// Write to FILE instead of stdout; it appears whole or not at all
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
}
