//! Bulk import of accounts.
//!
//! A batch is copied into a temporary table and from there into `users`, in one transaction. The
//! unique indexes detect names that are taken.

use super::connect::{self, ConnectError, Endpoint};
use super::statement::statement;
use super::{Statement, StoreError};
use crate::identity::{Email, Username};
use crate::telemetry::with_causes;
use std::fmt;
use std::pin::pin;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// How often a batch is retried after a deadlock.
///
/// A deadlock happens with a registration or another import that holds one of the batch's names and
/// waits for another.
const DEADLOCK_RETRIES: u32 = 5;

/// An account with its password hash, as another program stored it.
pub struct ImportedUser {
    /// The line of the file, counted from 1. Unique in the batch.
    pub line: u64,
    /// Unique, ignoring case.
    pub email: Email,
    /// Unique, ignoring case.
    pub username: Username,
    /// In modular-crypt format, or in PHC format if other software made it.
    pub password_hash: String,
    /// Whether the account may log in.
    pub is_active: bool,
    /// When the account was registered; `None` means now.
    pub created_at: Option<OffsetDateTime>,
}

impl fmt::Debug for ImportedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportedUser")
            .field("line", &self.line)
            .field("email", &self.email)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// An account that was not imported because its names are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenNames {
    /// The line of the file.
    pub line: u64,
    /// Whether the e-mail address is taken.
    pub email: bool,
    /// Whether the username is taken.
    pub username: bool,
}

/// A connection that imports accounts, without a statement timeout.
pub struct Importer {
    client: Client,
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

/// Creates the temporary table. Each commit empties it.
const STAGE: Statement = statement!(
    "import_stage",
    "CREATE TEMPORARY TABLE import_users (
        line          bigint NOT NULL,
        email         text NOT NULL,
        username      text NOT NULL,
        password_hash text NOT NULL,
        is_active     boolean NOT NULL,
        created_at    timestamptz
    ) ON COMMIT DELETE ROWS"
);

const COPY: Statement = statement!(
    "import_copy",
    "COPY import_users (line, email, username, password_hash, is_active, created_at)
     FROM STDIN (FORMAT binary)"
);

const COPY_TYPES: [Type; 6] =
    [Type::INT8, Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL, Type::TIMESTAMPTZ];

/// Forces index lookups of the names: the planner has no statistics for the temporary table.
const BY_INDEX: Statement = statement!("import_by_index", "SET LOCAL enable_seqscan = off");

// Lines are inserted in order, so of several lines with the same names the first is imported.
const INSERT: Statement = statement!(
    "import_insert",
    "WITH inserted AS (
         INSERT INTO users (email, username, password_hash, is_active, created_at)
         SELECT email, username, password_hash, is_active, coalesce(created_at, now())
         FROM import_users ORDER BY line
         ON CONFLICT DO NOTHING
         RETURNING email, username
     ), imported AS (
         SELECT min(line) AS line FROM import_users JOIN inserted USING (email, username)
         GROUP BY email, username
     )
     SELECT line FROM import_users EXCEPT SELECT line FROM imported"
);

const TAKEN: Statement = statement!(
    "import_taken",
    "SELECT line,
         EXISTS (SELECT FROM users
             WHERE lower(users.email COLLATE \"C\") = lower(import_users.email COLLATE \"C\")),
         EXISTS (SELECT FROM users
             WHERE lower(users.username COLLATE \"C\") = lower(import_users.username COLLATE \"C\"))
     FROM import_users WHERE line = ANY ($1) ORDER BY line"
);

impl Importer {
    /// Connects and creates the temporary table.
    ///
    /// # Errors
    /// The server did not answer or refused; the message names the host, never the password.
    pub async fn open(database: &Endpoint) -> Result<Self, ConnectError> {
        let (client, connection) = connect::alone(database).await?;
        let staged = client.batch_execute(STAGE.sql).await;
        staged.map_err(|error| ConnectError::Refused {
            place: connect::place(database),
            reason: with_causes(&error),
        })?;
        Ok(Self { client, connection })
    }

    /// Imports a batch in one transaction and returns the accounts whose names were taken, by line.
    ///
    /// If two accounts in the batch share a name, the earlier line gets it.
    ///
    /// # Errors
    /// The database did not answer or rejected the batch. Nothing was imported, unless the connection
    /// broke during the commit.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the whole batch imported or nothing.
    pub async fn import(&mut self, users: &[ImportedUser]) -> Result<Vec<TakenNames>, StoreError> {
        let mut retries = DEADLOCK_RETRIES;
        loop {
            match self.try_import(users).await {
                Err(error)
                    if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) && retries > 0 =>
                {
                    tracing::debug!("deadlock; retrying the batch");
                    retries -= 1;
                }
                result => return result.map_err(|error| StoreError::statement("import", error)),
            }
        }
    }

    async fn try_import(
        &mut self,
        users: &[ImportedUser],
    ) -> Result<Vec<TakenNames>, tokio_postgres::Error> {
        let transaction = self.client.transaction().await?;
        let mut copy =
            pin!(BinaryCopyInWriter::new(transaction.copy_in(COPY.sql).await?, &COPY_TYPES));
        for user in users {
            copy.as_mut()
                .write(&[
                    &user.line.cast_signed(),
                    &user.email.as_str(),
                    &user.username.as_str(),
                    &user.password_hash,
                    &user.is_active,
                    &user.created_at,
                ])
                .await?;
        }
        copy.finish().await?;
        transaction.batch_execute(BY_INDEX.sql).await?;
        let mut left_out: Vec<i64> = Vec::new();
        // Not cached: each batch needs a new plan, because the tables grow.
        for row in transaction.query(INSERT.sql, &[]).await? {
            left_out.push(row.try_get(0)?);
        }
        let mut taken = Vec::with_capacity(left_out.len());
        if !left_out.is_empty() {
            for row in transaction.query(TAKEN.sql, &[&left_out]).await? {
                taken.push(TakenNames {
                    line: row.try_get::<_, i64>(0)?.cast_unsigned(),
                    email: row.try_get(1)?,
                    username: row.try_get(2)?,
                });
            }
        }
        transaction.commit().await?;
        Ok(taken)
    }

    /// Closes the connection and waits until it is closed.
    pub async fn close(self) {
        drop(self.client);
        self.connection.await.ok();
    }
}
