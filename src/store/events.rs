//! Audit log lines that no other statement writes, stored in batches.

use super::statement::statement;
use super::{Statement, Store, StoreError};
use crate::identity::UserId;
use std::net::IpAddr;
use std::time::Instant;
use tokio_postgres::types::ToSql;

/// An audit log line to be written.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// When it happened.
    pub at: Instant,
    /// What was attempted: `login`, `password_change`.
    pub event: &'static str,
    /// The result: `rejected`, `limited`.
    pub outcome: &'static str,
    /// The account; `None` if the name is unknown or was not looked up.
    pub user: Option<UserId>,
    /// The client's address.
    pub address: IpAddr,
    /// The request's id, at most 128 characters.
    pub request_id: String,
}

// The time of a line comes from the database's clock, so each event is passed with its age.
pub(super) const INSERT_EVENTS: Statement = statement!(
    "insert_events",
    "INSERT INTO auth_events (at, event, outcome, user_id, ip, request_id)
     SELECT now() - make_interval(secs => age), event, outcome, user_id, ip, request_id
     FROM unnest($1::float8[], $2::text[], $3::text[], $4::bigint[], $5::inet[], $6::text[])
          AS line (age, event, outcome, user_id, ip, request_id)"
);

impl Store {
    /// Writes lines into the audit log. `now` is read from the clock that dated the events.
    ///
    /// # Errors
    /// The database did not answer; either all lines were written or none.
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
}
