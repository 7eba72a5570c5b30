//! Accounts in bulk: a batch is copied into a table of the session's own and from there into
//! `users`, in one transaction. The unique indexes say whose names are taken.

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

/// How often a batch is sent again after PostgreSQL has broken it off to end a deadlock: with a
/// registration, or another import, that has one of its names and waits for another.
const DEADLOCK_RETRIES: u32 = 5;

/// An account with its hash, as another program stored it.
pub struct ImportedUser {
    /// The line it was read from, from 1. Unique in its batch.
    pub line: u64,
    /// Unique without regard to case.
    pub email: Email,
    /// Unique without regard to case.
    pub username: Username,
    /// Modular-crypt text; PHC's, if other software made it.
    pub password_hash: String,
    /// False: may not log in.
    pub is_active: bool,
    /// When it was registered; `None` is now.
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

/// An account that was not imported, since another one has its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenNames {
    /// The line it was read from.
    pub line: u64,
    /// Whether its e-mail address is taken.
    pub email: bool,
    /// Whether its username is taken.
    pub username: bool,
}

/// A connection that imports accounts. Its statements may take as long as they need.
pub struct Importer {
    client: Client,
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

/// Emptied by each commit, gone with the session.
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

/// The names are looked up by index, whatever the planner thinks of tables without statistics.
const BY_INDEX: Statement = statement!("import_by_index", "SET LOCAL enable_seqscan = off");

// Of lines with the same names the first is the one that went in, as they go in by line.
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
    /// Connects, and makes the session's own table.
    ///
    /// # Errors
    /// When nobody answers or the server refuses; the message names the host, never the password.
    pub async fn open(database: &Endpoint) -> Result<Self, ConnectError> {
        let (client, connection) = connect::alone(database).await?;
        let staged = client.batch_execute(STAGE.sql).await;
        staged.map_err(|error| ConnectError::Refused {
            place: connect::place(database),
            reason: with_causes(&error),
        })?;
        Ok(Self { client, connection })
    }

    /// Imports a batch in one transaction; returns those whose names were taken, by line. Of two
    /// accounts in the batch that share a name, the earlier line gets it.
    ///
    /// # Errors
    /// When the database gives no answer or refuses the batch: none of it was imported, unless the
    /// connection broke at the commit.
    ///
    /// # Cancel safety
    /// Dropping the future leaves all of the batch or nothing.
    pub async fn import(&mut self, users: &[ImportedUser]) -> Result<Vec<TakenNames>, StoreError> {
        let mut retries = DEADLOCK_RETRIES;
        loop {
            match self.try_import(users).await {
                Err(error)
                    if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) && retries > 0 =>
                {
                    tracing::debug!("deadlock: the batch is sent again");
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
        // Planned for each batch: the tables grow.
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

    /// Ends the session, and waits until it has ended.
    pub async fn close(self) {
        drop(self.client);
        self.connection.await.ok();
    }
}
