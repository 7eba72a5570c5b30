//! One key for access tokens: its id, its signatures, and its public key.

use super::algorithm::{Algorithm, HMAC_BYTES};
use super::error::KeyError;
use super::keys::KeyFile;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Serialize;
use std::path::PathBuf;

/// The least bytes of the modulus of an RSA key (RFC 7518 §3.3).
const RSA_BYTES_MIN: usize = 256;
/// Bytes of a coordinate on P-256.
const P256_BYTES: usize = 32;

/// A key that signs access tokens.
pub(super) struct SigningKey {
    /// The RFC 7638 thumbprint of the public key. HMAC has no public key, so its id is a MAC.
    pub(super) kid: String,
    pub(super) algorithm: Algorithm,
    /// It signs nothing before this time, in seconds since 1970.
    pub(super) from_unix_s: u64,
    pub(super) path: PathBuf,
    pub(super) verify: DecodingKey,
    /// `None` for HMAC, whose key is a secret.
    pub(super) jwk: Option<Jwk>,
    private: PrivateKey,
}

enum PrivateKey {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Hmac(Box<hmac::Key>),
}

/// A public key as a JWK (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Jwk {
    kty: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(rename = "use")]
    usage: &'static str,
    alg: &'static str,
    kid: String,
}

impl SigningKey {
    pub(super) fn read(algorithm: Algorithm, file: KeyFile) -> Result<Self, KeyError> {
        let damaged = |reason| KeyError::Damaged { path: file.path.clone(), reason };
        let jwk = Jwk { usage: "sig", alg: algorithm.name(), ..Jwk::default() };
        // RFC 7638 §3.2: the required members, in lexicographic order, without whitespace.
        let (private, verify, jwk, thumbprint_of) = match algorithm {
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8(&file.secret)
                    .map_err(|_| damaged("it is not an Ed25519 private key"))?;
                let public = pair.public_key().as_ref();
                let (verify, x) = (DecodingKey::from_ed_der(public), base64url(public));
                let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
                let jwk = Jwk { kty: "OKP", crv: Some("Ed25519"), x: Some(x), ..jwk };
                (PrivateKey::Ed25519(pair), verify, Some(jwk), members)
            }
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &file.secret)
                    .map_err(|_| damaged("it is not a P-256 private key"))?;
                let public = pair.public_key().as_ref();
                let verify = DecodingKey::from_ec_der(public);
                // An uncompressed point (SEC 1 §2.3.3): 04, x, y.
                let (x, y) = public
                    .strip_prefix(&[4])
                    .and_then(|point| point.split_at_checked(P256_BYTES))
                    .map(|(x, y)| (base64url(x), base64url(y)))
                    .ok_or_else(|| damaged("its public key is not a P-256 point"))?;
                let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
                let jwk = Jwk { kty: "EC", crv: Some("P-256"), x: Some(x), y: Some(y), ..jwk };
                (PrivateKey::P256(pair), verify, Some(jwk), members)
            }
            Algorithm::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(&file.secret)
                    .map_err(|_| damaged("it is not an RSA private key"))?;
                if pair.public_modulus_len() < RSA_BYTES_MIN {
                    return Err(damaged("an RSA key needs at least 2048 bits"));
                }
                let verify = DecodingKey::from_rsa_der(pair.public_key().as_ref());
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                let (n, e) = (base64url(&public.n), base64url(&public.e));
                let members = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
                let jwk = Jwk { kty: "RSA", n: Some(n), e: Some(e), ..jwk };
                (PrivateKey::Rsa(pair), verify, Some(jwk), members)
            }
            Algorithm::Hs256 => {
                if file.secret.len() != HMAC_BYTES {
                    return Err(damaged("it does not contain 32 bytes"));
                }
                let private =
                    PrivateKey::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &file.secret)));
                let verify = DecodingKey::from_secret(&file.secret);
                // RFC 7638 §7: the thumbprint of a secret should not be published. A MAC with it
                // may be.
                (private, verify, None, String::new())
            }
        };
        let kid = match &private {
            PrivateKey::Hmac(key) => base64url(hmac::sign(key, b"staunch access key id").as_ref()),
            PrivateKey::Ed25519(_) | PrivateKey::P256(_) | PrivateKey::Rsa(_) => {
                base64url(digest(&SHA256, thumbprint_of.as_bytes()).as_ref())
            }
        };
        let jwk = jwk.map(|jwk| Jwk { kid: kid.clone(), ..jwk });
        let (path, from_unix_s) = (file.path, file.from_unix_s);
        Ok(Self { kid, algorithm, from_unix_s, path, verify, jwk, private })
    }

    /// Signs a JWS signing input (RFC 7515 §5.1) in the form of RFC 7518 §3.
    pub(super) fn sign(&self, input: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let rng = SystemRandom::new();
        Ok(match &self.private {
            PrivateKey::Ed25519(pair) => pair.sign(input).as_ref().to_vec(),
            PrivateKey::P256(pair) => pair.sign(&rng, input)?.as_ref().to_vec(),
            PrivateKey::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &rng, input, &mut signature)?;
                signature
            }
            PrivateKey::Hmac(key) => hmac::sign(key, input).as_ref().to_vec(),
        })
    }
}

pub(super) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use zeroize::Zeroizing;

    fn read(algorithm: Algorithm, secret: &[u8]) -> Result<SigningKey, KeyError> {
        let secret = Zeroizing::new(secret.to_vec());
        SigningKey::read(algorithm, KeyFile { path: "key.pem".into(), from_unix_s: 7, secret })
    }

    #[test]
    fn the_thumbprint_matches_rfc_8037_appendix_a_3() {
        // The key pair of RFC 8037 appendix A.1 as PKCS #8 (RFC 8410 §7).
        let mut document =
            vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        document
            .extend(URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap());
        let key = read(Algorithm::EdDsa, &document).unwrap();
        assert_eq!(key.kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let jwk: Value = serde_json::to_value(&key.jwk).unwrap();
        assert_eq!(jwk["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!((&jwk["kty"], &jwk["use"]), (&json!("OKP"), &json!("sig")));
        assert_eq!(jwk.as_object().unwrap().len(), 6, "{jwk}");
    }

    #[test]
    fn every_algorithm_verifies_its_own_signatures() {
        for algorithm in Algorithm::ALL {
            let key = read(algorithm, &algorithm.generate().unwrap()).unwrap();
            let signature = base64url(&key.sign(b"a.b").unwrap());
            let good = |message: &[u8]| {
                jsonwebtoken::crypto::verify(&signature, message, &key.verify, algorithm.jwa())
            };
            assert!(good(b"a.b").unwrap() && !good(b"a.c").unwrap(), "{algorithm}");
            assert_eq!(key.jwk.is_none(), algorithm == Algorithm::Hs256);
            for other in Algorithm::ALL {
                let swapped = read(other, &algorithm.generate().unwrap());
                assert_eq!(swapped.is_ok(), other == algorithm, "{algorithm} as {other}");
            }
        }
    }
}
