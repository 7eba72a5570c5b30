//! Deletes ended and expired sessions, and old lines of the audit log.
//!
//! One node at a time deletes rows, in batches (`store::cleanup`).

use super::{Auth, Inner};
use crate::store::{Cleaned, StoreError};
use crate::telemetry::definitions;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// Rows per batch. A batch takes a few tens of milliseconds and holds few locks.
const BATCH_ROWS: u32 = 1_000;
/// Rows of the smallest batch, for a database that is too slow for larger ones.
const BATCH_ROWS_MIN: u32 = 10;
/// The pause between batches, so that a large backlog does not crowd out logins.
const BATCH_PAUSE: Duration = Duration::from_millis(20);

/// Where the next batch of each kind starts. The run after a failed one continues there.
pub(super) struct Progress {
    expired: OffsetDateTime,
    ended: Uuid,
    /// Never moves back: earlier lines were removed, and new lines have larger ids.
    events: i64,
}

impl Default for Progress {
    fn default() -> Self {
        Self { expired: OffsetDateTime::UNIX_EPOCH, ended: Uuid::nil(), events: 0 }
    }
}

impl Auth {
    /// Removes every ended session, then every old line of the audit log, in batches.
    ///
    /// Does nothing if another node is cleaning up. Returns the number of removed sessions.
    ///
    /// # Errors
    /// The database did not answer; finished batches stay removed.
    pub async fn clean_up(&self, now_unix_s: u64) -> Result<u64, StoreError> {
        let Inner { cleanup, telemetry, metrics, .. } = &*self.0;
        let mut removed = 0;
        let result = self.clean_all(&mut *cleanup.lock().await, &mut removed).await;
        let label = *result.as_ref().unwrap_or(&"error");
        metrics.cleanup_runs.increment(label);
        telemetry.counter(definitions::CLEANUP_REMOVED, &[]).increment(removed);
        if label == "success" {
            #[expect(
                clippy::cast_precision_loss,
                reason = "seconds stay exact for millions of years"
            )]
            telemetry.gauge(definitions::CLEANUP_LAST_SUCCESS, &[]).set(now_unix_s as f64);
        }
        result.map(|_| removed)
    }

    /// Returns the run's label. `removed` counts the removed sessions, even if the run fails.
    async fn clean_all(
        &self,
        progress: &mut Progress,
        removed: &mut u64,
    ) -> Result<&'static str, StoreError> {
        if !self.clean(Kind::Expired, progress, removed).await? {
            return Ok("skipped");
        }
        // If another node is cleaning up now, it started later than this one and ends later.
        if !self.clean(Kind::Ended, progress, removed).await? {
            return Ok("success");
        }
        // A refresh may have locked a row anywhere, so the next run starts from the beginning.
        *progress = Progress { events: progress.events, ..Progress::default() };
        self.clean(Kind::Events, progress, &mut 0).await?;
        Ok("success")
    }

    /// Removes rows in batches until a batch is not full. False if another node is cleaning up.
    ///
    /// A batch that exceeds the statement timeout is retried with half of the rows.
    async fn clean(
        &self,
        kind: Kind,
        progress: &mut Progress,
        removed: &mut u64,
    ) -> Result<bool, StoreError> {
        let mut rows_max = BATCH_ROWS;
        loop {
            match self.clean_batch(kind, progress, rows_max).await {
                Ok(None) => return Ok(false),
                Ok(Some((rows, is_full))) => {
                    *removed += rows;
                    if !is_full {
                        return Ok(true);
                    }
                }
                Err(error) if error.is_statement_timeout() && rows_max > BATCH_ROWS_MIN => {
                    rows_max = (rows_max / 2).max(BATCH_ROWS_MIN);
                    tracing::debug!(%error, rows_max, "a clean-up batch timed out: retrying with fewer rows");
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(BATCH_PAUSE).await;
        }
    }

    /// Removes up to `rows_max` rows and moves `progress`.
    ///
    /// Returns the number of rows and whether the batch was full. `None` if another node is cleaning up.
    async fn clean_batch(
        &self,
        kind: Kind,
        progress: &mut Progress,
        rows_max: u32,
    ) -> Result<Option<(u64, bool)>, StoreError> {
        let Inner { store, config, .. } = &*self.0;
        let Progress { expired, ended, events } = progress;
        Ok(match kind {
            Kind::Expired => {
                advance(expired, store.clean_expired_sessions(*expired, rows_max).await?)
            }
            Kind::Ended => advance(ended, store.clean_ended_sessions(*ended, rows_max).await?),
            Kind::Events => {
                advance(events, store.clean_events(config.audit_keep, *events, rows_max).await?)
            }
        })
    }
}

/// What a batch removes.
#[derive(Clone, Copy)]
enum Kind {
    Expired,
    Ended,
    Events,
}

fn advance<P>(place: &mut P, cleaned: Cleaned<P>) -> Option<(u64, bool)> {
    let Cleaned::Removed { rows, is_full, next } = cleaned else { return None };
    *place = next;
    Some((rows, is_full))
}
