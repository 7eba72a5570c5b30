//! One connection to the database, with its statements prepared.

use super::connect::Endpoint;
use super::{Statement, StoreError};
use futures_util::future::try_join_all;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};
use tokio_util::task::AbortOnDropHandle;

const CONTEXT: &str = "connect";

/// A connection. Dropping it closes the socket at once, even if an answer is still to come.
pub(super) struct Connection {
    client: Client,
    prepared: HashMap<&'static str, tokio_postgres::Statement>,
    _task: AbortOnDropHandle<()>,
}

impl Connection {
    /// Connects and prepares `statements`, all within `limit`.
    pub(super) async fn open(
        database: &Endpoint,
        statements: &[Statement],
        limit: Duration,
    ) -> Result<Self, StoreError> {
        let opening = timeout(limit, Box::pin(Self::connect(database, statements)));
        let opened = opening.await.map_err(|_| StoreError::deadline(CONTEXT))?;
        opened.map_err(|error| StoreError::unavailable(CONTEXT, error))
    }

    async fn connect(database: &Endpoint, statements: &[Statement]) -> Result<Self, Error> {
        let (client, connection) = database.connect().await?;
        // The client reports why a connection ended.
        let task = AbortOnDropHandle::new(tokio::spawn(async { drop(connection.await) }));
        // Sent together: one round trip for all of them.
        let preparing = statements.iter().map(async |statement| {
            Ok::<_, Error>((statement.name, client.prepare(statement.sql).await?))
        });
        let prepared = try_join_all(preparing).await?.into_iter().collect();
        Ok(Self { client, prepared, _task: task })
    }

    /// Runs a statement and returns its rows.
    pub(super) async fn run(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        match self.prepared.get(statement.name) {
            Some(prepared) => self.client.query(prepared, parameters).await,
            None => self.client.query(statement.sql, parameters).await,
        }
    }

    /// Runs a command that has no parameters and gives no rows. The server answers in order, so the
    /// answers to all earlier statements have been read when this returns.
    pub(super) async fn command(&self, sql: &'static str) -> Result<(), Error> {
        self.client.batch_execute(sql).await
    }

    /// Whether the server or the network has closed it.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}
