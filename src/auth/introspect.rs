//! Token introspection (RFC 7662) and revocation (RFC 7009) for clients.
//!
//! A token's format shows its kind, so `token_type_hint` is ignored, as RFC 7662 §2.1 and RFC 7009
//! §2.1 allow.
//!
//! The client's secret is compared by its hash, which is cached for two seconds (`clients`). An
//! access token is then checked like that of `/me`, with the same cache. A refresh token costs one
//! indexed read.

use super::clients::{ClientCredentials, ClientError};
use super::{Auth, Caller, MeError, store_label};
use crate::identity::{Origin, SessionId, UserId};
use crate::store::StoreError;
use crate::telemetry::trace;
use uuid::Uuid;

/// Why an introspection or revocation failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientCallError {
    /// The client credentials are wrong.
    #[error("client rejected")]
    Client,
    /// The database did not answer; a session to be revoked may still be live.
    #[error("the store did not answer")]
    Store(#[source] StoreError),
}

/// The content of an active token.
#[derive(Clone, Debug)]
pub struct ActiveToken {
    /// The token's account.
    pub user: UserId,
    /// The account's username.
    pub username: String,
    /// The token's session.
    pub session: SessionId,
    /// When the token was issued, in seconds since 1970.
    pub issued_unix_s: u64,
    /// When the token expires, in seconds since 1970.
    pub expires_unix_s: u64,
    /// The id of an access token. `None` for a refresh token, which only this server accepts.
    pub access: Option<Uuid>,
}

impl Auth {
    /// Returns the content of an active token, or `None` for any other.
    ///
    /// A cached client and a cached session cost no query. A refresh token costs one.
    ///
    /// # Errors
    /// See [`ClientCallError`].
    pub async fn introspect(
        &self,
        client: &ClientCredentials,
        token: &str,
    ) -> Result<Option<ActiveToken>, ClientCallError> {
        let result = match self.client(client).await {
            Ok(()) => self.active_token(token).await.map_err(ClientCallError::Store),
            Err(error) => Err(error.into()),
        };
        self.0.metrics.introspections.increment(match &result {
            Ok(Some(_)) => "active",
            Ok(None) => "inactive",
            Err(ClientCallError::Client) => "rejected",
            Err(ClientCallError::Store(error)) => store_label(error),
        });
        result
    }

    /// Ends the session of an access or refresh token.
    ///
    /// An invalid token, or one of an ended session, is no error (RFC 7009 §2.2). An access token
    /// also ends its session, because the client could refresh it at once otherwise (§2.1).
    ///
    /// # Errors
    /// See [`ClientCallError`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the session either ended or live.
    pub async fn revoke(
        &self,
        client: &ClientCredentials,
        token: &str,
        origin: &Origin,
    ) -> Result<(), ClientCallError> {
        self.client(client).await?;
        let refresh = self.0.tokens.open_refresh(token).map(|claims| claims.session).ok();
        let access = || self.0.tokens.verify_access(token).map(|claims| claims.session).ok();
        self.end(refresh.or_else(access), origin).await.map_err(ClientCallError::Store)
    }

    async fn active_token(&self, token: &str) -> Result<Option<ActiveToken>, StoreError> {
        let tokens = &self.0.tokens;
        if let Ok(claims) = tokens.open_refresh(token) {
            trace::note_session(claims.session.0.as_u128());
            let live = self.0.store.live_refresh(claims.session, claims.generation).await?;
            let unix_s = |at: time::OffsetDateTime| at.unix_timestamp().try_into().unwrap_or(0);
            return Ok(live.map(|live| ActiveToken {
                user: live.user,
                username: live.username,
                session: claims.session,
                issued_unix_s: unix_s(live.issued_at),
                expires_unix_s: unix_s(live.expires_at),
                access: None,
            }));
        }
        let Ok(claims) = tokens.verify_access(token) else {
            return Ok(None);
        };
        match self.live_account(&claims).await {
            Ok(Caller { account, .. }) => Ok(Some(ActiveToken {
                user: account.id,
                username: account.username.clone(),
                session: claims.session,
                issued_unix_s: claims.issued_unix_s,
                expires_unix_s: claims.expires_unix_s,
                access: Some(claims.token),
            })),
            Err(MeError::Rejected) => Ok(None),
            Err(MeError::Store(error)) => Err(error),
        }
    }
}

impl From<ClientError> for ClientCallError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Rejected => Self::Client,
            ClientError::Store(error) => Self::Store(error),
        }
    }
}
