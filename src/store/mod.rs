//! All SQL. Rows in, typed values out; what follows from them is the rules' (`auth`) to decide.
//!
//! Every statement has a name (it starts with `-- name`, as shown by pg_stat_statements and the
//! `query` label of the metrics), is prepared once a connection, and has a deadline on both sides:
//! `statement_timeout` on the server's, [`CALL_DEADLINE`] for connection and answer together on
//! ours, which also holds when the server is stopped or unreachable.

mod abandoned;
mod admin;
mod cleanup;
mod clients;
mod connect;
mod connection;
mod ends;
mod error;
mod events;
mod growth;
mod health;
mod import;
mod migrate;
mod migrations;
mod notify;
mod options;
mod pool;
mod session_blocks;
mod sessions;
mod statement;
mod tls;
mod twins;
mod users;
mod writes;

pub use admin::{Admin, ExportedUser, LiveSession, LoggedEvent, ReadError};
pub use cleanup::Cleaned;
pub use clients::{Client, LiveRefresh};
pub use connect::{ConnectError, Endpoint, parse_url, place};
pub use ends::{Asking, NewPassword};
pub use error::StoreError;
pub use events::NewEvent;
pub use import::{ImportedUser, Importer, TakenNames};
pub use migrate::{MigrateError, migrate};
pub use notify::Notice;
pub use pool::{CALL_DEADLINE, StoreConfig};
pub use session_blocks::SessionBlock;
pub use sessions::{NewSession, OwnSession, Refreshed};
pub use statement::{STATEMENTS, Statement};
pub use twins::Twins;
pub use users::{Account, Credentials, NewUser, RegisterError};

use crate::clock::Clock;
use crate::telemetry::Metrics;
use std::sync::Arc;

/// The database. Cheap to clone; all clones share the pool.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    pool: Arc<pool::Pool>,
    health: health::Health,
    listener: notify::Listener,
}

impl Store {
    /// Opens the first connection; the rest of the pool's minimum follows in the background. If the
    /// database allows fewer, those that could be opened serve, and the log says so.
    ///
    /// # Errors
    /// When the first connection fails; the message names the host, never the password.
    pub async fn open(
        config: &StoreConfig,
        metrics: &Metrics,
        clock: Clock,
    ) -> Result<Self, ConnectError> {
        let pool = Arc::new(pool::Pool::open(config, metrics, clock.clone()).await?);
        let health = health::Health::new(config, Arc::clone(&pool), clock.clone());
        let listener = notify::Listener::new(config, metrics, clock);
        Ok(Self(Arc::new(Inner { pool, health, listener })))
    }

    /// Whether the database takes writes: its answer of at most a second ago, or a new one within a
    /// second, on a connection kept for this question. However many ask, the database is asked once
    /// a second at most. Logs a change.
    ///
    /// # Errors
    /// Why there was no answer in time, or what keeps it from writing.
    ///
    /// # Cancel safety
    /// The question goes on, for the next caller.
    pub async fn check_health(&self) -> Result<(), StoreError> {
        self.0.health.check().await
    }

    /// Drops dead connections, opens new ones up to the minimum, and updates the pool's gauges.
    /// Called every few seconds.
    pub fn maintain(&self) {
        self.0.pool.maintain();
    }

    /// Updates the pool's gauges, for a scrape.
    pub fn observe(&self) {
        self.0.pool.observe();
    }

    /// Closes all connections; later calls fail.
    pub fn close(&self) {
        self.0.pool.close();
        self.0.health.close();
    }
}
