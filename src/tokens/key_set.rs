//! The keys of a folder, ready for use. One value, replaced as a whole when the folder changes.

use super::TokenConfig;
use super::access::Access;
use super::error::KeyError;
use super::keys::Keys;
use super::refresh::Refresh;
use super::signing::Jwk;
use crate::clock::Clock;
use serde::Serialize;
use std::sync::Arc;

pub(super) struct KeySet {
    pub(super) access: Access,
    pub(super) refresh: Refresh,
    /// The public keys as a JWK set.
    pub(super) public: Arc<str>,
}

impl KeySet {
    pub(super) fn new(config: &TokenConfig, keys: Keys, clock: &Clock) -> Result<Self, KeyError> {
        let access = Access::new(config, keys.access, clock.clone())?;
        let public = public_keys(&access);
        Ok(Self { access, refresh: Refresh::new(keys.refresh, clock.clone()), public })
    }

    /// The id and start time of each key. Two key sets with equal ids are the same.
    pub(super) fn ids(&self) -> Vec<(String, u64)> {
        let access = self.access.keys.iter().map(|key| (key.kid.clone(), key.from_unix_s));
        access.chain(self.refresh.keys.iter().map(|key| (key.kid(), key.from_unix_s))).collect()
    }
}

/// The public keys as a JWK set (RFC 7517 §5).
fn public_keys(access: &Access) -> Arc<str> {
    #[derive(Serialize)]
    struct Set<'a> {
        keys: Vec<&'a Jwk>,
    }
    let keys = access.keys.iter().filter_map(|key| key.jwk.as_ref()).collect();
    // Structs of strings always serialise.
    serde_json::to_string(&Set { keys }).unwrap_or_default().into()
}
