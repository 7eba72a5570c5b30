//! The connection pool. Every call has a time limit, and only idle connections return to the pool.
//!
//! A call that times out closes its connection instead of returning it in mid-statement. When a
//! lost database is back, the pool reconnects.

use super::abandoned::{Abandoned, Conversation};
use super::connect::{self, ConnectError};
use super::connection::Connection;
use super::growth::Growth;
use super::write_state::WriteState;
use super::{STATEMENTS, Statement, StoreConfig, StoreError};
use crate::clock::Clock;
use crate::telemetry::trace::{self, Stage};
use crate::telemetry::{Metrics, definitions, with_causes};
use deadpool::unmanaged::{self, Object};
use metrics::{Counter, Histogram};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Time limit for getting a connection.
const WAIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time a call waits before one more connection is opened: a few times the longest statement that
/// serves requests.
const PATIENCE: Duration = Duration::from_millis(10);

pub(super) struct Pool {
    /// Idle connections. Calls wait for them in order.
    pool: unmanaged::Pool<Connection>,
    growth: Arc<Growth>,
    abandoned: Abandoned,
    closed: AtomicBool,
    waiting: AtomicUsize,
    write_state: WriteState,
    /// Time limit for a whole call.
    call_deadline: Duration,
    pool_wait: Histogram,
    /// Times and errors by statement name.
    queries: HashMap<&'static str, (Histogram, Counter)>,
    metrics: Metrics,
    clock: Clock,
}

impl Pool {
    /// Opens the first connection, and the others up to the minimum in the background.
    pub(super) async fn open(
        config: &StoreConfig,
        metrics: &Metrics,
        clock: Clock,
    ) -> Result<Self, ConnectError> {
        let pool = unmanaged::Pool::new(config.pool_max);
        metrics.gauge(definitions::DB_POOL_MAX, &[]).set(gauge(config.pool_max));
        let pool = Self {
            growth: Arc::new(Growth::new(pool.clone(), config, metrics)),
            pool,
            abandoned: Abandoned::new(metrics),
            closed: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            write_state: WriteState::new(clock.clone()),
            call_deadline: config.deadlines.call,
            pool_wait: metrics.histogram(definitions::DB_POOL_WAIT_SECONDS, &[]),
            queries: STATEMENTS
                .iter()
                .map(|Statement { name, .. }| {
                    let label = &[("query", *name)];
                    let seconds = metrics.histogram(definitions::DB_QUERY_SECONDS, label);
                    let errors = metrics.counter(definitions::DB_ERRORS, label);
                    errors.increment(0);
                    (*name, (seconds, errors))
                })
                .collect(),
            metrics: metrics.clone(),
            clock,
        };
        pool.growth.open_first().await.map_err(|error| ConnectError::Refused {
            place: connect::place(&config.database),
            reason: with_causes(&error),
        })?;
        pool.maintain();
        Ok(pool)
    }

    /// Takes an idle connection, or waits for one.
    ///
    /// A connection in use is usually free again within a millisecond or two, while opening one takes
    /// tens of milliseconds. So another one is opened, in the background, only when the wait gets
    /// long. The call takes the first connection that becomes free.
    async fn checkout(&self, name: &'static str) -> Result<Checkout<'_>, StoreError> {
        loop {
            let connection = match self.pool.try_get() {
                Ok(connection) => connection,
                Err(_) => self.wait(name).await?,
            };
            if connection.is_unusable() {
                drop(Object::take(connection));
            } else {
                let (connection, conversation) = (Some(connection), Conversation::default());
                return Ok(Checkout { connection, conversation, pool: self });
            }
        }
    }

    /// Waits until a connection is idle. Fails early only if there are no connections and none can be
    /// opened.
    async fn wait(&self, name: &'static str) -> Result<Object<Connection>, StoreError> {
        if self.is_closed() {
            return Err(StoreError::unavailable(name, "the pool is closed"));
        }
        let _waiting = Waiting::new(&self.waiting);
        let mut failures = self.growth.failures();
        // A single wait, because a new one would go to the end of the queue.
        let mut idle = pin!(self.pool.get());
        if self.growth.size() == 0 {
            self.growth.grow();
        }
        loop {
            tokio::select! {
                biased;
                connection = idle.as_mut() => {
                    return connection.map_err(|error| StoreError::unavailable(name, error));
                }
                Ok(()) = failures.changed() => {
                    if self.growth.size() == 0 {
                        let error = failures.borrow_and_update().to_string();
                        return Err(StoreError::unavailable(name, error));
                    }
                }
                () = tokio::time::sleep(PATIENCE) => self.growth.grow(),
            }
        }
    }

    /// Runs one statement and returns its rows.
    ///
    /// # Cancel safety
    /// The statement runs to its end. Then its connection returns to the pool or is closed
    /// ([`Abandoned`]).
    pub(super) async fn query(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let name = statement.name;
        let call = async {
            let mut connection = self.connection(name).await?;
            let result = self.run(&mut connection, statement, parameters).await;
            if let Err(error) = &result
                && self.write_state.is_stale(error)
            {
                connection.close();
            }
            result.map_err(|error| StoreError::statement(name, error))
        };
        self.in_time(name, call).await
    }

    /// Runs statements in one transaction, in order.
    ///
    /// Commits if each statement returned a row. Otherwise rolls back and returns false.
    ///
    /// # Cancel safety
    /// As [`Pool::query`]. The transaction is rolled back unless its COMMIT was sent.
    pub(super) async fn transaction(
        &self,
        steps: &[(&Statement, &[&(dyn ToSql + Sync)])],
    ) -> Result<bool, StoreError> {
        let name = steps.first().map_or("transaction", |(statement, _)| statement.name);
        let failed = |error| StoreError::statement(name, error);
        let call = async {
            let mut connection = self.connection(name).await?;
            connection.command("BEGIN").await.map_err(failed)?;
            for (statement, parameters) in steps {
                let rows = self.run(&mut connection, statement, parameters).await;
                let rows = rows.map_err(|error| StoreError::statement(statement.name, error))?;
                if rows.is_empty() {
                    let result = connection.command("ROLLBACK").await;
                    return result.map(|()| false).map_err(failed);
                }
            }
            connection.command("COMMIT").await.map(|()| true).map_err(failed)
        };
        self.in_time(name, call).await
    }

    /// Gets a connection within the time limit and records the wait.
    async fn connection(&self, name: &'static str) -> Result<Checkout<'_>, StoreError> {
        let asked = self.clock.now();
        let connection = tokio::time::timeout(WAIT_TIMEOUT, self.checkout(name)).await;
        let begun = self.clock.now();
        self.pool_wait.record(begun.saturating_duration_since(asked));
        trace::note(Stage::PoolWait, None, asked, begun);
        connection.unwrap_or_else(|_| {
            let why = format!("no connection became free within {WAIT_TIMEOUT:?}");
            Err(StoreError::unavailable(name, why))
        })
    }

    /// Runs a statement and records its time.
    async fn run(
        &self,
        connection: &mut Checkout<'_>,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let begun = self.clock.now();
        let result = connection.run(statement, parameters).await;
        let ended = self.clock.now();
        if let Some((seconds, _)) = self.queries.get(statement.name) {
            seconds.record(ended.saturating_duration_since(begun));
        }
        trace::note(Stage::Query, Some(statement.name), begun, ended);
        if let Err(error) = &result {
            self.write_state.note(error);
        }
        result
    }

    /// Limits a call to its deadline, and counts it if it failed.
    async fn in_time<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.call_deadline;
        let answer = tokio::time::timeout(limit, call).await;
        let answer = answer.unwrap_or_else(|_| Err(StoreError::timed_out(name, limit)));
        let failed =
            matches!(answer, Err(StoreError::Unavailable { .. } | StoreError::Failed { .. }));
        if failed && let Some((_, errors)) = self.queries.get(name) {
            errors.increment(1);
        }
        answer
    }

    pub(super) fn write_state(&self) -> &WriteState {
        &self.write_state
    }

    /// Closes the idle connections after the database became writable, and refills the pool.
    ///
    /// A connection in use now may still be read-only. It is closed when a statement on it fails.
    pub(super) fn renew(&self) {
        self.close_idle();
        self.growth.fill();
    }

    /// Drops idle connections that broke or lead to a former primary, refills the pool to its minimum in
    /// the background, and updates the gauges.
    pub(super) fn maintain(&self) {
        let idle: Vec<_> = std::iter::from_fn(|| self.pool.try_get().ok()).collect();
        for connection in idle {
            if connection.is_unusable() {
                drop(Object::take(connection));
            }
        }
        if !self.is_closed() {
            self.growth.fill();
        }
        self.observe();
    }

    pub(super) fn observe(&self) {
        let status = self.pool.status();
        let set = |name, labels: &[_], value| self.metrics.gauge(name, labels).set(gauge(value));
        let used = status.size.saturating_sub(status.available);
        set(definitions::DB_POOL_CONNECTIONS, &[("state", "idle")], status.available);
        set(definitions::DB_POOL_CONNECTIONS, &[("state", "used")], used);
        set(definitions::DB_POOL_WAITING, &[], self.waiting.load(Ordering::Acquire));
    }

    /// Closes the idle connections and opens no more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.close_idle();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn close_idle(&self) {
        while self.pool.try_remove().is_ok() {}
    }
}

/// A connection taken from the pool. It returns when its last answer has been read.
struct Checkout<'a> {
    /// `None` only during drop.
    connection: Option<Object<Connection>>,
    conversation: Conversation,
    pool: &'a Pool,
}

impl Checkout<'_> {
    async fn run(
        &mut self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let Some(connection) = &self.connection else { return Ok(Vec::new()) };
        self.conversation.waiting_since = Some(Instant::now());
        let result = connection.run(statement, parameters).await;
        self.answered(&result);
        result
    }

    async fn command(&mut self, sql: &'static str) -> Result<(), tokio_postgres::Error> {
        let Some(connection) = &self.connection else { return Ok(()) };
        self.conversation.waiting_since = Some(Instant::now());
        // The first poll sends the command. From then on the server is in a transaction, or ends it.
        self.conversation.in_transaction = sql == "BEGIN";
        let result = connection.command(sql).await;
        self.answered(&result);
        result
    }

    /// Records an answer. An error from the server is an answer, too; after any other failure the
    /// connection is closed.
    fn answered<T>(&mut self, result: &Result<T, tokio_postgres::Error>) {
        self.conversation.waiting_since = None;
        self.conversation.broken =
            result.as_ref().is_err_and(|error| error.as_db_error().is_none());
    }

    /// Closes the connection when this is dropped.
    fn close(&mut self) {
        self.conversation.broken = true;
    }
}

impl Drop for Checkout<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.abandoned.take(connection, self.conversation);
        }
    }
}

/// Counts a waiting call for the gauge.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[expect(clippy::cast_precision_loss, reason = "connection counts are far below 2^52")]
fn gauge(count: usize) -> f64 {
    count as f64
}
