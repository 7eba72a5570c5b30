//! Why migrations fail.

use super::connect::ConnectError;
use super::error::is_lost_statement;
use super::twins::Twins;
use crate::telemetry::with_causes;
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// Time limit for another node's migrations. Indexing millions of accounts takes minutes.
pub(super) const LOCK_DEADLINE: Duration = Duration::from_secs(600);

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Another node held the lock for too long.
    #[error("another node has been migrating for over {} s", LOCK_DEADLINE.as_secs())]
    Locked,
    /// A newer version of staunch applied a migration that this version does not support.
    #[error("the database has migration {found}, which this staunch ({}, with migrations up to {known}) does not support: run a newer one", env!("CARGO_PKG_VERSION"))]
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
    /// A pooler does not keep prepared statements.
    #[error(
        "a pooler in transaction mode does not keep prepared statements ({reason}): set max_prepared_statements (pgbouncer 1.21 or later), or pool_mode = session"
    )]
    Pooler {
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

/// Describes the error of a statement of that migration or step.
pub(super) fn failed(name: &'static str) -> impl Fn(tokio_postgres::Error) -> MigrateError {
    move |error| {
        let reason = with_causes(&error);
        match error.code() {
            Some(code) if is_lost_statement(code) => MigrateError::Pooler { reason },
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
