//! `staunch user`: work on accounts, one at a time or all of them.

mod accounts;
mod export;
mod import;

use super::Failure;
use clap::{ArgMatches, Command};
use std::process::ExitCode;

/// The subcommands without the settings.
pub(super) fn commands() -> Vec<Command> {
    let mut commands = accounts::commands();
    commands.extend([import::command(), export::command()]);
    commands
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
        // The parser demands one.
        _ => Ok(ExitCode::SUCCESS),
    }
}
