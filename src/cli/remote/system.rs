//! `spectrald workers`, `drain`, `status`.

use super::target::client;
use super::{block_on, json, tables};
use crate::Result;
use crate::cli::args::{DrainArgs, ListFormat, SystemArgs};
use crate::cli::output;
use std::process::ExitCode;

/// `spectrald workers`.
pub(in crate::cli) fn workers(args: &SystemArgs) -> Result<ExitCode> {
    let found = block_on(async { client(&args.server)?.workers().await })?;
    let text = match args.format {
        ListFormat::Table => tables::workers(&found, output::stdout_has_colour(None)),
        ListFormat::Json => json::workers(&found)?,
    };
    output::write(text.as_bytes(), None)?;
    Ok(ExitCode::SUCCESS)
}

/// `spectrald drain`.
pub(in crate::cli) fn drain(args: &DrainArgs) -> Result<ExitCode> {
    let worker = block_on(async { client(&args.server)?.drain(&args.worker).await })?;
    output::write(tables::drained_line(&worker).as_bytes(), None)?;
    Ok(ExitCode::SUCCESS)
}

/// `spectrald status`.
pub(in crate::cli) fn status(args: &SystemArgs) -> Result<ExitCode> {
    let found = block_on(async { client(&args.server)?.status().await })?;
    let text = match args.format {
        ListFormat::Table => tables::status(&found),
        ListFormat::Json => json::status(&found)?,
    };
    output::write(text.as_bytes(), None)?;
    Ok(ExitCode::SUCCESS)
}
