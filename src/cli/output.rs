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

/// Refuses a place that cannot be written, before hours of work are spent on what goes there.
///
/// # Errors
/// `InvalidArgument` with the file's name if it is a directory, or its own directory is not there.
pub(super) fn check(path: Option<&Path>) -> Result<()> {
    let Some(path) = path.filter(|path| *path != Path::new("-")) else { return Ok(()) };
    let refused =
        |why: &str| Err(Error::invalid(why).in_field("--output").in_file(path.display().to_string()));
    if path.is_dir() {
        return refused("is a directory; name a file");
    }
    if !folder_of(path).is_dir() {
        return refused("its directory does not exist");
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_file(bytes: &[u8], path: &Path) -> Result<()> {
    let failed = |e: std::io::Error| {
        Error::new(ErrorKind::Internal, format!("cannot write: {e}")).in_file(path.display().to_string())
    };
    let real = match std::fs::metadata(path) {
        // Renaming would put a file in the place of /dev/null or a FIFO.
        Ok(found) if !found.is_file() => return write_through(bytes, path).map_err(failed),
        // A link keeps pointing where it does.
        Ok(_) => path.canonicalize().map_err(failed)?,
        Err(_) => path.to_owned(),
    };
    let folder = folder_of(&real);
    let mut file = tempfile::Builder::new().prefix(".spectrald-").tempfile_in(folder).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    widen_permissions(file.as_file()).map_err(failed)?;
    file.persist(&real).map_err(|e| failed(e.error))?;
    Ok(())
}

fn write_through(bytes: &[u8], path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(bytes)
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::FileTypeExt;

    #[test]
    fn a_link_is_written_through_and_stays() {
        let folder = tempfile::tempdir().expect("a directory");
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::write(&target, "old").expect("written");
        std::os::unix::fs::symlink("target", &link).expect("linked");
        write(b"new", Some(&link)).expect("written");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&target).expect("read"), "new");
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a directory");
        // By a link in a folder of our own, so that a defect replaces the link and not the device.
        let link = folder.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &link).expect("linked");
        write(b"gone", Some(&link)).expect("written");
        assert!(link.is_symlink());
        assert!(std::fs::metadata(&link).expect("there").file_type().is_char_device());
    }

    #[test]
    fn places_that_cannot_be_written_are_refused_beforehand() {
        let folder = tempfile::tempdir().expect("a directory");
        let message = |path: &Path| check(Some(path)).expect_err("refused").message().to_owned();
        assert_eq!(message(folder.path()), "is a directory; name a file");
        assert_eq!(message(&folder.path().join("no/file")), "its directory does not exist");
        assert!(check(Some(&folder.path().join("new"))).is_ok());
        assert!(check(Some(Path::new("-"))).is_ok() && check(Some(Path::new("new"))).is_ok());
        assert!(check(None).is_ok());
    }
}
