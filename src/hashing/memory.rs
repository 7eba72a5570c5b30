//! The maximum memory that hashing uses.

use super::HashConfig;
use super::admission::places;
use super::imported::ImportedHashQueue;

/// A waiting new password: at most 72 bytes, with its key and reply.
const NEW_PASSWORD_BYTES_MAX: u64 = 512;
/// A waiting login: at most 1,025 bytes of password, with its key and reply, or with the stored text of
/// an imported hash.
const LOGIN_BYTES_MAX: u64 = 2 * 1024;
/// A hashing thread: the states of its lanes (4 KiB each) and its stack.
const THREAD_BYTES_MAX: u64 = 256 * 1024;
/// The memory of one imported hash, bounded by its parameters (`imported::argon2`,
/// `imported::scrypt`).
const IMPORTED_HASH_BYTES_MAX: u64 = 128 << 20;

impl HashConfig {
    /// The waiting passwords and the threads. Unit: bytes.
    pub fn queue_bytes_max(&self) -> u64 {
        let places = places(self.queue) as u64;
        // New passwords, logins, and logins with an imported hash: each kind has that many places.
        let jobs = places * (NEW_PASSWORD_BYTES_MAX + 2 * LOGIN_BYTES_MAX);
        let threads = self.threads + ImportedHashQueue::threads(self.threads);
        jobs + threads as u64 * THREAD_BYTES_MAX
    }

    /// The imported hashes that are verified at once. Unit: bytes.
    pub fn imported_bytes_max(&self) -> u64 {
        ImportedHashQueue::threads(self.threads) as u64 * IMPORTED_HASH_BYTES_MAX
    }
}
