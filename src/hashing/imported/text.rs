//! Parsing of stored hashes in the PHC string format, and bounds for their values.
//!
//! The format has names, decimal numbers, and base64 without padding.

use crate::hashing::StoredHashError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use std::ops::RangeInclusive;

/// Bytes of a salt.
///
/// RFC 9106 §3.1 requires at least 8; Django's have 12 or more. All recommend 16, and no known
/// software writes more than 64.
const SALT_BYTES: RangeInclusive<u64> = 8..=64;
/// Bytes of a digest.
///
/// Fewer than 16 could match by chance (RFC 9106 §4: 128 bits suffice). 64 is the longest common
/// one, Keycloak's.
const DIGEST_BYTES: RangeInclusive<u64> = 16..=64;

/// A stored hash whose name has been parsed.
#[derive(Clone, Copy)]
pub(super) struct Named(pub(super) &'static str);

impl Named {
    /// The error for text that no version of the form allows.
    pub(super) fn damaged(self) -> StoredHashError {
        StoredHashError::Damaged(self.0)
    }

    /// Splits the text after the name into parameters, salt and digest.
    pub(super) fn pieces(self, rest: &str) -> Result<[&str; 3], StoredHashError> {
        let mut pieces = rest.split('$');
        let found = [pieces.next(), pieces.next(), pieces.next()];
        match (found, pieces.next()) {
            ([Some(parameters), Some(salt), Some(digest)], None) => Ok([parameters, salt, digest]),
            _ => Err(self.damaged()),
        }
    }

    /// Parses `a=1,b=2`, with these names in this order.
    pub(super) fn numbers<const N: usize>(
        self,
        text: &str,
        names: [&str; N],
    ) -> Result<[u64; N], StoredHashError> {
        let mut values = [0; N];
        let mut parts = text.split(',');
        for (name, slot) in names.into_iter().zip(&mut values) {
            let value = parts.next().and_then(|part| part.strip_prefix(name)?.strip_prefix('='));
            *slot = self.number(value.ok_or_else(|| self.damaged())?)?;
        }
        if parts.next().is_some() { Err(self.damaged()) } else { Ok(values) }
    }

    /// Parses a number as the format defines it: only digits, no leading zero.
    pub(super) fn number(self, text: &str) -> Result<u64, StoredHashError> {
        let plain =
            text.bytes().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse().ok().filter(|_| plain).ok_or_else(|| self.damaged())
    }

    pub(super) fn bounded(
        self,
        parameter: &'static str,
        value: u64,
        bounds: RangeInclusive<u64>,
    ) -> Result<u32, StoredHashError> {
        let (algorithm, least, most) = (self.0, *bounds.start(), *bounds.end());
        let within = u32::try_from(value).ok().filter(|_| bounds.contains(&value));
        within.ok_or(StoredHashError::OutOfBounds { algorithm, parameter, value, least, most })
    }

    pub(super) fn salt(self, text: &str) -> Result<Vec<u8>, StoredHashError> {
        self.salt_bytes(STANDARD_NO_PAD.decode(text).map_err(|_| self.damaged())?)
    }

    /// Accepts a salt that is not encoded.
    pub(super) fn salt_bytes(self, salt: Vec<u8>) -> Result<Vec<u8>, StoredHashError> {
        self.bounded("salt bytes", salt.len() as u64, SALT_BYTES).map(|_| salt)
    }

    pub(super) fn digest(self, text: &str) -> Result<Vec<u8>, StoredHashError> {
        let digest = STANDARD_NO_PAD.decode(text).map_err(|_| self.damaged())?;
        self.bounded("digest bytes", digest.len() as u64, DIGEST_BYTES).map(|_| digest)
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}
