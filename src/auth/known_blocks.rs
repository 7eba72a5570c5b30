//! Known address blocks, read back from the account's live sessions.
//!
//! The lockout's memory ends with the process, and each node has its own. Without this, twenty
//! failures from anywhere would keep owners out of the places they use, until the wait is over.
//!
//! A login that is kept out by strangers only looks the sessions up: at most one query for a name
//! and wait, the same for an unknown name, and [`LOOKUPS_MAX`] at a time.

use super::lockout::{KNOWN_TTL, PLACES, Who};
use super::{Auth, Inner};
use crate::identity::LoginName;

/// Look-ups at the same time. A login beyond them is refused, and the next one may look again.
pub(super) const LOOKUPS_MAX: usize = 4;

impl Auth {
    /// Makes the blocks of the account's live sessions known again, if this login is the one to look.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the look-up to finish by itself: a client that disconnects costs no
    /// second one.
    pub(super) async fn restore_known_blocks(&self, name: &LoginName, who: Who) {
        let Inner { lockout, clock, lookups, .. } = &*self.0;
        let Some(lockout) = lockout else { return };
        if !lockout.claim_lookup(who, clock.now()) {
            return;
        }
        let Ok(permit) = std::sync::Arc::clone(lookups).try_acquire_owned() else {
            lockout.release_lookup(who, clock.now());
            return;
        };
        let (auth, name) = (self.clone(), name.clone());
        let lookup = tokio::spawn(async move {
            auth.look_up_known_blocks(&name, who).await;
            drop(permit);
        });
        lookup.await.ok();
    }

    async fn look_up_known_blocks(&self, name: &LoginName, who: Who) {
        let Inner { lockout, clock, store, .. } = &*self.0;
        let Some(lockout) = lockout else { return };
        match store.session_blocks(name, KNOWN_TTL, PLACES).await {
            Ok(blocks) => {
                for block in blocks {
                    lockout.restore(name, block.address, block.age, clock.now());
                }
            }
            Err(error) => {
                tracing::debug!(%error, "known addresses were not restored");
                lockout.release_lookup(who, clock.now());
            }
        }
    }
}
