//! Passwords, and the engine that hashes them.
//!
//! Hashing is the one slow thing in a login, so it happens on threads of its own, several passwords
//! at once in each, behind bounded queues; and everything that can go wrong there is a separate
//! outcome: *full* and *late* are errors the client hears of, *abandoned* work is dropped unhashed.
//! Only this folder can read a password's octets.
//!
//! From the outside in: `engine` is the handle; `admission` says who may wait; `job` is what waits;
//! `worker` is a thread's loop, `board` how the threads share work fairly; `kernel` is bcrypt itself,
//! for several lanes. `foreign` verifies what other software stored.

mod admission;
mod board;
mod calibrate;
mod common;
mod engine;
mod error;
mod foreign;
mod job;
mod kernel;
mod memory;
mod meters;
mod password;
mod phc;
mod priority;
#[cfg(test)]
mod tests;
mod worker;

pub use admission::{Permit, Purpose};
pub use calibrate::{Calibration, LaneSpeed, bcrypt_crate_hash_time};
pub use engine::{HashConfig, HashEngine, Verdict};
pub use error::HashError;
pub use kernel::LANES_MAX;
pub use password::{PASSWORD_CHARS_MIN, PASSWORD_OCTETS_MAX, Password, PasswordRule};
pub use phc::{StoredHash, StoredHashError};

/// The kernel's parts, for `benches/`.
#[doc(hidden)]
pub mod bench {
    pub use super::kernel::{Batch, Cost, Digest, Full, Job, Key, KeyError};
}
