//! Tokens: signed access tokens that any client can check, and refresh tokens for staunch itself.
//!
//! This layer handles keys, signatures and formats. It does not use the database: the store knows
//! whether a session is alive, and `auth` decides what follows from it.

mod access;
mod algorithm;
mod error;
mod key_set;
mod keys;
mod refresh;
mod rotation;
mod signing;

pub use access::{AccessClaims, AccessError, BYTES_MAX};
pub use algorithm::Algorithm;
pub use error::KeyError;
pub use keys::{KeyKind, PUBLISH_DELAY};
pub use refresh::{RefreshClaims, RefreshTokenError};
pub use rotation::{KeyFolder, KeyInfo, KeyState, RetireError, Rotation};

use crate::clock::Clock;
use crate::identity::{SessionId, UserId};
use crate::secret::Secret;
use key_set::KeySet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use zeroize::Zeroizing;

/// The settings of tokens and their keys.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// The algorithm that signs new access tokens.
    pub algorithm: Algorithm,
    /// `iss` of access tokens: this server's base URL for clients (RFC 7519 §4.1.1).
    pub issuer: String,
    /// `aud` of access tokens: their intended recipient (RFC 7519 §4.1.3).
    pub audience: String,
    /// The folder of key files, mode 0700. Created if it does not exist.
    pub keys_dir: PathBuf,
    /// How long an access token is valid. Whole seconds.
    pub access_ttl: Duration,
    /// How long a refresh token is valid. Its key is needed for as long.
    pub refresh_ttl: Duration,
}

/// A handle to the keys that makes and checks tokens. Cheap to clone; all clones share the keys.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    config: TokenConfig,
    clock: Clock,
    /// Replaced as a whole when the folder changes. The lock is held only to copy a pointer.
    key_set: RwLock<Arc<KeySet>>,
}

impl Tokens {
    /// Opens the key folder. Creates missing keys and never overwrites existing ones.
    ///
    /// # Errors
    /// A file cannot be read, written or parsed, or users other than its owner may read it.
    pub fn open(config: &TokenConfig, clock: Clock) -> Result<Self, KeyError> {
        let keys = keys::Keys::open(&config.keys_dir, &clock, config.algorithm)?;
        let key_set = KeySet::new(config, keys, &clock)?;
        key_set.access.log_handover();
        let (config, key_set) = (config.clone(), RwLock::new(Arc::new(key_set)));
        Ok(Self(Arc::new(Inner { config, clock, key_set })))
    }

    /// Reads the key folder again. Returns true if it changed; its keys are then in use.
    ///
    /// Reads files, so it must not run on a serving thread.
    ///
    /// # Errors
    /// As [`Tokens::open`], and if a kind of key is missing. The keys in use stay unchanged.
    pub fn reload(&self) -> Result<bool, KeyError> {
        let Inner { config, clock, key_set } = &*self.0;
        let keys = keys::Keys::read(&config.keys_dir)?;
        if keys.access.is_empty() || keys.refresh.is_empty() {
            return Err(KeyError::Missing { path: config.keys_dir.clone() });
        }
        let new = KeySet::new(config, keys, clock)?;
        if new.ids() == self.key_set().ids() {
            return Ok(false);
        }
        *key_set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(true)
    }

    /// The keys in use.
    fn key_set(&self) -> Arc<KeySet> {
        Arc::clone(&self.0.key_set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The `iss` of access tokens.
    pub fn issuer(&self) -> &str {
        &self.0.config.issuer
    }

    /// The `aud` of access tokens.
    pub fn audience(&self) -> &str {
        &self.0.config.audience
    }

    /// How long an access token is valid: the `expires_in` of a token response.
    pub fn access_ttl(&self) -> Duration {
        self.0.config.access_ttl
    }

    /// The public keys that verify access tokens, as a JWK set (RFC 7517 §5).
    ///
    /// It includes the keys that do not sign yet.
    pub fn public_keys(&self) -> Arc<str> {
        Arc::clone(&self.key_set().public)
    }

    /// The start time of the key that signs access tokens, in seconds since 1970.
    ///
    /// 0 if its file name has no time.
    pub fn signing_key_created_unix_s(&self) -> u64 {
        self.key_set().access.signing().map_or(0, |key| key.from_unix_s)
    }

    /// Signs an access token for a session, valid from now for the configured time.
    ///
    /// # Errors
    /// The signing library fails. This is not known to happen with a key that was opened.
    pub fn sign_access(&self, user: UserId, session: SessionId) -> Result<Secret, AccessError> {
        self.key_set().access.sign(user, session)
    }

    /// Checks an access token's signature, issuer, audience, type and times.
    ///
    /// The signature is checked once per token: accepted tokens are cached. The expiry is checked
    /// on every call.
    ///
    /// # Errors
    /// All reasons give the same error, so that a client cannot tell which check failed.
    pub fn verify_access(&self, token: &str) -> Result<AccessClaims, AccessError> {
        self.key_set().access.verify(token)
    }

    /// Makes the refresh token of a session and generation.
    ///
    /// The text is always the same, until another key starts to seal.
    pub fn seal_refresh(&self, claims: RefreshClaims) -> Secret {
        self.key_set().refresh.seal(claims)
    }

    /// Derives a secret for another purpose from the key that seals refresh tokens.
    ///
    /// All nodes that share the key folder derive the same one. It changes when another key starts to
    /// seal. The label names the purpose.
    pub fn derive_secret(&self, label: &str) -> Zeroizing<Vec<u8>> {
        self.key_set().refresh.derive_secret(label)
    }

    /// Checks a refresh token's MAC in constant time, and returns its content.
    ///
    /// # Errors
    /// This server did not make the token: wrong form, unknown key, or altered.
    pub fn open_refresh(&self, token: &str) -> Result<RefreshClaims, RefreshTokenError> {
        self.key_set().refresh.open(token)
    }
}
