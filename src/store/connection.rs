//! One database connection with prepared statements.
//!
//! deadpool-postgres opens the connection and caches its prepared statements.

use super::connect::Endpoint;
use super::{Statement, StoreError};
use deadpool::managed::Manager as _;
use deadpool_postgres::{ClientWrapper, Manager};
use futures_util::future::try_join_all;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

const CONTEXT: &str = "connect";

/// A connection. Dropping it closes the socket at once, even if an answer is outstanding.
pub(super) struct Connection(ClientWrapper);

impl Connection {
    /// Connects and prepares `statements`, all within `limit`.
    pub(super) async fn open(
        database: &Endpoint,
        statements: &[Statement],
        limit: Duration,
    ) -> Result<Self, StoreError> {
        let opening = timeout(limit, Box::pin(Self::connect(database, statements)));
        let opened = opening.await.map_err(|_| StoreError::timed_out(CONTEXT, limit))?;
        opened.map_err(|error| StoreError::unavailable(CONTEXT, error))
    }

    async fn connect(database: &Endpoint, statements: &[Statement]) -> Result<Self, Error> {
        let (config, tls) = database.parts();
        let client = Manager::new(config, tls).create().await?;
        // All are sent together, in one round trip.
        try_join_all(statements.iter().map(|statement| client.prepare_cached(statement.sql)))
            .await?;
        Ok(Self(client))
    }

    /// Runs a statement and returns its rows.
    pub(super) async fn run(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let prepared = self.0.prepare_cached(statement.sql).await?;
        self.0.query(&prepared, parameters).await
    }

    /// Runs a command without parameters and without rows. The server answers in order, so the
    /// answers to all earlier statements have been read when this returns.
    pub(super) async fn command(&self, sql: &'static str) -> Result<(), Error> {
        self.0.batch_execute(sql).await
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}
