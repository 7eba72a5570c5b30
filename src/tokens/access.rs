//! Access tokens: JWTs (RFC 7519) that follow RFC 9068 as far as a first-party login allows.
//!
//! `typ` is `at+jwt` (§2.1). The claims are `iss sub aud exp iat jti` (§2.2) and `sid`, the session
//! (registered by OpenID Connect Front-Channel Logout 1.0 §3). `client_id`, which §2.2 requires, is
//! left out, because a first-party login has no client.

use super::TokenConfig;
use super::algorithm::Algorithm;
use super::error::KeyError;
use super::keys::KeyFile;
use super::signing::{SigningKey, base64url};
use crate::clock::Clock;
use crate::identity::{SessionId, UserId};
use crate::secret::Secret;
use crate::telemetry::trace::{self, Stage};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use jsonwebtoken::Validation;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// The header's `typ` (RFC 9068 §2.1). JWTs of another type are rejected.
const TYPE: &str = "at+jwt";
/// The longest token that is checked, in bytes. Ours take about 450, with RSA 800.
const TOKEN_BYTES_MAX: usize = 4096;
/// Tokens whose signature check is cached. At about 120 bytes each, under 5 MB.
const REMEMBERED_MAX: usize = 32_768;
/// The maximum memory of the cached tokens. Unit: bytes.
pub const BYTES_MAX: u64 = REMEMBERED_MAX as u64 * 256;

/// The content of a valid access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessClaims {
    /// The account.
    pub user: UserId,
    /// The session that the token belongs to. The token ends with it.
    pub session: SessionId,
    /// The token's own id.
    pub token: Uuid,
    /// The time of issue, in seconds since 1970.
    pub issued_unix_s: u64,
    /// The time of expiry, in seconds since 1970.
    pub expires_unix_s: u64,
}

/// Why a token was not signed or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Not signed by this server, not for this audience, or expired.
    #[error("access token rejected")]
    Rejected,
    /// The signing library failed.
    #[error("access token could not be signed")]
    Sign(#[source] Unspecified),
}

/// The header of our tokens (RFC 7515 §4.1).
#[derive(Serialize)]
struct Header<'a> {
    typ: &'static str,
    alg: &'static str,
    kid: &'a str,
}

/// The claims in their JSON form (RFC 7519 §4.1, RFC 9068 §2.2).
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

pub(super) struct Access {
    /// In the order of their start times.
    pub(super) keys: Vec<SigningKey>,
    signs: Algorithm,
    issuer: String,
    audience: String,
    validation: Validation,
    clock: Clock,
    /// Maps the SHA-256 of an accepted token to its content.
    ///
    /// The cache is dropped with the keys, so a retired key's tokens are no longer accepted.
    remembered: Cache<[u8; 32], AccessClaims>,
    ttl: Duration,
}

impl Access {
    pub(super) fn new(
        config: &TokenConfig,
        files: Vec<(Algorithm, KeyFile)>,
        clock: Clock,
    ) -> Result<Self, KeyError> {
        let read = |(algorithm, file)| SigningKey::read(algorithm, file);
        let keys = files.into_iter().map(read).collect::<Result<_, _>>()?;
        let mut validation = Validation::new(config.algorithm.jwa());
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are checked below, with our clock and no leeway, because one server sets both.
        validation.validate_exp = false;
        Ok(Self {
            keys,
            signs: config.algorithm,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            validation,
            clock,
            remembered: Cache::new(REMEMBERED_MAX),
            ttl: config.access_ttl,
        })
    }

    /// The key that signs now: the latest started key of the configured algorithm.
    ///
    /// If there is none, a key of another algorithm continues to sign. If no key has started,
    /// because clocks may differ, the first one signs.
    pub(super) fn signing(&self) -> Option<&SigningKey> {
        let now = self.clock.unix_s();
        let started = || self.keys.iter().rev().filter(|key| key.from_unix_s <= now);
        started()
            .find(|key| key.algorithm == self.signs)
            .or_else(|| started().next())
            .or_else(|| self.keys.first())
    }

    /// Logs that a key of the configured algorithm waits to take over, as after a change of
    /// `STAUNCH_JWT_ALG`.
    pub(super) fn log_handover(&self) {
        let now = self.clock.unix_s();
        let next =
            self.keys.iter().find(|key| key.algorithm == self.signs && key.from_unix_s > now);
        if let (Some(next), Some(signing)) = (next, self.signing())
            && next.kid != signing.kid
        {
            tracing::info!(
                kid = next.kid,
                "access tokens are signed with {} for {} s more, then with {}: all nodes and clients need the new key first",
                signing.algorithm.name(),
                next.from_unix_s - now,
                next.algorithm.name(),
            );
        }
    }

    pub(super) fn sign(&self, user: UserId, session: SessionId) -> Result<Secret, AccessError> {
        let key = self.signing().ok_or(AccessError::Sign(Unspecified))?;
        let now = self.clock.unix_s();
        let header = Header { typ: TYPE, alg: key.algorithm.name(), kid: &key.kid };
        let payload = Payload {
            iss: self.issuer.clone(),
            sub: user.to_string(),
            aud: self.audience.clone(),
            exp: now + self.ttl.as_secs(),
            iat: now,
            jti: Uuid::new_v4().to_string(),
            sid: session.to_string(),
        };
        let start = self.clock.now();
        let signed = compact(key, &header, &payload);
        trace::note(Stage::Sign, None, start, self.clock.now());
        signed.map(Secret::new).map_err(AccessError::Sign)
    }

    pub(super) fn verify(&self, token: &str) -> Result<AccessClaims, AccessError> {
        if token.len() > TOKEN_BYTES_MAX {
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

    /// Checks everything about a token except its expiry.
    fn check(&self, token: &str) -> Result<AccessClaims, AccessError> {
        let rejected = |_| AccessError::Rejected;
        let header = jsonwebtoken::decode_header(token).map_err(rejected)?;
        let typed = header.typ.is_some_and(|typ| typ.eq_ignore_ascii_case(TYPE));
        // No extension is supported, so none may be marked critical (RFC 7515 §4.1.11).
        if !typed || header.crit.is_some() {
            return Err(AccessError::Rejected);
        }
        let key = self.keys.iter().find(|key| Some(&key.kid) == header.kid.as_ref());
        let key = key.ok_or(AccessError::Rejected)?;
        // The key decides the algorithm, whatever the token's header says (RFC 8725 §3.1).
        let validation =
            Validation { algorithms: vec![key.algorithm.jwa()], ..self.validation.clone() };
        let payload = jsonwebtoken::decode::<Payload>(token, &key.verify, &validation)
            .map_err(rejected)?
            .claims;
        Ok(AccessClaims {
            user: UserId(payload.sub.parse().map_err(|_| AccessError::Rejected)?),
            session: payload.sid.parse().map_err(|_| AccessError::Rejected)?,
            token: Uuid::parse_str(&payload.jti).map_err(|_| AccessError::Rejected)?,
            issued_unix_s: payload.iat,
            expires_unix_s: payload.exp,
        })
    }
}

/// The JWS compact serialization (RFC 7515 §3.1).
fn compact(
    key: &SigningKey,
    header: &Header<'_>,
    payload: &Payload,
) -> Result<String, Unspecified> {
    // Structs of strings and numbers always serialise.
    let part = |json: Result<Vec<u8>, _>| {
        json.map(|json| base64url(&json)).map_err(|_: serde_json::Error| Unspecified)
    };
    let mut token =
        format!("{}.{}", part(serde_json::to_vec(header))?, part(serde_json::to_vec(payload))?);
    let signature = base64url(&key.sign(token.as_bytes())?);
    token.push('.');
    token.push_str(&signature);
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{PUBLISH_DELAY, Tokens};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};
    use std::path::Path;

    const TTL: Duration = Duration::from_secs(1800);

    fn open_with(algorithm: Algorithm, keys: &Path, clock: &Clock) -> Tokens {
        let config = TokenConfig {
            algorithm,
            issuer: "https://auth.example".into(),
            audience: "staunch".into(),
            keys_dir: keys.to_owned(),
            access_ttl: TTL,
            refresh_ttl: TTL,
        };
        Tokens::open(&config, clock.clone()).unwrap()
    }

    fn open(keys: &Path, clock: &Clock) -> Tokens {
        open_with(Algorithm::EdDsa, keys, clock)
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
        assert!(tokens.verify_access(token.expose()).is_err(), "cached, but expired");
    }

    // Reliability: F5.
    #[test]
    fn forged_access_tokens_are_rejected() {
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

        let key_set = tokens.key_set();
        let key = &key_set.access.keys[0];
        let sign = |header: Value, payload: &Value| {
            let input = format!("{}.{}", encode(&header), encode(payload));
            format!("{input}.{}", base64url(&key.sign(input.as_bytes()).unwrap()))
        };
        let signed = |typ: &str, kid: &str, payload: &Value| {
            sign(json!({"alg": "EdDSA", "typ": typ, "kid": kid}), payload)
        };
        assert!(
            tokens.verify_access(&signed(TYPE, &key.kid, &payload)).is_ok(),
            "the helper makes valid tokens"
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
            ..Header::new(jsonwebtoken::Algorithm::HS256)
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
                "a critical extension",
                sign(json!({"alg": "EdDSA", "typ": TYPE, "kid": key.kid, "crit": ["x"]}), &payload),
            ),
            ("another alg", sign(json!({"alg": "ES256", "typ": TYPE, "kid": key.kid}), &payload)),
            (
                "another payload",
                format!("{}.{}.{}", parts[0], encode(&with("sub", json!("8"))), parts[2]),
            ),
            ("another issuer", signed(TYPE, &key.kid, &with("iss", json!("https://evil.example")))),
            ("another audience", signed(TYPE, &key.kid, &with("aud", json!("other")))),
            ("expired", signed(TYPE, &key.kid, &with("exp", json!(clock.unix_s())))),
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
            ("too long", "a".repeat(TOKEN_BYTES_MAX + 1)),
        ];
        for claim in ["iss", "sub", "aud", "exp", "iat", "jti", "sid"] {
            forged.push((claim, signed(TYPE, &key.kid, &without(claim))));
        }
        for (what, token) in forged {
            assert!(tokens.verify_access(&token).is_err(), "{what}");
        }
    }

    #[test]
    fn a_new_algorithm_signs_once_its_key_was_published_long_enough() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
        let alg = |token: &Secret| jsonwebtoken::decode_header(token.expose()).unwrap().alg;
        let sign = |tokens: &Tokens| tokens.sign_access(UserId(1), SessionId::random()).unwrap();
        let mut made = vec![sign(&open(folder.path(), &clock))];
        for algorithm in [Algorithm::Es256, Algorithm::Rs256, Algorithm::Hs256, Algorithm::EdDsa] {
            let tokens = open_with(algorithm, folder.path(), &clock);
            let early = sign(&tokens);
            if algorithm != Algorithm::EdDsa {
                assert_ne!(alg(&early), algorithm.jwa(), "not yet");
            }
            clock.advance(PUBLISH_DELAY);
            let token = sign(&tokens);
            assert_eq!(alg(&token), algorithm.jwa());
            made.extend([early, token]);
            // The tokens that have not expired, whichever key signed them.
            for token in made.iter().rev().take(4) {
                assert!(tokens.verify_access(token.expose()).is_ok(), "{algorithm}");
            }
        }
    }
}
