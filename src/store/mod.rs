//! All SQL. Turns rows into typed values; `auth` decides what follows from them.
//!
//! Every statement has a name: its text starts with `-- name`, which pg_stat_statements shows and the
//! metrics use as their `query` label. Each connection prepares a statement once.
//!
//! Every call has two time limits: `statement_timeout` on the server, and [`CALL_DEADLINE`] here for
//! connection and answer together. The second also holds when the server is stopped or unreachable.

mod abandoned;
mod admin;
mod cleanup;
mod clients;
mod config;
mod connect;
mod connection;
mod deadlines;
mod error;
mod events;
mod growth;
mod health;
mod hosts;
mod import;
mod migrate;
mod migration_error;
mod migration_lock;
mod migrations;
mod notify;
mod options;
mod pool;
mod refresh;
mod refresh_queue;
mod revocation;
mod session_blocks;
mod sessions;
mod statement;
mod statements;
mod tls;
mod twins;
mod unanswered;
mod users;
mod write_state;

pub use admin::{Admin, ExportedUser, LiveSession, LoggedEvent, ReadError};
pub use cleanup::Cleaned;
pub use clients::{Client, LiveRefresh};
pub use config::StoreConfig;
pub use connect::{ConnectError, Endpoint, parse_url, place};
pub use deadlines::{CALL_DEADLINE, Deadlines};
pub use error::StoreError;
pub use events::NewEvent;
pub use import::{ImportedUser, Importer, TakenNames};
pub use migrate::migrate;
pub use migration_error::MigrateError;
pub use notify::SessionEvent;
pub use refresh::{Refresh, Refreshed};
pub use revocation::{Caller, NewPassword};
pub use session_blocks::SessionBlock;
pub use sessions::{NewSession, OwnSession};
pub use statement::Statement;
pub use statements::STATEMENTS;
pub use twins::Twins;
pub use users::{Account, Credentials, NewUser, RegisterError};

use crate::clock::Clock;
use crate::telemetry::Metrics;
use std::sync::Arc;

/// A handle to the database. Cheap to clone; all clones share the pool.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    pool: Arc<pool::Pool>,
    refreshes: Arc<refresh_queue::RefreshQueue>,
    health: health::Health,
    listener: notify::NotificationListener,
    unanswered: unanswered::Unanswered,
}

impl Store {
    /// Opens the first connection; the pool fills to its minimum in the background.
    ///
    /// If the database allows fewer connections, the store serves with those it could open and logs
    /// a warning.
    ///
    /// # Errors
    /// The first connection failed; the message names the host, never the password.
    pub async fn open(
        config: &StoreConfig,
        metrics: &Metrics,
        clock: Clock,
    ) -> Result<Self, ConnectError> {
        let pool = Arc::new(pool::Pool::open(config, metrics, clock.clone()).await?);
        let refreshes =
            refresh_queue::RefreshQueue::new(Arc::clone(&pool), config, metrics, clock.clone());
        let health = health::Health::new(config, Arc::clone(&pool), clock.clone());
        let listener = notify::NotificationListener::new(config, metrics, clock);
        let unanswered = unanswered::Unanswered::default();
        Ok(Self(Arc::new(Inner { pool, refreshes, health, listener, unanswered })))
    }

    /// Checks that the database accepts writes.
    ///
    /// Returns an answer that is at most one second old, or asks again and waits up to one second.
    /// The query runs on a dedicated connection, at most once a second for all callers together.
    /// Logs each change of the result.
    ///
    /// # Errors
    /// The database did not answer in time, or cannot write; the error says why.
    ///
    /// # Cancel safety
    /// The query continues, and the next caller gets its answer.
    pub async fn check_health(&self) -> Result<(), StoreError> {
        self.0.health.check().await
    }

    /// Advances a session to its next generation.
    ///
    /// Refreshes that arrive together share a statement and its commit.
    ///
    /// # Errors
    /// The database did not answer in time, or too many refreshes wait. The session may have advanced;
    /// a repeat of the request within the grace gets the lost answer.
    ///
    /// # Cancel safety
    /// A refresh that waits is dropped. One that was sent runs to its end.
    pub async fn refresh_session(&self, refresh: Refresh) -> Result<Refreshed, StoreError> {
        self.0.refreshes.refresh(refresh).await
    }

    /// Drops dead connections, refills the pool to its minimum, and updates its gauges. Called every
    /// few seconds.
    pub fn maintain(&self) {
        self.0.pool.maintain();
    }

    /// Updates the pool's gauges before a scrape.
    pub fn observe(&self) {
        self.0.pool.observe();
    }

    /// Closes the idle connections and opens no more; later calls fail.
    pub fn close(&self) {
        self.0.pool.close();
        self.0.health.close();
    }
}
