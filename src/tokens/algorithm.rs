//! The signature algorithms of access tokens, with their JWA names and key formats.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair,
};
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Bytes of an HMAC key: the output size of SHA-256, the minimum of RFC 7518 §3.2.
pub(super) const HMAC_BYTES: usize = 32;

/// An algorithm that signs access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037 §3.1): small, fast, and without parameters to get wrong.
    ///
    /// RFC 9864 defines the more exact name `Ed25519`, which few verifiers support yet.
    EdDsa,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 §3.4).
    Es256,
    /// RSA, PKCS #1 v1.5 with SHA-256 (RFC 7518 §3.3), for verifiers that support nothing newer.
    Rs256,
    /// HMAC-SHA256 (RFC 7518 §3.2). It has no public key, so only staunch itself can check a token.
    Hs256,
}

impl Algorithm {
    /// All algorithms.
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

    /// The start of the key files' names.
    pub(super) fn file_prefix(self) -> &'static str {
        match self {
            Self::EdDsa => "access-eddsa-",
            Self::Es256 => "access-es256-",
            Self::Rs256 => "access-rs256-",
            Self::Hs256 => "access-hs256-",
        }
    }

    /// The algorithm in the verifying library.
    pub(super) fn jwa(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
        }
    }

    /// Generates a secret: a PKCS #8 document (RFC 5958), or random bytes for HMAC.
    ///
    /// RSA keys have 2048 bits, the minimum of RFC 7518 §3.3. A key signs for about a year and its
    /// tokens live for minutes, so 112 bits of strength (NIST SP 800-57 part 1, good until 2030)
    /// outlast both. 3072 bits would make each signature, and so each login, about three times as
    /// expensive. A longer key in the folder is used all the same.
    pub(super) fn generate(self) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let rng = SystemRandom::new();
        let document = match self {
            Self::EdDsa => Ed25519KeyPair::generate_pkcs8(&rng)?.as_ref().to_vec(),
            Self::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng)?
                .as_ref()
                .to_vec(),
            Self::Rs256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
                pair.as_der()?.as_ref().to_vec()
            }
            Self::Hs256 => return random_bytes(),
        };
        Ok(Zeroizing::new(document))
    }
}

/// Generates an HMAC key.
pub(super) fn random_bytes() -> Result<Zeroizing<Vec<u8>>, Unspecified> {
    let mut secret = Zeroizing::new(vec![0; HMAC_BYTES]);
    aws_lc_rs::rand::fill(&mut secret)?;
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
