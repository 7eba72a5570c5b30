//! The errors of hashing and of stored hashes.

use std::time::Duration;

/// Why a password was not hashed. A client that left gets no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The queue is full; nothing was queued.
    #[error("hash queue full, retry in {retry_after:?}")]
    QueueFull {
        /// The predicted wait.
        retry_after: Duration,
    },
    /// The job would wait longer than its deadline allows; nothing was queued.
    #[error("predicted wait in the hash queue is past the deadline, retry in {retry_after:?}")]
    WaitTooLong {
        /// The predicted wait.
        retry_after: Duration,
    },
    /// The deadline passed while the job waited; it was not hashed.
    #[error("hash deadline passed in the queue, retry in {retry_after:?}")]
    Expired {
        /// The predicted wait of another attempt.
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
    /// The operating system provided no random salt.
    #[error("the operating system provided no random numbers")]
    Random,
}

/// Why a stored hash cannot be used. Contains no part of the salt or digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredHashError {
    /// Neither `$2?$NN$` with 53 characters of bcrypt's base64, nor a known form of other software.
    #[error("stored hash has no known format")]
    Malformed,
    /// The `$2x$` form, made by a crypt_blowfish with a sign error (CVE-2011-2483).
    ///
    /// Many passwords match one such hash.
    #[error("stored hash has the broken $2x$ form: set a new password")]
    Broken,
    /// A cost outside 4 to 31.
    #[error("stored hash has cost {0}; bcrypt allows 4 to 31")]
    Cost(u32),
    /// More work than one login may cause.
    #[error("stored hash has cost {cost}; this server computes at most {max}")]
    TooCostly {
        /// The cost of the hash.
        cost: u32,
        /// The highest cost that is computed.
        max: u32,
    },
    /// It has the name of a form of that algorithm, but not its format.
    #[error("stored {0} hash is damaged")]
    Damaged(&'static str),
    /// A known algorithm that this server does not compute.
    #[error("stored hash is {0}, which is not supported")]
    Unsupported(&'static str),
    /// A parameter asks for too much work or memory, or is too small.
    #[error(
        "stored {algorithm} hash has {parameter} = {value}; the allowed range is {least} to {most}"
    )]
    OutOfBounds {
        /// The algorithm.
        algorithm: &'static str,
        /// The name of the parameter.
        parameter: &'static str,
        /// Its value.
        value: u64,
        /// The smallest value that is computed.
        least: u64,
        /// The greatest value that is computed, given the other parameters.
        most: u64,
    },
}

/// Why a password was not hashed again. The next login of the account retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RehashError {
    /// Too many rehashes wait already; nothing was queued.
    #[error("rehash queue is full")]
    QueueFull,
    /// A login needed the lane. A panic in the job, which the worker logs, looks the same.
    #[error("a login displaced the rehash")]
    Displaced,
    /// The engine is stopping, or hashing failed.
    #[error(transparent)]
    Hash(#[from] HashError),
}
