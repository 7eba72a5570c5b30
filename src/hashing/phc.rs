//! Stored hashes as text.
//!
//! Hashes that this server makes have the modular-crypt form: `$2b$12$`, 22 characters of salt, and
//! 31 of digest. [`ImportedHash`] reads those of other software.

use super::error::StoredHashError;
use super::imported::ImportedHash;
use base64::Engine;
use base64::alphabet::BCRYPT;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::fmt;
use std::str::FromStr;

/// Bytes of a bcrypt salt.
pub(super) const SALT_BYTES: usize = 16;
/// Bytes of a stored bcrypt digest, which leaves out the last of 24.
pub(super) const DIGEST_BYTES: usize = 23;
const SALT_CHARS: usize = 22;
/// How far the cost of a stored hash may exceed the setting.
///
/// 2 means four times the work. A damaged or planted row must not occupy a core for minutes.
const COST_ABOVE_SETTING_MAX: u32 = 2;

/// bcrypt's base64.
///
/// Some old encoders left random bits in the unused low bits of the salt's last character. They are
/// ignored, as every bcrypt implementation does.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &BCRYPT,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// A parsed stored hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredHash(pub(super) HashFormat);

/// The algorithm family of a stored hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HashFormat {
    Bcrypt(BcryptHash),
    Imported(ImportedHash),
}

/// A parsed bcrypt hash.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct BcryptHash {
    pub(super) cost: u32,
    pub(super) salt: [u8; SALT_BYTES],
    pub(super) digest: [u8; DIGEST_BYTES],
}

impl FromStr for BcryptHash {
    type Err = StoredHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = StoredHashError::Malformed;
        let rest = text.strip_prefix("$2").ok_or(malformed)?;
        let (version, rest) = rest.split_once('$').ok_or(malformed)?;
        let (cost, encoded) = rest.split_once('$').ok_or(malformed)?;
        match version {
            // All three mark the same computation for passwords of up to 72 bytes without NUL.
            "a" | "b" | "y" => {}
            "x" => return Err(StoredHashError::Broken),
            _ => return Err(malformed),
        }
        if cost.len() != 2 || !cost.bytes().all(|c| c.is_ascii_digit()) {
            return Err(malformed);
        }
        let cost = cost.parse().map_err(|_| malformed)?;
        if !(4..=31).contains(&cost) {
            return Err(StoredHashError::Cost(cost));
        }
        let (salt, digest) = encoded.split_at_checked(SALT_CHARS).ok_or(malformed)?;
        Ok(Self { cost, salt: decode(salt)?, digest: decode(digest)? })
    }
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], StoredHashError> {
    let bytes = BASE64.decode(text).map_err(|_| StoredHashError::Malformed)?;
    bytes.try_into().map_err(|_| StoredHashError::Malformed)
}

impl StoredHash {
    /// Parses a stored hash and refuses one that is too expensive to compute.
    ///
    /// `setting` is the cost of new hashes.
    ///
    /// # Errors
    /// See [`StoredHashError`].
    pub fn usable(text: &str, setting: u32) -> Result<Self, StoredHashError> {
        if let Some(imported) = ImportedHash::parse(text) {
            return Ok(Self(HashFormat::Imported(imported?)));
        }
        let hash: BcryptHash = text.parse()?;
        let max = setting + COST_ABOVE_SETTING_MAX;
        if hash.cost > max {
            return Err(StoredHashError::TooCostly { cost: hash.cost, max });
        }
        Ok(Self(HashFormat::Bcrypt(hash)))
    }
}

/// The form in which it is stored here: `$2b$`, or the PHC form.
impl fmt::Display for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            HashFormat::Bcrypt(hash) => hash.fmt(f),
            HashFormat::Imported(hash) => hash.fmt(f),
        }
    }
}

impl BcryptHash {
    /// A hash with a random salt and digest, which matches no password.
    ///
    /// A login to an unknown account is checked against it, so that it takes as long as any other.
    pub(super) fn dummy(cost: u32) -> Result<Self, getrandom::Error> {
        let mut dummy = Self { cost, salt: [0; SALT_BYTES], digest: [0; DIGEST_BYTES] };
        getrandom::fill(&mut dummy.salt)?;
        getrandom::fill(&mut dummy.digest)?;
        Ok(dummy)
    }
}

impl fmt::Display for BcryptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, digest) = (BASE64.encode(self.salt), BASE64.encode(self.digest));
        write!(f, "$2b${:02}${salt}{digest}", self.cost)
    }
}

impl fmt::Debug for BcryptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BcryptHash(cost {}, ***)", self.cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

    #[test]
    fn the_known_versions_are_read_and_2b_is_written() {
        let hash: BcryptHash = KNOWN.parse().unwrap();
        assert_eq!(hash.to_string(), KNOWN.replace("$2a$", "$2b$"));
        for version in ["$2b$", "$2y$"] {
            assert_eq!(KNOWN.replace("$2a$", version).parse::<BcryptHash>().unwrap(), hash);
        }
    }

    #[test]
    fn any_other_form_is_refused() {
        let parse = |text: &str| text.parse::<BcryptHash>().unwrap_err();
        assert_eq!(parse(&KNOWN.replace("$2a$", "$2x$")), StoredHashError::Broken);
        assert_eq!(parse(&KNOWN.replace("$05$", "$03$")), StoredHashError::Cost(3));
        assert_eq!(parse(&KNOWN.replace("$05$", "$32$")), StoredHashError::Cost(32));
        for text in [
            "",
            "$2a$",
            "$2a$05$",
            "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA",
            "$2c$05$CCCC",
            &KNOWN[..59],
            &format!("{KNOWN}A"),
            &KNOWN.replace("$05$", "$5$"),
            &KNOWN.replace("$05$", "$+5$"),
            &KNOWN.replace("E5YPO", "E5Y O"),
            &KNOWN.replace("E5YPO", "E5éO"),
        ] {
            assert_eq!(parse(text), StoredHashError::Malformed, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_text_equals_that_of_the_bcrypt_crate(salt: [u8; 16], cost in 4u32..=31, digest: [u8; 23]) {
            let text = BcryptHash { cost, salt, digest }.to_string();
            let theirs: bcrypt::HashParts = text.parse().unwrap();
            prop_assert_eq!((theirs.get_cost(), theirs.get_salt_raw()), (cost, salt));
            prop_assert_eq!(theirs.to_string(), text.clone());
            prop_assert_eq!(text.parse::<BcryptHash>().unwrap(), BcryptHash { cost, salt, digest });
        }

        #[test]
        fn hostile_text_never_panics(text in "\\PC{0,80}") {
            let _ = text.parse::<BcryptHash>();
        }
    }
}
