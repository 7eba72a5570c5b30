//! Logout.

use super::{Auth, store_label};
use crate::identity::{Origin, SessionId};
use crate::store::StoreError;
use crate::telemetry::trace;

impl Auth {
    /// Ends the session of a refresh token, of whatever generation. A token that is not ours, or
    /// of a session that has ended, is no error: its holder is logged out (RFC 7009 §2.2).
    ///
    /// # Errors
    /// When the database gives no answer; the session may go on.
    ///
    /// # Cancel safety
    /// The session has ended or goes on, nothing between.
    pub async fn logout(&self, token: &str, origin: &Origin) -> Result<(), StoreError> {
        let claims = self.0.tokens.open_refresh(token).ok();
        self.end(claims.map(|claims| claims.session), origin).await
    }

    /// Ends a session that a token named, here at once and on other nodes within a second, and
    /// counts it as a logout. `None`: the token was none of ours, and there is nothing to end.
    ///
    /// # Errors
    /// When the database gives no answer; the session may go on.
    pub(super) async fn end(
        &self,
        session: Option<SessionId>,
        origin: &Origin,
    ) -> Result<(), StoreError> {
        let result = self.try_end(session, origin).await;
        self.0.meters.logouts.increment(match &result {
            Ok(true) => "success",
            Ok(false) => "unknown",
            Err(error) => store_label(error),
        });
        result.map(drop)
    }

    /// Whether there was a session to end.
    async fn try_end(
        &self,
        session: Option<SessionId>,
        origin: &Origin,
    ) -> Result<bool, StoreError> {
        let Some(session) = session else { return Ok(false) };
        trace::note_session(session.0.as_u128());
        let ended = self.0.store.revoke_session(session, origin).await?;
        self.0.sessions.ended(session);
        Ok(ended)
    }
}
