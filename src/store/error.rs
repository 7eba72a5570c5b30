//! Errors of database calls.

use crate::telemetry::with_causes;
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// The cause of an error, for the log. Contains no values from rows.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a database call failed. The variants say what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot serve now; a later retry may succeed.
    ///
    /// There is no connection, no answer in time, or the server is starting, stopping, full or
    /// read-only. A write may or may not have happened.
    #[error("database unavailable: {context}")]
    Unavailable {
        /// What was being done.
        context: &'static str,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// A unique index rejected a row; nothing was written.
    #[error("a row with the same key exists (index {constraint})")]
    Conflict {
        /// The index.
        constraint: String,
    },
    /// A bug or a damaged schema.
    #[error("database statement failed: {context}")]
    Failed {
        /// The statement's name.
        context: &'static str,
        /// The cause.
        #[source]
        source: Cause,
    },
}

impl StoreError {
    /// Whether the database cancelled a statement that took too long.
    ///
    /// A statement with less work may succeed.
    pub fn is_statement_timeout(&self) -> bool {
        let Self::Unavailable { source, .. } = self else { return false };
        let error = source.downcast_ref::<ServerError>();
        error.is_some_and(|error| error.state == SqlState::QUERY_CANCELED)
    }

    /// Whether the statement may have been committed although it failed.
    pub(super) fn may_have_happened(&self) -> bool {
        let Self::Unavailable { source, .. } = self else { return false };
        // A server that is shut down may end a session that waits for a standby after its commit.
        source.downcast_ref::<ServerError>().is_none_or(|error| {
            [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN].contains(&error.state)
        })
    }

    /// Classifies the error of a failed statement.
    pub(super) fn statement(context: &'static str, error: tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else {
            // No SQLSTATE: the connection broke, or a value did not fit its column.
            return if error.is_closed()
                || std::error::Error::source(&error).is_some_and(|s| s.is::<std::io::Error>())
            {
                Self::Unavailable { context, source: error.into() }
            } else {
                Self::Failed { context, source: error.into() }
            };
        };
        if *state == SqlState::UNIQUE_VIOLATION {
            let constraint = error.as_db_error().and_then(|error| error.constraint());
            return Self::Conflict { constraint: constraint.unwrap_or_default().to_owned() };
        }
        // Classes of PostgreSQL's appendix A: 08 connection, 53 resources (disk full, too many
        // connections), 57 operator intervention (shutdown, statement_timeout), 58 system error,
        // 40 rollback (deadlock, serialization), 55P03 lock_timeout, 25006 read-only. A lost prepared
        // statement was not run.
        let passing =
            ["08", "53", "57", "58", "40"].iter().any(|class| state.code().starts_with(class));
        if passing
            || is_lost_statement(state)
            || *state == SqlState::LOCK_NOT_AVAILABLE
            || *state == SqlState::READ_ONLY_SQL_TRANSACTION
        {
            Self::Unavailable { context, source: cause(error) }
        } else {
            Self::Failed { context, source: cause(error) }
        }
    }

    /// The same error for another caller of the statement.
    pub(super) fn for_another_caller(&self) -> Self {
        match self {
            Self::Unavailable { context, source } => {
                Self::unavailable(context, with_causes(source.as_ref()))
            }
            Self::Conflict { constraint } => Self::Conflict { constraint: constraint.clone() },
            Self::Failed { context, source } => {
                Self::Failed { context, source: with_causes(source.as_ref()).into() }
            }
        }
    }

    pub(super) fn unavailable(context: &'static str, why: impl Into<Cause>) -> Self {
        Self::Unavailable { context, source: why.into() }
    }

    /// Our own deadline passed before the database answered.
    pub(super) fn timed_out(context: &'static str, limit: Duration) -> Self {
        Self::unavailable(context, format!("no answer within {limit:?}"))
    }
}

/// Whether a prepared statement is missing, or exists although it was not prepared here: a pooler gave
/// the connection another server.
pub(super) fn is_lost_statement(state: &SqlState) -> bool {
    [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT].contains(state)
}

/// The server's message without its DETAIL, which may repeat a row with its password hash.
#[derive(Debug, thiserror::Error)]
#[error("{message} (SQLSTATE {})", state.code())]
struct ServerError {
    message: String,
    state: SqlState,
}

fn cause(error: tokio_postgres::Error) -> Cause {
    match error.as_db_error() {
        Some(error) => {
            let mut message = error.message().to_owned();
            if is_lost_statement(error.code()) {
                message.push_str(": a pooler in transaction mode needs max_prepared_statements");
            }
            ServerError { message, state: error.code().clone() }.into()
        }
        None => error.into(),
    }
}
