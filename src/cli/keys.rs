//! `staunch keys`: lists, rotates and retires the keys in the key folder.

use super::database_context::{settings, text};
use super::settings::{Uses, with_settings};
use super::{CANNOT_CREATE, FAILED, Failure, NOT_FOUND, REJECTED, runtime, tell};
use crate::app;
use crate::clock::Clock;
use crate::telemetry::with_causes;
use crate::tokens::{KeyError, KeyFolder, KeyInfo, KeyKind, KeyState, RetireError, Rotation};
use clap::{Arg, ArgAction, ArgMatches, Command};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const HELP_ROTATE: &str = "\
Running servers read the folder every 30 s and at SIGHUP. They accept the new key's tokens at once \
and publish the key at /.well-known/jwks.json. It signs tokens after 10 minutes, when every node \
and every client has it. The previous key still verifies the tokens that it signed; remove it \
later with `staunch keys retire`.\n\n\
With --now the key signs tokens at once, and keys of its kind that wait to take over are \
removed.";

const HELP_RETIRE: &str = "\
A key is needed until the last token that it signed has expired: STAUNCH_ACCESS_TOKEN_TTL (refresh \
keys: STAUNCH_REFRESH_TOKEN_TTL) after the next key took over. Before that the command refuses, \
because removing the key would log users out. --force removes it anyway.\n\n\
If a key was stolen, run `staunch keys rotate --now`, then `staunch keys retire --force` for the \
stolen key, then send the servers SIGHUP or wait 30 s.";

pub(super) fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let commands = [
        Command::new("list").about("List the keys and the state of each"),
        Command::new("rotate")
            .about("Create a key of STAUNCH_JWT_ALG that takes over in 10 minutes")
            .after_help(HELP_ROTATE)
            .arg(flag("refresh", "Create a key for refresh tokens instead of access tokens"))
            .arg(flag(
                "now",
                "Take over at once: servers and clients that do not know the key yet refuse its tokens",
            )),
        Command::new("retire")
            .about("Remove a key that is no longer needed")
            .after_help(HELP_RETIRE)
            .arg(
                Arg::new("KID")
                    .required(true)
                    // A base64url id can begin with a hyphen.
                    .allow_hyphen_values(true)
                    .help("Its id, as `staunch keys list` shows it; put -- before an id that begins with -h"),
            )
            .arg(flag("force", "Remove it even if tokens that it signed are still valid")),
    ];
    Command::new("keys")
        .about("List, rotate and retire the keys that sign tokens")
        .subcommand_required(true)
        .subcommands(commands.map(|command| with_settings(command, Uses::Keys)))
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let Some((name, matches)) = matches.subcommand() else {
        // clap requires a subcommand.
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
    let Rotation { made, superseded } = folder.rotate(refresh, now).map_err(failed)?;
    let mut lines = vec![line(&made), format!("made {}", made.path.display())];
    lines.extend(superseded.iter().map(|key| {
        let at = moment(key.from_unix_s);
        format!("removed {}, which would have taken over at {at}", key.path.display())
    }));
    Ok(lines)
}

fn retire(folder: &KeyFolder, kid: &str, force: bool) -> Result<String, Failure> {
    let retired = folder.retire(kid, force).map_err(|error| match error {
        RetireError::Unknown { .. } => Failure { code: NOT_FOUND, message: error.to_string() },
        RetireError::Signs { .. } => Failure { code: REJECTED, message: error.to_string() },
        RetireError::Needed { .. } | RetireError::Elsewhere { .. } => Failure {
            code: REJECTED,
            message: format!("{error}\n  Use --force to remove it anyway."),
        },
        RetireError::Keys(error) => failed(error),
    })?;
    Ok(format!("retired {}, removed {}", retired.kid, retired.path.display()))
}

/// Formats a key as one line: kind, algorithm, id, state.
fn line(key: &KeyInfo) -> String {
    let (kind, algorithm) = match key.kind {
        KeyKind::Access(algorithm) => ("access", algorithm.name()),
        KeyKind::Refresh => ("refresh", "HMAC"),
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
    Failure { code: code_of(&error), message: with_causes(&error) }
}

pub(super) fn code_of(error: &KeyError) -> u8 {
    match error {
        KeyError::None { .. } => NOT_FOUND,
        KeyError::Io { .. } => CANNOT_CREATE,
        KeyError::Exposed { .. }
        | KeyError::Damaged { .. }
        | KeyError::TooMany { .. }
        | KeyError::Missing { .. }
        | KeyError::Locked { .. }
        | KeyError::Generate => FAILED,
    }
}
