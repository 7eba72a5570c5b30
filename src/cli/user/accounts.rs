//! `staunch user add`, `disable`, `enable`, `set-password`, `sessions` and `delete`.

use crate::app::IfAbsent;
use crate::auth;
use crate::cli::database_context::{
    failed, find, on_database, settings, shown, strip_controls, text,
};
use crate::cli::{FAILED, Failure, NOT_FOUND, REJECTED, prompt, tell};
use crate::clock::Clock;
use crate::config::Config;
use crate::hashing::{HashConfig, HashEngine, HashPurpose, Password};
use crate::identity::{Email, Username};
use crate::store::{Account, Admin, NewUser, RegisterError};
use crate::telemetry::{Metrics, with_causes};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::fmt;
use std::time::Duration;

/// Longest wait for a hash. One at the highest cost takes about 2 s, and no other is queued.
const HASH_DEADLINE: Duration = Duration::from_secs(300);

const HELP_PASSWORD: &str = "\
At a terminal the command asks for the password twice and does not show it. Otherwise the \
password is the first line of standard input. The rules are those of registration.";

pub(super) fn add_command() -> Command {
    Command::new("add")
        .about("Create an account")
        .after_help(HELP_PASSWORD)
        .arg(Arg::new("USERNAME").required(true).help("3 to 64 of A-Z a-z 0-9 . _ -"))
        .arg(Arg::new("EMAIL").required(true).help("E-mail address"))
}

pub(super) fn set_password_command() -> Command {
    of_name("set-password", "Change an account's password, and end its sessions at once")
        .after_help(HELP_PASSWORD)
}

/// The subcommands that do not hash a password.
pub(super) fn commands() -> Vec<Command> {
    vec![
        of_name("disable", "Disable an account's logins, and end its sessions at once"),
        of_name("enable", "Let a disabled account log in again"),
        of_name("sessions", "List an account's live sessions"),
        of_name("delete", "Remove an account and its sessions permanently")
            .arg(Arg::new("YES").long("yes").action(ArgAction::SetTrue).help("Do not ask first")),
    ]
}

fn of_name(command: &'static str, about: &'static str) -> Command {
    let name = Arg::new("NAME").required(true).help("Username or e-mail address");
    Command::new(command).about(about).arg(name)
}

pub(super) fn add(matches: &ArgMatches) -> Result<(), Failure> {
    let (config, _guard) = settings(matches)?;
    let username = Username::parse(text(matches, "USERNAME")).map_err(broken("username"))?;
    let email = Email::parse(text(matches, "EMAIL")).map_err(broken("email"))?;
    let password = new_password()?;
    let account = on_database(&config, IfAbsent::Create, async |admin| {
        let hash = hash(&config, password).await?;
        let (email, username) = (&email, &username);
        let user = NewUser { email, username, password_hash: &hash, origin: None };
        admin.add(&user).await.map_err(|error| match error {
            RegisterError::EmailTaken => broken("email")("is taken"),
            RegisterError::UsernameTaken => broken("username")("is taken"),
            RegisterError::Store(error) => failed(&error),
        })
    })?;
    tell(&[format!("added account {}, {}", account.id, account.username)]);
    Ok(())
}

pub(super) fn disable(matches: &ArgMatches) -> Result<(), Failure> {
    let (name, ended) = on_account(matches, async |admin, account| {
        admin.disable(account.id).await.map_err(|error| failed(&error))
    })?;
    match ended {
        Some(ended) => tell(&[format!("disabled {name}, ended {ended} sessions")]),
        None => tell(&[format!("{name} is already disabled")]),
    }
    Ok(())
}

pub(super) fn enable(matches: &ArgMatches) -> Result<(), Failure> {
    let (name, enabled) = on_account(matches, async |admin, account| {
        admin.enable(account.id).await.map_err(|error| failed(&error))
    })?;
    tell(&[format!("{name} is {}", if enabled { "enabled" } else { "already enabled" })]);
    Ok(())
}

pub(super) fn set_password(matches: &ArgMatches) -> Result<(), Failure> {
    let (config, _guard) = settings(matches)?;
    let password = new_password()?;
    let (name, ended) = on_database(&config, IfAbsent::Fail, async |admin| {
        let account = find(admin, text(matches, "NAME")).await?;
        let hash = hash(&config, password).await?;
        let ended = admin.set_password(account.id, &hash).await.map_err(|error| failed(&error))?;
        Ok((account.username.clone(), ended.ok_or_else(|| gone(&account))?))
    })?;
    tell(&[format!("changed the password of {name}, ended {ended} sessions")]);
    Ok(())
}

pub(super) fn delete(matches: &ArgMatches) -> Result<(), Failure> {
    let ask = !matches.get_flag("YES");
    let (name, deleted) = on_account(matches, async |admin, account| {
        let Account { username, email, id, .. } = account;
        let question = format!("Remove {username} ({email}, account {id}) permanently?");
        if ask && !prompt::confirm(&question).await? {
            return Ok(false);
        }
        match admin.delete(*id).await {
            Ok(true) => Ok(true),
            Ok(false) => Err(gone(account)),
            Err(error) => Err(failed(&error)),
        }
    })?;
    tell(&[format!("{name} {}", if deleted { "is removed" } else { "was not removed" })]);
    Ok(())
}

pub(super) fn sessions(matches: &ArgMatches) -> Result<(), Failure> {
    let (_, sessions) = on_account(matches, async |admin, account| {
        admin.sessions(account.id).await.map_err(|error| failed(&error))
    })?;
    let lines = sessions.iter().map(|session| {
        let address = session.address.map_or_else(|| "-".into(), |address| address.to_string());
        format!(
            "{}  opened {}  used {}  until {}  {address:<15}  {}",
            session.id,
            shown(session.created_at),
            shown(session.last_used_at),
            shown(session.expires_at),
            strip_controls(session.user_agent.as_deref().unwrap_or("-")),
        )
    });
    tell(&lines.collect::<Vec<_>>());
    Ok(())
}

/// Finds the account and runs `work` on it. Returns its username and the result.
fn on_account<T>(
    matches: &ArgMatches,
    work: impl AsyncFnOnce(&mut Admin, &Account) -> Result<T, Failure>,
) -> Result<(String, T), Failure> {
    let (config, _guard) = settings(matches)?;
    on_database(&config, IfAbsent::Fail, async |admin| {
        let account = find(admin, text(matches, "NAME")).await?;
        let result = work(admin, &account).await?;
        Ok((account.username, result))
    })
}

fn new_password() -> Result<Password, Failure> {
    auth::new_password(prompt::new_password()?).map_err(broken("password"))
}

/// Hashes a password at the configured cost, with an engine of one thread.
async fn hash(config: &Config, password: Password) -> Result<String, Failure> {
    let failed = |message: String| Failure { code: FAILED, message };
    let metrics = Metrics::new().map_err(|error| failed(error.to_string()))?;
    let hashing = HashConfig {
        threads: 1,
        lanes: Some(1),
        queue: 2,
        deadline: HASH_DEADLINE,
        ..config.hashing()
    };
    let engine = HashEngine::start(&hashing, &metrics, Clock::system())
        .map_err(|error| failed(error.to_string()))?;
    let hashed = match engine.reserve(HashPurpose::Hash) {
        Ok(permit) => engine.hash(permit, password).await,
        Err(error) => Err(error),
    };
    engine.drain().await;
    hashed.map(|hash| hash.to_string()).map_err(|error| failed(with_causes(&error)))
}

/// The failure of a field that breaks a rule.
fn broken<E: fmt::Display>(field: &'static str) -> impl Fn(E) -> Failure {
    move |rule| Failure { code: REJECTED, message: format!("{field}: {rule}") }
}

fn gone(account: &Account) -> Failure {
    let message = format!("{} was removed in the meantime", account.username);
    Failure { code: NOT_FOUND, message }
}
