//! `staunch client`: the OAuth clients that may introspect and revoke tokens.

use super::beside::{failed, on_database, settings, shown, text};
use super::{FAILED, Failure, NOT_FOUND, REJECTED, tell};
use crate::auth::{AddClientError, add_client};
use crate::store::{Admin, Client};
use clap::{Arg, ArgMatches, Command, value_parser};
use uuid::Uuid;

const HELP_ADD: &str = "\
The secret is shown this once: only its hash is stored. The server may run meanwhile, on the embedded
database too. To change a secret, add a second client under another name, and remove the first one when
the service uses the second.";

pub(super) fn command() -> Command {
    Command::new("client")
        .about("Work on the OAuth clients that may introspect and revoke tokens")
        .subcommand_required(true)
        .subcommand(
            Command::new("add")
                .about("Make a client and print its id and secret")
                .after_help(HELP_ADD)
                .arg(Arg::new("NAME").required(true).help("What people call it, like billing-api")),
        )
        .subcommand(Command::new("list").about("List the clients"))
        .subcommand(
            Command::new("remove")
                .about("Remove a client; servers refuse it within two seconds")
                .arg(
                    Arg::new("ID")
                        .required(true)
                        .value_parser(value_parser!(Uuid))
                        .help("Its client_id"),
                ),
        )
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let Some((name, matches)) = matches.subcommand() else {
        // The parser demands one.
        return Ok(());
    };
    let (config, _guard) = settings(matches)?;
    let lines = on_database(&config, async |admin| match name {
        "add" => add(admin, text(matches, "NAME")).await,
        "remove" => remove(admin, matches.get_one("ID").copied().unwrap_or_default()).await,
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

async fn remove(admin: &Admin, id: Uuid) -> Result<Vec<String>, Failure> {
    let removed = admin.delete_client(id).await.map_err(|error| failed(&error))?;
    let client = removed
        .ok_or_else(|| Failure { code: NOT_FOUND, message: format!("there is no client {id}") })?;
    Ok(vec![format!("removed {} ({})", client.id, client.name)])
}

async fn list(admin: &Admin) -> Result<Vec<String>, Failure> {
    let clients = admin.clients().await.map_err(|error| failed(&error))?;
    let line =
        |client: &Client| format!("{}  {}  {}", client.id, shown(client.created_at), client.name);
    Ok(clients.iter().map(line).collect())
}
