//! The configuration type of the hash engine.

use std::time::Duration;

/// The settings of the hash engine.
#[derive(Clone, Debug)]
pub struct HashConfig {
    /// The cost of new hashes, 4 to 15. A hash takes 2^cost rounds.
    pub cost: u32,
    /// Hashing threads, at least 1.
    pub threads: usize,
    /// Passwords hashed together in one thread. `None` measures the best number for the machine.
    pub lanes: Option<usize>,
    /// Jobs that may wait: half of the places are for logins, half for new passwords.
    pub queue: usize,
    /// Longest time that a job may wait before it is dropped unhashed.
    pub deadline: Duration,
}
