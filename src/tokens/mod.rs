//! Tokens: signed access tokens that anybody can check, refresh tokens that only staunch can.
//!
//! This layer knows keys, signatures and formats. It knows no database: whether a session still
//! lives is the store's to say, and what follows from it is the rules' (`auth`).

mod access;
mod keys;
mod refresh;

pub use access::{AccessClaims, AccessError};
pub use keys::KeyError;
pub use refresh::{RefreshClaims, RefreshError};

use crate::clock::Clock;
use crate::identity::{SessionId, UserId};
use crate::secret::Secret;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What tokens are made with.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// `iss` of access tokens: the base URL that clients know this server by (RFC 7519 §4.1.1).
    pub issuer: String,
    /// `aud` of access tokens: who they are meant for (RFC 7519 §4.1.3).
    pub audience: String,
    /// The folder of key files, mode 0700; made when it is not there.
    pub keys_dir: PathBuf,
    /// How long an access token is valid. Whole seconds.
    pub access_ttl: Duration,
}

/// The keys, and what is done with them. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    access: access::Access,
    refresh: refresh::Refresh,
}

impl Tokens {
    /// Opens the key folder; a missing key is made, a present one is never written over.
    ///
    /// # Errors
    /// When a file cannot be read, written or understood, or others than its owner may read it.
    pub fn open(config: &TokenConfig, clock: Clock) -> Result<Self, KeyError> {
        let keys = keys::Keys::open(&config.keys_dir, &clock)?;
        Ok(Self(Arc::new(Inner {
            access: access::Access::new(config, keys.access, clock)?,
            refresh: refresh::Refresh::new(keys.refresh),
        })))
    }

    /// How long an access token is valid, the `expires_in` of a token answer.
    pub fn access_ttl(&self) -> Duration {
        self.0.access.ttl
    }

    /// When the key that signs access tokens was made, in seconds since 1970.
    pub fn signing_key_created_unix_s(&self) -> u64 {
        self.0.access.signing_key_created_unix_s()
    }

    /// Signs an access token for this session, valid from now for the configured time.
    ///
    /// # Errors
    /// When the signing library fails; not known to happen with a key that was opened.
    pub fn sign_access(&self, user: UserId, session: SessionId) -> Result<Secret, AccessError> {
        self.0.access.sign(user, session)
    }

    /// Checks an access token's signature, issuer, audience, type and times. One signature check
    /// a token, not a call: tokens that passed are remembered, their expiry is checked each time.
    ///
    /// # Errors
    /// Every reason is one error: the client is told nothing about which check failed.
    pub fn verify_access(&self, token: &str) -> Result<AccessClaims, AccessError> {
        self.0.access.verify(token)
    }

    /// Makes the refresh token of that generation of a session; always the same one.
    pub fn seal_refresh(&self, claims: RefreshClaims) -> Secret {
        self.0.refresh.seal(claims)
    }

    /// Checks a refresh token's MAC, in constant time, and returns what it carries.
    ///
    /// # Errors
    /// When this server did not make it: wrong form, unknown key, or altered.
    pub fn open_refresh(&self, token: &str) -> Result<RefreshClaims, RefreshError> {
        self.0.refresh.open(token)
    }
}
