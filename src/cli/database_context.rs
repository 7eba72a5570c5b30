//! Settings, log and database connection of the subcommands that work on stored data.
//!
//! They work with and without a running server. If another staunch process uses the data folder, they
//! connect to the embedded PostgreSQL of that process through its socket.

use super::serve::no_signals;
use super::source::Source;
use super::{FAILED, Failure, INTERRUPTED, NOT_FOUND, UNAVAILABLE, runtime};
use crate::app::{Database, IfAbsent, StartError};
use crate::config::Config;
use crate::identity::LoginName;
use crate::lifecycle;
use crate::store::{Account, Admin, StoreError};
use crate::telemetry::log::{Log, LogGuard};
use crate::telemetry::with_causes;
use clap::ArgMatches;
use std::io;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Reads the settings and starts the log, which stops when the guard is dropped.
pub(super) fn settings(matches: &ArgMatches) -> Result<(Config, LogGuard), Failure> {
    let source = Source::new(matches)?;
    let config = source.config()?;
    let (_, guard) = Log::start(config.settings.log_format, &config.settings.log);
    for name in source.unknown() {
        tracing::warn!("{name} is set, but staunch has no such setting");
    }
    Ok((config, guard))
}

/// Returns the text of a required argument.
pub(super) fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

/// Opens the configured database, runs `work` on it, and closes it.
///
/// A termination signal ends the work early.
pub(super) fn on_database<T>(
    config: &Config,
    if_absent: IfAbsent,
    work: impl AsyncFnOnce(&mut Admin) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut stop = std::pin::pin!(lifecycle::termination());
        let database = tokio::select! {
            opened = open_database(config, if_absent) => opened?,
            signal = &mut stop => return Err(interrupted(signal)),
        };
        let work = async {
            let opened = Admin::open(&database.connect).await;
            let mut admin = opened
                .map_err(|error| Failure { code: UNAVAILABLE, message: with_causes(&error) })?;
            let result = work(&mut admin).await;
            admin.close().await;
            result
        };
        let result = tokio::select! {
            result = work => result,
            signal = stop => Err(interrupted(signal)),
        };
        database.close().await;
        result
    });
    // Do not wait for a blocked read of standard input.
    runtime.shutdown_background();
    result
}

/// Opens the configured database, and reports it on standard error if it is new.
pub(super) async fn open_database(
    config: &Config,
    if_absent: IfAbsent,
) -> Result<Database, StartError> {
    let database = Database::open(config, if_absent).await?;
    if let Some(folder) = database.created_in() {
        eprintln!("created a new database in {}", folder.display());
    }
    Ok(database)
}

/// Finds the account with this username or e-mail address.
pub(super) async fn find(admin: &Admin, name: &str) -> Result<Account, Failure> {
    let found = admin.find(&LoginName::parse(name)).await.map_err(|error| failed(&error))?;
    found.ok_or_else(|| Failure {
        code: NOT_FOUND,
        message: format!("no account has the username or e-mail address {name:?}"),
    })
}

pub(super) fn failed(error: &StoreError) -> Failure {
    let code = match error {
        StoreError::Unavailable { .. } => UNAVAILABLE,
        StoreError::Conflict { .. } | StoreError::Failed { .. } => FAILED,
    };
    Failure { code, message: with_causes(error) }
}

pub(super) fn interrupted(signal: io::Result<()>) -> Failure {
    let stopped = || Failure { code: INTERRUPTED, message: "stopped by a signal".into() };
    signal.map_or_else(no_signals, |()| stopped())
}

/// Formats a time to the second, in UTC.
pub(super) fn shown(time: OffsetDateTime) -> String {
    let second = time.replace_nanosecond(0).unwrap_or(time);
    second.format(&Rfc3339).unwrap_or_default()
}

/// Replaces control characters, so that text from a client cannot control the terminal.
pub(super) fn strip_controls(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
