//! The lock that lets one node at a time change the schema.
//!
//! The lock belongs to an open transaction on a dedicated connection. A session's lock would stay on the
//! connection of a pooler in transaction mode. The migrations use another connection, because
//! CONCURRENTLY cannot run in a transaction. It does not wait for the transaction that holds the
//! lock, which has no snapshot between its statements.

use super::connect::{self, Endpoint};
use super::migration_error::{LOCK_DEADLINE, MigrateError, failed};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// Advisory lock of the node that migrates ("migrate" in ASCII).
const MIGRATION_LOCK: i64 = 0x6d_69_67_72_61_74_65;
/// Pause between two attempts to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Pause between two checks for sessions that wait for the lock.
const CHECK_PAUSE: Duration = Duration::from_secs(2);

/// Ends the transaction.
const RELEASE: &str = "-- migration lock\nROLLBACK";

/// The lock. The server releases it when the connection ends.
pub(super) struct MigrationLock {
    client: Client,
    connection: JoinHandle<Result<(), Error>>,
}

impl MigrationLock {
    /// Waits for the lock.
    pub(super) async fn acquire(database: &Endpoint) -> Result<Self, MigrateError> {
        let (client, connection) = connect::alone(database).await?;
        let locked = tokio::time::timeout(LOCK_DEADLINE, lock(&client)).await;
        locked.map_err(|_| MigrateError::Locked)??;
        Ok(Self { client, connection })
    }

    /// Does the work and releases the lock.
    ///
    /// Returns the reason if the lock is lost, or has to be given up. The work is dropped then.
    pub(super) async fn during<T>(
        mut self,
        database: &Endpoint,
        work: impl Future<Output = T>,
    ) -> Result<T, &'static str> {
        tokio::select! {
            result = work => {
                self.client.batch_execute(RELEASE).await.ok();
                drop(self.client);
                self.connection.await.ok();
                Ok(result)
            }
            _ = &mut self.connection => Err("the connection that holds the lock was closed"),
            () = is_waited_for(database) => Err("a server waits for the lock inside a statement"),
        }
    }
}

/// Waits until a session waits for the lock inside a statement, as servers of older versions do.
///
/// CONCURRENTLY waits for that statement. PostgreSQL sees no deadlock, because the session that holds the
/// lock waits for nobody. The check has its own connection: with a query in its transaction, the lock's
/// session would itself be waited for.
async fn is_waited_for(database: &Endpoint) {
    let waiting = format!(
        "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
         AND (classid::bigint << 32) | objid::bigint = {MIGRATION_LOCK} AND objsubid = 1
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    loop {
        tokio::time::sleep(CHECK_PAUSE).await;
        let Ok((client, _connection)) = connect::alone(database).await else { continue };
        if client.query(&waiting, &[]).await.is_ok_and(|rows| !rows.is_empty()) {
            return;
        }
    }
}

/// Polls for the lock. A blocking wait would be a running statement, and the node that holds the lock
/// waits for all running statements when it builds an index.
///
/// The transaction may stay idle for as long as the migrations take. Its queries are simple, because a
/// prepared statement keeps its snapshot until the next one.
async fn lock(client: &Client) -> Result<(), MigrateError> {
    let try_lock = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED;
         SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN
             ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout');
         SELECT pg_try_advisory_xact_lock({MIGRATION_LOCK})"
    );
    loop {
        let messages = client.simple_query(&try_lock).await.map_err(failed("lock"))?;
        let row = messages.iter().rev().find_map(|message| {
            let SimpleQueryMessage::Row(row) = message else { return None };
            Some(row)
        });
        if row.is_some_and(|row| row.get(0) == Some("t")) {
            return Ok(());
        }
        client.batch_execute(RELEASE).await.map_err(failed("lock"))?;
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}
