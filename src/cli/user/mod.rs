//! `staunch user`: manages one account, or imports and exports all.

mod accounts;
mod export;
mod import;

use super::Failure;
use super::settings::{Uses, with_settings};
use clap::{ArgMatches, Command};
use std::process::ExitCode;

/// The `user` subcommand with its own subcommands.
pub(super) fn command() -> Command {
    let on_accounts = accounts::commands().into_iter().chain([export::command()]);
    let with_passwords =
        [accounts::add_command(), accounts::set_password_command(), import::command()];
    Command::new("user")
        .about("Add, change, import and export accounts")
        .subcommand_required(true)
        .subcommands(with_passwords.map(|command| with_settings(command, Uses::Passwords)))
        .subcommands(on_accounts.map(|command| with_settings(command, Uses::Database)))
}

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let done = |()| ExitCode::SUCCESS;
    match matches.subcommand() {
        Some(("import", matches)) => import::run(matches),
        Some(("export", matches)) => export::run(matches).map(done),
        Some(("add", matches)) => accounts::add(matches).map(done),
        Some(("disable", matches)) => accounts::disable(matches).map(done),
        Some(("enable", matches)) => accounts::enable(matches).map(done),
        Some(("set-password", matches)) => accounts::set_password(matches).map(done),
        Some(("sessions", matches)) => accounts::sessions(matches).map(done),
        Some(("delete", matches)) => accounts::delete(matches).map(done),
        // clap requires a subcommand.
        _ => Ok(ExitCode::SUCCESS),
    }
}
