//! Restores known address blocks from the account's live sessions.
//!
//! The lockout's memory ends with the process, and each node has its own. Without this, twenty
//! failures from anywhere would lock owners out at their usual addresses until the wait ends.
//!
//! If only failures from unknown blocks lock a login out, the login looks up the account's sessions.
//! A name causes at most one query per wait, whether or not it exists, and at most [`LOOKUPS_MAX`]
//! queries run at a time.

use super::lockout::{KNOWN_TTL, LoginKey, SLOTS};
use super::{Auth, Inner};
use crate::identity::LoginName;

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
        let Inner { lockout, clock, lookups, .. } = &*self.0;
        let Some(lockout) = lockout else { return };
        if !lockout.claim_lookup(login_key, clock.now()) {
            return;
        }
        let Ok(permit) = std::sync::Arc::clone(lookups).try_acquire_owned() else {
            lockout.release_lookup(login_key, clock.now());
            return;
        };
        let (auth, name) = (self.clone(), name.clone());
        let lookup = tokio::spawn(async move {
            auth.look_up_known_blocks(&name, login_key).await;
            drop(permit);
        });
        lookup.await.ok();
    }

    async fn look_up_known_blocks(&self, name: &LoginName, login_key: LoginKey) {
        let Inner { lockout, clock, store, .. } = &*self.0;
        let Some(lockout) = lockout else { return };
        match store.session_blocks(name, KNOWN_TTL, SLOTS).await {
            Ok(blocks) => {
                for block in blocks {
                    lockout.restore(name, block.address, block.age, clock.now());
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot look up the sessions of an account: its known addresses were not restored");
                lockout.release_lookup(login_key, clock.now());
            }
        }
    }
}
