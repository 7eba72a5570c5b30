//! Refresh: the session goes on, its refresh token is replaced (RFC 9700 §4.14.2).

use super::{Auth, TokenPair, store_label};
use crate::identity::Origin;
use crate::store::{Refreshed, StoreError};
use crate::telemetry::trace;
use crate::tokens::AccessError;

/// Why a refresh did not yield tokens.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// Not a token of ours, or of no live session.
    #[error("refresh token rejected")]
    Rejected,
    /// A token that had been used before: somebody else may hold a copy, so the session is over.
    #[error("refresh token reused, session revoked")]
    Reused,
    /// The database gave no answer; the same request may be sent again.
    #[error("the session store gave no answer")]
    Store(#[source] StoreError),
    /// The access token could not be signed; the same request may be sent again.
    #[error("no token")]
    Token(#[source] AccessError),
}

impl Auth {
    /// Trades a refresh token for its successor and a new access token, by one statement. The same
    /// request, sent twice within the grace, gets the same successor twice.
    ///
    /// # Errors
    /// See [`RefreshError`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave the session moved on; a repeat within the grace gets the
    /// answer that was lost.
    pub async fn refresh(&self, token: &str, origin: &Origin) -> Result<TokenPair, RefreshError> {
        let result = self.try_refresh(token, origin).await;
        let label = match &result {
            Ok(_) => "success",
            Err(RefreshError::Rejected) => "rejected",
            Err(RefreshError::Reused) => "reuse",
            Err(RefreshError::Store(error)) => store_label(error),
            Err(RefreshError::Token(_)) => "error",
        };
        self.0.meters.refreshes.increment(label);
        result
    }

    async fn try_refresh(&self, token: &str, origin: &Origin) -> Result<TokenPair, RefreshError> {
        let claims = self.0.tokens.open_refresh(token).map_err(|_| RefreshError::Rejected)?;
        let (session, config) = (claims.session, &self.0.config);
        trace::note_session(session.0.as_u128());
        let (generation, grace, ttl) =
            (claims.generation, config.refresh_grace, config.refresh_ttl);
        let outcome = self.0.store.refresh_session(session, generation, grace, ttl, origin).await;
        match outcome.map_err(RefreshError::Store)? {
            Refreshed::Continued { user } => {
                self.pair(user, session, generation + 1).map_err(RefreshError::Token)
            }
            Refreshed::Reused => {
                self.0.sessions.ended(session);
                let trace_id = trace::current_id();
                tracing::warn!(%session, %trace_id, "a used refresh token came back: session revoked");
                Err(RefreshError::Reused)
            }
            Refreshed::Dead => Err(RefreshError::Rejected),
        }
    }
}
