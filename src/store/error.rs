//! Why a database call gave nothing.

use tokio_postgres::error::SqlState;

/// What was behind it, for the log. Holds no value of any row.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a database call gave nothing. Says what the caller can do, not which library failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, no answer in time, or a server that cannot serve now (starting, stopping,
    /// full, read-only). Trying again later may help. A write may or may not have happened.
    #[error("database unavailable: {context}")]
    Unavailable {
        /// What was being done.
        context: &'static str,
        /// The cause.
        #[source]
        source: Option<Cause>,
    },
    /// A unique index refused a row; nothing was written.
    #[error("a row like that exists ({constraint})")]
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
    /// Whether the database broke a statement off because it took too long: less work may succeed.
    pub fn is_statement_timeout(&self) -> bool {
        let Self::Unavailable { source: Some(source), .. } = self else { return false };
        source.downcast_ref::<Said>().is_some_and(|said| said.state == SqlState::QUERY_CANCELED)
    }

    /// Sorts a failed statement.
    pub(super) fn statement(context: &'static str, error: tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else {
            // No SQLSTATE: the connection broke, or a value did not fit its column.
            return if error.is_closed()
                || std::error::Error::source(&error).is_some_and(|s| s.is::<std::io::Error>())
            {
                Self::Unavailable { context, source: Some(error.into()) }
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
        // 40 rollback (deadlock, serialization), 55P03 lock_timeout, 25006 read-only.
        let passing =
            ["08", "53", "57", "58", "40"].iter().any(|class| state.code().starts_with(class));
        if passing
            || *state == SqlState::LOCK_NOT_AVAILABLE
            || *state == SqlState::READ_ONLY_SQL_TRANSACTION
        {
            Self::Unavailable { context, source: Some(cause(error)) }
        } else {
            Self::Failed { context, source: cause(error) }
        }
    }

    /// There is no connection.
    pub(super) fn unavailable(context: &'static str, why: impl Into<Cause>) -> Self {
        Self::Unavailable { context, source: Some(why.into()) }
    }

    /// Our own deadline passed.
    pub(super) fn deadline(context: &'static str) -> Self {
        Self::Unavailable { context, source: None }
    }
}

/// What the server said without its DETAIL, which may repeat a row, password hash and all.
#[derive(Debug, thiserror::Error)]
#[error("{message} (SQLSTATE {})", state.code())]
struct Said {
    message: String,
    state: SqlState,
}

fn cause(error: tokio_postgres::Error) -> Cause {
    match error.as_db_error() {
        Some(said) => {
            Said { message: said.message().to_owned(), state: said.code().clone() }.into()
        }
        None => error.into(),
    }
}
