//! The clean-up: sessions that ended or expired leave their table, and lines of the audit log that are
//! old enough leave theirs.

use super::{Auth, Inner};
use crate::store::{Cleaned, StoreError};
use crate::telemetry::definitions;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// Rows a batch: a few tens of milliseconds, and few locks at a time.
const BATCH_ROWS: u32 = 1_000;
/// Rows of the smallest batch that is tried when the database is too slow for larger ones.
const BATCH_ROWS_MIN: u32 = 10;
/// Pause between batches, so that a large backlog does not crowd out logins.
const BATCH_PAUSE: Duration = Duration::from_millis(20);

/// Where the next batch of each kind begins. A run that fails is continued from there.
pub(super) struct Progress {
    expired: OffsetDateTime,
    ended: Uuid,
    /// Never goes back while the process lives: lines before it were removed, and new lines have
    /// larger ids.
    events: i64,
}

impl Default for Progress {
    fn default() -> Self {
        Self { expired: OffsetDateTime::UNIX_EPOCH, ended: Uuid::nil(), events: 0 }
    }
}

impl Auth {
    /// Removes every ended session, then every old line of the audit log, batch by batch, unless
    /// another node is doing so. Returns how many sessions are gone.
    ///
    /// # Errors
    /// When the database gives no answer; finished batches stay removed.
    pub async fn clean_up(&self, now_unix_s: u64) -> Result<u64, StoreError> {
        let Inner { cleanup, metrics, meters, .. } = &*self.0;
        let mut removed = 0;
        let result = self.clean_all(&mut *cleanup.lock().await, &mut removed).await;
        let label = *result.as_ref().unwrap_or(&"error");
        meters.cleanup_runs.increment(label);
        metrics.counter(definitions::CLEANUP_REMOVED, &[]).increment(removed);
        if label == "success" {
            #[expect(
                clippy::cast_precision_loss,
                reason = "seconds stay exact for millions of years"
            )]
            metrics.gauge(definitions::CLEANUP_LAST_SUCCESS, &[]).set(now_unix_s as f64);
        }
        result.map(|_| removed)
    }

    /// Counts removed sessions in `removed`, also where it fails later; returns the run's label.
    async fn clean_all(
        &self,
        progress: &mut Progress,
        removed: &mut u64,
    ) -> Result<&'static str, StoreError> {
        if !self.clean(Kind::Expired, progress, removed).await? {
            return Ok("skipped");
        }
        // Where another node cleans now, it began later than this one, and ends later.
        if !self.clean(Kind::Ended, progress, removed).await? {
            return Ok("success");
        }
        // A row that a refresh held may be anywhere: the next run begins at the beginning.
        *progress = Progress { events: progress.events, ..Progress::default() };
        self.clean(Kind::Events, progress, &mut 0).await?;
        Ok("success")
    }

    /// Removes batch by batch until one finds fewer rows than it may take. False: another node cleans
    /// up. A batch that takes the database too long is tried again with half of the rows.
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
                Ok(Some(rows)) => {
                    *removed += rows;
                    if rows < u64::from(rows_max) {
                        return Ok(true);
                    }
                }
                Err(error) if error.is_statement_timeout() && rows_max > BATCH_ROWS_MIN => {
                    rows_max = (rows_max / 2).max(BATCH_ROWS_MIN);
                    tracing::debug!(%error, rows_max, "a smaller clean-up batch is tried");
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(BATCH_PAUSE).await;
        }
    }

    /// Removes up to `rows_max` rows and notes where the next batch begins. `None`: another node
    /// cleans up.
    async fn clean_batch(
        &self,
        kind: Kind,
        progress: &mut Progress,
        rows_max: u32,
    ) -> Result<Option<u64>, StoreError> {
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

fn advance<P>(place: &mut P, cleaned: Cleaned<P>) -> Option<u64> {
    let Cleaned::Removed { rows, next } = cleaned else { return None };
    *place = next;
    Some(rows)
}
