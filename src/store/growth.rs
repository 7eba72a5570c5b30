//! Background task that opens the pool's connections, one at a time.
//!
//! It pauses while the database refuses connections. Requests never open connections themselves, so a
//! client that disconnects does not interrupt the opening, and a refusal fails no call while other
//! connections serve.

use super::connect::{self, Endpoint};
use super::connection::Connection;
use super::{STATEMENTS, StoreConfig, StoreError};
use crate::telemetry::{Family, Metrics, definitions, with_causes};
use deadpool::unmanaged;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Time limit for opening a connection and preparing its statements.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// First pause after a refusal while other connections serve; each further refusal doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause after a refusal.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Pause while there is no connection at all and every call fails.
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
            database: connect::with_deadlines(&config.database, config.deadlines),
            min: config.pool_min,
            max: config.pool_max,
            pace: Mutex::default(),
            failures: watch::Sender::new("".into()),
            results: metrics.family(definitions::DB_CONNECTIONS_OPENED),
        }
    }

    pub(super) async fn open_first(&self) -> Result<(), StoreError> {
        let opened = self.open().await;
        self.add(opened?);
        Ok(())
    }

    /// Opens one more connection in the background, and continues until the pool has its minimum.
    ///
    /// Does nothing while a connection is being opened, during a pause, and at the maximum.
    pub(super) fn grow(self: &Arc<Self>) {
        let Some(permit) = OpenPermit::take(self) else { return };
        tokio::spawn(async move {
            let growth = &permit.0;
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

    /// Opens connections in the background if the pool is below its minimum.
    pub(super) fn fill(self: &Arc<Self>) {
        if self.size() < self.min {
            self.grow();
        }
    }

    /// Subscribes to failures from now on, as text for the log.
    pub(super) fn failures(&self) -> watch::Receiver<Arc<str>> {
        self.failures.subscribe()
    }

    /// The number of open connections, idle or in use.
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
        // Fails only at the maximum, which `OpenPermit::take` has checked.
        self.pool.try_add(connection).ok();
        if !paused.is_zero() {
            tracing::info!(connections = self.size(), "the database accepts connections again");
        }
    }

    /// Records a failure, and notifies the waiting calls. The first of consecutive failures is logged as
    /// a warning.
    fn pause(&self, error: &StoreError) {
        let error: Arc<str> = with_causes(error).into();
        let connections = self.size();
        let first = self.pace().fail(Instant::now());
        let message = "the database refused a connection; serving with the open connections";
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

/// The right to open connections, held by one task at a time.
struct OpenPermit(Arc<Growth>);

impl OpenPermit {
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

impl Drop for OpenPermit {
    fn drop(&mut self) {
        self.0.pace().opening = false;
    }
}

impl Pace {
    /// Records a failed attempt. Returns true if the previous attempt succeeded.
    fn fail(&mut self, now: Instant) -> bool {
        let first = self.pause.is_zero();
        self.failed_at = Some(now);
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        first
    }

    /// Whether the pause is over for a pool with `size` connections.
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
    fn pauses_double_after_each_refusal_and_stay_short_without_connections() {
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
