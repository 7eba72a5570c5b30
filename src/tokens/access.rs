//! Access tokens: JWTs (RFC 7519) in the shape of RFC 9068, signed with Ed25519 (RFC 8037).

use super::TokenConfig;
use super::keys::{KeyError, KeyFile};
use crate::clock::Clock;
use crate::identity::{SessionId, UserId};
use crate::secret::Secret;
use crate::telemetry::trace::{self, Stage};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The header's `typ` (RFC 9068 §2.1): no other kind of JWT passes for an access token.
const TYPE: &str = "at+jwt";
/// Longest token that is looked at, in octets. Ours take about 450.
const TOKEN_OCTETS_MAX: usize = 4096;
/// Tokens whose signature is remembered. At about 100 octets each, under 4 MB.
const REMEMBERED_MAX: usize = 32_768;

/// What a valid access token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessClaims {
    /// Whose it is.
    pub user: UserId,
    /// The session it came from, and ends with.
    pub session: SessionId,
    /// When it ends, in seconds since 1970.
    pub expires_unix_s: u64,
}

/// Why a token was not signed or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Not one of ours, not for us, or past its time.
    #[error("access token rejected")]
    Rejected,
    /// The signing library failed.
    #[error("access token could not be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// The claims as they travel (RFC 7519 §4.1, RFC 9068 §2.2).
#[derive(Serialize, Deserialize)]
struct Payload {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    iat: u64,
    jti: String,
    sid: String,
}

struct Key {
    /// RFC 7638 thumbprint of the public key.
    kid: String,
    created_unix_s: u64,
    sign: EncodingKey,
    verify: DecodingKey,
}

pub(super) struct Access {
    /// Oldest first; the last one signs.
    keys: Vec<Key>,
    issuer: String,
    audience: String,
    validation: Validation,
    clock: Clock,
    /// SHA-256 of a token that passed -> what it says.
    remembered: Cache<[u8; 32], AccessClaims>,
    pub(super) ttl: Duration,
}

impl Access {
    pub(super) fn new(
        config: &TokenConfig,
        files: Vec<KeyFile>,
        clock: Clock,
    ) -> Result<Self, KeyError> {
        let keys = files.into_iter().map(Key::read).collect::<Result<_, _>>()?;
        // One algorithm, pinned by the kind of key and never by the token's header (RFC 8725 §3.1).
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are checked below, by our own clock and without leeway: one server made both.
        validation.validate_exp = false;
        Ok(Self {
            keys,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            validation,
            clock,
            remembered: Cache::new(REMEMBERED_MAX),
            ttl: config.access_ttl,
        })
    }

    /// When the key that signs was made, in seconds since 1970; 0 if its file does not say.
    pub(super) fn signing_key_created_unix_s(&self) -> u64 {
        self.keys.last().map_or(0, |key| key.created_unix_s)
    }

    pub(super) fn sign(&self, user: UserId, session: SessionId) -> Result<Secret, AccessError> {
        let key = self.keys.last().ok_or(AccessError::Rejected)?;
        let now = self.clock.unix_s();
        let header = Header {
            typ: Some(TYPE.to_owned()),
            kid: Some(key.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        let payload = Payload {
            iss: self.issuer.clone(),
            sub: user.to_string(),
            aud: self.audience.clone(),
            exp: now + self.ttl.as_secs(),
            iat: now,
            jti: SessionId::random().to_string(),
            sid: session.to_string(),
        };
        let begun = self.clock.now();
        let signed = jsonwebtoken::encode(&header, &payload, &key.sign);
        trace::note(Stage::Sign, None, begun, self.clock.now());
        signed.map(Secret::new).map_err(AccessError::Sign)
    }

    pub(super) fn verify(&self, token: &str) -> Result<AccessClaims, AccessError> {
        if token.len() > TOKEN_OCTETS_MAX {
            return Err(AccessError::Rejected);
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let claims = match self.remembered.get(&fingerprint) {
            Some(claims) => claims,
            None => {
                let claims = self.check(token)?;
                self.remembered.insert(fingerprint, claims);
                claims
            }
        };
        if claims.expires_unix_s <= self.clock.unix_s() {
            return Err(AccessError::Rejected);
        }
        Ok(claims)
    }

    /// Everything about a token but whether its time has passed.
    fn check(&self, token: &str) -> Result<AccessClaims, AccessError> {
        let rejected = |_| AccessError::Rejected;
        let header = jsonwebtoken::decode_header(token).map_err(rejected)?;
        let typed = header.typ.is_some_and(|typ| typ.eq_ignore_ascii_case(TYPE));
        let key = self.keys.iter().find(|key| Some(&key.kid) == header.kid.as_ref());
        let key = key.filter(|_| typed).ok_or(AccessError::Rejected)?;
        let payload = jsonwebtoken::decode::<Payload>(token, &key.verify, &self.validation)
            .map_err(rejected)?
            .claims;
        Ok(AccessClaims {
            user: UserId(payload.sub.parse().map_err(|_| AccessError::Rejected)?),
            session: payload.sid.parse().map_err(|_| AccessError::Rejected)?,
            expires_unix_s: payload.exp,
        })
    }
}

impl Key {
    fn read(file: KeyFile) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(&file.secret).map_err(|_| KeyError::Damaged {
            path: file.path.clone(),
            reason: "it is not an Ed25519 private key",
        })?;
        let public = pair.public_key().as_ref();
        let x = URL_SAFE_NO_PAD.encode(public);
        // RFC 7638 §3 with the members that RFC 8037 §2 requires, in lexicographic order.
        let thumbprint =
            digest(&SHA256, format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#).as_bytes());
        Ok(Self {
            kid: URL_SAFE_NO_PAD.encode(thumbprint),
            created_unix_s: file.created_unix_s(),
            sign: EncodingKey::from_ed_der(&file.secret),
            verify: DecodingKey::from_ed_der(public),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::Tokens;
    use serde_json::{Value, json};
    use std::path::Path;

    const TTL: Duration = Duration::from_secs(1800);

    fn open(keys: &Path, clock: &Clock) -> Tokens {
        let config = TokenConfig {
            issuer: "https://auth.example".into(),
            audience: "staunch".into(),
            keys_dir: keys.to_owned(),
            access_ttl: TTL,
        };
        Tokens::open(&config, clock.clone()).unwrap()
    }

    #[test]
    fn a_signed_token_verifies_until_it_expires() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
        let tokens = open(folder.path(), &clock);
        let session = SessionId::random();
        let token = tokens.sign_access(UserId(7), session).unwrap();
        for _ in 0..2 {
            let claims = tokens.verify_access(token.expose()).unwrap();
            assert_eq!((claims.user, claims.session), (UserId(7), session));
        }
        clock.advance(TTL - Duration::from_secs(1));
        assert!(tokens.verify_access(token.expose()).is_ok());
        clock.advance(Duration::from_secs(1));
        assert!(tokens.verify_access(token.expose()).is_err(), "remembered, but past its time");
    }

    #[test]
    fn forged_tokens_are_rejected() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
        let tokens = open(folder.path(), &clock);
        let good = tokens.sign_access(UserId(7), SessionId::random()).unwrap();
        let parts: Vec<&str> = good.expose().split('.').collect();
        let decode = |part: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let (header, payload) = (decode(parts[0]), decode(parts[1]));
        assert_eq!((&header["alg"], &header["typ"]), (&json!("EdDSA"), &json!("at+jwt")));

        let key = &tokens.0.access.keys[0];
        let signed = |typ: &str, kid: &str, payload: &Value| {
            let header = Header {
                typ: Some(typ.into()),
                kid: Some(kid.into()),
                ..Header::new(Algorithm::EdDSA)
            };
            jsonwebtoken::encode(&header, payload, &key.sign).unwrap()
        };
        assert!(
            tokens.verify_access(&signed(TYPE, &key.kid, &payload)).is_ok(),
            "the helper signs well"
        );
        let with = |name: &str, value: Value| {
            let mut changed = payload.clone();
            changed[name] = value;
            changed
        };
        let without = |name: &str| {
            let mut changed = payload.clone();
            changed.as_object_mut().unwrap().remove(name);
            changed
        };
        let none = encode(&json!({"alg": "none", "typ": "at+jwt", "kid": key.kid}));
        let hmac_header = Header {
            typ: Some(TYPE.into()),
            kid: Some(key.kid.clone()),
            ..Header::new(Algorithm::HS256)
        };
        let public = key.verify.try_get_as_bytes().unwrap();
        let hmac = jsonwebtoken::encode(&hmac_header, &payload, &EncodingKey::from_secret(public))
            .unwrap();
        let mut forged = vec![
            ("alg none", format!("{none}.{}.", parts[1])),
            ("HS256 over the public key", hmac),
            ("another kid", signed(TYPE, "other", &payload)),
            ("another type", signed("JWT", &key.kid, &payload)),
            (
                "another payload",
                format!("{}.{}.{}", parts[0], encode(&with("sub", json!("8"))), parts[2]),
            ),
            ("another issuer", signed(TYPE, &key.kid, &with("iss", json!("https://evil.example")))),
            ("another audience", signed(TYPE, &key.kid, &with("aud", json!("other")))),
            ("past its time", signed(TYPE, &key.kid, &with("exp", json!(clock.unix_s())))),
            (
                "a refresh token",
                tokens
                    .seal_refresh(crate::tokens::RefreshClaims {
                        session: SessionId::random(),
                        generation: 0,
                    })
                    .expose()
                    .to_owned(),
            ),
            ("nothing", String::new()),
            ("too long", "a".repeat(TOKEN_OCTETS_MAX + 1)),
        ];
        for claim in ["iss", "sub", "aud", "exp", "sid"] {
            forged.push((claim, signed(TYPE, &key.kid, &without(claim))));
        }
        for (what, token) in forged {
            assert!(tokens.verify_access(&token).is_err(), "{what}");
        }
    }

    #[test]
    fn an_older_key_in_the_folder_still_verifies() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
        let old = open(folder.path(), &clock).sign_access(UserId(1), SessionId::random()).unwrap();
        let aside = tempfile::tempdir().unwrap();
        clock.advance(Duration::from_secs(60));
        open(aside.path(), &clock);
        for entry in std::fs::read_dir(aside.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let tokens = open(folder.path(), &clock);
        assert!(tokens.verify_access(old.expose()).is_ok());
        let new = tokens.sign_access(UserId(1), SessionId::random()).unwrap();
        assert_ne!(
            jsonwebtoken::decode_header(old.expose()).unwrap().kid,
            jsonwebtoken::decode_header(new.expose()).unwrap().kid
        );
    }
}
