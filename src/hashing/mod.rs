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
//! the figures. The number of lanes is measured at start (`calibrate`): the best sustained rate whose
//! latency stays under twice that of a single lane. With as many logins as workers, each login runs
//! alone in its worker, at single-lane speed.
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
//! # Speed
//!
//! A cloud's vCPU is often one hyperthread of a core, and the other one may run another machine's
//! work. Then lanes help less, and no counter of the guest shows it. So the calibration measures
//! all hashing threads at once. The *best* speed is that of the fastest 0.3 ms; the *sustained* one
//! is the median of windows of 8 ms. The sustained speed decides the lane count, and is the one in
//! the start line and in the first predictions.
//!
//! While the server runs, each worker reports windows of a quarter of a second (`speed`). A window
//! with fewer busy lanes is scaled by the calibrated times. A window with one busy lane is ignored,
//! because other workers may be idle and leave it more of the machine. Admission averages over a
//! quarter of the deadline, at least 1 s and at most 10 s, so a short dip does not refuse logins
//! that have 40 s, and does refuse those that have 2 s. A slow window counts as a halving at most. The
//! gauges average over 2 s.
//!
//! All lanes are busy until a waiting job starts, so its wait is at most the earlier work over the
//! speed (`prediction`): the rest of the hashes in the lanes, the queue of its purpose, and the work
//! of the other purpose that is done meanwhile. Workers give equal shares, so the last is at most as
//! much as the queue of its purpose; how much follows from what waits and from the recent share. A
//! part of the deadline is reserved for the error. The cost of a stored hash is known only when the
//! account was read, so the wait of a login is predicted again then. The simulations in
//! `simulation_tests` cover bursts, steps of the speed, noise and both purposes.
//!
//! # Behind a CPU limit
//!
//! A container whose threads use up its CPU limit is stopped for the rest of each 100 ms, also the
//! threads that serve. So the hashing threads pause (`pacer`): a `cpu_budget` that all of them share
//! contains the limit less a reserve, and what any process of the container uses is taken from it.
//! A pause counts as time in which the rounds were done, so the measured speed is the paced one.
//!
//! # Files
//!
//! From the outside in: `engine` is the handle, and `job` is a waiting job. `admission` decides
//! which jobs may wait, by the `prediction` of their wait and the measured `speed`. `worker` is the
//! loop of a thread, `worker_load` shares the work fairly between threads, and `fair_share` between
//! logins and new passwords; `placement` keeps the threads on different cores. `kernel` is bcrypt for
//! several lanes, and `calibrate` chooses their number. `imported` verifies hashes that other software made.

mod admission;
mod calibrate;
mod common;
mod config;
mod cpu_budget;
mod engine;
mod error;
mod fair_share;
mod imported;
mod job;
mod kernel;
mod lane_counts;
mod memory;
mod metrics;
mod moving_average;
mod pacer;
mod password;
mod phc;
mod placement;
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
pub use config::{CpuShare, HashConfig, threads_for};
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
