//! The readiness check: whether the database answers and accepts writes.
//!
//! The check has its own connection, so a busy pool does not delay it. Anyone may call the readiness
//! endpoint, so at most one query a second goes to the database, and all callers share its result.
//! The query runs in a separate task, so no caller cancels it.
//!
//! **A read-only database.** The check also detects a standby and a read-only database: `/me` keeps
//! working, but no login can complete. A connection may have cached that state when it was opened, so
//! each check of a read-only database opens another one. When one accepts writes, the pool's idle
//! connections are closed, and a connection in use is closed at its first refusal (`write_state`).
//!
//! **A lost synchronous standby** makes every commit wait for ever, while reads go on. The check sees
//! statements of this role that have waited for a standby for a second. From then on the database is
//! ready only after a commit of the check itself.
//!
//! **A full disk** cannot be detected without writing. Readiness answers 503 for two seconds after a
//! statement failed because of it.
//!
//! **A locked table** leaves the server ready. Requests that need the table get 503 after
//! `lock_timeout`, all others keep working, and no other node would do better.

use super::connect::{self, Endpoint};
use super::connection::Connection;
use super::pool::Pool;
use super::statement::statement;
use super::{Statement, StoreConfig, StoreError};
use crate::clock::Clock;
use crate::telemetry::with_causes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tokio_postgres::Row;

/// Time for which a result is shared, counted from when its query was sent.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Time limit for the query.
///
/// Shorter than [`AGE_MAX`], so only one query runs at a time. Both together are below the 2 s within
/// which readiness has to change.
const DEADLINE: Duration = Duration::from_millis(900);

/// Time limit for the commit of the check. The rest of [`DEADLINE`] is for the query before it.
const COMMIT_DEADLINE: Duration = Duration::from_millis(400);

const CONTEXT: &str = "health";
// A role sees what its own statements wait for, and those of others only with more rights.
const HEALTH: Statement = statement!(
    "health",
    "SELECT pg_is_in_recovery() AS standby,
        current_setting('transaction_read_only')::boolean AS read_only,
        EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND state = 'active'
                AND query_start < clock_timestamp() - interval '1 second') AS commits_wait"
);
// The smallest write that waits for a synchronous standby: a record in the write-ahead log.
const COMMIT: Statement =
    statement!("health_commit", "SELECT pg_logical_emit_message(true, 'staunch', '')");

/// Why the database cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    ReadOnly(&'static str),
    CommitsWait,
}

impl Refusal {
    fn reason(self) -> &'static str {
        match self {
            Self::ReadOnly(reason) => reason,
            Self::CommitsWait => "its commits wait for a synchronous standby",
        }
    }
}

pub(super) struct Health {
    probe: Arc<Probe>,
    last: Mutex<Option<Check>>,
    /// The result that was logged last.
    logged: Mutex<Answer>,
    clock: Clock,
}

struct Check {
    started: Instant,
    answer: Shared<BoxFuture<'static, Answer>>,
}

/// The result of a check. The error says why the database does not serve.
type Answer = Result<(), Arc<str>>;

impl Health {
    pub(super) fn new(config: &StoreConfig, serving: Arc<Pool>, clock: Clock) -> Self {
        let database = connect::with_deadlines(&config.database, config.deadlines);
        Self {
            probe: Arc::new(Probe {
                database,
                serving,
                kept: Mutex::default(),
                commits_wait: AtomicBool::new(false),
            }),
            last: Mutex::default(),
            logged: Mutex::new(Ok(())),
            clock,
        }
    }

    /// Returns a result that is at most one second old, and logs a change.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let full = || self.probe.serving.write_state().is_full();
        let mut answer = self.answer().await;
        if answer.is_ok() && full() {
            answer = Err("its disk is full".into());
        }
        self.log_change(&answer);
        answer.map_err(|why| StoreError::unavailable(CONTEXT, why.to_string()))
    }

    /// Logs a result that differs from the last one, also if only the reason is another: a database
    /// that is away may come back as a standby.
    fn log_change(&self, answer: &Answer) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if *logged == *answer {
            return;
        }
        match answer {
            Ok(()) => tracing::info!("the database accepts writes again"),
            Err(why) => tracing::warn!(%why, "not ready: the database does not accept writes"),
        }
        logged.clone_from(answer);
    }

    /// Joins the last check or starts a new one.
    fn answer(&self) -> impl Future<Output = Answer> + use<> {
        let now = self.clock.now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let shared =
            last.take().filter(|check| now.saturating_duration_since(check.started) < AGE_MAX);
        let check = shared.unwrap_or_else(|| {
            let probe = Arc::clone(&self.probe);
            let running = tokio::spawn(async move { probe.answer().await });
            let answer = running.map(|answer| {
                answer.unwrap_or_else(|_| Err("the check ended before it had a result".into()))
            });
            Check { started: now, answer: answer.boxed().shared() }
        });
        let answer = check.answer.clone();
        *last = Some(check);
        answer
    }

    pub(super) fn close(&self) {
        drop(self.probe.kept().take());
    }
}

/// Queries the database.
struct Probe {
    database: Endpoint,
    serving: Arc<Pool>,
    /// The connection of the last query, if the database answered and was writable.
    kept: Mutex<Option<Connection>>,
    /// Whether commits waited for a standby when last seen.
    commits_wait: AtomicBool,
}

impl Probe {
    /// Runs one check. When the database accepts writes again, the serving pool closes the
    /// connections that were opened before.
    async fn answer(&self) -> Answer {
        let answer = timeout(DEADLINE, self.query()).await;
        let answer = answer.unwrap_or_else(|_| Err(StoreError::timed_out(CONTEXT, DEADLINE)));
        let refusal = answer.map_err(|error| with_causes(&error))?;
        let is_read_only = matches!(refusal, Some(Refusal::ReadOnly(_)));
        if self.serving.write_state().set_read_only(is_read_only) && !is_read_only {
            self.serving.renew();
        }
        refusal.map_or(Ok(()), |refusal| Err(refusal.reason().into()))
    }

    /// Returns the reason why the database does not accept writes, or `None` if it does.
    async fn query(&self) -> Result<Option<Refusal>, StoreError> {
        let kept = self.kept().take().filter(|connection| !connection.is_unusable());
        if let Some(connection) = kept
            && let Ok(rows) = connection.run(&HEALTH, &[]).await
        {
            return self.read(connection, &rows).await;
        }
        // No connection was kept, or it broke. Only a new one shows whether the database is there.
        match Connection::open(&self.database, &[HEALTH], DEADLINE).await {
            Ok(connection) => {
                let rows = connection.run(&HEALTH, &[]).await;
                let rows = rows.map_err(|error| StoreError::statement(CONTEXT, error))?;
                self.read(connection, &rows).await
            }
            // A database that allows no more connections may still serve those of the pool.
            Err(refused) => match self.serving.query(&HEALTH, &[]).await {
                Ok(rows) => refusal(&rows).map_err(|error| StoreError::statement(CONTEXT, error)),
                Err(_) => Err(refused),
            },
        }
    }

    /// Reads the result. Keeps the connection unless the database is read-only, because it may have
    /// learned that only when it was opened.
    async fn read(
        &self,
        connection: Connection,
        rows: &[Row],
    ) -> Result<Option<Refusal>, StoreError> {
        let refusal = refusal(rows).map_err(|error| StoreError::statement(CONTEXT, error))?;
        match refusal {
            Some(Refusal::ReadOnly(_)) => return Ok(refusal),
            Some(Refusal::CommitsWait) => self.commits_wait.store(true, Ordering::Release),
            None if self.commits_wait.load(Ordering::Acquire) => {
                if !commits(&connection).await? {
                    // The commit waits until it is cancelled, even without a connection.
                    tokio::spawn(async move { connection.cancel(COMMIT_DEADLINE).await });
                    return Ok(Some(Refusal::CommitsWait));
                }
                self.commits_wait.store(false, Ordering::Release);
            }
            None => {}
        }
        *self.kept() = Some(connection);
        Ok(refusal)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a commit succeeds in time.
async fn commits(connection: &Connection) -> Result<bool, StoreError> {
    let Ok(result) = timeout(COMMIT_DEADLINE, connection.run(&COMMIT, &[])).await else {
        return Ok(false);
    };
    match result.map_err(|error| StoreError::statement(CONTEXT, error)) {
        Err(error @ StoreError::Unavailable { .. }) => Err(error),
        // A server that does not allow the function. Statements that wait are still seen.
        Ok(_) | Err(StoreError::Conflict { .. } | StoreError::Failed { .. }) => Ok(true),
    }
}

fn refusal(rows: &[Row]) -> Result<Option<Refusal>, tokio_postgres::Error> {
    let Some(row) = rows.first() else { return Ok(None) };
    let is = |column| row.try_get::<_, bool>(column);
    Ok(if is("standby")? {
        Some(Refusal::ReadOnly("it is a standby, which is read-only"))
    } else if is("read_only")? {
        Some(Refusal::ReadOnly("it is read-only (default_transaction_read_only)"))
    } else {
        is("commits_wait")?.then_some(Refusal::CommitsWait)
    })
}
