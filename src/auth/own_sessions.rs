//! An account's sessions in its owner's hands: seen, ended one by one, ended all at once.

use super::{Auth, Caller};
use crate::identity::{Origin, SessionId};
use crate::store::{OwnSession, StoreError};

impl Auth {
    /// The live sessions of the caller's account, newest first, at most 1,000. One query.
    ///
    /// # Errors
    /// When the database gives no answer.
    pub async fn sessions(&self, caller: &Caller) -> Result<Vec<OwnSession>, StoreError> {
        self.0.store.account_sessions(caller.account.id).await
    }

    /// Ends a session of the caller's account, here at once and on other nodes within a second.
    /// False: the account has no such live session.
    ///
    /// # Errors
    /// When the database gives no answer; the session may go on.
    ///
    /// # Cancel safety
    /// The session has ended or goes on, nothing between.
    pub async fn end_session(
        &self,
        caller: &Caller,
        session: SessionId,
        origin: &Origin,
    ) -> Result<bool, StoreError> {
        let ended = self.0.store.end_session(caller.account.id, session, origin).await?;
        if ended {
            self.0.sessions.ended(session);
        }
        Ok(ended)
    }

    /// Ends every session of the caller's account, the caller's own with them.
    ///
    /// # Errors
    /// When the database gives no answer; all of them have ended, or none.
    ///
    /// # Cancel safety
    /// All of them have ended, or none.
    pub async fn logout_all(&self, caller: &Caller, origin: &Origin) -> Result<(), StoreError> {
        let user = caller.account.id;
        self.0.store.end_account_sessions(user, origin).await?;
        self.0.sessions.account_changed(user);
        Ok(())
    }
}
