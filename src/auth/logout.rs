//! Logout.

use super::{Auth, store_label};
use crate::identity::{Origin, SessionId};
use crate::store::StoreError;
use crate::telemetry::trace;

impl Auth {
    /// Ends the session of a refresh token, whatever its generation.
    ///
    /// An invalid token, or one of an ended session, is no error: its holder is logged out already
    /// (RFC 7009 §2.2).
    ///
    /// # Errors
    /// The database did not answer; the session may still be live.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the session either ended or live.
    pub async fn logout(&self, token: &str, origin: &Origin) -> Result<(), StoreError> {
        let claims = self.0.tokens.open_refresh(token).ok();
        self.end(claims.map(|claims| claims.session), origin).await
    }

    /// Ends the session of a token and counts a logout. `None` stands for an invalid token.
    ///
    /// This node sees the end at once, other nodes within a second.
    ///
    /// # Errors
    /// The database did not answer; the session may still be live.
    pub(super) async fn end(
        &self,
        session: Option<SessionId>,
        origin: &Origin,
    ) -> Result<(), StoreError> {
        let result = self.try_end(session, origin).await;
        self.0.metrics.logouts.increment(match &result {
            Ok(true) => "success",
            Ok(false) => "unknown",
            Err(error) => store_label(error),
        });
        result.map(drop)
    }

    /// Returns whether there was a session to end.
    async fn try_end(
        &self,
        session: Option<SessionId>,
        origin: &Origin,
    ) -> Result<bool, StoreError> {
        let Some(session) = session else { return Ok(false) };
        trace::note_session(session.0.as_u128());
        let ended = self.0.store.revoke_session(session, origin).await?;
        self.0.session_cache.ended(session);
        Ok(ended)
    }
}
