//! Rehashes passwords at login, to the configured cost or from another algorithm to bcrypt.
//!
//! A rehash runs after the answer, in an idle lane. A login that needs the lane takes it. The new
//! hash is stored if the row still has the one that was verified.

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
    /// Rehashes the password of a login in the background, in an otherwise idle lane.
    ///
    /// The login does not wait. If the job is dropped, the account's next login tries again.
    pub(super) fn rehash(&self, user: UserId, old: String, password: Password) {
        let auth = self.clone();
        self.0.lifecycle.spawn(async move {
            let label = match auth.try_rehash(user, &old, &password).await {
                Ok(()) => "success",
                Err(ReplaceHashError::Hash(_)) => "dropped",
                Err(ReplaceHashError::Store(error)) => {
                    tracing::warn!(%error, "cannot store a new hash: the old one stays until the next login");
                    "error"
                }
            };
            auth.0.metrics.rehashes.increment(label);
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
        // A password that was changed in the meantime stays.
        let replaced = self.0.store.replace_hash(user, old, &hash).await;
        replaced.map(drop).map_err(ReplaceHashError::Store)
    }
}
