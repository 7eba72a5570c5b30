//! Passwords, and the engine that hashes them.
//!
//! Hashing is the slow part of a login. It runs on its own threads, several passwords at once in
//! each, behind bounded queues. Each way to fail is a separate outcome: a *full* queue and a *late*
//! job are errors that the client receives; an *abandoned* job is dropped unhashed. Only this
//! folder can read the bytes of a password.
//!
//! # Lanes
//!
//! bcrypt is limited by latency: one computation leaves most of a core idle while it waits for its
//! last table look-up. `kernel` interleaves up to twelve computations in one thread; its page has
//! the figures. The number of lanes is measured at start (`calibrate`): the best rate whose latency
//! stays under twice that of a single lane. With as many logins as workers, each login runs alone in
//! its worker, at single-lane speed.
//!
//! # Priority
//!
//! Hashing must not delay other work. A low priority alone does not ensure that: Linux (EEVDF,
//! since 6.6) may run a thread of any class until the next tick (4 ms at 250 Hz) although a more
//! important thread is waiting, and a refresh needs about six such hand-overs. The yield at the end
//! of each slice bounds that wait, and the priority (nice 10) decides which thread runs next. Where
//! the kernel groups processes by session (`sched_autogroup`, without a dedicated cgroup), the
//! priority counts only among staunch's own threads, not against other processes.
//!
//! # Files
//!
//! From the outside in: `engine` is the handle, `admission` decides which jobs may wait, and `job`
//! is a waiting job. `worker` is the loop of a thread, and `worker_load` shares the work fairly
//! between threads. `kernel` is bcrypt for several lanes. `imported` verifies hashes that other
//! software made.

mod admission;
mod calibrate;
mod common;
mod config;
mod engine;
mod error;
mod imported;
mod job;
mod kernel;
mod lane_counts;
mod memory;
mod metrics;
mod password;
mod phc;
mod priority;
#[cfg(test)]
mod rehash_tests;
mod shared;
#[cfg(test)]
mod tests;
mod worker;
mod worker_load;

pub use admission::{HashPurpose, Permit};
pub use calibrate::{Calibration, LaneSpeed, bcrypt_crate_hash_time};
pub use config::HashConfig;
pub use engine::{HashEngine, Verdict};
pub use error::{HashError, RehashError, StoredHashError};
pub use kernel::LANES_MAX;
pub use password::{PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, Password, PasswordRule};
pub use phc::StoredHash;

/// The parts of the kernel that `benches/` measures.
#[doc(hidden)]
pub mod bench {
    pub use super::kernel::{
        Batch, Cost, Digest, Full, Kernel, LaneJob, PasswordKey, PasswordKeyError,
    };
}
