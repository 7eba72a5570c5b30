//! Is the database there, and does it take writes? Asked on a connection that a busy pool cannot
//! starve.

use super::pool::{self, Checkout, Pool};
use super::{StoreConfig, StoreError};
use deadpool_postgres::{Object, Timeouts};
use std::time::Duration;
use tokio_postgres::Row;

/// Readiness answers within this, whatever the database does.
const DEADLINE: Duration = Duration::from_secs(1);
/// A connection that says "read-only" may have learned that when it was opened, so it is asked for
/// no longer than this before another is. Below the time in which readiness has to follow.
const READ_ONLY_AGE: Duration = Duration::from_secs(1);

const CONTEXT: &str = "health";
const QUESTION: &str = "-- health
SELECT pg_is_in_recovery() AS standby,
    current_setting('transaction_read_only')::boolean AS read_only";

pub(super) struct Health {
    /// A pool of one, beside the pool that serves.
    pool: deadpool_postgres::Pool,
}

impl Health {
    pub(super) fn new(config: &StoreConfig) -> Self {
        let timeouts =
            Timeouts { wait: Some(DEADLINE), create: Some(DEADLINE), recycle: Some(DEADLINE) };
        Self { pool: pool::build(&config.database, 1, timeouts, &[]) }
    }

    /// Asks. When the database takes writes again, `serving` forgets the connections that were
    /// opened while it did not.
    pub(super) async fn check(&self, serving: &Pool) -> Result<(), StoreError> {
        let answer = tokio::time::timeout(DEADLINE, self.ask()).await;
        let refusal = answer.unwrap_or_else(|_| Err(StoreError::deadline(CONTEXT)))?;
        if serving.writes().set_read_only(refusal.is_some()) && refusal.is_none() {
            serving.renew();
        }
        let full = || serving.writes().is_full().then_some("its disk is full");
        match refusal.or_else(full) {
            Some(why) => {
                Err(StoreError::Unavailable { context: CONTEXT, source: Some(why.into()) })
            }
            None => Ok(()),
        }
    }

    /// Why the database takes no writes, if it takes none.
    async fn ask(&self) -> Result<Option<&'static str>, StoreError> {
        let object = self.pool.get().await.map_err(|error| StoreError::pool(CONTEXT, error))?;
        let old = Object::metrics(&object).age() > READ_ONLY_AGE;
        let connection = Checkout::of(object);
        let result = connection.run(QUESTION, &[]).await.and_then(|rows| refusal(&rows));
        if old && matches!(result, Ok(Some(_))) {
            drop(connection);
        } else {
            connection.settle(&result);
        }
        result.map_err(|error| StoreError::statement(CONTEXT, error))
    }

    pub(super) fn close(&self) {
        self.pool.close();
    }
}

fn refusal(rows: &[Row]) -> Result<Option<&'static str>, tokio_postgres::Error> {
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(match (row.try_get("standby")?, row.try_get("read_only")?) {
        (true, _) => Some("it is a standby, which takes no writes"),
        (false, true) => Some("it is read-only (default_transaction_read_only)"),
        (false, false) => None,
    })
}
