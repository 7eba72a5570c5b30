//! One database connection with prepared statements.
//!
//! deadpool-postgres caches its prepared statements.

use super::connect::{Endpoint, HostError};
use super::hosts::Server;
use super::{Statement, StoreError};
use crate::telemetry::with_causes;
use deadpool_postgres::ClientWrapper;
use futures_util::future::try_join_all;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

const CONTEXT: &str = "connect";

/// A connection. Dropping it closes the socket at once, even if an answer is outstanding.
pub(super) struct Connection {
    client: ClientWrapper,
    server: Server,
    database: Endpoint,
}

impl Connection {
    /// Connects and prepares `statements`, all within `limit`.
    pub(super) async fn open(
        database: &Endpoint,
        statements: &[Statement],
        limit: Duration,
    ) -> Result<Self, StoreError> {
        let opening = timeout(limit, Box::pin(Self::connect(database, statements, limit)));
        let opened = opening.await.map_err(|_| StoreError::timed_out(CONTEXT, limit))?;
        opened.map_err(|error| StoreError::unavailable(CONTEXT, error))
    }

    async fn connect(
        database: &Endpoint,
        statements: &[Statement],
        limit: Duration,
    ) -> Result<Self, HostError> {
        let opened = database.connect(limit).await?;
        let connection = opened.connection;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = with_causes(&error), "a database connection ended");
            }
        });
        let client = ClientWrapper::new(opened.client, task);
        // All are sent together, in one round trip.
        try_join_all(statements.iter().map(|statement| client.prepare_cached(statement.sql)))
            .await?;
        Ok(Self { client, server: opened.server, database: database.clone() })
    }

    /// Runs a statement and returns its rows.
    pub(super) async fn run(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let prepared = self.client.prepare_cached(statement.sql).await?;
        self.client.query(&prepared, parameters).await
    }

    /// Runs a command without parameters and without rows. The server answers in order, so the
    /// answers to all earlier statements have been read when this returns.
    pub(super) async fn command(&self, sql: &'static str) -> Result<(), Error> {
        self.client.batch_execute(sql).await
    }

    /// Asks the server to cancel the statement that is running, within `limit`.
    pub(super) async fn cancel(&self, limit: Duration) {
        let token = self.client.cancel_token();
        let cancelling = token.cancel_query(self.database.tls());
        timeout(limit, Box::pin(cancelling)).await.ok();
    }

    /// Whether the connection is closed, or leads to a server that another one has replaced.
    pub(super) fn is_unusable(&self) -> bool {
        self.client.is_closed() || self.database.is_outdated(self.server)
    }
}
