//! `staunch audit`: prints the audit log of one account or of all.

use super::database_context::{failed, find, on_database, settings, shown};
use super::{FAILED, Failure, UNAVAILABLE};
use crate::app::IfAbsent;
use crate::store::{LoggedEvent, ReadError, StoreError};
use crate::telemetry::with_causes;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Serialize;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::time::Duration;

/// Longest span of `--since`: older than any event, and within PostgreSQL's range of times.
const SPAN_MAX: Duration = Duration::from_secs(1_000 * 365 * 24 * 3_600);

const HELP: &str = "\
Events: login, register, refresh, logout, session_end, password_change, account_disable, \
account_enable, account_delete.\n\n\
Outcomes: success; rejected (wrong name or password); limited (a login or change of password \
refused after too many failures, logged once per wait, or a session ended by a login \
beyond STAUNCH_SESSIONS_PER_ACCOUNT); reuse (an old refresh token was used again, so its session \
was ended); unanswered (the database did not answer a login in time, so its session was \
removed).\n\n\
A refused login is not looked up, so its event names no account. The server keeps events for \
STAUNCH_AUDIT_KEEP.";

/// The subcommand without the settings.
pub(super) fn command() -> Command {
    Command::new("audit")
        .about("Print the events of accounts and sessions, oldest first")
        .after_help(HELP)
        .arg(
            Arg::new("NAME")
                .long("account")
                .help("Username or e-mail address [default: all accounts]"),
        )
        .arg(
            Arg::new("SPAN")
                .long("since")
                .value_parser(span)
                .allow_hyphen_values(true)
                .default_value("7d")
                .hide_default_value(true)
                .help("How far to go back, like 30m, 12h or 7d [default: 7d]"),
        )
        .arg(
            Arg::new("JSON")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print one JSON object per line instead of a table"),
        )
}

fn span(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text);
    parsed.map_err(|_| "must be a duration like 30m, 12h or 7d".into())
}

/// An event in the JSON output.
#[derive(Serialize)]
struct Line<'a> {
    at: String,
    event: &'a str,
    outcome: &'a str,
    user_id: Option<i64>,
    ip: Option<IpAddr>,
    request_id: Option<&'a str>,
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let (config, _guard) = settings(matches)?;
    let name = matches.get_one::<String>("NAME");
    let since = matches.get_one::<Duration>("SPAN").copied().unwrap_or_default().min(SPAN_MAX);
    let json = matches.get_flag("JSON");
    on_database(&config, IfAbsent::Fail, async |admin| {
        let user = match name {
            Some(name) => Some(find(admin, name).await?.id),
            None => None,
        };
        let mut out = BufWriter::new(io::stdout());
        let print = |event: &LoggedEvent| {
            if json { print_json(&mut out, event) } else { print_row(&mut out, event) }
        };
        let printed = admin.events(user, since, print).await;
        printed.map_err(|error| read_failed(&error))?;
        out.flush().ok();
        Ok(())
    })
}

fn print_json(out: &mut impl Write, event: &LoggedEvent) -> io::Result<()> {
    let line = Line {
        at: shown(event.at),
        event: &event.event,
        outcome: &event.outcome,
        user_id: event.user.map(|user| user.0),
        ip: event.address,
        request_id: event.request_id.as_deref(),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

fn print_row(out: &mut impl Write, event: &LoggedEvent) -> io::Result<()> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let user = or_dash(event.user.map(|user| user.to_string()));
    let address = or_dash(event.address.map(|address| address.to_string()));
    let request_id = or_dash(event.request_id.clone());
    let LoggedEvent { event: what, outcome, .. } = event;
    writeln!(
        out,
        "{}  {what:<15}  {outcome:<8}  {user:>8}  {address:<15}  {request_id}",
        shown(event.at)
    )
}

/// The failure of an output that is incomplete. A closed pipe (`| head`) counts, because events are missing.
pub(super) fn read_failed(error: &ReadError) -> Failure {
    match error {
        ReadError::Store(error @ StoreError::Unavailable { .. }) => {
            Failure { code: UNAVAILABLE, message: with_causes(error) }
        }
        ReadError::Store(error) => failed(error),
        ReadError::Write(_) => Failure { code: FAILED, message: with_causes(error) },
    }
}
