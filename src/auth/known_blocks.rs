//! Restores known address blocks from the account's live sessions.
//!
//! The lockout's memory ends with the process, or with the store that all nodes share. Without this,
//! twenty failures from anywhere would lock owners out at their usual addresses until the wait ends.
//!
//! If only failures from unknown blocks lock a login out, the login looks up the account's sessions.
//! A name causes at most one query per wait, whether or not it exists, and at most [`LOOKUPS_MAX`]
//! queries run at a time. With a store, that is one query of all nodes.

use super::lockout::{KNOWN_TTL, LoginKey, SLOTS};
use super::{Auth, Inner};
use crate::identity::LoginName;
use crate::store::SessionBlock;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// The maximum number of concurrent look-ups.
///
/// A login beyond it is refused, and the next one may look up again.
pub(super) const LOOKUPS_MAX: usize = 4;

impl Auth {
    /// Restores the blocks of the account's live sessions, if this login claims the look-up.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the look-up, so a client that disconnects causes no second
    /// one.
    pub(super) async fn restore_known_blocks(&self, name: &LoginName, login_key: LoginKey) {
        let Inner { lockout, clock, .. } = &*self.0;
        let Some(lockout) = lockout else { return };
        if !lockout.claim_lookup(login_key, clock.now()) {
            return;
        }
        let Some(permit) = self.lookup_permit() else {
            lockout.release_lookup(login_key, clock.now());
            return;
        };
        let (auth, name) = (self.clone(), name.clone());
        let lookup = tokio::spawn(async move {
            let blocks = auth.blocks_of_sessions(&name, permit).await;
            let Inner { lockout: Some(lockout), clock, .. } = &*auth.0 else { return };
            match blocks {
                Some(blocks) => blocks.iter().for_each(|block| {
                    lockout.restore(&name, block.address, block.age, clock.now());
                }),
                None => lockout.release_lookup(login_key, clock.now()),
            }
        });
        lookup.await.ok();
    }

    /// Does the same in the store that all nodes share. The login has claimed the look-up there.
    ///
    /// # Cancel safety
    /// As [`Auth::restore_known_blocks`].
    pub(super) async fn restore_shared_blocks(&self, name: &LoginName, address: IpAddr) {
        let Some(permit) = self.lookup_permit() else {
            if let Some(shared) = self.shared_login(name, address) {
                shared.release().await;
            }
            return;
        };
        let (auth, name) = (self.clone(), name.clone());
        let lookup = tokio::spawn(async move {
            let blocks = auth.blocks_of_sessions(&name, permit).await;
            let Some(shared) = auth.shared_login(&name, address) else { return };
            let Some(blocks) = blocks else { return shared.release().await };
            let key = |block: SessionBlock| {
                let login = auth.shared_login(&name, block.address)?;
                Some((login.into_keys(), block.age))
            };
            let keys: Vec<_> = blocks.into_iter().filter_map(key).collect();
            if !keys.is_empty() {
                shared.restore(&keys).await;
            }
        });
        lookup.await.ok();
    }

    /// Makes an address known in the store, under each of the names.
    pub(super) async fn know_shared(&self, names: Vec<LoginName>, address: IpAddr) {
        for name in names {
            if let Some(shared) = self.shared_login(&name, address) {
                shared.know().await;
            }
        }
    }

    fn lookup_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.lookups).try_acquire_owned().ok()
    }

    /// Looks up the blocks of the account's live sessions. `None` if the database did not answer.
    async fn blocks_of_sessions(
        &self,
        name: &LoginName,
        _permit: OwnedSemaphorePermit,
    ) -> Option<Vec<SessionBlock>> {
        let blocks = self.0.store.session_blocks(name, KNOWN_TTL, SLOTS).await;
        blocks
            .inspect_err(|error| {
                tracing::debug!(%error, "cannot look up the sessions of an account: its known addresses were not restored");
            })
            .ok()
    }
}
