//! The audit log's lines that no other statement writes along, in batches, and their end.

use super::sessions::{CLEANUP_LOCK, Cleaned};
use super::statement::statement;
use super::{Statement, Store, StoreError};
use crate::identity::UserId;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio_postgres::types::ToSql;

/// A line to be written.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// When it happened.
    pub at: Instant,
    /// What was tried: `login`, `password_change`.
    pub event: &'static str,
    /// What came of it: `rejected`, `limited`.
    pub outcome: &'static str,
    /// The account; `None` where the name was nobody's, or was not looked up.
    pub user: Option<UserId>,
    /// Where from.
    pub address: IpAddr,
    /// The request's id. At most 128 characters.
    pub request_id: String,
}

// The database's clock dates them, as it does all lines: each says how long ago it was.
pub(super) const INSERT_EVENTS: Statement = statement!(
    "insert_events",
    "INSERT INTO auth_events (at, event, outcome, user_id, ip, request_id)
     SELECT now() - make_interval(secs => age), event, outcome, user_id, ip, request_id
     FROM unnest($1::float8[], $2::text[], $3::text[], $4::bigint[], $5::inet[], $6::text[])
          AS line (age, event, outcome, user_id, ip, request_id)"
);

// Ids come in the order of time but for a second or two: the first rows are the oldest, and a batch
// that finds fewer old ones than it may take has found them all. Rows never change, so their places
// in the table hold for the statement.
pub(super) const CLEAN_EVENTS: Statement = statement!(
    "clean_events",
    "WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1) AS mine),
     oldest AS MATERIALIZED (
         SELECT ctid AS place, at FROM auth_events WHERE (SELECT mine FROM turn)
         ORDER BY id LIMIT $2),
     gone AS (
         DELETE FROM auth_events WHERE ctid = ANY (ARRAY(
             SELECT place FROM oldest WHERE at < now() - make_interval(secs => $3)))
         RETURNING 1)
     SELECT (SELECT mine FROM turn), (SELECT count(*) FROM gone)"
);

impl Store {
    /// Writes lines into the audit log. `now` is the clock that dated them.
    ///
    /// # Errors
    /// When the database gives no answer: all of them are written or none.
    pub async fn insert_events(&self, events: &[NewEvent], now: Instant) -> Result<(), StoreError> {
        fn column<T>(events: &[NewEvent], of: impl Fn(&NewEvent) -> T) -> Vec<T> {
            events.iter().map(of).collect()
        }
        let ages = column(events, |event| now.saturating_duration_since(event.at).as_secs_f64());
        let names = column(events, |event| event.event);
        let outcomes = column(events, |event| event.outcome);
        let users = column(events, |event| event.user.map(|user| user.0));
        let addresses = column(events, |event| event.address);
        let request_ids: Vec<&str> = events.iter().map(|event| &*event.request_id).collect();
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&ages, &names, &outcomes, &users, &addresses, &request_ids];
        self.0.pool.query(&INSERT_EVENTS, &parameters).await.map(drop)
    }

    /// Removes up to `rows_max` lines that are older than `keep`, unless another node is doing so.
    ///
    /// # Errors
    /// When the database gives no answer; the batch is all or nothing.
    pub async fn clean_events(&self, keep: Duration, rows_max: u32) -> Result<Cleaned, StoreError> {
        let parameters: [&(dyn ToSql + Sync); 3] =
            [&CLEANUP_LOCK, &i64::from(rows_max), &keep.as_secs_f64()];
        let rows = self.0.pool.query(&CLEAN_EVENTS, &parameters).await?;
        Cleaned::read(CLEAN_EVENTS.name, &rows)
    }
}
