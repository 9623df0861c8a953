//! Where results go: stdout, or a file that appears whole or not at all.

use crate::{Error, ErrorKind, Result};
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Writes `bytes` to `path`, or to stdout. A file is written beside its place under a temporary name and renamed, so
/// that an interrupted run leaves no partial file.
///
/// # Errors
/// `Internal` with the file's name if it cannot be written. A closed pipe is no error.
pub(super) fn write(bytes: &[u8], path: Option<&Path>) -> Result<()> {
    match path {
        None => write_stdout(bytes),
        Some(path) if path == Path::new("-") => write_stdout(bytes),
        Some(path) => write_file(bytes, path),
    }
}

fn write_stdout(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Error::new(ErrorKind::Internal, format!("cannot write: {e}")).in_file("stdout")),
        Ok(()) => Ok(()),
    }
}

fn write_file(bytes: &[u8], path: &Path) -> Result<()> {
    let failed = |e: std::io::Error| {
        Error::new(ErrorKind::Internal, format!("cannot write: {e}")).in_file(path.display().to_string())
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".spectrald-").tempfile_in(folder).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    widen_permissions(file.as_file()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// Temporary files are readable by their owner alone; a report is an ordinary file.
#[cfg(unix)]
fn widen_permissions(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn widen_permissions(_: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}

/// Whether text for people on stdout may carry colours: a terminal, unless NO_COLOR or TERM=dumb; FORCE_COLOR.
pub(super) fn stdout_has_colour(path: Option<&Path>) -> bool {
    path.is_none() && anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}

/// Whether stderr is a terminal, so that progress can be drawn.
pub(super) fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// `error`, coloured where stderr takes colours.
pub(super) fn error_word() -> String {
    let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    format!("{style}error{style:#}")
}
