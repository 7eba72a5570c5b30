//! The owner's view of an account's sessions: list them, end one, end all.

use super::{Auth, Caller, MeError};
use crate::identity::{Origin, SessionId};
use crate::store::{self, OwnSession, StoreError};

impl Auth {
    /// Returns the live sessions of the caller's account, newest first, at most 1,000. One query.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn list_sessions(&self, caller: &Caller) -> Result<Vec<OwnSession>, StoreError> {
        self.0.store.account_sessions(caller.account.id).await
    }

    /// Ends a session of the caller's account. False if the account has no such live session.
    ///
    /// This node sees the end at once, other nodes within a second.
    ///
    /// # Errors
    /// - The caller's own session ended in the meantime, and nothing was changed.
    /// - The database did not answer, and the session may still be live.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the session either ended or live.
    pub async fn end_session(
        &self,
        caller: &Caller,
        session: SessionId,
        origin: &Origin,
    ) -> Result<bool, MeError> {
        let ended = self.0.store.end_session(asking(caller, origin), session).await;
        let ended = ended.map_err(MeError::Store)?.ok_or(MeError::Rejected)?;
        if ended {
            self.0.session_cache.ended(session);
        }
        Ok(ended)
    }

    /// Ends every session of the caller's account, including the caller's own.
    ///
    /// # Errors
    /// - The caller's own session ended in the meantime, and nothing was changed.
    /// - The database did not answer, and either all sessions have ended or none.
    ///
    /// # Cancel safety
    /// Dropping the future leaves either all sessions ended or none.
    pub async fn logout_all(&self, caller: &Caller, origin: &Origin) -> Result<(), MeError> {
        let ended = self.0.store.end_account_sessions(asking(caller, origin)).await;
        if !ended.map_err(MeError::Store)? {
            return Err(MeError::Rejected);
        }
        self.0.session_cache.account_changed(caller.account.id);
        Ok(())
    }
}

fn asking<'a>(caller: &Caller, origin: &'a Origin) -> store::Caller<'a> {
    store::Caller { user: caller.account.id, session: caller.session, origin }
}
