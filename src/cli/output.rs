//! Where results go: stdout, or a file that appears whole or not at all.

use crate::{Error, ErrorKind, Result};
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Writes `bytes` to `path`, or to stdout. A file is written beside its place under a temporary name and renamed, so
/// that an interrupted run leaves no partial file. What is there and is no file, such as a device or a pipe, is written
/// to; behind a link, the file that it names is replaced.
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

/// Refuses a folder, and a file whose folder does not exist, before any work is done for it.
///
/// # Errors
/// `InvalidArgument`; `NotFound` with the folder's name.
pub(super) fn check(path: Option<&Path>) -> Result<()> {
    if let Some(path) = path.filter(|path| path.is_dir()) {
        return Err(Error::invalid("a directory; name a file").in_file(path.display().to_string()));
    }
    match path.map(folder_of) {
        Some(folder) if !folder.is_dir() => {
            Err(Error::new(ErrorKind::NotFound, "no such directory").in_file(folder.display().to_string()))
        }
        _ => Ok(()),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
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
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let opened = std::fs::OpenOptions::new().write(true).open(path);
        return opened.and_then(|mut file| file.write_all(bytes)).map_err(failed);
    }
    let mut file =
        tempfile::Builder::new().prefix(".spectrald-").tempfile_in(folder_of(&real)).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    widen_permissions(file.as_file()).map_err(failed)?;
    file.persist(&real).map_err(|e| failed(e.error))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_cannot_be_written_are_refused_beforehand() {
        let folder = tempfile::tempdir().expect("a directory");
        let message = |path: &Path| check(Some(path)).expect_err("refused").message().to_owned();
        assert_eq!(message(folder.path()), "a directory; name a file");
        assert_eq!(message(&folder.path().join("no/file")), "no such directory");
        assert!(check(Some(&folder.path().join("new"))).is_ok());
        assert!(check(Some(Path::new("-"))).is_ok() && check(Some(Path::new("new"))).is_ok());
        assert!(check(None).is_ok());
    }
}
