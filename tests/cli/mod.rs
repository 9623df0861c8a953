//! The program as it is typed.

mod errors;
mod interrupt;
mod output;
mod reads;
mod remote;

use crate::support::models::fixture;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What a run of the program gave.
struct Ran {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ran {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Asserts that it went well, and gives stdout.
    fn ok(&self) -> &str {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""));
        self.text()
    }

    /// stdout as JSON.
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap()
    }
}

/// A folder to run in, so that messages show the names that were typed.
struct Place(TempDir);

impl Place {
    /// With `model.safetensors` (fracast) and its config.json.
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["model.safetensors", "config.json"] {
            std::fs::copy(fixture("models/fracast").join(name), folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.file(name), bytes).unwrap();
    }

    /// Names of all files, sorted.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The program, run here with nothing in its environment that changes what it prints.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("spectrald"));
        command.args(args).current_dir(self.path());
        for name in ["NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args))
    }
}

fn run(command: Command) -> Ran {
    // far more than any of these takes, and far less than reading what they must not read
    let limit = std::time::Duration::from_secs(120);
    let output = assert_cmd::Command::from_std(command).timeout(limit).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Ran { code: output.status.code(), stdout: output.stdout, stderr }
}
