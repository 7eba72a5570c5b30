//! What hashing can hold at once.

use super::HashConfig;
use super::admission::places;
use super::foreign::ForeignQueue;

/// A password that waits, with its key and its reply.
const JOB_OCTETS_MAX: u64 = 512;
/// The same for a hash of other software, whose passwords and texts are longer.
const FOREIGN_JOB_OCTETS_MAX: u64 = 2 * 1024;
/// A hashing thread: its lanes' states (4 KiB each) and its stack.
const THREAD_OCTETS_MAX: u64 = 256 * 1024;
/// What one foreign hash may take, by its parameters (`foreign::argon2`, `foreign::scrypt`).
const FOREIGN_HASH_OCTETS_MAX: u64 = 128 << 20;

impl HashConfig {
    /// The passwords that wait, and the threads. Unit: octets.
    pub fn queue_octets_max(&self) -> u64 {
        let places = places(self.queue) as u64;
        // Logins, new passwords, and logins by a hash of other software.
        let jobs = 2 * places * JOB_OCTETS_MAX + places * FOREIGN_JOB_OCTETS_MAX;
        let threads = self.threads + ForeignQueue::threads(self.threads);
        jobs + threads as u64 * THREAD_OCTETS_MAX
    }

    /// The foreign hashes that are verified at once. Unit: octets.
    pub fn foreign_octets_max(&self) -> u64 {
        ForeignQueue::threads(self.threads) as u64 * FOREIGN_HASH_OCTETS_MAX
    }
}
