//! Why a password was not hashed.

use super::StoredHashError;
use std::time::Duration;

/// Why a password was not hashed. A client that left gets no error, as nobody would read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The queue is full; nothing was queued.
    #[error("hash queue full, retry in {retry_after:?}")]
    QueueFull {
        /// The predicted wait.
        retry_after: Duration,
    },
    /// It would wait longer than its deadline allows; nothing was queued.
    #[error("hash queue too long, retry in {retry_after:?}")]
    WaitTooLong {
        /// The predicted wait.
        retry_after: Duration,
    },
    /// The deadline passed while the job waited; it was not hashed.
    #[error("hash deadline passed in the queue, retry in {retry_after:?}")]
    Expired {
        /// The predicted wait of another try.
        retry_after: Duration,
    },
    /// The engine is stopping; nothing was hashed.
    #[error("hash engine is stopping")]
    ShuttingDown,
    /// The stored hash cannot be used.
    #[error("{0}")]
    Stored(StoredHashError),
    /// The computation panicked; only this job failed.
    #[error("hashing failed")]
    Panicked,
    /// The operating system gave no random salt.
    #[error("no random numbers")]
    Random,
}
