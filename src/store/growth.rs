//! How the pool gets its connections: one at a time, in the background, with pauses while the
//! database refuses them.
//!
//! No request opens a connection. So a client that leaves does not interrupt the opening, and a
//! refusal fails no call as long as other connections serve.

use super::connect::{self, Endpoint};
use super::connection::Connection;
use super::{STATEMENTS, StoreConfig, StoreError};
use crate::telemetry::{Family, Metrics, definitions, with_causes};
use deadpool::unmanaged;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Longest time to open a connection and to prepare its statements.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after a refusal while other connections serve: the first, and after doubling the longest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Pause while there is no connection at all: every call fails until there is one.
const OUTAGE_PAUSE: Duration = Duration::from_millis(100);

/// Opens the pool's connections.
pub(super) struct Growth {
    pool: unmanaged::Pool<Connection>,
    database: Endpoint,
    min: usize,
    max: usize,
    pace: Mutex<Pace>,
    failures: watch::Sender<Arc<str>>,
    results: Family,
}

/// When the next connection may be opened.
#[derive(Default)]
struct Pace {
    opening: bool,
    failed_at: Option<Instant>,
    /// Zero: the last attempt succeeded.
    pause: Duration,
}

impl Growth {
    pub(super) fn new(
        pool: unmanaged::Pool<Connection>,
        config: &StoreConfig,
        metrics: &Metrics,
    ) -> Self {
        Self {
            pool,
            database: connect::with_deadlines(&config.database),
            min: config.pool_min,
            max: config.pool_max,
            pace: Mutex::default(),
            failures: watch::Sender::new("".into()),
            results: metrics.family(definitions::DB_CONNECTIONS_OPENED),
        }
    }

    /// Opens the first connection.
    pub(super) async fn open_first(&self) -> Result<(), StoreError> {
        let opened = self.open().await;
        self.add(opened?);
        Ok(())
    }

    /// Opens one more connection in the background, or as many as the minimum lacks. Does nothing
    /// while one is being opened, during a pause and at the maximum.
    pub(super) fn grow(self: &Arc<Self>) {
        let Some(turn) = Turn::take(self) else { return };
        tokio::spawn(async move {
            let growth = &turn.0;
            loop {
                match growth.open().await {
                    Ok(connection) => growth.add(connection),
                    Err(error) => return growth.pause(&error),
                }
                if growth.size() >= growth.min {
                    return;
                }
            }
        });
    }

    /// Opens what is missing to the minimum, in the background.
    pub(super) fn fill(self: &Arc<Self>) {
        if self.size() < self.min {
            self.grow();
        }
    }

    /// The failures from now on, as text for a log.
    pub(super) fn failures(&self) -> watch::Receiver<Arc<str>> {
        self.failures.subscribe()
    }

    /// Connections that are open, idle or in use.
    pub(super) fn size(&self) -> usize {
        self.pool.status().size
    }

    async fn open(&self) -> Result<Connection, StoreError> {
        let opened = Connection::open(&self.database, STATEMENTS, OPEN_TIMEOUT).await;
        self.results.increment(if opened.is_ok() { "success" } else { "error" });
        opened
    }

    fn add(&self, connection: Connection) {
        let paused = std::mem::take(&mut self.pace().pause);
        // At the maximum it would be refused and closed; `Turn::take` has seen room for it.
        self.pool.try_add(connection).ok();
        if !paused.is_zero() {
            tracing::info!(connections = self.size(), "the database accepts connections again");
        }
    }

    /// Notes a failure: says so once, and tells the calls that wait.
    fn pause(&self, error: &StoreError) {
        let error: Arc<str> = with_causes(error).into();
        let connections = self.size();
        let first = self.pace().fail(Instant::now());
        let message = "the database refused a connection; serving with those that are open";
        if first {
            let (pool_min, pool_max) = (self.min, self.max);
            tracing::warn!(%error, connections, pool_min, pool_max, message);
        } else {
            tracing::debug!(%error, connections, message);
        }
        self.failures.send_replace(error);
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to open connections: one task at a time has it.
struct Turn(Arc<Growth>);

impl Turn {
    fn take(growth: &Arc<Growth>) -> Option<Self> {
        let size = growth.size();
        let mut pace = growth.pace();
        if pace.opening || size >= growth.max || !pace.may_open(size, Instant::now()) {
            return None;
        }
        pace.opening = true;
        drop(pace);
        Some(Self(Arc::clone(growth)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.pace().opening = false;
    }
}

impl Pace {
    /// Notes a failed attempt. True: the one before succeeded.
    fn fail(&mut self, now: Instant) -> bool {
        let first = self.pause.is_zero();
        self.failed_at = Some(now);
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        first
    }

    /// Whether the pause is over, of a pool with that many connections.
    fn may_open(&self, size: usize, now: Instant) -> bool {
        let pause = if size == 0 { self.pause.min(OUTAGE_PAUSE) } else { self.pause };
        self.failed_at.is_none_or(|at| now.saturating_duration_since(at) >= pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Case F10 of the field list: the database allows fewer connections than the pool may have.
    #[test]
    fn refused_growth_pauses_longer_each_time_but_hardly_while_there_is_no_connection() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        assert!(pace.may_open(3, now));
        for (number, seconds) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
            assert_eq!(pace.fail(now), number == 0);
            assert!(!pace.may_open(0, now));
            assert!(pace.may_open(0, now + OUTAGE_PAUSE));
            let end = now + Duration::from_secs(seconds);
            assert!(!pace.may_open(1, end - Duration::from_millis(1)));
            assert!(pace.may_open(1, end), "{seconds}");
            now = end;
        }
    }
}
