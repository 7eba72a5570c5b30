//! Logout.

use super::Auth;
use crate::store::StoreError;

impl Auth {
    /// Ends the session of a refresh token, of whatever generation. A token that is not ours, or
    /// of a session that has ended, is no error: its holder is logged out (RFC 7009 §2.2).
    ///
    /// # Errors
    /// When the database gives no answer; the session may go on.
    ///
    /// # Cancel safety
    /// The session has ended or goes on, nothing between.
    pub async fn logout(&self, token: &str) -> Result<(), StoreError> {
        let Ok(claims) = self.0.tokens.open_refresh(token) else {
            return Ok(());
        };
        self.0.store.revoke_session(claims.session).await?;
        self.0.sessions.ended(claims.session);
        Ok(())
    }
}
