//! An account's sessions in its owner's hands: seen, ended one by one, ended all at once.

use super::{Auth, Caller, MeError};
use crate::identity::{Origin, SessionId};
use crate::store::{self, OwnSession, StoreError};

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
    /// The caller's own session ended meanwhile, and nothing was done; or the database gives no
    /// answer, and the session may go on.
    ///
    /// # Cancel safety
    /// The session has ended or goes on, nothing between.
    pub async fn end_session(
        &self,
        caller: &Caller,
        session: SessionId,
        origin: &Origin,
    ) -> Result<bool, MeError> {
        let ended = self.0.store.end_session(asking(caller, origin), session).await;
        let ended = ended.map_err(MeError::Store)?.ok_or(MeError::Rejected)?;
        if ended {
            self.0.sessions.ended(session);
        }
        Ok(ended)
    }

    /// Ends every session of the caller's account, the caller's own with them.
    ///
    /// # Errors
    /// The caller's own session ended meanwhile, and nothing was done; or the database gives no
    /// answer, and all of them have ended, or none.
    ///
    /// # Cancel safety
    /// All of them have ended, or none.
    pub async fn logout_all(&self, caller: &Caller, origin: &Origin) -> Result<(), MeError> {
        let ended = self.0.store.end_account_sessions(asking(caller, origin)).await;
        if !ended.map_err(MeError::Store)? {
            return Err(MeError::Rejected);
        }
        self.0.sessions.account_changed(caller.account.id);
        Ok(())
    }
}

fn asking<'a>(caller: &Caller, origin: &'a Origin) -> store::Caller<'a> {
    store::Caller { user: caller.account.id, session: caller.session, origin }
}
