//! Reports on stdout or in a file, and the exit code that they ask for: the same for a model analysed here and for
//! one that a coordinator has analysed.

use super::args::{EsdFormat, Format, ReportArgs, Sort};
use super::output;
use crate::analysis::{ModelReport, Status};
use crate::error::printable;
use crate::render::{self, Esd, TableOptions};
use crate::{Error, ErrorKind, Result};
use std::path::Path;
use std::process::ExitCode;

/// Prints reports in the format that was asked for.
pub(super) fn print(reports: &[ModelReport], args: &ReportArgs) -> Result<ExitCode> {
    let text = match args.format {
        Format::Json => render::json(reports)?,
        Format::Jsonl => render::jsonl(reports)?,
        Format::Csv => render::csv(reports)?,
        Format::Table => tables(reports, args),
    };
    output::write(text.as_bytes(), args.output.as_deref())?;
    Ok(verdict(reports))
}

fn tables(reports: &[ModelReport], args: &ReportArgs) -> String {
    let options = TableOptions {
        colour: output::stdout_has_colour(args.output.as_deref()),
        worst_first: args.sort == Sort::Worst,
        show_skipped: args.show_skipped,
    };
    reports.iter().map(|report| render::table(report, &options)).collect::<Vec<_>>().join("\n")
}

/// 2 if a layer could not be analysed for want of means (memory, a fault of ours), which the report says as well;
/// what the numbers themselves say is a finding, not a failure.
fn verdict(reports: &[ModelReport]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for report in reports {
        for row in report.layers.iter().filter(|row| row.status == Status::Failed) {
            let reason = row.reason.as_deref().unwrap_or_default();
            if matches!(reason, "NEEDS_MEMORY" | "INTERNAL") {
                let detail = row.detail.as_deref().unwrap_or_default();
                let error =
                    Error::new(ErrorKind::TooLarge, detail).in_tensor(&row.tensor).in_file(&report.model.uri);
                anstream::eprintln!("{}: {error}", output::error_word());
                code = ExitCode::from(2);
            }
        }
    }
    code
}

/// What reading a model left aside, on stderr.
pub(super) fn note(uri: &str, notes: &[String]) {
    for note in notes {
        anstream::eprintln!("note: {}", printable(&format!("{uri}: {note}")));
    }
}

/// The same of reports.
pub(super) fn notes(reports: &[ModelReport]) {
    reports.iter().for_each(|report| note(&report.model.uri, &report.model.notes));
}

/// Prints eigenvalues.
pub(super) fn print_esd(esd: &Esd<'_>, format: EsdFormat, output: Option<&Path>) -> Result<ExitCode> {
    let bytes = match format {
        EsdFormat::Text => render::esd_text(esd.eigenvalues).into_bytes(),
        EsdFormat::Json => render::esd_json(esd)?.into_bytes(),
        EsdFormat::Npy => render::esd_npy(esd.eigenvalues)?,
    };
    output::write(&bytes, output)?;
    Ok(ExitCode::SUCCESS)
}
