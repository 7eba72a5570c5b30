//! PBKDF2 (RFC 8018 §5.2) with HMAC-SHA-256 or HMAC-SHA-512.
//!
//! Stored as PHC text, `$pbkdf2-sha256$i=<iterations>$<salt>$<digest>`. Also accepted in Django's
//! form, `pbkdf2_sha256$<iterations>$<salt>$<digest>`, whose salt is plain text.
//!
//! Refused are SHA-1, SHA-384 and passlib's form, in which the iterations have no name.

use super::text::Named;
use super::{ImportedHash, Scheme};
use crate::hashing::StoredHashError;
use sha2::{Sha256, Sha512};
use std::fmt;

const PBKDF2: Named = Named("PBKDF2");

/// The maximum number of iterations with SHA-256.
///
/// OWASP's Password Storage Cheat Sheet recommends 600,000, which is Keycloak's default. Django's
/// default is 1,000,000 in version 5.2 and grows with each version.
const SHA256_ITERATIONS_MAX: u64 = 2_000_000;
/// The maximum number of iterations with SHA-512.
///
/// Over three times the 210,000 of OWASP and Keycloak.
const SHA512_ITERATIONS_MAX: u64 = 700_000;

/// Iterations in the time of one bcrypt round.
const SHA256_ITERATIONS_PER_ROUND: u64 = 352;
const SHA512_ITERATIONS_PER_ROUND: u64 = 100;

/// Parameters within their bounds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Pbkdf2 {
    hash: Hash,
    iterations: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

/// Parses the text after the name. `None` if the name is not PBKDF2's.
pub(super) fn parse(name: &str, rest: &str) -> Option<Result<ImportedHash, StoredHashError>> {
    match name {
        "pbkdf2-sha256" => Some(read(Hash::Sha256, rest)),
        "pbkdf2-sha512" => Some(read(Hash::Sha512, rest)),
        _ => unsupported(name).map(Err),
    }
}

/// Parses the text after Django's name. `None` if the name is not PBKDF2's.
pub(super) fn parse_django(
    name: &str,
    rest: &str,
) -> Option<Result<ImportedHash, StoredHashError>> {
    match name {
        "pbkdf2_sha256" => Some(read_django(rest)),
        _ => unsupported(name).map(Err),
    }
}

fn unsupported(name: &str) -> Option<StoredHashError> {
    match name {
        "pbkdf2" | "pbkdf2-sha1" | "pbkdf2_sha1" => {
            Some(StoredHashError::Unsupported("PBKDF2 with SHA-1"))
        }
        "pbkdf2-sha384" => Some(StoredHashError::Unsupported("PBKDF2 with SHA-384")),
        _ => None,
    }
}

fn read(hash: Hash, rest: &str) -> Result<ImportedHash, StoredHashError> {
    let [parameters, salt, digest] = PBKDF2.pieces(rest)?;
    let digest = PBKDF2.digest(digest)?;
    // Some software writes the length of the digest as well.
    let iterations = match PBKDF2.numbers(parameters, ["i", "l"]) {
        Ok([iterations, length]) if length == digest.len() as u64 => iterations,
        Ok(_) => return Err(PBKDF2.damaged()),
        Err(_) => PBKDF2.numbers(parameters, ["i"]).map(|[iterations]| iterations)?,
    };
    Ok(ImportedHash { scheme: scheme(hash, iterations)?, salt: PBKDF2.salt(salt)?, digest })
}

fn read_django(rest: &str) -> Result<ImportedHash, StoredHashError> {
    let [iterations, salt, digest] = PBKDF2.pieces(rest)?;
    let scheme = scheme(Hash::Sha256, PBKDF2.number(iterations)?)?;
    let salt = PBKDF2.salt_bytes(salt.as_bytes().to_vec())?;
    // Padded to a multiple of four: 32 bytes need one `=`.
    let digest = PBKDF2.digest(digest.trim_end_matches('='))?;
    Ok(ImportedHash { scheme, salt, digest })
}

fn scheme(hash: Hash, iterations: u64) -> Result<Scheme, StoredHashError> {
    let most = match hash {
        Hash::Sha256 => SHA256_ITERATIONS_MAX,
        Hash::Sha512 => SHA512_ITERATIONS_MAX,
    };
    let iterations = PBKDF2.bounded("iterations", iterations, 1..=most)?;
    Ok(Scheme::Pbkdf2(Pbkdf2 { hash, iterations }))
}

impl Pbkdf2 {
    /// Bytes of one output block.
    ///
    /// Only the first block of a longer digest is compared (Keycloak's has two of SHA-256). Each
    /// further block would cost all iterations again, and 256 bits are enough to tell passwords
    /// apart.
    pub(super) fn block_bytes(self) -> usize {
        match self.hash {
            Hash::Sha256 => 32,
            Hash::Sha512 => 64,
        }
    }

    pub(super) fn rounds(self) -> u64 {
        u64::from(self.iterations)
            / match self.hash {
                Hash::Sha256 => SHA256_ITERATIONS_PER_ROUND,
                Hash::Sha512 => SHA512_ITERATIONS_PER_ROUND,
            }
    }

    pub(super) fn compute(self, password: &[u8], salt: &[u8], out: &mut [u8]) {
        match self.hash {
            Hash::Sha256 => {
                ::pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, self.iterations, out);
            }
            Hash::Sha512 => {
                ::pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, self.iterations, out);
            }
        }
    }
}

impl fmt::Display for Pbkdf2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = match self.hash {
            Hash::Sha256 => "sha256",
            Hash::Sha512 => "sha512",
        };
        write!(f, "$pbkdf2-{hash}$i={}", self.iterations)
    }
}
