//! Tokens: signed access tokens that anybody can check, refresh tokens that only staunch can.
//!
//! This layer knows keys, signatures and formats. It knows no database: whether a session still
//! lives is the store's to say, and what follows from it is the rules' (`auth`).

mod access;
mod algorithm;
mod error;
mod keys;
mod refresh;
mod ring;
mod rotation;
mod signing;

pub use access::{AccessClaims, AccessError, OCTETS_MAX};
pub use algorithm::Algorithm;
pub use error::KeyError;
pub use keys::{Kind, PUBLISH_DELAY};
pub use refresh::{RefreshClaims, RefreshError};
pub use rotation::{KeyFolder, KeyInfo, KeyState, RetireError, Rotation};

use crate::clock::Clock;
use crate::identity::{SessionId, UserId};
use crate::secret::Secret;
use ring::Ring;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// What tokens are made with.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// What access tokens are signed with from now on.
    pub algorithm: Algorithm,
    /// `iss` of access tokens: the base URL that clients know this server by (RFC 7519 §4.1.1).
    pub issuer: String,
    /// `aud` of access tokens: who they are meant for (RFC 7519 §4.1.3).
    pub audience: String,
    /// The folder of key files, mode 0700; made when it is not there.
    pub keys_dir: PathBuf,
    /// How long an access token is valid. Whole seconds.
    pub access_ttl: Duration,
    /// How long a refresh token is valid: so long its key is needed.
    pub refresh_ttl: Duration,
}

/// The keys, and what is done with them. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    config: TokenConfig,
    clock: Clock,
    /// Replaced as a whole when the folder has changed. The lock is held for the copy of a pointer.
    ring: RwLock<Arc<Ring>>,
}

impl Tokens {
    /// Opens the key folder; a missing key is made, a present one is never written over.
    ///
    /// # Errors
    /// When a file cannot be read, written or understood, or others than its owner may read it.
    pub fn open(config: &TokenConfig, clock: Clock) -> Result<Self, KeyError> {
        let keys = keys::Keys::open(&config.keys_dir, &clock, config.algorithm)?;
        let ring = Ring::new(config, keys, &clock)?;
        ring.access.log_handover();
        let (config, ring) = (config.clone(), RwLock::new(Arc::new(ring)));
        Ok(Self(Arc::new(Inner { config, clock, ring })))
    }

    /// Reads the key folder again. True: it had changed, and its keys are in use from now on.
    /// Reads files, so not for a thread that serves.
    ///
    /// # Errors
    /// As [`Tokens::open`], and when a kind of key is gone; the keys stay as they were.
    pub fn reload(&self) -> Result<bool, KeyError> {
        let Inner { config, clock, ring } = &*self.0;
        let keys = keys::Keys::read(&config.keys_dir)?;
        if keys.access.is_empty() || keys.refresh.is_empty() {
            return Err(KeyError::Missing { path: config.keys_dir.clone() });
        }
        let new = Ring::new(config, keys, clock)?;
        if new.ids() == self.ring().ids() {
            return Ok(false);
        }
        *ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(true)
    }

    /// The keys in use now.
    fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.0.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The `iss` of access tokens.
    pub fn issuer(&self) -> &str {
        &self.0.config.issuer
    }

    /// The `aud` of access tokens.
    pub fn audience(&self) -> &str {
        &self.0.config.audience
    }

    /// How long an access token is valid, the `expires_in` of a token answer.
    pub fn access_ttl(&self) -> Duration {
        self.0.config.access_ttl
    }

    /// The public keys that access tokens are checked with, those that do not sign yet among them:
    /// a JWK set (RFC 7517 §5).
    pub fn public_keys(&self) -> Arc<str> {
        Arc::clone(&self.ring().public)
    }

    /// Since when the key that signs access tokens may do so, in seconds since 1970; 0 if its file
    /// does not say.
    pub fn signing_key_created_unix_s(&self) -> u64 {
        self.ring().access.signing().map_or(0, |key| key.from_unix_s)
    }

    /// Signs an access token for this session, valid from now for the configured time.
    ///
    /// # Errors
    /// When the signing library fails; not known to happen with a key that was opened.
    pub fn sign_access(&self, user: UserId, session: SessionId) -> Result<Secret, AccessError> {
        self.ring().access.sign(user, session)
    }

    /// Checks an access token's signature, issuer, audience, type and times. One signature check
    /// a token, not a call: tokens that passed are remembered, their expiry is checked each time.
    ///
    /// # Errors
    /// Every reason is one error: the client is told nothing about which check failed.
    pub fn verify_access(&self, token: &str) -> Result<AccessClaims, AccessError> {
        self.ring().access.verify(token)
    }

    /// Makes the refresh token of that generation of a session; always the same one, until another
    /// key begins to seal.
    pub fn seal_refresh(&self, claims: RefreshClaims) -> Secret {
        self.ring().refresh.seal(claims)
    }

    /// Checks a refresh token's MAC, in constant time, and returns what it carries.
    ///
    /// # Errors
    /// When this server did not make it: wrong form, unknown key, or altered.
    pub fn open_refresh(&self, token: &str) -> Result<RefreshClaims, RefreshError> {
        self.ring().refresh.open(token)
    }
}
