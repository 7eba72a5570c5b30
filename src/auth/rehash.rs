//! Old hashes get the configured cost, and those of other software become bcrypt's, one login at a
//! time.

use super::Auth;
use crate::hashing::{Password, RehashError};
use crate::identity::UserId;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
enum ReplaceHashError {
    #[error(transparent)]
    Hash(RehashError),
    #[error(transparent)]
    Store(StoreError),
}

impl Auth {
    /// Hashes a password anew beside the login that it came with, which does not wait, in a lane
    /// that nobody else wants. What is dropped comes again with the account's next login.
    pub(super) fn rehash(&self, user: UserId, old: String, password: Password) {
        let auth = self.clone();
        self.0.lifecycle.spawn(async move {
            let label = match auth.try_rehash(user, &old, &password).await {
                Ok(()) => "success",
                Err(ReplaceHashError::Hash(_)) => "dropped",
                Err(ReplaceHashError::Store(error)) => {
                    tracing::warn!(%error, "a new hash was not stored; the old one stays");
                    "error"
                }
            };
            auth.0.meters.rehashes.increment(label);
        });
    }

    async fn try_rehash(
        &self,
        user: UserId,
        old: &str,
        password: &Password,
    ) -> Result<(), ReplaceHashError> {
        let hash =
            self.0.engine.rehash(password).await.map_err(ReplaceHashError::Hash)?.to_string();
        // Another password set meanwhile stays.
        let replaced = self.0.store.replace_hash(user, old, &hash).await;
        replaced.map(drop).map_err(ReplaceHashError::Store)
    }
}
