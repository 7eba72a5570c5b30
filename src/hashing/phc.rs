//! Stored hashes as text. Ours have the modular-crypt form, `$2b$12$` + 22 characters of salt + 31
//! of digest; other software's are read by [`ForeignHash`].

use super::foreign::ForeignHash;
use base64::Engine;
use base64::alphabet::BCRYPT;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::fmt;
use std::str::FromStr;

/// Octets of a bcrypt salt.
pub(super) const SALT_OCTETS: usize = 16;
/// Octets of a bcrypt digest: the last of its 24 is never stored.
pub(super) const DIGEST_OCTETS: usize = 23;
const SALT_CHARS: usize = 22;
/// A stored hash may cost this much more than the setting: four times the work. A damaged or
/// planted row must not take a core for minutes.
const COST_ABOVE_SETTING_MAX: u32 = 2;

/// Some old encoders left rubbish in the unused low bits of the salt's last character: read it as
/// every bcrypt does.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &BCRYPT,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// A parsed hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredHash(pub(super) Form);

/// What it was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bcrypt(BcryptHash),
    Foreign(ForeignHash),
}

/// A parsed bcrypt hash.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct BcryptHash {
    pub(super) cost: u32,
    pub(super) salt: [u8; SALT_OCTETS],
    pub(super) digest: [u8; DIGEST_OCTETS],
}

/// Why a stored hash cannot be used: a damaged row, or one that another program wrote. Repeats
/// nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredHashError {
    /// Neither `$2?$NN$` and 53 characters of bcrypt's base64, nor named as a form of other software
    /// that is read.
    #[error("stored hash is not a bcrypt hash, nor of another form that is known")]
    Malformed,
    /// `$2x$` marks hashes made by a version of crypt_blowfish with a sign error (CVE-2011-2483):
    /// many passwords match one of them.
    #[error("stored hash has the broken $2x$ form: its password must be set anew")]
    Broken,
    /// Outside 4 to 31.
    #[error("stored hash has the cost {0}, which bcrypt does not allow")]
    Cost(u32),
    /// More work than one login may ask for.
    #[error("stored hash has the cost {cost}; at most {max} is computed here")]
    TooCostly {
        /// Its cost.
        cost: u32,
        /// The most that is computed.
        max: u32,
    },
    /// Named as a form of that algorithm, and not written as one.
    #[error("stored {0} hash is damaged")]
    Damaged(&'static str),
    /// A known algorithm that is not computed here.
    #[error("stored hash is {0}, which is not computed here")]
    Unsupported(&'static str),
    /// More work or memory than one login may ask for, or less than makes sense.
    #[error(
        "stored {algorithm} hash has {parameter} = {value}; {least} to {most} is computed here"
    )]
    OutOfBounds {
        /// The algorithm.
        algorithm: &'static str,
        /// What is too great or too small.
        parameter: &'static str,
        /// Its value.
        value: u64,
        /// The least that is computed.
        least: u64,
        /// The most that is computed, given its other parameters.
        most: u64,
    },
}

impl FromStr for BcryptHash {
    type Err = StoredHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = StoredHashError::Malformed;
        let rest = text.strip_prefix("$2").ok_or(malformed)?;
        let (version, rest) = rest.split_once('$').ok_or(malformed)?;
        let (cost, encoded) = rest.split_once('$').ok_or(malformed)?;
        match version {
            // The three mark the same computation for passwords of up to 72 octets without NUL.
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
    let octets = BASE64.decode(text).map_err(|_| StoredHashError::Malformed)?;
    octets.try_into().map_err(|_| StoredHashError::Malformed)
}

impl StoredHash {
    /// Parses a stored hash and refuses one that is more work than a login may ask for where new
    /// hashes have the cost `setting`.
    ///
    /// # Errors
    /// See [`StoredHashError`].
    pub fn usable(text: &str, setting: u32) -> Result<Self, StoredHashError> {
        if let Some(foreign) = ForeignHash::parse(text) {
            return Ok(Self(Form::Foreign(foreign?)));
        }
        let hash: BcryptHash = text.parse()?;
        let max = setting + COST_ABOVE_SETTING_MAX;
        if hash.cost > max {
            return Err(StoredHashError::TooCostly { cost: hash.cost, max });
        }
        Ok(Self(Form::Bcrypt(hash)))
    }
}

/// The form in which it is stored here: `$2b$`, or PHC's.
impl fmt::Display for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Bcrypt(hash) => hash.fmt(f),
            Form::Foreign(hash) => hash.fmt(f),
        }
    }
}

impl BcryptHash {
    /// A hash that no password has, of a random salt and digest: what an unknown account's login
    /// is checked against, so that it takes as long as a known one's.
    pub(super) fn dummy(cost: u32) -> Result<Self, getrandom::Error> {
        let mut dummy = Self { cost, salt: [0; SALT_OCTETS], digest: [0; DIGEST_OCTETS] };
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
    fn anything_else_is_refused() {
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
        fn writes_what_the_bcrypt_crate_writes(salt: [u8; 16], cost in 4u32..=31, digest: [u8; 23]) {
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
