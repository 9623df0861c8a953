//! What was typed → what is needed → an exit code.
//!
//! stdout carries data alone; messages and progress go to stderr. Exit codes: 0 done; 2 usage, or could not complete;
//! 3 nothing analysable; 130 interrupted. (1 is kept for gates.)

mod args;
mod commands;
mod interrupt;
mod output;
mod progress;

use crate::{Error, ErrorKind};
use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

/// Parses the command line, runs the command, and says what came of it.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Analyze(args) => commands::analyze(args),
        Command::Describe(args) => commands::describe(args),
        Command::Esd(args) => commands::esd(args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("{}: {error}", output::error_word());
            exit_code(&error)
        }
    }
}

/// The exit code that an error asks for.
fn exit_code(error: &Error) -> ExitCode {
    match error.kind() {
        ErrorKind::NothingAnalysable => ExitCode::from(3),
        ErrorKind::Interrupted => ExitCode::from(130),
        _ => ExitCode::from(2),
    }
}
