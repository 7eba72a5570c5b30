//! The algorithms that access tokens can be signed with, by their JWA names, and the keys they take.

use super::error::KeyError;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair,
};
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Octets of an HMAC key: as many as SHA-256 puts out, the least that RFC 7518 §3.2 allows.
pub(super) const HMAC_OCTETS: usize = 32;

/// An algorithm that access tokens are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037 §3.1): small, fast, nothing to choose wrongly. RFC 9864 has `Ed25519` as a
    /// more exact name, which few verifiers know yet.
    EdDsa,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 §3.4).
    Es256,
    /// RSA, PKCS #1 v1.5 with SHA-256 (RFC 7518 §3.3), for verifiers that know nothing newer.
    Rs256,
    /// HMAC-SHA256 (RFC 7518 §3.2). There is no public key: only who asks staunch can check a token.
    Hs256,
}

impl Algorithm {
    /// Every one there is.
    pub const ALL: [Self; 4] = [Self::EdDsa, Self::Es256, Self::Rs256, Self::Hs256];

    /// The `alg` of a token's header (RFC 7515 §4.1.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }

    /// The start of its key files' names.
    pub(super) fn file_prefix(self) -> &'static str {
        match self {
            Self::EdDsa => "access-eddsa-",
            Self::Es256 => "access-es256-",
            Self::Rs256 => "access-rs256-",
            Self::Hs256 => "access-hs256-",
        }
    }

    /// What the verifying library calls it.
    pub(super) fn jwa(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
        }
    }

    /// A new secret: a PKCS #8 document (RFC 5958), or random octets for HMAC.
    ///
    /// RSA keys have 2048 bits, the least that RFC 7518 §3.3 allows: a key signs for about a year
    /// and its tokens live for minutes, so 112 bits of strength (NIST SP 800-57 part 1, good until
    /// 2030) outlast both, and 3072 bits would make each signature, and so each login, about three
    /// times as dear. A longer key in the folder is used all the same.
    pub(super) fn generate(self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let failed = |_| KeyError::Generate;
        let rng = SystemRandom::new();
        let document = match self {
            Self::EdDsa => Ed25519KeyPair::generate_pkcs8(&rng).map_err(failed)?.as_ref().to_vec(),
            Self::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng)
                .map_err(failed)?
                .as_ref()
                .to_vec(),
            Self::Rs256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
                pair.as_der().map_err(failed)?.as_ref().to_vec()
            }
            Self::Hs256 => return random_octets(),
        };
        Ok(Zeroizing::new(document))
    }
}

/// A new HMAC key.
pub(super) fn random_octets() -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mut secret = Zeroizing::new(vec![0; HMAC_OCTETS]);
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| KeyError::Generate)?;
    Ok(secret)
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = &'static str;

    /// JWA names are case-sensitive (RFC 7515 §4.1.1).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|algorithm| algorithm.name() == text);
        found.ok_or("must be EdDSA, ES256, RS256 or HS256")
    }
}
