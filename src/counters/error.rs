//! What can go wrong with the store.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// The store answers but cannot be used as it is configured. The server does not start.
#[derive(Debug, thiserror::Error)]
#[error("STAUNCH_REDIS_URL: {reason}")]
pub struct Unusable {
    pub(super) reason: String,
}

/// Why the store gave no answer. The caller decides with the counters of this node.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// Nothing was sent: the store is not in use after earlier failures, or too many calls are in flight.
    #[error("the store is not in use")]
    Away,
    /// The deadline passed.
    #[error("no answer within the deadline")]
    Timeout,
    /// The connection cannot be opened, or broke.
    #[error("the connection failed")]
    Connection(#[source] RedisError),
    /// The server refused the command: it is read-only, full, loading, or not permitted.
    #[error("the server refused the command")]
    Refused(#[source] RedisError),
    /// The value at one of the keys has another form. It says nothing about other calls.
    #[error("a key holds an unexpected value: {0}")]
    Value(String),
}

impl CallError {
    /// Classifies an error of the client library.
    pub(super) fn of(error: RedisError) -> Self {
        if is_of_one_key(&error) {
            return Self::Value(error.to_string());
        }
        if error.is_timeout() {
            return Self::Timeout;
        }
        if is_answer(&error) { Self::Refused(error) } else { Self::Connection(error) }
    }

    /// Whether the error says something about the store as a whole.
    pub(super) fn is_of_the_store(&self) -> bool {
        match self {
            Self::Timeout | Self::Connection(_) | Self::Refused(_) => true,
            Self::Away | Self::Value(_) => false,
        }
    }

    /// Whether further calls on this connection are pointless: it broke, or leads to a replica.
    pub(super) fn ends_the_connection(&self) -> bool {
        match self {
            Self::Connection(_) => true,
            Self::Refused(error) => error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly),
            Self::Away | Self::Timeout | Self::Value(_) => false,
        }
    }

    /// The metric label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Away => "unavailable",
            Self::Timeout => "timeout",
            Self::Connection(_) | Self::Refused(_) | Self::Value(_) => "error",
        }
    }
}

/// Whether the server answered, with an error.
pub(super) fn is_answer(error: &RedisError) -> bool {
    error.code().is_some() || error.kind() == ErrorKind::AuthenticationFailed
}

/// Whether the script met a value of another type or form. Older servers report the type in the text only.
fn is_of_one_key(error: &RedisError) -> bool {
    let text = error.to_string();
    text.contains("WRONGTYPE") || text.contains("unexpected value of")
}
