//! The store's configuration.

use super::connect::Endpoint;
use super::deadlines::Deadlines;

/// A database and the size of the connection pool.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The database and its credentials.
    pub database: Endpoint,
    /// Connections opened at start and kept. At most `pool_max`.
    pub pool_min: usize,
    /// Maximum number of pooled connections. Once open, they stay open.
    ///
    /// The server should allow three more: readiness, the listener and migrations each use their own
    /// connection. If it allows fewer, calls wait for the connections that could be opened.
    pub pool_max: usize,
    /// The time limits of calls.
    pub deadlines: Deadlines,
}
