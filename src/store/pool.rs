//! The connection pool: a deadline on every call, and no connection that comes back half used.

use super::connect::{self, ConnectError};
use super::{Statement, StoreError};
use crate::clock::Clock;
use crate::telemetry::{Metrics, declared};
use deadpool_postgres::{Hook, Manager, ManagerConfig, Object, RecyclingMethod, Runtime, Timeouts};
use futures_util::future::join_all;
use std::time::Duration;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};

/// Longest time a call may take in all: waiting for a connection, opening one, query and answer.
/// Below the 5 s in which a login must hear of a database that is away.
pub const CALL_DEADLINE: Duration = Duration::from_millis(3_500);
/// Longest wait for a connection that others hold.
const WAIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time to open a connection, TCP, authentication and settings together.
const CREATE_TIMEOUT: Duration = Duration::from_secs(3);

/// How the database is reached.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Host, user, password, database.
    pub database: tokio_postgres::Config,
    /// Connections opened at start and kept. At most `pool_max`.
    pub pool_min: usize,
    /// Connections at most. The server must allow as many and three more: readiness has one of
    /// its own, and migrations.
    pub pool_max: usize,
}

pub(super) struct Pool {
    pool: deadpool_postgres::Pool,
    min: usize,
    metrics: Metrics,
    clock: Clock,
}

impl Pool {
    pub(super) async fn open(
        config: &StoreConfig,
        metrics: &Metrics,
        clock: Clock,
    ) -> Result<Self, ConnectError> {
        let timeouts = Timeouts {
            wait: Some(WAIT_TIMEOUT),
            create: Some(CREATE_TIMEOUT),
            recycle: Some(Duration::from_secs(1)),
        };
        let pool = build(&config.database, config.pool_max, timeouts);
        metrics.gauge(declared::DB_POOL_MAX, &[]).set(gauge(config.pool_max));
        let pool = Self { pool, min: config.pool_min, metrics: metrics.clone(), clock };
        let first = pool.pool.get().await.map_err(|error| ConnectError::Refused {
            place: connect::place(&config.database),
            reason: chain(&error),
        })?;
        drop(first);
        pool.maintain().await;
        Ok(pool)
    }

    /// Runs one statement and returns its rows.
    ///
    /// Cancel safe: a call that is dropped half way closes its connection rather than return it
    /// with an answer still to come; the server ends the statement by its own time-out.
    pub(super) async fn query(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let name = statement.name;
        let call = async {
            let object = self.pool.get().await.map_err(|error| StoreError::pool(name, error))?;
            let connection = Checkout(Some(object));
            let begun = self.clock.now();
            let result = connection.run(statement.sql, parameters).await;
            let took = self.clock.now().saturating_duration_since(begun);
            self.metrics.histogram(declared::DB_QUERY_SECONDS, &[("query", name)]).record(took);
            connection.settle(&result);
            result.map_err(|error| StoreError::statement(name, error))
        };
        let answer = tokio::time::timeout(CALL_DEADLINE, call).await;
        let answer = answer.unwrap_or_else(|_| Err(StoreError::deadline(name)));
        if matches!(answer, Err(StoreError::Unavailable { .. } | StoreError::Failed { .. })) {
            self.metrics.counter(declared::DB_ERRORS, &[("query", name)]).increment(1);
        }
        answer
    }

    pub(super) async fn maintain(&self) {
        self.pool.retain(|client, _| !client.is_closed());
        let status = self.pool.status();
        let missing = self.min.saturating_sub(status.size);
        if missing > 0 {
            // All at once, and the idle ones too: else each would get the one before it back.
            drop(join_all((0..missing + status.available).map(|_| self.pool.get())).await);
        }
        self.observe();
    }

    pub(super) fn observe(&self) {
        let status = self.pool.status();
        let set = |name, labels: &[_], value| self.metrics.gauge(name, labels).set(gauge(value));
        let used = status.size.saturating_sub(status.available);
        set(declared::DB_POOL_CONNECTIONS, &[("state", "idle")], status.available);
        set(declared::DB_POOL_CONNECTIONS, &[("state", "used")], used);
        set(declared::DB_POOL_WAITING, &[], status.waiting);
    }

    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// A pool over that database, with our settings on every connection.
pub(super) fn build(
    database: &tokio_postgres::Config,
    max: usize,
    timeouts: Timeouts,
) -> deadpool_postgres::Pool {
    let manager = Manager::from_config(
        connect::with_deadlines(database),
        NoTls,
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    let builder = deadpool_postgres::Pool::builder(manager)
        .max_size(max)
        .timeouts(timeouts)
        .runtime(Runtime::Tokio1)
        .post_create(Hook::sync_fn(|client, _| {
            if client.is_closed() {
                return Err(deadpool_postgres::HookError::message("closed as it was opened"));
            }
            Ok(())
        }));
    #[expect(
        clippy::expect_used,
        reason = "fails only for time-outs without a runtime; one is given"
    )]
    builder.build().expect("a runtime is given")
}

/// A connection out of the pool, which goes back only when its last answer has been read.
pub(super) struct Checkout(pub(super) Option<Object>);

impl Checkout {
    pub(super) async fn run(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let Some(client) = self.0.as_ref() else {
            return Ok(Vec::new());
        };
        let statement = client.prepare_cached(sql).await?;
        client.query(&statement, parameters).await
    }

    /// Gives the connection back after an answer, also after a refusal by the server.
    pub(super) fn settle<T>(mut self, result: &Result<T, tokio_postgres::Error>) {
        let answered = match result {
            Ok(_) => true,
            Err(error) => error.as_db_error().is_some(),
        };
        if answered {
            drop(self.0.take());
        }
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            // Leaves the pool for good; dropping the client closes the socket.
            drop(Object::take(object));
        }
    }
}

/// An error and its causes, for a message that stands alone.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "connection counts are far below 2^52")]
fn gauge(count: usize) -> f64 {
    count as f64
}
