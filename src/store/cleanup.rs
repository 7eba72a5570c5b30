//! Clean-up in batches: expired sessions, revoked sessions and old audit log lines.
//!
//! A batch is one short transaction. Each batch begins where the previous one ended, in index order.
//! While a transaction holds an old snapshot, deleted rows stay in the index, and a batch that started
//! at the beginning would read all of them again.

use super::statement::statement;
use super::{Statement, Store, StoreError};
use std::time::Duration;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use uuid::Uuid;

/// The result of a clean-up batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaned<P> {
    /// Another node holds the lock; nothing was removed.
    Elsewhere,
    /// Rows were removed.
    Removed {
        /// The number of rows.
        rows: u64,
        /// Whether the batch was full, so that more rows may follow.
        is_full: bool,
        /// The position at which the next batch begins.
        next: P,
    },
}

/// Advisory lock of the clean-up ("staunch" in ASCII), held until the batch's transaction ends.
const CLEANUP_LOCK: i64 = 0x73_74_61_75_6e_63_68;

// Sessions that were refreshed since the clean-up last saw them, or since their login, are due but not
// expired: they are seen again at their new expiry. Rows that a refresh has locked are left for the
// next run.
pub(super) const CLEAN_EXPIRED_SESSIONS: Statement = statement!(
    "clean_expired_sessions",
    "WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1) AS mine),
     due AS MATERIALIZED (
         SELECT id, expiry_check_at, expires_at <= now() AS expired FROM refresh_tokens
         WHERE NOT revoked AND expiry_check_at <= now() AND expiry_check_at >= $3
           AND (SELECT mine FROM turn)
         ORDER BY expiry_check_at LIMIT $2 FOR UPDATE SKIP LOCKED),
     kept AS (
         UPDATE refresh_tokens SET expiry_check_at = expires_at
         WHERE id IN (SELECT id FROM due WHERE NOT expired)),
     gone AS (
         DELETE FROM refresh_tokens WHERE id IN (SELECT id FROM due WHERE expired) RETURNING 1)
     SELECT (SELECT mine FROM turn), (SELECT count(*) FROM gone), count(*) >= $2,
         coalesce(max(expiry_check_at), $3)
     FROM due"
);

pub(super) const CLEAN_ENDED_SESSIONS: Statement = statement!(
    "clean_ended_sessions",
    "WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1) AS mine),
     doomed AS MATERIALIZED (
         SELECT id FROM refresh_tokens
         WHERE revoked AND id > $3 AND (SELECT mine FROM turn)
         ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED),
     gone AS (DELETE FROM refresh_tokens WHERE id IN (SELECT id FROM doomed) RETURNING 1)
     SELECT (SELECT mine FROM turn), (SELECT count(*) FROM gone), (SELECT count(*) >= $2 FROM gone),
         coalesce((SELECT id FROM doomed ORDER BY id DESC LIMIT 1), $3)"
);

// Ids increase with time, give or take a second or two. So the first rows are the oldest, and a batch
// that finds fewer old rows than its limit has found them all. Rows are never updated, so a ctid stays
// valid for the statement.
pub(super) const CLEAN_EVENTS: Statement = statement!(
    "clean_events",
    "WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1) AS mine),
     oldest AS MATERIALIZED (
         SELECT ctid AS place, id, at < now() - make_interval(secs => $4) AS is_old
         FROM auth_events WHERE id > $3 AND (SELECT mine FROM turn)
         ORDER BY id LIMIT $2),
     gone AS (
         DELETE FROM auth_events
         WHERE ctid = ANY (ARRAY(SELECT place FROM oldest WHERE is_old)) RETURNING 1)
     SELECT (SELECT mine FROM turn), (SELECT count(*) FROM gone), (SELECT count(*) >= $2 FROM gone),
         coalesce((SELECT min(id) - 1 FROM oldest WHERE NOT is_old),
                  (SELECT max(id) FROM oldest), $3)"
);

impl Store {
    /// Looks at up to `rows_max` sessions that are due at `from` or later, earliest first, and removes
    /// those that have expired.
    ///
    /// Like the other batches, it removes nothing while another node cleans up.
    ///
    /// # Errors
    /// The database did not answer; either the whole batch was removed or nothing.
    pub async fn clean_expired_sessions(
        &self,
        from: OffsetDateTime,
        rows_max: u32,
    ) -> Result<Cleaned<OffsetDateTime>, StoreError> {
        self.clean(&CLEAN_EXPIRED_SESSIONS, &[&CLEANUP_LOCK, &i64::from(rows_max), &from]).await
    }

    /// Removes up to `rows_max` revoked sessions with ids above `after`, in id order.
    ///
    /// # Errors
    /// See [`Store::clean_expired_sessions`].
    pub async fn clean_ended_sessions(
        &self,
        after: Uuid,
        rows_max: u32,
    ) -> Result<Cleaned<Uuid>, StoreError> {
        self.clean(&CLEAN_ENDED_SESSIONS, &[&CLEANUP_LOCK, &i64::from(rows_max), &after]).await
    }

    /// Removes up to `rows_max` audit log lines older than `keep` with ids above `after`, in id order.
    ///
    /// # Errors
    /// See [`Store::clean_expired_sessions`].
    pub async fn clean_events(
        &self,
        keep: Duration,
        after: i64,
        rows_max: u32,
    ) -> Result<Cleaned<i64>, StoreError> {
        let parameters: [&(dyn ToSql + Sync); 4] =
            [&CLEANUP_LOCK, &i64::from(rows_max), &after, &keep.as_secs_f64()];
        self.clean(&CLEAN_EVENTS, &parameters).await
    }

    async fn clean<P: FromSqlOwned>(
        &self,
        statement: &'static Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Cleaned<P>, StoreError> {
        let rows = self.0.pool.query(statement, parameters).await?;
        let read = |row: &Row| -> Result<Cleaned<P>, tokio_postgres::Error> {
            if !row.try_get::<_, bool>(0)? {
                return Ok(Cleaned::Elsewhere);
            }
            let rows = u64::try_from(row.try_get::<_, i64>(1)?).unwrap_or(0);
            Ok(Cleaned::Removed { rows, is_full: row.try_get(2)?, next: row.try_get(3)? })
        };
        let cleaned = rows.first().map_or(Ok(Cleaned::Elsewhere), read);
        cleaned.map_err(|error| StoreError::statement(statement.name, error))
    }
}
