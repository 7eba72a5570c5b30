//! `staunch client`: the OAuth clients that may introspect and revoke tokens.

use super::beside::failed;
use super::source::Source;
use super::{BAD_SETTING, FAILED, Failure, UNAVAILABLE, runtime};
use crate::app::Database;
use crate::auth::{AddClientError, add_client};
use crate::clock::Clock;
use crate::config::Config;
use crate::store::{Store, StoreConfig};
use crate::telemetry::log::Log;
use crate::telemetry::{Metrics, with_causes};
use clap::{Arg, ArgMatches, Command, value_parser};
use std::io::{self, Write};
use time::format_description::well_known::Rfc3339;
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
    let config = Source::new(matches)?.config()?;
    let (_log, _guard) = Log::start(config.settings.log_format, &config.settings.log);
    let lines = runtime()?.block_on(on_database(&config, name, matches))?;
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}").map_err(|error| Failure {
            code: FAILED,
            message: format!("cannot write to standard output: {error}"),
        })?;
    }
    Ok(())
}

/// Opens the database, does what was asked, and closes what was opened.
async fn on_database(
    config: &Config,
    name: &str,
    matches: &ArgMatches,
) -> Result<Vec<String>, Failure> {
    let metrics = Metrics::new();
    let metrics = metrics.map_err(|error| Failure { code: FAILED, message: error.to_string() })?;
    let database = Database::open(config).await?;
    let one = StoreConfig { database: database.connect.clone(), pool_min: 1, pool_max: 1 };
    let result = match Store::open(&one, &metrics, Clock::system()).await {
        Ok(store) => {
            let done = act(&store, name, matches).await;
            store.close();
            done
        }
        Err(error) => Err(Failure { code: UNAVAILABLE, message: with_causes(&error) }),
    };
    database.close().await;
    result
}

async fn act(store: &Store, name: &str, matches: &ArgMatches) -> Result<Vec<String>, Failure> {
    let bad = |message: String| Failure { code: BAD_SETTING, message };
    match name {
        "add" => {
            let name: &String =
                matches.get_one("NAME").ok_or_else(|| bad("NAME: is missing".into()))?;
            let made = add_client(store, name).await.map_err(|error| match error {
                AddClientError::BadName | AddClientError::NameTaken => bad(error.to_string()),
                AddClientError::Random => Failure { code: FAILED, message: error.to_string() },
                AddClientError::Store(error) => failed(&error),
            })?;
            Ok(vec![
                format!("client_id      {}", made.id),
                format!("client_secret  {}", made.secret.expose()),
            ])
        }
        "remove" => {
            let id: &Uuid = matches.get_one("ID").ok_or_else(|| bad("ID: is missing".into()))?;
            let removed = store.delete_client(*id).await.map_err(|error| failed(&error))?;
            let client = removed.ok_or_else(|| bad(format!("there is no client {id}")))?;
            Ok(vec![format!("removed {} ({})", client.id, client.name)])
        }
        _ => {
            let clients = store.clients().await.map_err(|error| failed(&error))?;
            let since = |at: time::OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
            let line = |client: &crate::store::Client| {
                format!("{}  {}  {}", client.id, since(client.created_at), client.name)
            };
            Ok(clients.iter().map(line).collect())
        }
    }
}
