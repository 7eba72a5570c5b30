//! Is the database there, and does it take writes? Asked on a connection that a busy pool cannot
//! starve.
//!
//! Strangers may ask as often as they like. At most one question a second goes to the database, and
//! all callers share its answer. The question runs in a separate task, so no caller cancels it.

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
use tokio_postgres::Row;

/// An answer is shared for this long after its question was asked.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Longest time for an answer. Shorter than [`AGE_MAX`], so there is one question at a time, and
/// together with it below the 2 s in which readiness has to follow.
const DEADLINE: Duration = Duration::from_millis(900);

const CONTEXT: &str = "health";
const QUESTION: Statement = statement!(
    "health",
    "SELECT pg_is_in_recovery() AS standby,
        current_setting('transaction_read_only')::boolean AS read_only"
);

pub(super) struct Health {
    asker: Arc<Asker>,
    last: Mutex<Option<Question>>,
    /// What the log said last.
    said_well: AtomicBool,
    clock: Clock,
}

struct Question {
    asked: Instant,
    answer: Shared<BoxFuture<'static, Answer>>,
}

/// `Err`: why the database does not serve.
type Answer = Result<(), Arc<str>>;

impl Health {
    pub(super) fn new(config: &StoreConfig, serving: Arc<Pool>, clock: Clock) -> Self {
        let database = connect::with_deadlines(&config.database);
        Self {
            asker: Arc::new(Asker { database, serving, kept: Mutex::default() }),
            last: Mutex::default(),
            said_well: AtomicBool::new(true),
            clock,
        }
    }

    /// What the database said at most a second ago. A change is logged.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let full = || self.asker.serving.writes().is_full();
        let mut answer = self.answer().await;
        if answer.is_ok() && full() {
            answer = Err("its disk is full".into());
        }
        let well = answer.is_ok();
        if self.said_well.swap(well, Ordering::AcqRel) != well {
            match &answer {
                Ok(()) => tracing::info!("the database takes writes again"),
                Err(why) => tracing::warn!(%why, "not ready: the database does not take writes"),
            }
        }
        answer.map_err(|why| StoreError::unavailable(CONTEXT, why.to_string()))
    }

    /// Joins the last question or asks a new one.
    fn answer(&self) -> impl Future<Output = Answer> + use<> {
        let now = self.clock.now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let shared =
            last.take().filter(|question| now.saturating_duration_since(question.asked) < AGE_MAX);
        let question = shared.unwrap_or_else(|| {
            let asker = Arc::clone(&self.asker);
            let asking = tokio::spawn(async move { asker.answer().await });
            let answer = asking.map(|answer| {
                answer.unwrap_or_else(|_| Err("the question was not asked to its end".into()))
            });
            Question { asked: now, answer: answer.boxed().shared() }
        });
        let answer = question.answer.clone();
        *last = Some(question);
        answer
    }

    pub(super) fn close(&self) {
        drop(self.asker.kept().take());
    }
}

/// Asks the database.
struct Asker {
    database: Endpoint,
    serving: Arc<Pool>,
    /// The connection of the last question, if it was answered well.
    kept: Mutex<Option<Connection>>,
}

impl Asker {
    /// When the database takes writes again, the serving pool forgets the connections that were
    /// opened while it did not.
    async fn answer(&self) -> Answer {
        let answer = tokio::time::timeout(DEADLINE, self.ask()).await;
        let answer = answer.unwrap_or_else(|_| Err(StoreError::deadline(CONTEXT)));
        let refusal = answer.map_err(|error| with_causes(&error))?;
        if self.serving.writes().set_read_only(refusal.is_some()) && refusal.is_none() {
            self.serving.renew();
        }
        refusal.map_or(Ok(()), |why| Err(why.into()))
    }

    /// Why the database takes no writes, if it takes none.
    async fn ask(&self) -> Result<Option<&'static str>, StoreError> {
        let kept = self.kept().take();
        if let Some(connection) = kept
            && let Ok(rows) = connection.run(&QUESTION, &[]).await
        {
            return self.read(connection, &rows);
        }
        // None was kept, or it broke: only a new one can tell whether the database is there.
        match Connection::open(&self.database, &[QUESTION], DEADLINE).await {
            Ok(connection) => {
                let rows = connection.run(&QUESTION, &[]).await;
                let rows = rows.map_err(|error| StoreError::statement(CONTEXT, error))?;
                self.read(connection, &rows)
            }
            // A database that allows no more connections still serves those of the pool.
            Err(refused) => match self.serving.query(&QUESTION, &[]).await {
                Ok(rows) => refusal(&rows).map_err(|error| StoreError::statement(CONTEXT, error)),
                Err(_) => Err(refused),
            },
        }
    }

    /// Reads the answer. Keeps the connection unless the database is read-only: it may have learned
    /// that when it was opened.
    fn read(
        &self,
        connection: Connection,
        rows: &[Row],
    ) -> Result<Option<&'static str>, StoreError> {
        let refusal = refusal(rows).map_err(|error| StoreError::statement(CONTEXT, error))?;
        if refusal.is_none() {
            *self.kept() = Some(connection);
        }
        Ok(refusal)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(rows: &[Row]) -> Result<Option<&'static str>, tokio_postgres::Error> {
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(match (row.try_get("standby")?, row.try_get("read_only")?) {
        (true, _) => Some("it is a standby, which takes no writes"),
        (false, true) => Some("it is read-only (default_transaction_read_only)"),
        (false, false) => None,
    })
}
