//! Finds the account and session of an access token.
//!
//! The signature of a token is verified once and remembered (`tokens::access`). The session and its
//! account come from the cache, which has the rules for revocations and outages (`session_cache`).

use super::session_cache::{InsertOutcome, Lookup};
use super::{Auth, store_label};
use crate::identity::SessionId;
use crate::store::{Account, StoreError};
use crate::telemetry::trace;
use crate::tokens::AccessClaims;
use std::sync::Arc;

/// The maximum number of queries per call.
///
/// A query is repeated if the account changed in the meantime.
const QUERIES_MAX: u32 = 3;

/// The caller of a request with an access token.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token's live session.
    pub session: SessionId,
    /// The session's active account.
    pub account: Arc<Account>,
}

/// Why a request with an access token was refused.
#[derive(Debug, thiserror::Error)]
pub enum MeError {
    /// The token is invalid, or its session has ended or its account is disabled.
    #[error("access token rejected")]
    Rejected,
    /// The database did not answer.
    #[error("the account store did not answer")]
    Store(#[source] StoreError),
}

impl Auth {
    /// Returns the account of an access token whose session is live.
    ///
    /// A cached session costs no query. A session that ended on this node is rejected at once, one
    /// that ended on another node within a second.
    ///
    /// # Errors
    /// See [`MeError`].
    pub async fn account(&self, token: &str) -> Result<Arc<Account>, MeError> {
        self.caller(token).await.map(|caller| caller.account)
    }

    /// Returns the account and session of an access token whose session is live.
    ///
    /// # Errors
    /// See [`MeError`].
    pub async fn caller(&self, token: &str) -> Result<Caller, MeError> {
        let result = self.try_caller(token).await;
        self.0.metrics.bearer_checks.increment(match &result {
            Ok(_) => "success",
            Err(MeError::Rejected) => "rejected",
            Err(MeError::Store(error)) => store_label(error),
        });
        result
    }

    async fn try_caller(&self, token: &str) -> Result<Caller, MeError> {
        let claims = self.0.tokens.verify_access(token).map_err(|_| MeError::Rejected)?;
        self.live_account(&claims).await
    }

    /// Returns the account and session of a verified token, if they are live.
    pub(super) async fn live_account(&self, claims: &AccessClaims) -> Result<Caller, MeError> {
        let (session, user) = (claims.session, claims.user);
        trace::note_session(session.0.as_u128());
        for _ in 0..QUERIES_MAX {
            let lookup = self.0.session_cache.look_up(session);
            let known = !matches!(lookup, Lookup::Unknown(_));
            self.0.metrics.session_lookups.increment(if known { "cache" } else { "database" });
            let version = match lookup {
                Lookup::Live(account) if account.id == user => {
                    return Ok(Caller { session, account });
                }
                Lookup::Live(_) | Lookup::Ended => return Err(MeError::Rejected),
                Lookup::Unknown(version) => version,
            };
            let found =
                self.0.store.session_account(session, user).await.map_err(MeError::Store)?;
            let (account, left) = found.ok_or(MeError::Rejected)?;
            let account = Arc::new(account);
            match self.0.session_cache.insert(session, version, Arc::clone(&account), left) {
                InsertOutcome::Live => return Ok(Caller { session, account }),
                InsertOutcome::Ended => return Err(MeError::Rejected),
                InsertOutcome::Stale => {}
            }
        }
        // Sessions of this account end faster than the database answers. A refresh shows the client
        // whether its session is live.
        Err(MeError::Rejected)
    }
}
