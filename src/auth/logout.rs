//! Logout.

use super::{Auth, store_label};
use crate::identity::Origin;
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
        let result = self.try_logout(token, origin).await;
        self.0.meters.logouts.increment(match &result {
            Ok(true) => "success",
            Ok(false) => "unknown",
            Err(error) => store_label(error),
        });
        result.map(drop)
    }

    /// Whether there was a session to end.
    async fn try_logout(&self, token: &str, origin: &Origin) -> Result<bool, StoreError> {
        let Ok(claims) = self.0.tokens.open_refresh(token) else {
            return Ok(false);
        };
        trace::note_session(claims.session.0.as_u128());
        let ended = self.0.store.revoke_session(claims.session, origin).await?;
        self.0.sessions.ended(claims.session);
        Ok(ended)
    }
}
