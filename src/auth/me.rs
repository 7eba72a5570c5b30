//! Who is asking?

use super::sessions::{Kept, Looked};
use super::{Auth, store_label};
use crate::identity::SessionId;
use crate::store::{Account, StoreError};
use crate::telemetry::trace;
use crate::tokens::AccessClaims;
use std::sync::Arc;

/// How often a session is asked about in one call: again when something of its account ended
/// while it was asked.
const ASKS_MAX: u32 = 3;

/// Who calls with an access token.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token's session, live.
    pub session: SessionId,
    /// Its account, active.
    pub account: Arc<Account>,
}

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
    /// The account of an access token whose session is live. A session that was asked about lately
    /// costs no query; one that ended here is seen to have ended at once, and one that ended on
    /// another node within a second.
    ///
    /// # Errors
    /// See [`MeError`].
    pub async fn account(&self, token: &str) -> Result<Arc<Account>, MeError> {
        self.caller(token).await.map(|caller| caller.account)
    }

    /// The same, and which session it is.
    ///
    /// # Errors
    /// See [`MeError`].
    pub async fn caller(&self, token: &str) -> Result<Caller, MeError> {
        let result = self.try_caller(token).await;
        self.0.meters.bearer_checks.increment(match &result {
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

    /// The account and session of a token that was checked, if they are live.
    pub(super) async fn live_account(&self, claims: &AccessClaims) -> Result<Caller, MeError> {
        let (session, user) = (claims.session, claims.user);
        trace::note_session(session.0.as_u128());
        for _ in 0..ASKS_MAX {
            let looked = self.0.sessions.look(session);
            let known = !matches!(looked, Looked::Unknown(_));
            self.0.meters.session_lookups.increment(if known { "cache" } else { "database" });
            let ticket = match looked {
                Looked::Live(account) if account.id == user => {
                    return Ok(Caller { session, account });
                }
                Looked::Live(_) | Looked::Ended => return Err(MeError::Rejected),
                Looked::Unknown(ticket) => ticket,
            };
            let found =
                self.0.store.session_account(session, user).await.map_err(MeError::Store)?;
            let (account, left) = found.ok_or(MeError::Rejected)?;
            let account = Arc::new(account);
            match self.0.sessions.remember(session, ticket, Arc::clone(&account), left) {
                Kept::Live => return Ok(Caller { session, account }),
                Kept::Ended => return Err(MeError::Rejected),
                Kept::Stale => {}
            }
        }
        // Sessions of this account end faster than the database answers. A client that is refused
        // refreshes, and learns there whether its own goes on.
        Err(MeError::Rejected)
    }
}
