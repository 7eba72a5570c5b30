//! Migrations: applies each file of `migrations/` once, in order, under a lock.
//!
//! The table `staunch_migrations` records the applied files with their SHA-256. The start fails if a
//! file changed after it was applied, or if the schema belongs to a newer version of staunch.
//!
//! Most files run in one transaction. A file that builds or drops indexes runs without one, because
//! CONCURRENTLY requires that. Such a file can be repeated, so the next start continues after an
//! interruption. A file of the contract phase drops what only the previous version needs. It waits a
//! day, until servers of that version are gone; see [`Mode`].

use super::connect::{self, ConnectError, Endpoint};
use super::migrations::{MIGRATIONS, Migration, Mode};
use super::twins::Twins;
use crate::telemetry::with_causes;
use aws_lc_rs::digest::{SHA256, digest};
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Advisory lock of the node that migrates ("migrate" in ASCII).
const MIGRATION_LOCK: i64 = 0x6d_69_67_72_61_74_65;
/// Time limit for another node's migrations. Indexing millions of accounts takes minutes.
const LOCK_DEADLINE: Duration = Duration::from_secs(600);
/// Pause between two attempts to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// How often migrations are retried after a deadlock or a lock timeout.
const RETRIES: u32 = 10;
/// Pause before a retry, so that the statements that waited get their turn.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Another node held the lock for too long.
    #[error("another node has been migrating for over {} s", LOCK_DEADLINE.as_secs())]
    Locked,
    /// The schema belongs to a newer version of staunch.
    #[error("the database has migration {found}, but this staunch ({}) supports only migrations up to {known}: run a newer one", env!("CARGO_PKG_VERSION"))]
    Newer {
        /// The highest number in the database.
        found: i32,
        /// The highest number in this binary.
        known: i32,
    },
    /// An applied file differs from the file in this binary.
    #[error("migration {number} was applied from a file that differs from the one in this staunch")]
    Changed {
        /// The file's number.
        number: i32,
    },
    /// Names that must be unique are not. Nothing was changed.
    #[error(
        "nothing was changed, because these rows have the same name, apart from the case of the letters A to Z. Keep one row of each line, and rename or delete the others (UPDATE users SET username = 'new-name' WHERE id = 1; UPDATE clients SET name = ...); then start again:{0}"
    )]
    Twins(Twins),
    /// The role has no permission to change the schema.
    #[error(
        "migration {name} is not applied yet, and this role has no permission to apply it ({reason}): run `staunch migrate` as the owner of the tables"
    )]
    NotAllowed {
        /// The file's name, or the step.
        name: &'static str,
        /// The server's message.
        reason: String,
    },
    /// The database rejected a statement.
    #[error("migration {name} failed: {reason}")]
    Failed {
        /// The file's name, or the step.
        name: &'static str,
        /// The server's message.
        reason: String,
        /// Whether the statement failed because of another transaction's locks, so that a retry may
        /// succeed.
        retry: bool,
    },
}

/// Brings the schema up to date and returns the number of applied files.
///
/// # Errors
/// See [`MigrateError`]. Files applied before the error stay applied.
pub async fn migrate(database: &Endpoint) -> Result<usize, MigrateError> {
    for _ in 0..RETRIES {
        match migrate_once(database).await {
            // A deadlock: a server of an older version waits for the lock inside a statement, and
            // CONCURRENTLY waits for that statement. Now that the lock is free, the other server gets
            // it. A lock timeout: a long transaction uses the table that is to be altered.
            Err(MigrateError::Failed { retry: true, name, reason }) => {
                tracing::info!(name, reason, "migration blocked by another transaction: retrying");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            result => return result,
        }
    }
    migrate_once(database).await
}

async fn migrate_once(database: &Endpoint) -> Result<usize, MigrateError> {
    let (mut client, connection) = connect::alone(database).await?;
    // Building an index may take any time, so the role's own limit must not apply.
    client.batch_execute("SET statement_timeout = 0").await.map_err(failed("setup"))?;
    let locked = tokio::time::timeout(LOCK_DEADLINE, lock(&client)).await;
    locked.map_err(|_| MigrateError::Locked)??;
    let applied = apply(&mut client).await;
    // Closing the connection releases the lock.
    drop(client);
    connection.await.ok();
    applied
}

/// Polls for the lock. A blocking wait would be a running statement, and the node that holds the lock
/// waits for all running statements when it builds an index.
async fn lock(client: &Client) -> Result<(), MigrateError> {
    let try_lock = "SELECT pg_try_advisory_lock($1)";
    loop {
        let row = client.query_one(try_lock, &[&MIGRATION_LOCK]).await.map_err(failed("lock"))?;
        if row.get(0) {
            return Ok(());
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// An applied file, as recorded in `staunch_migrations`.
struct Applied {
    number: i32,
    /// Whether it was applied longer ago than a rolling upgrade takes.
    settled: bool,
}

async fn apply(client: &mut Client) -> Result<usize, MigrateError> {
    let done = read_applied(client).await?;
    let mut applied = 0;
    for migration in MIGRATIONS {
        let Migration { number, name, mode, .. } = migration;
        if done.iter().any(|file| file.number == *number) {
            continue;
        }
        match mode {
            Mode::Transaction => run_in_transaction(client, migration).await?,
            Mode::BuildIndexes(indexes) => build_indexes(client, migration, indexes).await?,
            Mode::BuildNameIndexes(indexes) => {
                build_name_indexes(client, migration, indexes).await?;
            }
            Mode::Contract { created_by } => {
                let find = |number: i32| done.iter().find(|file| file.number == number);
                // Without that file, no server of the previous version can use this database.
                let is_new = find(*created_by).is_none();
                if !is_new && !find(number - 1).is_some_and(|file| file.settled) {
                    tracing::info!(
                        number,
                        name,
                        "migration postponed until a day after the previous"
                    );
                    continue;
                }
                // The server works without this file, so a role without DROP permission can serve.
                if let Err(error) = run_statements(client, migration).await {
                    tracing::warn!(%error, "migration postponed until the next start");
                    continue;
                }
            }
        }
        tracing::info!(number, name, "migration applied");
        applied += 1;
    }
    Ok(applied)
}

/// Reads which files were applied and checks them against this binary.
///
/// Creates the table only if it is missing, so that otherwise the role needs no CREATE permission.
async fn read_applied(client: &Client) -> Result<Vec<Applied>, MigrateError> {
    const TABLE: &str = "staunch_migrations";
    let find = "SELECT to_regclass('staunch_migrations') IS NULL";
    if client.query_one(find, &[]).await.map_err(failed(TABLE))?.get(0) {
        let create = "CREATE TABLE staunch_migrations (
            number     integer PRIMARY KEY,
            name       text NOT NULL,
            sha256     bytea NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now())";
        client.batch_execute(create).await.map_err(failed(TABLE))?;
    }
    let read = "SELECT number, sha256, applied_at < now() - interval '1 day'
                FROM staunch_migrations ORDER BY number";
    let rows = client.query(read, &[]).await.map_err(failed(TABLE))?;
    let known = MIGRATIONS.last().map_or(0, |last| last.number);
    let check = |row: &tokio_postgres::Row| {
        let (number, hash): (i32, Vec<u8>) = (row.get(0), row.get(1));
        match MIGRATIONS.iter().find(|file| file.number == number) {
            None => Err(MigrateError::Newer { found: number, known }),
            Some(file) if file.sha256().as_ref() != hash => Err(MigrateError::Changed { number }),
            Some(_) => Ok(Applied { number, settled: row.get(2) }),
        }
    };
    rows.iter().map(check).collect()
}

impl Migration {
    fn sha256(&self) -> aws_lc_rs::digest::Digest {
        digest(&SHA256, self.sql.as_bytes())
    }
}

const RECORD: &str = "INSERT INTO staunch_migrations (number, name, sha256) VALUES ($1, $2, $3)";

async fn run_in_transaction(
    client: &mut Client,
    migration: &Migration,
) -> Result<(), MigrateError> {
    let Migration { number, name, sql, .. } = migration;
    let hash = migration.sha256();
    let run = async {
        let transaction = client.transaction().await?;
        // While ALTER TABLE waits for a transaction that uses the table, all later statements on it
        // wait too.
        transaction.batch_execute("SET LOCAL lock_timeout = '1s'").await?;
        transaction.batch_execute(sql).await?;
        transaction.execute(RECORD, &[number, name, &hash.as_ref()]).await?;
        transaction.commit().await
    };
    run.await.map_err(failed(name))
}

async fn build_indexes(
    client: &Client,
    migration: &Migration,
    indexes: &[&str],
) -> Result<(), MigrateError> {
    let failed = failed(migration.name);
    // An interrupted build leaves an index that is maintained but not used.
    drop_invalid(client, indexes).await.map_err(&failed)?;
    let result = run_statements(client, migration).await;
    if result.is_err() {
        // An invalid unique index would reject further rows.
        drop_invalid(client, indexes).await.map_err(&failed)?;
    }
    result
}

async fn build_name_indexes(
    client: &Client,
    migration: &Migration,
    indexes: &[&str],
) -> Result<(), MigrateError> {
    refuse_twins(client, migration).await?;
    let result = build_indexes(client, migration, indexes).await;
    if result.is_err() {
        // A twin may have been registered during the build.
        refuse_twins(client, migration).await?;
    }
    result
}

async fn refuse_twins(client: &Client, migration: &Migration) -> Result<(), MigrateError> {
    let twins = Twins::find(client).await.map_err(failed(migration.name))?;
    twins.map_or(Ok(()), |twins| Err(MigrateError::Twins(twins)))
}

async fn drop_invalid(client: &Client, indexes: &[&str]) -> Result<(), tokio_postgres::Error> {
    let invalid = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid";
    for index in indexes {
        if client.query_opt(invalid, &[index]).await?.is_some() {
            client.batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {index}")).await?;
        }
    }
    Ok(())
}

async fn run_statements(client: &Client, migration: &Migration) -> Result<(), MigrateError> {
    let Migration { number, name, .. } = migration;
    let hash = migration.sha256();
    let run = async {
        for statement in migration.statements() {
            client.batch_execute(statement).await?;
        }
        client.execute(RECORD, &[number, name, &hash.as_ref()]).await
    };
    run.await.map(drop).map_err(failed(name))
}

fn failed(name: &'static str) -> impl Fn(tokio_postgres::Error) -> MigrateError {
    move |error| {
        let reason = with_causes(&error);
        match error.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
                MigrateError::NotAllowed { name, reason }
            }
            code => {
                let locks = [&SqlState::T_R_DEADLOCK_DETECTED, &SqlState::LOCK_NOT_AVAILABLE];
                let retry = code.is_some_and(|code| locks.contains(&code));
                MigrateError::Failed { name, reason, retry }
            }
        }
    }
}
