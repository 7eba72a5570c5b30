//! Migrations: the files of `migrations/`, each applied once, in order, in a transaction, under a
//! lock.
//!
//! The table `staunch_migrations` remembers which ran and the SHA-256 of each: a file that was
//! changed after it ran, or a schema that a newer staunch made, stops the start with a clear line
//! rather than serve on a schema that nobody has tested. A file runs whole or not at all, so a
//! process that was killed half way is continued by the next start.

use super::connect::{self, ConnectError, Endpoint};
use crate::telemetry::with_causes;
use aws_lc_rs::digest::{SHA256, digest};
use std::time::Duration;
use tokio_postgres::Client;

/// Number, name and text, in order. Files are only ever added.
const MIGRATIONS: &[(i32, &str, &str)] = &[
    (1, "users", include_str!("../../migrations/0001_users.sql")),
    (2, "refresh_tokens", include_str!("../../migrations/0002_refresh_tokens.sql")),
    (3, "auth_events", include_str!("../../migrations/0003_auth_events.sql")),
    (4, "clients", include_str!("../../migrations/0004_clients.sql")),
];

/// "migrate" in ASCII: the advisory lock that nodes starting together queue for.
const MIGRATION_LOCK: i64 = 0x6d_69_67_72_61_74_65;
/// Longest wait for another node's migrations.
const LOCK_DEADLINE: Duration = Duration::from_secs(60);

/// Why the schema is not what this binary needs.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Another node held the lock too long.
    #[error("another node has been migrating for over {} s", LOCK_DEADLINE.as_secs())]
    Locked,
    /// A newer staunch has been here.
    #[error("the database has migration {found}, but this staunch ({}) knows only up to {known}: run a newer one", env!("CARGO_PKG_VERSION"))]
    Newer {
        /// The highest number in the database.
        found: i32,
        /// The highest number in this binary.
        known: i32,
    },
    /// An applied file is not the one in this binary.
    #[error("migration {number} was applied with another text than this staunch has")]
    Changed {
        /// Its number.
        number: i32,
    },
    /// The database refused a statement.
    #[error("migration {name} failed: {reason}")]
    Failed {
        /// The file's name, or what was being done.
        name: &'static str,
        /// What the server said.
        reason: String,
    },
}

/// Brings the schema up to this binary's; returns how many files were applied.
///
/// # Errors
/// See [`MigrateError`]. What was applied before the error stays.
pub async fn migrate(database: &Endpoint) -> Result<usize, MigrateError> {
    let (mut client, connection) = connect::alone(database).await?;
    let lock = client.query_one("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]);
    let locked =
        tokio::time::timeout(LOCK_DEADLINE, lock).await.map_err(|_| MigrateError::Locked)?;
    locked.map_err(failed("lock"))?;
    let applied = apply(&mut client).await;
    // The lock ends with the connection.
    drop(client);
    connection.await.ok();
    applied
}

async fn apply(client: &mut Client) -> Result<usize, MigrateError> {
    let table = "CREATE TABLE IF NOT EXISTS staunch_migrations (
            number     integer PRIMARY KEY,
            name       text NOT NULL,
            sha256     bytea NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now())";
    client.batch_execute(table).await.map_err(failed("staunch_migrations"))?;
    let done = client
        .query("SELECT number, sha256 FROM staunch_migrations ORDER BY number", &[])
        .await
        .map_err(failed("staunch_migrations"))?;
    let known = MIGRATIONS.last().map_or(0, |(number, ..)| *number);
    for row in &done {
        let (number, hash): (i32, Vec<u8>) = (row.get(0), row.get(1));
        let Some((_, _, sql)) = MIGRATIONS.iter().find(|(known, ..)| *known == number) else {
            return Err(MigrateError::Newer { found: number, known });
        };
        if digest(&SHA256, sql.as_bytes()).as_ref() != hash {
            return Err(MigrateError::Changed { number });
        }
    }
    let mut applied = 0;
    for (number, name, sql) in MIGRATIONS {
        if done.iter().any(|row| row.get::<_, i32>(0) == *number) {
            continue;
        }
        let transaction = client.transaction().await.map_err(failed(name))?;
        transaction.batch_execute(sql).await.map_err(failed(name))?;
        let record = "INSERT INTO staunch_migrations (number, name, sha256) VALUES ($1, $2, $3)";
        let hash = digest(&SHA256, sql.as_bytes());
        transaction.execute(record, &[number, name, &hash.as_ref()]).await.map_err(failed(name))?;
        transaction.commit().await.map_err(failed(name))?;
        tracing::info!(number, name, "migration applied");
        applied += 1;
    }
    Ok(applied)
}

fn failed(name: &'static str) -> impl Fn(tokio_postgres::Error) -> MigrateError {
    move |error| MigrateError::Failed { name, reason: with_causes(&error) }
}
