//! `staunch keys`: what is in the key folder, another key, one less.

use super::beside::{settings, text};
use super::{FAILED, Failure, NOT_FOUND, REJECTED, runtime, tell};
use crate::app;
use crate::clock::Clock;
use crate::telemetry::with_causes;
use crate::tokens::{KeyError, KeyFolder, KeyInfo, KeyState, Kind, RetireError};
use clap::{Arg, ArgAction, ArgMatches, Command};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const HELP_ROTATE: &str = "\
The key is there for checking at once: running servers read the folder every 30 s and at SIGHUP, and
publish it at /.well-known/jwks.json. It makes tokens 10 minutes later, when every node and every client
has it. The key before it goes on checking what it made; take it away with `staunch keys retire`.";

const HELP_RETIRE: &str = "\
A key is needed until the last token that it made has ended: STAUNCH_ACCESS_TOKEN_TTL, or for a refresh
key STAUNCH_REFRESH_TOKEN_TTL, after the next key took over. Before that this is refused, as it would log
people out. --force does it all the same, for a key that others may have: first `staunch keys rotate --now`,
then retire the old one, then send the servers SIGHUP or wait 30 s.";

pub(super) fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("keys")
        .about("Work on the keys that make tokens")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("List the keys and what they do now"))
        .subcommand(
            Command::new("rotate")
                .about("Make another key, of STAUNCH_JWT_ALG, that takes over in 10 minutes")
                .after_help(HELP_ROTATE)
                .arg(flag("refresh", "A key for refresh tokens instead of access tokens"))
                .arg(flag(
                    "now",
                    "Take over at once: who does not know the key yet refuses its tokens",
                )),
        )
        .subcommand(
            Command::new("retire")
                .about("Remove a key that is not needed any more")
                .after_help(HELP_RETIRE)
                .arg(
                    Arg::new("KID")
                        .required(true)
                        // base64url has the hyphen.
                        .allow_hyphen_values(true)
                        .help("Its id, as `staunch keys list` shows it; after -- if it begins with -h"),
                )
                .arg(flag("force", "Also if it has made tokens that are still valid")),
        )
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let Some((name, matches)) = matches.subcommand() else {
        // The parser demands one.
        return Ok(());
    };
    let (config, _guard) = settings(matches)?;
    let folder = runtime()?.block_on(app::key_folder(&config, Clock::system()))?;
    let is_set = |flag: &str| matches.get_flag(flag);
    let lines = match name {
        "rotate" => rotate(&folder, is_set("refresh"), is_set("now"))?,
        "retire" => vec![retire(&folder, text(matches, "KID"), is_set("force"))?],
        _ => folder.list().map_err(failed)?.iter().map(line).collect(),
    };
    tell(&lines);
    Ok(())
}

fn rotate(folder: &KeyFolder, refresh: bool, now: bool) -> Result<Vec<String>, Failure> {
    let made = folder.rotate(refresh, now).map_err(failed)?;
    Ok(vec![line(&made), format!("made {}", made.path.display())])
}

fn retire(folder: &KeyFolder, kid: &str, force: bool) -> Result<String, Failure> {
    let retired = folder.retire(kid, force).map_err(|error| match error {
        RetireError::Unknown { .. } => Failure { code: NOT_FOUND, message: error.to_string() },
        RetireError::Signs { .. } => Failure { code: REJECTED, message: error.to_string() },
        RetireError::Needed { .. } | RetireError::Elsewhere { .. } => {
            Failure { code: REJECTED, message: format!("{error}\n  --force does it all the same.") }
        }
        RetireError::Keys(error) => failed(error),
    })?;
    Ok(format!("retired {}, removed {}", retired.kid, retired.path.display()))
}

/// One key on one line: what, id, state.
fn line(key: &KeyInfo) -> String {
    let (kind, algorithm) = match key.kind {
        Kind::Access(algorithm) => ("access", algorithm.name()),
        Kind::Refresh => ("refresh", "HMAC"),
    };
    let state = match key.state {
        KeyState::Waits => format!("takes over at {}", moment(key.from_unix_s)),
        KeyState::Signs => format!("signs since {}", moment(key.from_unix_s)),
        KeyState::Checks { until_unix_s: Some(until) } => {
            format!("is needed until {}", moment(until))
        }
        KeyState::Checks { until_unix_s: None } => "checks tokens".to_owned(),
    };
    format!("{kind:<8}{algorithm:<6}{:<44}{state}", key.kid)
}

fn moment(unix_s: u64) -> String {
    let at = i64::try_from(unix_s).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| unix_s.to_string())
}

fn failed(error: KeyError) -> Failure {
    Failure { code: FAILED, message: with_causes(&error) }
}
