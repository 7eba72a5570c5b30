//! Passwords, and the engine that hashes them.
//!
//! Hashing is the one slow thing in a login, so it happens on threads of its own behind a bounded
//! queue, and everything that can go wrong with the queue is a separate outcome: *full* and *late*
//! are errors the client hears of, *abandoned* work is dropped unhashed. Only this folder can read
//! a password's octets.

mod common;
mod engine;
mod error;
mod password;
mod phc;
mod worker;

pub use engine::{HashConfig, HashEngine, Permit};
pub use error::HashError;
pub use password::{PASSWORD_CHARS_MIN, PASSWORD_OCTETS_MAX, Password, PasswordRule};
pub use phc::{StoredHash, StoredHashError};
