//! Is the database there? Asked on a connection that a busy pool cannot starve.

use super::pool::{self, Checkout};
use super::{StoreConfig, StoreError};
use deadpool_postgres::Timeouts;
use std::time::Duration;

/// Readiness answers within this, whatever the database does.
const DEADLINE: Duration = Duration::from_secs(1);

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

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        const CONTEXT: &str = "health";
        let question = async {
            let object = self.pool.get().await.map_err(|error| StoreError::pool(CONTEXT, error))?;
            let connection = Checkout::of(object);
            let result = connection.run("-- health\nSELECT 1", &[]).await;
            connection.settle(&result);
            result.map_err(|error| StoreError::statement(CONTEXT, error))
        };
        let answer = tokio::time::timeout(DEADLINE, question).await;
        answer.unwrap_or_else(|_| Err(StoreError::deadline(CONTEXT))).map(drop)
    }

    pub(super) fn close(&self) {
        self.pool.close();
    }
}
