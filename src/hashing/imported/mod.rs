//! Hashes made by other software: argon2, scrypt and PBKDF2.
//!
//! Such a hash is verified at the next login of its account and then replaced by a bcrypt hash.
//! This server never makes one.
//!
//! ```text
//! text     numbers, base64 and bounds
//! argon2   scrypt   pbkdf2     one form each: its text, its bounds, its computation
//! queue    the queue, separate from bcrypt's
//! worker   the threads that compute them, separate from the lanes
//! ```
//!
//! The parameters of a form are bounded where it is parsed, in an import as at a login. Each bound
//! lies above the recommendations and the defaults of common software. It is low enough that a
//! planted row cannot exhaust the memory or occupy a core for seconds.

mod argon2;
mod pbkdf2;
mod queue;
mod scrypt;
#[cfg(test)]
mod tests;
mod text;
mod worker;

pub(super) use queue::ImportedHashQueue;

use super::StoredHashError;
use argon2::Argon2;
use pbkdf2::Pbkdf2;
use scrypt::Scrypt;
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A hash made by other software.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ImportedHash {
    scheme: Scheme,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

/// The algorithm and its parameters.
#[derive(Clone, PartialEq, Eq)]
enum Scheme {
    Argon2(Argon2),
    Scrypt(Scrypt),
    Pbkdf2(Pbkdf2),
}

impl ImportedHash {
    /// Parses a stored hash. `None`: the name is not one of the supported forms.
    ///
    /// # Errors
    /// What is wrong with the hash. Contains no part of the salt or digest.
    pub(super) fn parse(text: &str) -> Option<Result<Self, StoredHashError>> {
        // Django writes its own algorithm name before the standard form.
        let text = text.strip_prefix("argon2").filter(|rest| rest.starts_with('$')).unwrap_or(text);
        let (name, rest) = match text.strip_prefix('$') {
            Some(named) => named.split_once('$')?,
            None => {
                let (name, rest) = text.split_once('$')?;
                return pbkdf2::parse_django(name, rest);
            }
        };
        argon2::parse(name, rest)
            .or_else(|| scrypt::parse(name, rest))
            .or_else(|| pbkdf2::parse(name, rest))
    }

    /// The work of verifying it, at least 1.
    ///
    /// Unit: bcrypt rounds that one lane computes in the same time.
    ///
    /// Measured on the machine of the published figures (`cargo bench --bench hashing --
    /// imported`). On another machine it may be off by a factor. Admission measures the speed as
    /// hashes are verified.
    pub(super) fn rounds(&self) -> u64 {
        let rounds = match &self.scheme {
            Scheme::Argon2(argon2) => argon2.rounds(),
            Scheme::Scrypt(scrypt) => scrypt.rounds(),
            Scheme::Pbkdf2(pbkdf2) => pbkdf2.rounds(),
        };
        rounds.max(1)
    }

    /// Whether the hash is that of `password`, compared in constant time.
    ///
    /// `None`: there was not enough memory to compute it.
    pub(super) fn matches(&self, password: &[u8]) -> Option<bool> {
        let bytes = match &self.scheme {
            Scheme::Argon2(_) | Scheme::Scrypt(_) => self.digest.len(),
            Scheme::Pbkdf2(pbkdf2) => self.digest.len().min(pbkdf2.block_bytes()),
        };
        let mut computed = Zeroizing::new(vec![0; bytes]);
        match &self.scheme {
            Scheme::Argon2(argon2) => argon2.compute(password, &self.salt, &mut computed)?,
            Scheme::Scrypt(scrypt) => scrypt.compute(password, &self.salt, &mut computed)?,
            Scheme::Pbkdf2(pbkdf2) => pbkdf2.compute(password, &self.salt, &mut computed),
        }
        Some(computed.ct_eq(self.digest.get(..bytes)?).into())
    }
}

/// The standard PHC form, in which this server stores every imported hash.
impl fmt::Display for ImportedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scheme {
            Scheme::Argon2(argon2) => argon2.fmt(f)?,
            Scheme::Scrypt(scrypt) => scrypt.fmt(f)?,
            Scheme::Pbkdf2(pbkdf2) => pbkdf2.fmt(f)?,
        }
        write!(f, "${}${}", text::base64(&self.salt), text::base64(&self.digest))
    }
}

impl fmt::Debug for ImportedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImportedHash(***)")
    }
}
