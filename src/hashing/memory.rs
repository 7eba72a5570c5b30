//! The maximum memory that hashing uses.

use super::HashConfig;
use super::admission::places;
use super::imported::ImportedHashQueue;

/// A waiting bcrypt job with its password, key and reply.
const JOB_BYTES_MAX: u64 = 512;
/// A waiting job of an imported hash. Its password and its stored text are longer.
const IMPORTED_JOB_BYTES_MAX: u64 = 2 * 1024;
/// A hashing thread: the states of its lanes (4 KiB each) and its stack.
const THREAD_BYTES_MAX: u64 = 256 * 1024;
/// The memory of one imported hash, bounded by its parameters (`imported::argon2`,
/// `imported::scrypt`).
const IMPORTED_HASH_BYTES_MAX: u64 = 128 << 20;

impl HashConfig {
    /// The waiting passwords and the threads. Unit: bytes.
    pub fn queue_bytes_max(&self) -> u64 {
        let places = places(self.queue) as u64;
        // Logins, new passwords, and logins with an imported hash.
        let jobs = 2 * places * JOB_BYTES_MAX + places * IMPORTED_JOB_BYTES_MAX;
        let threads = self.threads + ImportedHashQueue::threads(self.threads);
        jobs + threads as u64 * THREAD_BYTES_MAX
    }

    /// The imported hashes that are verified at once. Unit: bytes.
    pub fn imported_bytes_max(&self) -> u64 {
        ImportedHashQueue::threads(self.threads) as u64 * IMPORTED_HASH_BYTES_MAX
    }
}
