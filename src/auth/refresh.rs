//! Refresh: extends the session and replaces its refresh token (RFC 9700 §4.14.2).
//!
//! A refresh token contains session, generation and a MAC, so a forged token costs no query. One
//! UPDATE decides under the row's lock. The current generation advances the session. So does a later
//! one: the database lost refreshes, as after a failover. The previous one, within the grace period,
//! changes nothing and gets the same successor. Any other generation revokes the session. The answer can
//! be computed again because a refresh token is a function of its content.

use super::{Auth, TokenPair, store_label};
use crate::identity::Origin;
use crate::limiter::{QuotaStatus, SharedCheck};
use crate::store::{Refresh, Refreshed, StoreError};
use crate::telemetry::trace;
use crate::tokens::AccessError;

/// Why a refresh did not yield tokens.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The token is invalid, or its session is not live.
    #[error("refresh token rejected")]
    Rejected,
    /// The token was used before. Someone else may hold a copy, so the session was revoked.
    #[error("refresh token reused, session revoked")]
    Reused,
    /// A limit that all nodes share is reached.
    #[error("too many refreshes from this address")]
    Limited(QuotaStatus),
    /// The database did not answer; the client may repeat the request.
    #[error("the session store did not answer")]
    Store(#[source] StoreError),
    /// The access token could not be signed; the client may repeat the request.
    #[error("the access token was not signed")]
    Token(#[source] AccessError),
}

impl Auth {
    /// Exchanges a refresh token for its successor and a new access token, in one statement, which it may
    /// share with other refreshes.
    ///
    /// A request repeated within the grace period gets the same successor.
    ///
    /// # Errors
    /// See [`RefreshError`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave the session at its next generation. A repeat within the grace
    /// period gets the lost answer.
    pub async fn refresh(
        &self,
        token: &str,
        origin: &Origin,
        limits: Option<&SharedCheck>,
    ) -> Result<TokenPair, RefreshError> {
        self.count_shared(limits).await.map_err(RefreshError::Limited)?;
        let result = self.try_refresh(token, origin).await;
        let label = match &result {
            Ok(_) => "success",
            Err(RefreshError::Rejected) => "rejected",
            Err(RefreshError::Reused) => "reuse",
            // Refused above, and counted with the limits.
            Err(RefreshError::Limited(_)) => return result,
            Err(RefreshError::Store(error)) => store_label(error),
            Err(RefreshError::Token(_)) => "error",
        };
        self.0.metrics.refreshes.increment(label);
        result
    }

    async fn try_refresh(&self, token: &str, origin: &Origin) -> Result<TokenPair, RefreshError> {
        let claims = self.0.tokens.open_refresh(token).map_err(|_| RefreshError::Rejected)?;
        let (session, config) = (claims.session, &self.0.config);
        trace::note_session(session.0.as_u128());
        let generation = claims.generation;
        let refresh = Refresh {
            session,
            generation,
            grace: config.refresh_grace,
            ttl: config.refresh_ttl,
            address: origin.address,
            request_id: origin.request_id.clone(),
        };
        match self.0.store.refresh_session(refresh).await.map_err(RefreshError::Store)? {
            Refreshed::Continued { user } => {
                self.pair(user, session, generation + 1).map_err(RefreshError::Token)
            }
            Refreshed::Reused => {
                self.0.session_cache.ended(session);
                let trace_id = trace::current_id();
                tracing::warn!(%session, %trace_id, "a refresh token was reused: the session was revoked");
                Err(RefreshError::Reused)
            }
            Refreshed::Dead => Err(RefreshError::Rejected),
        }
    }
}
