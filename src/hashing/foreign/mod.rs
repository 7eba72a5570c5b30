//! Hashes that other software stored: argon2, scrypt and PBKDF2. They are read, verified once, at
//! their account's next login, and then replaced by bcrypt; none is ever made here.
//!
//! ```text
//! text     numbers, base64 and bounds
//! argon2   scrypt   pbkdf2     a form each: how it is written, what is computed at most, and how
//! queue    where they wait, apart from bcrypt's
//! worker   the threads that compute them, apart from the lanes
//! ```
//!
//! What a form may ask for is bounded where it is read, in an import as at a login. Each bound lies
//! above what the recommendations and the defaults of common software ask for, and below what would
//! let a planted row take the memory, or a core for seconds.

mod argon2;
mod pbkdf2;
mod queue;
mod scrypt;
#[cfg(test)]
mod tests;
mod text;
mod worker;

pub(super) use queue::ForeignQueue;

use super::StoredHashError;
use argon2::Argon2;
use pbkdf2::Pbkdf2;
use scrypt::Scrypt;
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A hash that other software stored.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ForeignHash {
    scheme: Scheme,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

/// What was computed, and how much of it.
#[derive(Clone, PartialEq, Eq)]
enum Scheme {
    Argon2(Argon2),
    Scrypt(Scrypt),
    Pbkdf2(Pbkdf2),
}

impl ForeignHash {
    /// Reads a stored hash. `None`: its name is that of no form here.
    ///
    /// # Errors
    /// What is wrong with it. Repeats no salt and no digest.
    pub(super) fn parse(text: &str) -> Option<Result<Self, StoredHashError>> {
        // Django writes its own name of the algorithm before the standard form.
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

    /// The work of verifying it, in bcrypt rounds of a lone lane that take as long: at least 1.
    ///
    /// Measured on the machine of the README's figures (`cargo bench --bench hashing -- foreign`).
    /// Another's may be off by a factor; the speed that admission reckons with is measured as hashes
    /// are verified.
    pub(super) fn rounds(&self) -> u64 {
        let rounds = match &self.scheme {
            Scheme::Argon2(argon2) => argon2.rounds(),
            Scheme::Scrypt(scrypt) => scrypt.rounds(),
            Scheme::Pbkdf2(pbkdf2) => pbkdf2.rounds(),
        };
        rounds.max(1)
    }

    /// Whether it is that password's; takes the same time wherever they differ. `None`: there was
    /// not enough memory to find out.
    pub(super) fn matches(&self, password: &[u8]) -> Option<bool> {
        let octets = match &self.scheme {
            Scheme::Argon2(_) | Scheme::Scrypt(_) => self.digest.len(),
            Scheme::Pbkdf2(pbkdf2) => self.digest.len().min(pbkdf2.block_octets()),
        };
        let mut computed = Zeroizing::new(vec![0; octets]);
        match &self.scheme {
            Scheme::Argon2(argon2) => argon2.compute(password, &self.salt, &mut computed)?,
            Scheme::Scrypt(scrypt) => scrypt.compute(password, &self.salt, &mut computed)?,
            Scheme::Pbkdf2(pbkdf2) => pbkdf2.compute(password, &self.salt, &mut computed),
        }
        Some(computed.ct_eq(self.digest.get(..octets)?).into())
    }
}

/// The standard form (PHC's), in which all of them are stored here.
impl fmt::Display for ForeignHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scheme {
            Scheme::Argon2(argon2) => argon2.fmt(f)?,
            Scheme::Scrypt(scrypt) => scrypt.fmt(f)?,
            Scheme::Pbkdf2(pbkdf2) => pbkdf2.fmt(f)?,
        }
        write!(f, "${}${}", text::base64(&self.salt), text::base64(&self.digest))
    }
}

impl fmt::Debug for ForeignHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForeignHash(***)")
    }
}
