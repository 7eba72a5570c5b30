//! The clean-up: sessions that ended or are past their time leave their table, and lines of the audit
//! log that are old enough leave theirs.

use super::Auth;
use crate::store::{Cleaned, StoreError};
use crate::telemetry::declared;
use std::time::Duration;

/// Rows a batch: a few tens of milliseconds, and few locks at a time.
const BATCH_ROWS: u32 = 1_000;
/// Pause between batches, so that a large backlog does not crowd out logins.
const BATCH_PAUSE: Duration = Duration::from_millis(20);

impl Auth {
    /// Removes every ended session, then every old line of the audit log, batch by batch, unless
    /// another node is doing so. Returns how many sessions are gone.
    ///
    /// # Errors
    /// When the database gives no answer; finished batches stay removed.
    pub async fn clean_up(&self, now_unix_s: u64) -> Result<u64, StoreError> {
        let mut removed = 0;
        let result = loop {
            match self.0.store.clean_sessions(BATCH_ROWS).await {
                Ok(Cleaned::Elsewhere) => break Ok("skipped"),
                Ok(Cleaned::Removed(rows)) => {
                    removed += rows;
                    if rows < u64::from(BATCH_ROWS) {
                        break self.clean_events().await;
                    }
                }
                Err(error) => break Err(error),
            }
            tokio::time::sleep(BATCH_PAUSE).await;
        };
        let metrics = &self.0.metrics;
        let label = *result.as_ref().unwrap_or(&"error");
        self.0.meters.cleanup_runs.increment(label);
        metrics.counter(declared::CLEANUP_REMOVED, &[]).increment(removed);
        if label == "success" {
            #[expect(
                clippy::cast_precision_loss,
                reason = "seconds stay exact for millions of years"
            )]
            metrics.gauge(declared::CLEANUP_LAST_SUCCESS, &[]).set(now_unix_s as f64);
        }
        result.map(|_| removed)
    }

    async fn clean_events(&self) -> Result<&'static str, StoreError> {
        loop {
            match self.0.store.clean_events(self.0.config.audit_keep, BATCH_ROWS).await? {
                // The other node began later than we did, and ends later.
                Cleaned::Elsewhere => return Ok("success"),
                Cleaned::Removed(rows) if rows < u64::from(BATCH_ROWS) => return Ok("success"),
                Cleaned::Removed(_) => {}
            }
            tokio::time::sleep(BATCH_PAUSE).await;
        }
    }
}
