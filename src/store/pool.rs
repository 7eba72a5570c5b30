//! The connection pool: a deadline on every call, and no connection that comes back half used.

use super::connect::{self, ConnectError, Endpoint};
use super::writes::Writes;
use super::{STATEMENTS, Statement, StoreError};
use crate::clock::Clock;
use crate::telemetry::trace::{self, Stage};
use crate::telemetry::{Metrics, declared, with_causes};
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, RecyclingMethod, Runtime, Timeouts,
};
use futures_util::future::join_all;
use metrics::{Counter, Histogram};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Longest time a call may take in all: waiting for a connection, opening one, query and answer.
/// Below the 5 s in which a login must hear of a database that is away.
pub const CALL_DEADLINE: Duration = Duration::from_millis(3_500);
/// Longest wait for a connection that others hold.
const WAIT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a call waits before one more connection is opened: a few times the longest statement
/// that serves requests.
const PATIENCE: Duration = Duration::from_millis(10);
/// Longest time to open a connection, TCP and authentication together; and again to prepare its
/// statements.
const CREATE_TIMEOUT: Duration = Duration::from_secs(3);

/// How the database is reached.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Which, and who we are there.
    pub database: Endpoint,
    /// Connections opened at start and kept. At most `pool_max`.
    pub pool_min: usize,
    /// Connections at most. The server must allow as many and three more: readiness has one of its
    /// own, and so have the listener and migrations. Those that were opened stay open.
    pub pool_max: usize,
}

pub(super) struct Pool {
    pool: deadpool_postgres::Pool,
    /// As many as connections were opened. Whoever holds one finds a connection idle, or opens the
    /// one that broke anew.
    places: Arc<Semaphore>,
    /// Connections opened or being opened.
    opened: Arc<AtomicUsize>,
    /// Held while one is being opened.
    growth: Arc<Mutex<()>>,
    waiting: AtomicUsize,
    min: usize,
    max: usize,
    writes: Writes,
    pool_wait: Histogram,
    /// Times and errors by the statement's name.
    queries: HashMap<&'static str, (Histogram, Counter)>,
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
        let pool = build(&config.database, config.pool_max, timeouts, STATEMENTS);
        metrics.gauge(declared::DB_POOL_MAX, &[]).set(gauge(config.pool_max));
        let pool = Self {
            pool,
            places: Arc::new(Semaphore::new(config.pool_min)),
            opened: Arc::new(AtomicUsize::new(config.pool_min)),
            growth: Arc::default(),
            waiting: AtomicUsize::new(0),
            min: config.pool_min,
            max: config.pool_max,
            writes: Writes::new(clock.clone()),
            pool_wait: metrics.histogram(declared::DB_POOL_WAIT_SECONDS, &[]),
            queries: STATEMENTS
                .iter()
                .map(|Statement { name, .. }| {
                    let label = &[("query", *name)];
                    let seconds = metrics.histogram(declared::DB_QUERY_SECONDS, label);
                    let errors = metrics.counter(declared::DB_ERRORS, label);
                    errors.increment(0);
                    (*name, (seconds, errors))
                })
                .collect(),
            metrics: metrics.clone(),
            clock,
        };
        let first = pool.pool.get().await.map_err(|error| ConnectError::Refused {
            place: connect::place(&config.database),
            reason: with_causes(&error),
        })?;
        drop(first);
        pool.maintain().await;
        Ok(pool)
    }

    /// Waits for a connection. One that is in use is back within a millisecond or two, while a new
    /// one takes tens to open: so a new one is opened only when the wait gets long, in the
    /// background, and whichever comes first is taken.
    async fn checkout(&self, name: &'static str) -> Result<Checkout<'_>, StoreError> {
        let waiting = Waiting::new(&self.waiting);
        // One wait from beginning to end: a new one would go to the back of the line.
        let mut acquired = pin!(self.places.acquire());
        let place = loop {
            tokio::select! {
                place = acquired.as_mut() => break place.map_err(|_| StoreError::deadline(name))?,
                () = tokio::time::sleep(PATIENCE) => self.grow(),
            }
        };
        drop(waiting);
        // Boxed: it holds the opening of a connection, which every request would carry along.
        let object = Box::pin(self.pool.get()).await;
        let object = object.map_err(|error| StoreError::pool(name, error))?;
        Ok(Checkout { object: Some(object), _place: Some(place) })
    }

    /// Opens one more connection in the background, if there may be one more; one at a time, since
    /// opening them takes CPU from the calls that they are to help.
    fn grow(&self) {
        let Ok(turn) = Arc::clone(&self.growth).try_lock_owned() else { return };
        let more = |opened| (opened < self.max).then_some(opened + 1);
        if self.opened.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            return;
        }
        let (pool, places, opened) =
            (self.pool.clone(), Arc::clone(&self.places), Arc::clone(&self.opened));
        tokio::spawn(async move {
            // The pool gives an idle one if there is one: then the wait is over anyway.
            if pool.get().await.is_ok() {
                places.add_permits(1);
            } else {
                opened.fetch_sub(1, Ordering::AcqRel);
            }
            drop(turn);
        });
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
            let connection = self.connection(name).await?;
            let result = self.run(&connection, statement, parameters).await;
            match &result {
                Err(error) if self.writes.is_stale(error) => drop(connection),
                _ => connection.settle(&result),
            }
            result.map_err(|error| StoreError::statement(name, error))
        };
        self.in_time(name, call).await
    }

    /// Runs statements in one transaction, in order. Commits when each gave a row; false: one gave
    /// none, and nothing of it has happened.
    ///
    /// Cancel safe as [`Pool::query`]: closing the connection rolls back.
    pub(super) async fn transaction(
        &self,
        steps: &[(&Statement, &[&(dyn ToSql + Sync)])],
    ) -> Result<bool, StoreError> {
        let name = steps.first().map_or("transaction", |(statement, _)| statement.name);
        let failed = |error| StoreError::statement(name, error);
        let call = async {
            let connection = self.connection(name).await?;
            connection.command("BEGIN").await.map_err(failed)?;
            for (statement, parameters) in steps {
                let rows = self.run(&connection, statement, parameters).await;
                let rows = rows.map_err(|error| StoreError::statement(statement.name, error))?;
                if rows.is_empty() {
                    let result = connection.command("ROLLBACK").await;
                    connection.settle(&result);
                    return result.map(|()| false).map_err(failed);
                }
            }
            let result = connection.command("COMMIT").await;
            connection.settle(&result);
            result.map(|()| true).map_err(failed)
        };
        self.in_time(name, call).await
    }

    /// A connection, within the wait's limit; notes how long it took.
    async fn connection(&self, name: &'static str) -> Result<Checkout<'_>, StoreError> {
        let asked = self.clock.now();
        let connection = tokio::time::timeout(WAIT_TIMEOUT, self.checkout(name)).await;
        let begun = self.clock.now();
        self.pool_wait.record(begun.saturating_duration_since(asked));
        trace::note(Stage::PoolWait, None, asked, begun);
        connection.unwrap_or_else(|_| Err(StoreError::deadline(name)))
    }

    /// Runs a statement; notes how long it took.
    async fn run(
        &self,
        connection: &Checkout<'_>,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let begun = self.clock.now();
        let result = connection.run(statement.sql, parameters).await;
        let ended = self.clock.now();
        if let Some((seconds, _)) = self.queries.get(statement.name) {
            seconds.record(ended.saturating_duration_since(begun));
        }
        trace::note(Stage::Query, Some(statement.name), begun, ended);
        if let Err(error) = &result {
            self.writes.note(error);
        }
        result
    }

    /// Holds a call to its deadline, and counts it if it failed.
    async fn in_time<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let answer = tokio::time::timeout(CALL_DEADLINE, call).await;
        let answer = answer.unwrap_or_else(|_| Err(StoreError::deadline(name)));
        let failed =
            matches!(answer, Err(StoreError::Unavailable { .. } | StoreError::Failed { .. }));
        if failed && let Some((_, errors)) = self.queries.get(name) {
            errors.increment(1);
        }
        answer
    }

    /// What is known of whether the database takes writes.
    pub(super) fn writes(&self) -> &Writes {
        &self.writes
    }

    /// Closes what is idle. A connection in use now, which may have learned what no longer holds,
    /// goes when it is refused for it.
    pub(super) fn renew(&self) {
        self.pool.retain(|_, _| false);
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
        set(declared::DB_POOL_WAITING, &[], self.waiting.load(Ordering::Acquire));
    }

    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// A pool over that database, with our settings on every connection.
pub(super) fn build(
    database: &Endpoint,
    max: usize,
    timeouts: Timeouts,
    statements: &'static [Statement],
) -> deadpool_postgres::Pool {
    let (config, tls) = connect::with_deadlines(database).parts();
    let manager = Manager::from_config(
        config,
        tls,
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    let builder = deadpool_postgres::Pool::builder(manager)
        .max_size(max)
        .timeouts(timeouts)
        .runtime(Runtime::Tokio1)
        .post_create(Hook::async_fn(move |client, _| {
            // Prepared while nobody waits.
            Box::pin(async move {
                // The pool's own time-out ends before this.
                let prepare = async {
                    for statement in statements {
                        client.prepare_cached(statement.sql).await?;
                    }
                    Ok(())
                };
                match tokio::time::timeout(CREATE_TIMEOUT, prepare).await {
                    Ok(prepared) => prepared.map_err(HookError::Backend),
                    Err(_) => Err(HookError::message("statements were not prepared in time")),
                }
            })
        }));
    #[expect(
        clippy::expect_used,
        reason = "fails only for time-outs without a runtime; one is given"
    )]
    builder.build().expect("a runtime is given")
}

/// A connection out of the pool, which goes back only when its last answer has been read.
pub(super) struct Checkout<'a> {
    object: Option<Object>,
    /// Given back after the connection.
    _place: Option<SemaphorePermit<'a>>,
}

impl Checkout<'_> {
    pub(super) fn of(object: Object) -> Self {
        Self { object: Some(object), _place: None }
    }

    pub(super) async fn run(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let Some(client) = self.object.as_ref() else { return Ok(Vec::new()) };
        let statement = client.prepare_cached(sql).await?;
        client.query(&statement, parameters).await
    }

    /// Runs a command that has no parameters and gives no rows.
    async fn command(&self, sql: &'static str) -> Result<(), tokio_postgres::Error> {
        let Some(client) = self.object.as_ref() else { return Ok(()) };
        client.batch_execute(sql).await
    }

    /// Gives the connection back after an answer, also after a refusal by the server.
    pub(super) fn settle<T>(mut self, result: &Result<T, tokio_postgres::Error>) {
        let answered = match result {
            Ok(_) => true,
            Err(error) => error.as_db_error().is_some(),
        };
        if answered {
            drop(self.object.take());
        }
    }
}

impl Drop for Checkout<'_> {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            // Leaves the pool for good; dropping the client closes the socket.
            drop(Object::take(object));
        }
    }
}

/// A call that waits, for the gauge.
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
