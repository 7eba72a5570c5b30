//! Introspection (RFC 7662) and revocation (RFC 7009): what a client may ask and do about a token.
//!
//! A token's form says which kind it is, so `token_type_hint` has nothing to add (RFC 7662 §2.1 and
//! RFC 7009 §2.1 let a server ignore it).

use super::clients::{ClientCredentials, ClientError};
use super::{Auth, Caller, MeError, store_label};
use crate::identity::{Origin, SessionId, UserId};
use crate::store::StoreError;
use crate::telemetry::trace;
use uuid::Uuid;

/// Why a client got no answer about a token, or could not end its session.
#[derive(Debug, thiserror::Error)]
pub enum ClientCallError {
    /// The caller is no client.
    #[error("client rejected")]
    Client,
    /// The database gave no answer; a session to be ended may go on.
    #[error("the store gave no answer")]
    Store(#[source] StoreError),
}

/// What an active token says.
#[derive(Clone, Debug)]
pub struct ActiveToken {
    /// Whose it is.
    pub user: UserId,
    /// That account's name.
    pub username: String,
    /// Its session.
    pub session: SessionId,
    /// When it was made, in seconds since 1970.
    pub issued_unix_s: u64,
    /// When it ends, in seconds since 1970.
    pub expires_unix_s: u64,
    /// The id of an access token. `None`: it is a refresh token, which is for us alone.
    pub access: Option<Uuid>,
}

impl Auth {
    /// What a token is worth now; `None`: nothing, for whatever reason. A client that was asked about
    /// in the last two seconds and a session that is remembered cost no query, a refresh token one.
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
        self.0.meters.introspections.increment(match &result {
            Ok(Some(_)) => "active",
            Ok(None) => "inactive",
            Err(ClientCallError::Client) => "rejected",
            Err(ClientCallError::Store(error)) => store_label(error),
        });
        result
    }

    /// Ends the session of a token of either kind. One that is not ours, or of a session that has
    /// ended, is no error (RFC 7009 §2.2). An access token ends its session too: it would be
    /// refreshed at once otherwise (§2.1).
    ///
    /// # Errors
    /// See [`ClientCallError`].
    ///
    /// # Cancel safety
    /// The session has ended or goes on, nothing between.
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
