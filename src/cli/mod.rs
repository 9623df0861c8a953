//! What was typed → what is needed → an exit code.
//!
//! stdout carries data alone; messages and progress go to stderr. Exit codes: 0 done; 2 usage, or could not complete;
//! 3 nothing analysable; 130 interrupted. (1 is kept for gates.)

mod args;
mod commands;
mod daemon;
mod interrupt;
mod output;
mod progress;
mod remote;
mod reports;

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
        Command::Submit(args) => remote::submit(args),
        Command::Watch(args) => remote::watch(args),
        Command::Jobs(args) => remote::jobs(args),
        Command::Job(args) => remote::job(args),
        Command::Results(args) => remote::results(args),
        Command::Spectrum(args) => remote::spectrum(args),
        Command::Cancel(args) => remote::cancel(args),
        Command::Workers(args) => remote::workers(args),
        Command::Drain(args) => remote::drain(args),
        Command::Status(args) => remote::status(args),
        Command::Serve(args) => daemon::serve(args),
        Command::Coordinator(args) => daemon::coordinator(args),
        Command::Worker(args) => daemon::worker(args),
        Command::Store(args) => daemon::store(args),
        Command::Config(args) => daemon::config(args),
        Command::Token(args) => daemon::token(args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // Lists of mistakes are safe lines already; Display would make one of them.
            let text = match error.message().contains('\n') {
                true => error.message().to_owned(),
                false => error.to_string(),
            };
            anstream::eprintln!("{}: {text}", output::error_word());
            exit_code(&error)
        }
    }
}

/// The exit code that an error asks for.
fn exit_code(error: &Error) -> ExitCode {
    match error.kind() {
        ErrorKind::NothingAnalysable => ExitCode::from(3),
        ErrorKind::Interrupted => ExitCode::from(130),
        ErrorKind::InvalidArgument
        | ErrorKind::NotFound
        | ErrorKind::PermissionDenied
        | ErrorKind::Malformed
        | ErrorKind::Unsupported
        | ErrorKind::NonFinite
        | ErrorKind::Changed
        | ErrorKind::Unavailable
        | ErrorKind::TooLarge
        | ErrorKind::Exhausted
        | ErrorKind::Conflict
        | ErrorKind::FailedPrecondition
        | ErrorKind::Unauthenticated
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Internal => ExitCode::from(2),
    }
}
