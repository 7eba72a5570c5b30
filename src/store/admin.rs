//! An operator's work on accounts, on a dedicated connection. (Work on clients is in `clients`.)
//!
//! Each change and its audit log line are one transaction. A change that ends sessions locks the
//! account's row first and ends the sessions in a second statement. A login that is storing its
//! session holds the row until it is done (`insert_session`), so the second statement sees that
//! session. A later login sees the change.

use super::connect::{self, ConnectError, Endpoint};
use super::statement::statement;
use super::users::{Account, INSERT_USER, NewUser, RegisterError, inserted};
use super::{Statement, StoreError};
use crate::identity::{LoginName, SessionId, UserId};
use futures_util::TryStreamExt;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

/// Maximum number of live sessions that are listed.
const SESSIONS_MAX: i64 = 10_000;

/// A connection for an operator's work, without a statement timeout.
pub struct Admin {
    client: Client,
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

/// A session that is neither revoked nor expired.
#[derive(Clone, Debug)]
pub struct LiveSession {
    /// The session's id.
    pub id: SessionId,
    /// When it was opened.
    pub created_at: OffsetDateTime,
    /// When it was opened or last refreshed.
    pub last_used_at: OffsetDateTime,
    /// When it expires unless it is refreshed.
    pub expires_at: OffsetDateTime,
    /// The address it was opened from.
    pub address: Option<IpAddr>,
    /// The client's User-Agent, as sent.
    pub user_agent: Option<String>,
}

/// An account with its password hash, for export.
pub struct ExportedUser {
    /// As typed at registration.
    pub email: String,
    /// As typed at registration.
    pub username: String,
    /// Modular-crypt text.
    pub password_hash: String,
    /// Whether the account may log in.
    pub is_active: bool,
    /// When the account was registered.
    pub created_at: OffsetDateTime,
}

impl fmt::Debug for ExportedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportedUser")
            .field("email", &self.email)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A line of the audit log.
#[derive(Clone, Debug)]
pub struct LoggedEvent {
    /// When it happened.
    pub at: OffsetDateTime,
    /// What was attempted.
    pub event: String,
    /// The result.
    pub outcome: String,
    /// The account; `None` if the name is unknown or was not looked up.
    pub user: Option<UserId>,
    /// The client's address; `None` for the command line.
    pub address: Option<IpAddr>,
    /// The request's id.
    pub request_id: Option<String>,
}

/// Why an export or a listing is incomplete.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database did not return all rows.
    #[error("the database did not return all rows")]
    Store(#[source] StoreError),
    /// The caller could not write a row.
    #[error("cannot write a row")]
    Write(#[source] io::Error),
}

const FIND_USERNAME: Statement = statement!(
    "admin_find_username",
    "SELECT id, email, username, is_active, created_at FROM users 
     WHERE lower(username COLLATE \"C\") = $1"
);

const FIND_EMAIL: Statement = statement!(
    "admin_find_email",
    "SELECT id, email, username, is_active, created_at FROM users 
     WHERE lower(email COLLATE \"C\") = $1"
);

const DISABLE: Statement = statement!(
    "admin_disable",
    "UPDATE users SET is_active = false, updated_at = now() WHERE id = $1 AND is_active RETURNING 1"
);

const ENABLE: Statement = statement!(
    "admin_enable",
    "UPDATE users SET is_active = true, updated_at = now() WHERE id = $1 AND NOT is_active RETURNING 1"
);

const SET_PASSWORD: Statement = statement!(
    "admin_set_password",
    "UPDATE users SET password_hash = $2, updated_at = now() WHERE id = $1 RETURNING 1"
);

// Also deletes the sessions (ON DELETE CASCADE).
const DELETE: Statement = statement!("admin_delete", "DELETE FROM users WHERE id = $1 RETURNING 1");

// Notifies the servers of the changed account; the notification is sent with the commit. Expired
// sessions are revoked too, in case a clock is set back, but are not counted.
const END_SESSIONS: Statement = statement!(
    "admin_end_sessions",
    "WITH ended AS (
         UPDATE refresh_tokens SET revoked = true, revoked_reason = $2, last_used_at = now()
         WHERE user_id = $1 AND NOT revoked RETURNING expires_at > now() AS was_live),
     noted AS (
         INSERT INTO auth_events (event, outcome, user_id) VALUES ($2, 'success', $1))
     SELECT (SELECT count(*) FROM ended WHERE was_live), pg_notify('staunch_account', $1::bigint::text)::text"
);

const SESSIONS: Statement = statement!(
    "admin_sessions",
    "SELECT id, created_at, last_used_at, expires_at, ip, user_agent FROM refresh_tokens
     WHERE user_id = $1 AND NOT revoked AND expires_at > now()
     ORDER BY last_used_at DESC LIMIT $2"
);

const EXPORT: Statement = statement!(
    "admin_export",
    "SELECT email, username, password_hash, is_active, created_at FROM users ORDER BY id"
);

const EVENTS: Statement = statement!(
    "admin_events",
    "SELECT at, event, outcome, user_id, ip, request_id FROM auth_events
     WHERE at >= now() - make_interval(secs => $1) ORDER BY at, id"
);

const EVENTS_OF: Statement = statement!(
    "admin_events_of",
    "SELECT at, event, outcome, user_id, ip, request_id FROM auth_events
     WHERE user_id = $2 AND at >= now() - make_interval(secs => $1) ORDER BY at, id"
);

impl Admin {
    /// Connects to the database.
    ///
    /// # Errors
    /// The server did not answer or refused; the message names the host, never the password.
    pub async fn open(database: &Endpoint) -> Result<Self, ConnectError> {
        let (client, connection) = connect::alone(database).await?;
        Ok(Self { client, connection })
    }

    /// Creates an account.
    ///
    /// # Errors
    /// See [`RegisterError`].
    ///
    /// # Cancel safety
    /// The account is created completely or not at all.
    pub async fn add(&self, user: &NewUser<'_>) -> Result<Account, RegisterError> {
        inserted(self.query(&INSERT_USER, &user.parameters().list()).await)
    }

    /// Finds an account by username or e-mail address.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn find(&self, name: &LoginName) -> Result<Option<Account>, StoreError> {
        let (statement, text) = match name {
            LoginName::Username(text) => (&FIND_USERNAME, text),
            LoginName::Email(text) => (&FIND_EMAIL, text),
            LoginName::Impossible => return Ok(None),
        };
        let rows = self.query(statement, &[text]).await?;
        let account = rows.first().map(Account::read).transpose();
        account.map_err(|error| StoreError::statement(statement.name, error))
    }

    /// Disables an account and ends its sessions.
    ///
    /// Returns the number of ended sessions, or `None` if the account was already disabled.
    ///
    /// # Errors
    /// The database did not answer; either everything was done or nothing.
    ///
    /// # Cancel safety
    /// Dropping the future leaves everything done or nothing. Both hold for the methods below, too.
    pub async fn disable(&mut self, user: UserId) -> Result<Option<u64>, StoreError> {
        self.change(&DISABLE, user, &[], "account_disable").await
    }

    /// Enables an account. Returns false if it was already enabled.
    ///
    /// # Errors
    /// As [`Admin::disable`].
    pub async fn enable(&mut self, user: UserId) -> Result<bool, StoreError> {
        Ok(self.change(&ENABLE, user, &[], "account_enable").await?.is_some())
    }

    /// Sets an account's password and ends its sessions.
    ///
    /// Returns the number of ended sessions, or `None` if the account does not exist.
    ///
    /// # Errors
    /// As [`Admin::disable`].
    pub async fn set_password(
        &mut self,
        user: UserId,
        password_hash: &str,
    ) -> Result<Option<u64>, StoreError> {
        self.change(&SET_PASSWORD, user, &[&password_hash], "password_change").await
    }

    /// Removes an account and its sessions. Its audit log lines stay.
    ///
    /// Returns false if the account does not exist.
    ///
    /// # Errors
    /// As [`Admin::disable`].
    pub async fn delete(&mut self, user: UserId) -> Result<bool, StoreError> {
        Ok(self.change(&DELETE, user, &[], "account_delete").await?.is_some())
    }

    /// Changes an account, ends its sessions and writes the audit log line. Returns `None` if there was
    /// nothing to change.
    async fn change(
        &mut self,
        statement: &Statement,
        user: UserId,
        more: &[&(dyn ToSql + Sync)],
        event: &str,
    ) -> Result<Option<u64>, StoreError> {
        let change = async {
            let transaction = self.client.transaction().await?;
            let id: &(dyn ToSql + Sync) = &user.0;
            let parameters: Vec<_> = std::iter::once(id).chain(more.iter().copied()).collect();
            if transaction.query_opt(statement.sql, &parameters).await?.is_none() {
                return Ok(None);
            }
            let row = transaction.query_one(END_SESSIONS.sql, &[id, &event]).await?;
            let ended: i64 = row.try_get(0)?;
            transaction.commit().await?;
            Ok(Some(u64::try_from(ended).unwrap_or(0)))
        };
        change.await.map_err(|error| StoreError::statement(statement.name, error))
    }

    /// Lists an account's live sessions, last used first, at most 10,000.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn sessions(&self, user: UserId) -> Result<Vec<LiveSession>, StoreError> {
        let rows = self.query(&SESSIONS, &[&user.0, &SESSIONS_MAX]).await?;
        let sessions: Result<_, _> = rows.iter().map(LiveSession::read).collect();
        sessions.map_err(|error| StoreError::statement(SESSIONS.name, error))
    }

    /// Passes every account to `each` in the order of ids, and returns their number.
    ///
    /// Reads a snapshot, row by row, so memory stays bounded.
    ///
    /// # Errors
    /// See [`ReadError`]; `each` has received the accounts before the error.
    pub async fn export(
        &self,
        mut each: impl FnMut(&ExportedUser) -> io::Result<()>,
    ) -> Result<u64, ReadError> {
        self.stream(&EXPORT, &[], |row| {
            let user = ExportedUser {
                email: row.try_get(0)?,
                username: row.try_get(1)?,
                password_hash: row.try_get(2)?,
                is_active: row.try_get(3)?,
                created_at: row.try_get(4)?,
            };
            Ok(each(&user))
        })
        .await
    }

    /// Passes the audit log lines of the last `since` to `each`, oldest first, and returns their number.
    ///
    /// With `user`, only that account's lines.
    ///
    /// # Errors
    /// See [`ReadError`]; `each` has received the lines before the error.
    pub async fn events(
        &self,
        user: Option<UserId>,
        since: Duration,
        mut each: impl FnMut(&LoggedEvent) -> io::Result<()>,
    ) -> Result<u64, ReadError> {
        let seconds = since.as_secs_f64();
        let id = user.map_or(0, |user| user.0);
        let parameters: [&(dyn ToSql + Sync); 2] = [&seconds, &id];
        let (statement, count) = if user.is_some() { (&EVENTS_OF, 2) } else { (&EVENTS, 1) };
        self.stream(statement, parameters.get(..count).unwrap_or_default(), |row| {
            let event = LoggedEvent {
                at: row.try_get(0)?,
                event: row.try_get(1)?,
                outcome: row.try_get(2)?,
                user: row.try_get::<_, Option<i64>>(3)?.map(UserId),
                address: row.try_get(4)?,
                request_id: row.try_get(5)?,
            };
            Ok(each(&event))
        })
        .await
    }

    async fn stream(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
        mut each: impl FnMut(&Row) -> Result<io::Result<()>, tokio_postgres::Error>,
    ) -> Result<u64, ReadError> {
        let failed = |error| ReadError::Store(StoreError::statement(statement.name, error));
        let rows = self.client.query_raw(statement.sql, parameters.iter().copied()).await;
        let mut rows = pin!(rows.map_err(failed)?);
        let mut count = 0;
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            each(&row).map_err(failed)?.map_err(ReadError::Write)?;
            count += 1;
        }
        Ok(count)
    }

    pub(super) async fn query(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let rows = self.client.query(statement.sql, parameters).await;
        rows.map_err(|error| StoreError::statement(statement.name, error))
    }

    /// Closes the connection and waits until it is closed.
    pub async fn close(self) {
        drop(self.client);
        self.connection.await.ok();
    }
}

impl LiveSession {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: SessionId(row.try_get(0)?),
            created_at: row.try_get(1)?,
            last_used_at: row.try_get(2)?,
            expires_at: row.try_get(3)?,
            address: row.try_get(4)?,
            user_agent: row.try_get(5)?,
        })
    }
}
