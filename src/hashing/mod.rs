//! Passwords, and the engine that hashes them.
//!
//! Hashing is the slow part of a login. It runs on its own threads, several passwords at once in
//! each, behind bounded queues. Each way to fail is a separate outcome: a *full* queue and a *late*
//! job are errors that the client receives; an *abandoned* job is dropped unhashed. Only this
//! folder can read the bytes of a password.
//!
//! From the outside in: `engine` is the handle, and `job` is a waiting job. `admission` decides
//! which jobs may wait, by the `prediction` of their wait and the measured `speed`. `worker` is the
//! loop of a thread, `worker_load` shares the work fairly between threads, and `fair_share` between
//! logins and new passwords. `kernel` is bcrypt for several lanes, and `calibrate` chooses their
//! number. `imported` verifies hashes that other software made.

mod admission;
mod calibrate;
mod common;
mod config;
mod engine;
mod error;
mod fair_share;
mod imported;
mod job;
mod kernel;
mod memory;
mod metrics;
mod moving_average;
mod password;
mod phc;
mod prediction;
mod priority;
#[cfg(test)]
mod rehash_tests;
mod shared;
#[cfg(test)]
mod simulation_tests;
mod speed;
#[cfg(test)]
mod tests;
mod worker;
mod worker_load;

pub use admission::{HashPurpose, Permit};
pub use calibrate::{Calibration, LaneSpeed, MeasuredSpeed, bcrypt_crate_speed};
pub use config::HashConfig;
pub use engine::{HashEngine, Verdict};
pub use error::{HashError, RehashError, StoredHashError};
pub use kernel::LANES_MAX;
pub use password::{PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, Password, PasswordRule};
pub use phc::StoredHash;

/// The parts of the kernel that `benches/` measures.
#[doc(hidden)]
pub mod bench {
    pub use super::kernel::{Batch, Cost, Digest, Full, LaneJob, PasswordKey, PasswordKeyError};
}
