//! `spectrald jobs`, `job`, `results`, `spectrum`, `cancel`.

use super::target::client;
use super::{block_on, json, tables};
use crate::cli::args::{CancelArgs, JobArgs, JobsArgs, ListFormat, ResultsArgs, SpectrumArgs};
use crate::cli::{output, reports};
use crate::render::Esd;
use crate::rpc::client::is_ended;
use crate::rpc::proto::v1::AnalysisState;
use crate::{Error, ErrorKind, Result};
use std::process::ExitCode;

/// `spectrald jobs`.
pub(in crate::cli) fn jobs(args: &JobsArgs) -> Result<ExitCode> {
    let state = args.state.map_or(AnalysisState::Unspecified, Into::into);
    let found = block_on(async { client(&args.server)?.list(state, args.limit as usize).await })?;
    let text = match args.format {
        ListFormat::Table => tables::jobs(&found, output::stdout_has_colour(None)),
        ListFormat::Json => json::analyses(&found)?,
    };
    output::write(text.as_bytes(), None)?;
    Ok(ExitCode::SUCCESS)
}

/// `spectrald job`.
pub(in crate::cli) fn job(args: &JobArgs) -> Result<ExitCode> {
    let found = block_on(async { client(&args.server)?.get(&args.id).await })?;
    let text = match args.format {
        ListFormat::Table => tables::job(&found),
        ListFormat::Json => json::analysis(&found)?,
    };
    output::write(text.as_bytes(), None)?;
    Ok(ExitCode::SUCCESS)
}

/// `spectrald results`.
pub(in crate::cli) fn results(args: &ResultsArgs) -> Result<ExitCode> {
    output::check(args.report.output.as_deref())?;
    let report = block_on(async { client(&args.server)?.report(&args.id).await })?;
    let found = [report];
    reports::notes(&found);
    reports::print(&found, &args.report)
}

/// `spectrald spectrum`.
pub(in crate::cli) fn spectrum(args: &SpectrumArgs) -> Result<ExitCode> {
    output::check(args.output.as_deref())?;
    let found = block_on(async { client(&args.server)?.spectrum(&args.id, &args.layer).await })?;
    let esd = Esd {
        layer: &found.layer,
        method: &found.method,
        noise_floor: found.noise_floor,
        eigenvalues: &found.values,
        num_evals: found.num_evals,
        errors: None,
    };
    reports::print_esd(&esd, args.format, args.output.as_deref())
}

/// `spectrald cancel`.
pub(in crate::cli) fn cancel(args: &CancelArgs) -> Result<ExitCode> {
    let found = block_on(async { client(&args.server)?.cancel(&args.id).await })?;
    if !is_ended(&found) {
        let message = format!("analysis {} is still {}", found.id, tables::state(&found));
        return Err(Error::new(ErrorKind::Internal, message));
    }
    output::write(tables::ended_line(&found).as_bytes(), None)?;
    Ok(ExitCode::SUCCESS)
}
