//! `staunch client`: the OAuth clients that may introspect and revoke tokens.

use super::database_context::{failed, on_database, settings, shown, text};
use super::settings::{Uses, with_settings};
use super::{FAILED, Failure, NOT_FOUND, REJECTED, tell};
use crate::app::IfAbsent;
use crate::auth::{AddClientError, add_client};
use crate::store::{Admin, Client};
use clap::{Arg, ArgMatches, Command};
use uuid::Uuid;

const HELP_ADD: &str = "\
The secret is shown once: only its hash is stored. The server may be running, on the embedded \
database too. To change a secret, add a second client under another name, switch the service to it, and \
remove the first client.";

pub(super) fn command() -> Command {
    let commands = [
        Command::new("add")
            .about("Create a client and print its id and secret")
            .after_help(HELP_ADD)
            .arg(Arg::new("NAME").required(true).help("A name for people, like billing-api")),
        Command::new("list").about("List the clients"),
        Command::new("remove")
            .about("Remove a client; servers refuse it within two seconds")
            .arg(Arg::new("CLIENT").required(true).help("Its name or its client_id")),
    ];
    Command::new("client")
        .about("Add, list and remove the OAuth clients that may introspect and revoke tokens")
        .subcommand_required(true)
        .subcommands(commands.map(|command| with_settings(command, Uses::Database)))
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let Some((name, matches)) = matches.subcommand() else {
        // clap requires a subcommand.
        return Ok(());
    };
    let (config, _guard) = settings(matches)?;
    let lines = on_database(&config, IfAbsent::Fail, async |admin| match name {
        "add" => add(admin, text(matches, "NAME")).await,
        "remove" => remove(admin, text(matches, "CLIENT")).await,
        _ => list(admin).await,
    })?;
    tell(&lines);
    Ok(())
}

async fn add(admin: &Admin, name: &str) -> Result<Vec<String>, Failure> {
    let made = add_client(admin, name).await.map_err(|error| match error {
        AddClientError::BadName | AddClientError::NameTaken => {
            Failure { code: REJECTED, message: error.to_string() }
        }
        AddClientError::Random => Failure { code: FAILED, message: error.to_string() },
        AddClientError::Store(error) => failed(&error),
    })?;
    Ok(vec![
        format!("client_id      {}", made.id),
        format!("client_secret  {}", made.secret.expose()),
    ])
}

/// Removes a client by id or name. An id wins over another client's identical name.
async fn remove(admin: &Admin, client: &str) -> Result<Vec<String>, Failure> {
    let mut removed = None;
    if let Ok(id) = client.parse::<Uuid>() {
        removed = admin.delete_client(id).await.map_err(|error| failed(&error))?;
    }
    if removed.is_none() {
        removed = admin.delete_client_named(client).await.map_err(|error| failed(&error))?;
    }
    let message = || format!("no client has the name or client_id {client:?}");
    let client = removed.ok_or_else(|| Failure { code: NOT_FOUND, message: message() })?;
    Ok(vec![format!("removed {} ({})", client.id, client.name)])
}

async fn list(admin: &Admin) -> Result<Vec<String>, Failure> {
    let clients = admin.clients().await.map_err(|error| failed(&error))?;
    let line =
        |client: &Client| format!("{}  {}  {}", client.id, shown(client.created_at), client.name);
    Ok(clients.iter().map(line).collect())
}
