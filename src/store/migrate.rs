//! Migrations: applies each file of `migrations/` once, in order, under a lock.
//!
//! The table `staunch_migrations` records the applied files with their SHA-256. The start fails if a
//! file changed after it was applied, or if a newer version of staunch applied one that this version
//! does not support. Each record names the oldest version that does: `compatible_since` is the number of
//! the last file that this version must know.
//!
//! Most files run in one transaction. A file that builds or drops indexes runs without one, because
//! CONCURRENTLY requires that. Such a file can be repeated, so the next start continues after an
//! interruption. A file of the contract phase drops what only the previous version needs. It waits a
//! day, until servers of that version are gone; see [`Mode`].

use super::connect::{self, Endpoint};
use super::migration_error::{MigrateError, failed};
use super::migration_lock::MigrationLock;
use super::migrations::{MIGRATIONS, Migration, Mode};
use super::twins::Twins;
use aws_lc_rs::digest::{SHA256, digest};
use std::time::Duration;
use tokio_postgres::{Client, GenericClient};

/// How often migrations are retried after a deadlock or a lock timeout.
const RETRIES: u32 = 10;
/// Pause before a retry, so that the statements that waited get their turn.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

const WITHOUT_LIMITS: &str =
    "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";
const WITH_LIMITS: &str = "RESET statement_timeout; RESET idle_in_transaction_session_timeout";
/// Time limit for sending a cancellation.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

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
    let prepared = client.prepare("SELECT 1").await.map_err(failed("setup"))?;
    let lock = MigrationLock::acquire(database).await?;
    let work = async {
        // A pooler in transaction mode has given this connection's server to the lock, so the statement
        // runs on another one.
        client.query(&prepared, &[]).await.map_err(failed("setup"))?;
        // Building an index may take any time, so the role's own limits must not apply.
        client.batch_execute(WITHOUT_LIMITS).await.map_err(failed("setup"))?;
        let applied = apply(&mut client).await;
        // A pooler may give the connection to others.
        client.batch_execute(WITH_LIMITS).await.ok();
        applied
    };
    match lock.during(database, work).await {
        Ok(applied) => {
            drop(client);
            connection.await.ok();
            applied
        }
        Err(reason) => {
            // Another node may get the lock now, and must not wait for a statement of this one.
            let token = client.cancel_token();
            let cancelling = Box::pin(token.cancel_query(database.tls()));
            tokio::time::timeout(CANCEL_TIMEOUT, cancelling).await.ok();
            connection.abort();
            Err(MigrateError::Failed { name: "lock", reason: reason.into(), retry: true })
        }
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
            applied_at timestamptz NOT NULL DEFAULT now(),
            compatible_since integer)";
        client.batch_execute(create).await.map_err(failed(TABLE))?;
    }
    // Earlier versions created the table without the last column.
    let read = "SELECT number, sha256, applied_at < now() - interval '1 day',
                    (to_jsonb(m) ->> 'compatible_since')::integer
                FROM staunch_migrations AS m ORDER BY number";
    let rows = client.query(read, &[]).await.map_err(failed(TABLE))?;
    let known = MIGRATIONS.last().map_or(0, |last| last.number);
    let check = |row: &tokio_postgres::Row| {
        let (number, hash): (i32, Vec<u8>) = (row.get(0), row.get(1));
        let compatible_since: Option<i32> = row.get(3);
        match MIGRATIONS.iter().find(|file| file.number == number) {
            None if compatible_since.is_some_and(|since| since <= known) => {
                tracing::info!(
                    number,
                    known,
                    "the schema is newer than this staunch and compatible"
                );
            }
            None => return Err(MigrateError::Newer { found: number, known }),
            Some(file) if file.sha256().as_ref() != hash => {
                return Err(MigrateError::Changed { number });
            }
            Some(_) => {}
        }
        Ok(Applied { number, settled: row.get(2) })
    };
    rows.iter().map(check).collect()
}

impl Migration {
    fn sha256(&self) -> aws_lc_rs::digest::Digest {
        digest(&SHA256, self.sql.as_bytes())
    }
}

/// Records a file. Earlier versions created the table without the last column.
async fn record(
    client: &impl GenericClient,
    migration: &Migration,
) -> Result<(), tokio_postgres::Error> {
    let Migration { number, name, compatible_since, .. } = migration;
    let hash = migration.sha256();
    let column = "ALTER TABLE staunch_migrations ADD COLUMN IF NOT EXISTS compatible_since integer";
    client.batch_execute(column).await?;
    let insert = "INSERT INTO staunch_migrations (number, name, sha256, compatible_since)
                  VALUES ($1, $2, $3, $4)";
    client.execute(insert, &[number, name, &hash.as_ref(), compatible_since]).await.map(drop)
}

async fn run_in_transaction(
    client: &mut Client,
    migration: &Migration,
) -> Result<(), MigrateError> {
    let run = async {
        let transaction = client.transaction().await?;
        // While ALTER TABLE waits for a transaction that uses the table, all later statements on it
        // wait too.
        transaction.batch_execute("SET LOCAL lock_timeout = '1s'").await?;
        transaction.batch_execute(migration.sql).await?;
        record(&transaction, migration).await?;
        transaction.commit().await
    };
    run.await.map_err(failed(migration.name))
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
    let run = async {
        for statement in migration.statements() {
            client.batch_execute(statement).await?;
        }
        record(client, migration).await
    };
    run.await.map_err(failed(migration.name))
}
