//! `spectrald config` and `spectrald token`.

use super::settings::load;
use crate::cli::args::{ConfigCommand, ConfigCommandArgs, Role, TokenArgs};
use crate::config::{Config, Overrides, Process};
use crate::guard::{is_token_name, new_token};
use crate::{Error, Result};
use std::process::ExitCode;

/// `spectrald config`.
pub(in crate::cli) fn config(args: &ConfigCommandArgs) -> Result<ExitCode> {
    let overrides = Overrides::from_environment();
    match &args.command {
        ConfigCommand::Check { config, role } => {
            let process = match role {
                Role::Both => Process::Both,
                Role::Coordinator => Process::Coordinator,
                Role::Worker => Process::Worker,
            };
            load(process, config.config.as_deref(), &overrides)?;
            anstream::eprintln!("the configuration is right");
        }
        ConfigCommand::Show { config, resolved: _ } => {
            let config = load(Process::Neither, config.config.as_deref(), &overrides)?;
            anstream::print!("{}", config.resolved_toml());
        }
        ConfigCommand::Example => anstream::print!("{}", Config::example_toml()),
    }
    Ok(ExitCode::SUCCESS)
}

/// `spectrald token`: the secret on stdout once, and never again.
pub(in crate::cli) fn token(args: &TokenArgs) -> Result<ExitCode> {
    if !is_token_name(&args.name) {
        return Err(Error::invalid("is to be 1 to 64 of A-Z a-z 0-9 . _ - @").in_field("NAME"));
    }
    let (secret, sha256) = new_token()?;
    let roles: Vec<String> = args.role.iter().map(|role| format!("\"{role}\"")).collect();
    anstream::eprintln!(
        "Add this to the coordinator's tokens_file; the token itself, on the last line, is for its holder alone:\n\n\
         [[token]]\nname = \"{}\"\nsha256 = \"{sha256}\"\nroles = [{}]\n",
        args.name,
        roles.join(", ")
    );
    anstream::println!("{}", secret.expose());
    Ok(ExitCode::SUCCESS)
}
