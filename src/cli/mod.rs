//! The command line, one file for each subcommand. The default is `serve`.
//!
//! Exit codes follow sysexits.h: 64 a bad setting, 65 some of the input was rejected, 66 no input,
//! 67 no such account, client or key, 69 the database or a port is not available, 70 any other failure,
//! 73 the data folder is in use, or a file or folder cannot be created or read, 75 stopped by a signal.

mod audit;
mod calibrate;
mod check_config;
mod client;
mod database_context;
mod keys;
mod migrate;
mod prompt;
mod serve;
mod settings;
mod source;
mod user;

use crate::app::StartError;
use crate::postgres::PostgresError;
use crate::telemetry::with_causes;
use clap::Command;
use clap::error::ErrorKind;
use settings::{Uses, with_settings};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// The error message and the exit code of a failed subcommand.
struct Failure {
    code: u8,
    message: String,
}

const BAD_SETTING: u8 = 64;
const REJECTED: u8 = 65;
const NO_INPUT: u8 = 66;
const NOT_FOUND: u8 = 67;
const UNAVAILABLE: u8 = 69;
const FAILED: u8 = 70;
const IN_USE: u8 = 73;
const CANNOT_CREATE: u8 = 73;
const INTERRUPTED: u8 = 75;

/// Prints lines to standard output. A closed pipe (`| head`) is not an error, because the work is done.
fn tell(lines: &[String]) {
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}").ok();
    }
    out.flush().ok();
}

/// Runs the program. The first argument is the program's name.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(with_default(arguments.collect())) {
        Ok(matches) => matches,
        Err(error) => {
            error.print().ok();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked { 0 } else { BAD_SETTING });
        }
    };
    let done = |()| ExitCode::SUCCESS;
    let result = match matches.subcommand() {
        Some(("audit", matches)) => audit::run(matches).map(done),
        Some(("calibrate", matches)) => calibrate::run(matches).map(done),
        Some(("check-config", matches)) => check_config::run(matches).map(done),
        Some(("client", matches)) => client::run(matches).map(done),
        Some(("keys", matches)) => keys::run(matches).map(done),
        Some(("migrate", matches)) => migrate::run(matches).map(done),
        Some(("user", matches)) => user::run(matches),
        Some((_, matches)) => serve::run(matches),
        None => Ok(ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn command() -> Command {
    Command::new("staunch")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A password-login server. The default subcommand is serve.")
        .subcommand_required(true)
        .subcommand(with_settings(
            Command::new("serve").about("Serve until SIGTERM or ctrl-C"),
            Uses::All,
        ))
        .subcommand(with_settings(calibrate::command(), Uses::Calibration))
        .subcommand(with_settings(
            Command::new("check-config").about("Check the settings and print them, secrets masked"),
            Uses::All,
        ))
        .subcommand(with_settings(
            Command::new("migrate").about("Bring the database's schema up to date and stop"),
            Uses::DatabaseServer,
        ))
        .subcommand(client::command())
        .subcommand(keys::command())
        .subcommand(user::command())
        .subcommand(with_settings(audit::command(), Uses::Database))
}

/// Inserts `serve` where the arguments name no subcommand.
fn with_default(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let asks = |text: &str| ["-h", "--help", "-V", "--version"].contains(&text);
    let first = arguments.get(1).map(|first| first.to_string_lossy().into_owned());
    if first.is_none_or(|first| first.starts_with('-') && !asks(&first)) {
        arguments.insert(1.min(arguments.len()), "serve".into());
    }
    arguments
}

/// Builds the async runtime of a subcommand.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("staunch-io")
        .build()
        .map_err(|error| Failure {
            code: FAILED,
            message: format!("cannot start the async runtime: {error}"),
        })
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let code = match &error {
            StartError::Postgres(error) => code_of(error),
            StartError::Connect(_)
            | StartError::Migrate(_)
            | StartError::Counters(_)
            | StartError::Listen { .. } => UNAVAILABLE,
            StartError::Tls(_) => BAD_SETTING,
            StartError::Keys(error) => keys::code_of(error),
            StartError::Part { .. } => FAILED,
        };
        let mut message = with_causes(&error);
        if let StartError::Postgres(error) = &error
            && let Some(advice) = error.advice()
        {
            message.push_str("\n  ");
            message.push_str(&advice);
        }
        Self { code, message }
    }
}

fn code_of(error: &PostgresError) -> u8 {
    match error {
        PostgresError::NotFound(_) | PostgresError::NoDatabase { .. } => UNAVAILABLE,
        PostgresError::InUse { .. } => IN_USE,
        PostgresError::Folder { .. } => CANNOT_CREATE,
        PostgresError::BadBinDir { .. } | PostgresError::Unreachable { .. } => BAD_SETTING,
        PostgresError::OtherMajor { .. }
        | PostgresError::NoOsUser
        | PostgresError::PasswordLost { .. }
        | PostgresError::Spawn { .. }
        | PostgresError::Initdb { .. }
        | PostgresError::EndedEarly { .. }
        | PostgresError::NotReady { .. }
        | PostgresError::OrphanStays { .. }
        | PostgresError::Connect { .. }
        | PostgresError::Silent { .. }
        | PostgresError::Random { .. } => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn serve_is_the_default() {
        let after = |arguments: &[&str]| {
            let words = arguments.iter().map(|word| OsString::from(*word)).collect();
            with_default(words).get(1).map(|word| word.to_string_lossy().into_owned())
        };
        assert_eq!(after(&["staunch"]).as_deref(), Some("serve"));
        assert_eq!(after(&["staunch", "--listen", "[::1]:80"]).as_deref(), Some("serve"));
        assert_eq!(after(&["staunch", "--help"]).as_deref(), Some("--help"));
        assert_eq!(after(&["staunch", "migrate"]).as_deref(), Some("migrate"));
    }
}
