//! Access tokens (JWT, HS256) and refresh tokens (random, stored as their SHA-256).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::{SystemTime, UNIX_EPOCH};

/// How long an access token is valid, in seconds.
pub(crate) const ACCESS_TTL_S: u64 = 1800;
const ISSUER: &str = "axum-baseline";

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    iat: u64,
    jti: String,
}

pub(crate) struct Signer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl Signer {
    /// Tokens with a key that lives as long as the process.
    pub(crate) fn new() -> Self {
        let secret: [u8; 32] = rand::random();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[ISSUER]);
        validation.set_issuer(&[ISSUER]);
        Self {
            encoding: EncodingKey::from_secret(&secret),
            decoding: DecodingKey::from_secret(&secret),
            validation,
        }
    }

    pub(crate) fn sign(&self, user_id: i64) -> Result<String, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims {
            iss: ISSUER.into(),
            sub: user_id.to_string(),
            aud: ISSUER.into(),
            exp: now + ACCESS_TTL_S,
            iat: now,
            jti: uuid::Uuid::new_v4().to_string(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
    }

    /// The account of a token.
    pub(crate) fn check(&self, token: &str) -> Result<i64, Error> {
        let token = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)?;
        token.claims.sub.parse().map_err(|_| ErrorKind::InvalidToken.into())
    }
}

pub(crate) struct RefreshToken {
    pub(crate) text: String,
    pub(crate) hash: Vec<u8>,
}

impl RefreshToken {
    pub(crate) fn random() -> Self {
        Self::of(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
    }

    pub(crate) fn of(text: String) -> Self {
        let hash = Sha256::digest(text.as_bytes()).to_vec();
        Self { text, hash }
    }
}
