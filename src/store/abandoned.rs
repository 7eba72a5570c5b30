//! Statements whose request was dropped before the answer.
//!
//! A client may disconnect at any time, and its request's future is dropped in the middle of a
//! statement. Closing the database connection then would let strangers make the server open new ones
//! as fast as they can disconnect. The statement runs to its end instead, and the connection goes
//! back to the pool.

use super::connection::Connection;
use crate::telemetry::{Family, Metrics, definitions};
use deadpool::unmanaged::Object;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

/// Longest time for an abandoned statement, counted from when it was sent. A connection whose
/// statement takes longer is closed: the database is silent, or a lock is held.
const STATEMENT_LIMIT: Duration = Duration::from_secs(1);

/// Where a connection is in its conversation with the server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Conversation {
    /// Since when an answer is due.
    pub(super) waiting_since: Option<Instant>,
    /// Whether BEGIN was sent, and neither COMMIT nor ROLLBACK after it.
    pub(super) in_transaction: bool,
    /// Whether the last statement failed in such a way that the connection is of no more use.
    pub(super) broken: bool,
}

/// Takes over the connections of dropped calls. Each keeps its place in the pool, so their number is
/// bounded by the pool's maximum.
pub(super) struct Abandoned(Arc<Family>);

impl Abandoned {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self(Arc::new(metrics.family(definitions::DB_ABANDONED)))
    }

    /// Gives the connection back to the pool: at once if no answer is due, else in the background
    /// when the answers have come. Closes it if they do not come in time.
    pub(super) fn take(&self, connection: Object<Connection>, conversation: Conversation) {
        let Conversation { waiting_since, in_transaction, broken } = conversation;
        if broken {
            return drop(Object::take(connection));
        }
        if waiting_since.is_none() && !in_transaction {
            return drop(connection);
        }
        let results = Arc::clone(&self.0);
        // Outside the runtime, as when it shuts down, no task can wait for the answers.
        let Ok(runtime) = Handle::try_current() else { return drop(Object::take(connection)) };
        runtime.spawn(async move {
            let until = waiting_since.unwrap_or_else(Instant::now) + STATEMENT_LIMIT;
            // Answered after everything sent before it. An empty query does nothing.
            let last = if in_transaction { "ROLLBACK" } else { "" };
            let result = timeout_at(until, connection.command(last)).await;
            if matches!(result, Ok(Ok(()))) {
                results.increment("finished");
            } else {
                results.increment("closed");
                drop(Object::take(connection));
            }
        });
    }
}
