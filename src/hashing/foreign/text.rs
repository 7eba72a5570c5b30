//! The pieces of which stored hashes are written (PHC string format: names, numbers in decimal,
//! base64 without padding), and bounds for what they say.

use crate::hashing::StoredHashError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use std::ops::RangeInclusive;

/// Octets of a salt. Fewer than 8 are no salt (RFC 9106 §3.1 asks for 8 at least; Django's have 12
/// or more); more than 64 nobody writes (16 is what all recommend).
const SALT_OCTETS: RangeInclusive<u64> = 8..=64;
/// Octets of a digest. Fewer than 16 could be met by chance (RFC 9106 §4: 128 bits suffice); 64 is
/// the longest common one, Keycloak's.
const DIGEST_OCTETS: RangeInclusive<u64> = 16..=64;

/// A stored hash of which the name has been read.
#[derive(Clone, Copy)]
pub(super) struct Named(pub(super) &'static str);

impl Named {
    /// It is written in a way that no version of its form is.
    pub(super) fn damaged(self) -> StoredHashError {
        StoredHashError::Damaged(self.0)
    }

    /// Splits what follows the name: parameters, salt and digest.
    pub(super) fn pieces(self, rest: &str) -> Result<[&str; 3], StoredHashError> {
        let mut pieces = rest.split('$');
        let found = [pieces.next(), pieces.next(), pieces.next()];
        match (found, pieces.next()) {
            ([Some(parameters), Some(salt), Some(digest)], None) => Ok([parameters, salt, digest]),
            _ => Err(self.damaged()),
        }
    }

    /// Reads `a=1,b=2`, with these names in this order.
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

    /// Reads a number as the format has it: digits alone, and no zero in front.
    pub(super) fn number(self, text: &str) -> Result<u64, StoredHashError> {
        let plain =
            text.bytes().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse().ok().filter(|_| plain).ok_or_else(|| self.damaged())
    }

    /// Refuses a number that is out of bounds.
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

    /// Reads a salt in base64.
    pub(super) fn salt(self, text: &str) -> Result<Vec<u8>, StoredHashError> {
        self.salt_octets(STANDARD_NO_PAD.decode(text).map_err(|_| self.damaged())?)
    }

    /// Takes a salt that is not encoded.
    pub(super) fn salt_octets(self, salt: Vec<u8>) -> Result<Vec<u8>, StoredHashError> {
        self.bounded("salt octets", salt.len() as u64, SALT_OCTETS).map(|_| salt)
    }

    /// Reads a digest in base64.
    pub(super) fn digest(self, text: &str) -> Result<Vec<u8>, StoredHashError> {
        let digest = STANDARD_NO_PAD.decode(text).map_err(|_| self.damaged())?;
        self.bounded("digest octets", digest.len() as u64, DIGEST_OCTETS).map(|_| digest)
    }
}

/// How octets are written.
pub(super) fn base64(octets: &[u8]) -> String {
    STANDARD_NO_PAD.encode(octets)
}
