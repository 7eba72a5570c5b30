//! Does the database take writes? Readiness asks it, and statements find out.

use crate::clock::Clock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;

/// A disk is taken to be full for this long after a statement was refused for it. No question
/// that only reads can tell, and one that writes would cost a flush each time; as long as there is
/// work, its statements ask.
const FULL: Duration = Duration::from_secs(2);

/// What is known of it.
pub(super) struct Writes {
    /// As readiness was told last.
    read_only: AtomicBool,
    /// When a statement was last refused as the disk is full.
    found_full: Mutex<Option<Instant>>,
    clock: Clock,
}

impl Writes {
    pub(super) fn new(clock: Clock) -> Self {
        Self { read_only: AtomicBool::new(false), found_full: Mutex::default(), clock }
    }

    /// Notes what readiness was told; what it was told before.
    pub(super) fn set_read_only(&self, read_only: bool) -> bool {
        self.read_only.swap(read_only, Ordering::AcqRel)
    }

    /// Whether a statement was refused lately as the disk is full.
    pub(super) fn is_full(&self) -> bool {
        let found = *self.found_full();
        found.is_some_and(|at| self.clock.now().saturating_duration_since(at) < FULL)
    }

    /// Notes why a statement failed.
    pub(super) fn note(&self, error: &tokio_postgres::Error) {
        if error.code() == Some(&SqlState::DISK_FULL) {
            *self.found_full() = Some(self.clock.now());
        }
    }

    /// Whether the connection of a statement that failed so is of no more use: it learned when it
    /// was opened that the database is read-only, which it is no longer.
    pub(super) fn is_stale(&self, error: &tokio_postgres::Error) -> bool {
        error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
            && !self.read_only.load(Ordering::Acquire)
    }

    fn found_full(&self) -> MutexGuard<'_, Option<Instant>> {
        self.found_full.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
