//! Statements whose request was dropped before the answer arrived.
//!
//! When a client disconnects, its request's future is dropped, possibly in the middle of a statement.
//! If the server then closed the database connection, clients could force it to open new ones as fast
//! as they disconnect. Instead the statement runs to its end. The server answers statements in order, so
//! a no-op statement (in a transaction, a ROLLBACK) is sent after it, and the connection returns to
//! the pool when that is answered.

use super::connection::Connection;
use crate::telemetry::{Family, Metrics, definitions};
use deadpool::unmanaged::Object;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

/// Time limit for an abandoned statement, counted from when it was sent. Then its connection is closed.
const STATEMENT_LIMIT: Duration = Duration::from_secs(1);

/// The state of a connection's exchange with the server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Conversation {
    /// When the statement was sent whose answer is outstanding.
    pub(super) waiting_since: Option<Instant>,
    /// Whether BEGIN was sent, and neither COMMIT nor ROLLBACK after it.
    pub(super) in_transaction: bool,
    /// Whether the connection must be closed.
    pub(super) broken: bool,
}

/// Takes over the connections of dropped calls. Each keeps its slot in the pool, so the pool's
/// maximum bounds their number.
pub(super) struct Abandoned(Arc<Family>);

impl Abandoned {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self(Arc::new(metrics.family(definitions::DB_ABANDONED)))
    }

    /// Returns the connection to the pool: at once if no answer is outstanding, otherwise in the
    /// background after the answers arrive. Closes it if they do not arrive in time.
    pub(super) fn take(&self, connection: Object<Connection>, conversation: Conversation) {
        let Conversation { waiting_since, in_transaction, broken } = conversation;
        if broken {
            return drop(Object::take(connection));
        }
        if waiting_since.is_none() && !in_transaction {
            return drop(connection);
        }
        let results = Arc::clone(&self.0);
        // Without a runtime (during shutdown) no task can wait for the answers.
        let Ok(runtime) = Handle::try_current() else { return drop(Object::take(connection)) };
        runtime.spawn(async move {
            let until = waiting_since.unwrap_or_else(Instant::now) + STATEMENT_LIMIT;
            // The server answers this after everything sent before it. An empty query does nothing.
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
