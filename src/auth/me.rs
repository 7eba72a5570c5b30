//! Who is asking?

use super::sessions::Looked;
use super::{Auth, store_label};
use crate::store::{Account, StoreError};
use crate::telemetry::trace;
use crate::tokens::AccessClaims;
use std::sync::Arc;

/// Why an access token opened nothing.
#[derive(Debug, thiserror::Error)]
pub enum MeError {
    /// Not a valid access token, or of a session or account that has ended.
    #[error("access token rejected")]
    Rejected,
    /// The database gave no answer.
    #[error("the account store gave no answer")]
    Store(#[source] StoreError),
}

impl Auth {
    /// The account of an access token whose session is live. A session that was asked about in the
    /// last two seconds costs no query; one that ended here is seen to have ended at once.
    ///
    /// # Errors
    /// See [`MeError`].
    pub async fn account(&self, token: &str) -> Result<Arc<Account>, MeError> {
        let result = self.try_account(token).await;
        self.0.meters.bearer_checks.increment(match &result {
            Ok(_) => "success",
            Err(MeError::Rejected) => "rejected",
            Err(MeError::Store(error)) => store_label(error),
        });
        result
    }

    async fn try_account(&self, token: &str) -> Result<Arc<Account>, MeError> {
        let claims = self.0.tokens.verify_access(token).map_err(|_| MeError::Rejected)?;
        self.live_account(&claims).await
    }

    /// The account of a token that was checked, if its session is live.
    pub(super) async fn live_account(
        &self,
        claims: &AccessClaims,
    ) -> Result<Arc<Account>, MeError> {
        let (session, user) = (claims.session, claims.user);
        trace::note_session(session.0.as_u128());
        let looked = self.0.sessions.look(session);
        let known = !matches!(looked, Looked::Unknown);
        self.0.meters.session_lookups.increment(if known { "cache" } else { "database" });
        match looked {
            Looked::Live(account) if account.id == user => return Ok(account),
            Looked::Live(_) | Looked::Ended => return Err(MeError::Rejected),
            Looked::Unknown => {}
        }
        let found = self.0.store.session_account(session, user).await.map_err(MeError::Store)?;
        let account = Arc::new(found.ok_or(MeError::Rejected)?);
        if self.0.sessions.remember(session, Arc::clone(&account)) {
            Ok(account)
        } else {
            Err(MeError::Rejected)
        }
    }
}
