//! Statements whose request was dropped before the answer arrived.
//!
//! When a client disconnects, its request's future is dropped, possibly in the middle of a statement.
//! If the server then closed the database connection, clients could force it to open new ones as fast
//! as they disconnect. Instead the statement runs to its end. The server answers statements in order, so
//! a no-op statement (in a transaction, a ROLLBACK) is sent after it, and the connection returns to
//! the pool when that is answered.
//!
//! A statement that takes too long is cancelled. Without that, a commit that waits for a lost
//! synchronous standby would keep its server process after the connection is closed, and such processes
//! would use up the server's connections.

use super::connection::Connection;
use crate::telemetry::{Family, Metrics, definitions};
use deadpool::unmanaged::Object;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

/// Time limit for an abandoned statement, counted from when it was sent. Then it is cancelled.
const STATEMENT_LIMIT: Duration = Duration::from_secs(1);
/// Time limit for sending the cancellation, and for the answers after it. Then the connection is closed.
const CANCEL_LIMIT: Duration = Duration::from_millis(500);

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
    /// background after the answers arrive. Cancels the statement if they do not arrive in time, and
    /// closes the connection if that does not help.
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
            let settled = settle(&connection, until, last).await;
            results.increment(settled.unwrap_or("closed"));
            if settled.is_none() {
                drop(Object::take(connection));
            }
        });
    }
}

/// Waits for the outstanding answers. Returns what happened to the statement, or `None` if the
/// connection cannot be used any more.
async fn settle(
    connection: &Connection,
    until: Instant,
    last: &'static str,
) -> Option<&'static str> {
    let mut answers = pin!(connection.command(last));
    if let Ok(result) = timeout_at(until, answers.as_mut()).await {
        return result.is_ok().then_some("finished");
    }
    if connection.is_unusable() {
        return None;
    }
    connection.cancel(CANCEL_LIMIT).await;
    let rest = async {
        // The cancellation may have hit this command too, so it is sent again.
        answers.await.ok();
        connection.command(last).await
    };
    let result = timeout(CANCEL_LIMIT, rest).await;
    matches!(result, Ok(Ok(()))).then_some("cancelled")
}
