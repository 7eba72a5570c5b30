//! Whether the database accepts writes, as last seen by readiness and by statements.

use crate::clock::Clock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;

/// The disk counts as full for this long after a statement failed with "disk full".
///
/// A query that only reads cannot detect a full disk, and one that writes would cost a flush each
/// time. While there is work, its statements detect it.
const FULL: Duration = Duration::from_secs(2);

/// The last known state of the database with respect to writes.
pub(super) struct WriteState {
    /// The latest result of the readiness check.
    read_only: AtomicBool,
    /// When a statement last failed because the disk was full.
    found_full: Mutex<Option<Instant>>,
    clock: Clock,
}

impl WriteState {
    pub(super) fn new(clock: Clock) -> Self {
        Self { read_only: AtomicBool::new(false), found_full: Mutex::default(), clock }
    }

    /// Records the result of the readiness check and returns the previous one.
    pub(super) fn set_read_only(&self, read_only: bool) -> bool {
        self.read_only.swap(read_only, Ordering::AcqRel)
    }

    /// Whether a statement failed within the last two seconds because the disk was full.
    pub(super) fn is_full(&self) -> bool {
        let found = *self.found_full();
        found.is_some_and(|at| self.clock.now().saturating_duration_since(at) < FULL)
    }

    /// Records why a statement failed.
    pub(super) fn note(&self, error: &tokio_postgres::Error) {
        if error.code() == Some(&SqlState::DISK_FULL) {
            *self.found_full() = Some(self.clock.now());
        }
    }

    /// Whether the connection of a failed statement is outdated. It learned when it was opened that
    /// the database is read-only, and the database is not read-only any more.
    pub(super) fn is_stale(&self, error: &tokio_postgres::Error) -> bool {
        error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
            && !self.read_only.load(Ordering::Acquire)
    }

    fn found_full(&self) -> MutexGuard<'_, Option<Instant>> {
        self.found_full.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
