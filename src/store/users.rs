//! Accounts: registration, credentials for a login, and replacement of a hash.

use super::statement::statement;
use super::{Statement, Store, StoreError};
use crate::identity::{Email, LoginName, Origin, UserId, Username};
use std::fmt;
use std::net::IpAddr;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// An account to be created. The hash is already computed, so no connection waits for it.
pub struct NewUser<'a> {
    /// Unique, ignoring case.
    pub email: &'a Email,
    /// Unique, ignoring case.
    pub username: &'a Username,
    /// Modular-crypt text.
    pub password_hash: &'a str,
    /// The request that registers it; `None` for an operator on the command line.
    pub origin: Option<&'a Origin>,
}

pub(super) struct UserParameters<'a> {
    email: &'a str,
    username: &'a str,
    password_hash: &'a str,
    address: Option<IpAddr>,
    request_id: Option<&'a str>,
}

impl<'a> NewUser<'a> {
    pub(super) fn parameters(&self) -> UserParameters<'a> {
        UserParameters {
            email: self.email.as_str(),
            username: self.username.as_str(),
            password_hash: self.password_hash,
            address: self.origin.map(|origin| origin.address),
            request_id: self.origin.map(|origin| origin.request_id.as_str()),
        }
    }
}

impl UserParameters<'_> {
    pub(super) fn list(&self) -> [&(dyn ToSql + Sync); 5] {
        let Self { email, username, password_hash, address, request_id } = self;
        [email, username, password_hash, address, request_id]
    }
}

impl fmt::Debug for NewUser<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewUser")
            .field("email", self.email)
            .field("username", self.username)
            .finish_non_exhaustive()
    }
}

/// An account as shown to its owner.
#[derive(Clone, Debug)]
pub struct Account {
    /// The account's number.
    pub id: UserId,
    /// As typed at registration.
    pub email: String,
    /// As typed at registration.
    pub username: String,
    /// Whether the account may log in.
    pub is_active: bool,
    /// When the account was registered.
    pub created_at: OffsetDateTime,
}

/// The data of a login name that a login needs.
///
/// For an unknown name all fields have placeholder values, so that a login takes as long as for a
/// known one.
pub struct Credentials {
    /// The account; `None` if the name is unknown.
    pub user: Option<UserId>,
    /// In modular-crypt format, or in PHC format if other software made it. For an unknown name, the
    /// dummy hash.
    pub password_hash: String,
    /// Whether the account may log in.
    pub is_active: bool,
    /// The account's version, passed back when the session is stored.
    pub updated_at: OffsetDateTime,
    /// The account's username and e-mail address, in this order.
    pub names: [LoginName; 2],
}

/// Why an account was not created.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Another account has that address; case does not count.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// Another account has that name; case does not count.
    #[error("the username is taken")]
    UsernameTaken,
    /// The database did not answer; the account may exist.
    #[error(transparent)]
    Store(StoreError),
}

pub(super) const INSERT_USER: Statement = statement!(
    "insert_user",
    "WITH made AS (
         INSERT INTO users (email, username, password_hash) VALUES ($1, $2, $3)
         RETURNING id, email, username, is_active, created_at),
     noted AS (
         INSERT INTO auth_events (event, outcome, user_id, ip, request_id)
         SELECT 'register', 'success', id, $4::inet, $5::text FROM made)
     SELECT id, email, username, is_active, created_at FROM made"
);

// Always returns one row, so that the answers for known and unknown names have the same length and
// take the same time to read.
pub(super) const CREDENTIALS_BY_USERNAME: Statement = statement!(
    "credentials_by_username",
    "SELECT u.id, coalesce(u.password_hash, $2), coalesce(u.is_active, false),
         coalesce(u.updated_at, now()), coalesce(u.username, $1), coalesce(u.email, $1)
     FROM (SELECT) AS asked LEFT JOIN users AS u ON lower(u.username COLLATE \"C\") = $1"
);

pub(super) const CREDENTIALS_BY_EMAIL: Statement = statement!(
    "credentials_by_email",
    "SELECT u.id, coalesce(u.password_hash, $2), coalesce(u.is_active, false),
         coalesce(u.updated_at, now()), coalesce(u.username, $1), coalesce(u.email, $1)
     FROM (SELECT) AS asked LEFT JOIN users AS u ON lower(u.email COLLATE \"C\") = $1"
);

pub(super) const CREDENTIALS_BY_ID: Statement = statement!(
    "credentials_by_id",
    "SELECT id, password_hash, is_active, updated_at, username, email FROM users WHERE id = $1"
);

// `updated_at` stays: it marks changes that make logins in progress fail, and this is not one.
pub(super) const REPLACE_HASH: Statement = statement!(
    "replace_hash",
    "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2 RETURNING 1"
);

impl Store {
    /// Replaces a stored hash with another hash of the same password.
    ///
    /// Returns false if the stored hash was no longer `old`.
    ///
    /// # Errors
    /// The database did not answer; the account has either hash.
    pub async fn replace_hash(
        &self,
        user: UserId,
        old: &str,
        new: &str,
    ) -> Result<bool, StoreError> {
        Ok(!self.0.pool.query(&REPLACE_HASH, &[&user.0, &old, &new]).await?.is_empty())
    }

    /// Creates an account.
    ///
    /// # Errors
    /// See [`RegisterError`].
    ///
    /// # Cancel safety
    /// The account is created completely or not at all.
    pub async fn insert_user(&self, user: &NewUser<'_>) -> Result<Account, RegisterError> {
        inserted(self.0.pool.query(&INSERT_USER, &user.parameters().list()).await)
    }

    /// Looks up a login name with one indexed read. An unknown name gets `dummy_hash` as its hash.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn credentials(
        &self,
        name: &LoginName,
        dummy_hash: &str,
    ) -> Result<Credentials, StoreError> {
        let (statement, text) = match name {
            LoginName::Username(text) => (&CREDENTIALS_BY_USERNAME, text),
            LoginName::Email(text) => (&CREDENTIALS_BY_EMAIL, text),
            LoginName::Impossible => return Ok(Credentials::unknown(dummy_hash)),
        };
        let rows = self.0.pool.query(statement, &[text, &dummy_hash]).await?;
        let credentials = rows.first().map(Credentials::read).transpose();
        let credentials = credentials.map_err(|error| StoreError::statement(statement.name, error));
        Ok(credentials?.unwrap_or_else(|| Credentials::unknown(dummy_hash)))
    }

    /// Reads the credentials of an account by its id.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn credentials_of(&self, user: UserId) -> Result<Option<Credentials>, StoreError> {
        let rows = self.0.pool.query(&CREDENTIALS_BY_ID, &[&user.0]).await?;
        let credentials = rows.first().map(Credentials::read).transpose();
        credentials.map_err(|error| StoreError::statement(CREDENTIALS_BY_ID.name, error))
    }
}

impl Credentials {
    fn unknown(dummy_hash: &str) -> Self {
        Self {
            user: None,
            password_hash: dummy_hash.to_owned(),
            is_active: false,
            updated_at: OffsetDateTime::UNIX_EPOCH,
            names: [LoginName::Impossible, LoginName::Impossible],
        }
    }

    /// Reads the columns id, password_hash, is_active, updated_at, username, email, in that order.
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            user: row.try_get::<_, Option<i64>>(0)?.map(UserId),
            password_hash: row.try_get(1)?,
            is_active: row.try_get(2)?,
            updated_at: row.try_get(3)?,
            names: [LoginName::parse(row.try_get(4)?), LoginName::parse(row.try_get(5)?)],
        })
    }
}

/// Reads the result of [`INSERT_USER`].
pub(super) fn inserted(result: Result<Vec<Row>, StoreError>) -> Result<Account, RegisterError> {
    match result {
        Ok(rows) => rows
            .first()
            .map(Account::read)
            .ok_or_else(|| {
                let why = "the statement returned no row";
                RegisterError::Store(StoreError::unavailable(INSERT_USER.name, why))
            })?
            .map_err(|error| RegisterError::Store(StoreError::statement(INSERT_USER.name, error))),
        // The second index is dropped a day after an upgrade (`migrations/0006`).
        Err(StoreError::Conflict { constraint })
            if ["users_email_fold_key", "users_email_key"].contains(&constraint.as_str()) =>
        {
            Err(RegisterError::EmailTaken)
        }
        Err(StoreError::Conflict { .. }) => Err(RegisterError::UsernameTaken),
        Err(error) => Err(RegisterError::Store(error)),
    }
}

impl Account {
    /// Reads the columns id, email, username, is_active, created_at, in that order.
    pub(super) fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: UserId(row.try_get(0)?),
            email: row.try_get(1)?,
            username: row.try_get(2)?,
            is_active: row.try_get(3)?,
            created_at: row.try_get(4)?,
        })
    }
}
