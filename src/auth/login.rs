//! Login with a password.
//!
//! A login reserves a place in the hash queue, reads the account with one indexed query, and sends
//! key, salt and cost to the hashing threads. The digest is compared in constant time. An access
//! token is signed, and one INSERT stores the session if the account has not changed since it was
//! read. In total: two queries, one hash, one signature.
//!
//! For an unknown account the query also returns a row, with a hash that matches no password, and
//! the same steps follow.
//!
//! An account with an imported hash (argon2, scrypt, PBKDF2) returns its place in the bcrypt queue
//! after the query and takes one in the queue of imported hashes, which may refuse it too. After
//! the answer, a hash of another kind or another cost is replaced (`rehash`).

use super::attempt::{Attempt, Refusal};
use super::{Auth, Inner, TokenPair, hash_label, store_label};
use crate::hashing::{HashError, HashPurpose, Password};
use crate::identity::{LoginName, Origin, SessionId};
use crate::limiter::{QuotaStatus, SharedCheck};
use crate::secret::Secret;
use crate::store::{NewSession, StoreError};
use crate::telemetry::trace;
use crate::tokens::AccessError;
use std::time::Duration;

/// A login request.
#[derive(Debug)]
pub struct Login {
    /// Username or e-mail address.
    pub name: LoginName,
    /// The password.
    pub password: Secret,
    /// The origin of the request, for the lockout and the owner's list of sessions.
    pub origin: Origin,
}

/// Why a login did not yield tokens.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Unknown name, wrong password or disabled account: one variant, so that the response cannot
    /// tell them apart.
    #[error("credentials rejected")]
    Rejected,
    /// Too many failures under this name. Says nothing about whether the password is right.
    #[error("too many failed logins, retry in {retry_after:?}")]
    Locked {
        /// The time until the next login is checked.
        retry_after: Duration,
    },
    /// A limit that all nodes share is reached.
    #[error("too many logins from this address")]
    Limited(QuotaStatus),
    /// The password was not hashed.
    #[error("the password was not hashed")]
    Hash(#[source] HashError),
    /// The database did not answer.
    #[error("the account store did not answer")]
    Store(#[source] StoreError),
    /// The access token could not be signed.
    #[error("the access token was not signed")]
    Token(#[source] AccessError),
}

impl Auth {
    /// Checks a name and password, and opens a session.
    ///
    /// Every name and password costs one indexed read and one hash, and a success one insert. The
    /// limits and the lockout that all nodes share are checked first, then a slot of the hash queue
    /// reserved. A refusal by any of them costs no query.
    ///
    /// # Errors
    /// See [`LoginError`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the hash and stores nothing, or leaves a session without a
    /// token, which expires. A failure counts only if the future returned it.
    pub async fn login(
        &self,
        login: Login,
        limits: Option<&SharedCheck>,
    ) -> Result<TokenPair, LoginError> {
        let result = self.try_login(login, limits).await;
        let label = match &result {
            Ok(_) => "success",
            Err(LoginError::Rejected) => "rejected",
            Err(LoginError::Locked { .. }) => "locked",
            // The limits have a metric of their own.
            Err(LoginError::Limited(_)) => return result,
            Err(LoginError::Hash(error)) => hash_label(error),
            Err(LoginError::Store(error)) => store_label(error),
            Err(LoginError::Token(_)) => "error",
        };
        self.0.metrics.logins.increment(label);
        result
    }

    async fn try_login(
        &self,
        login: Login,
        limits: Option<&SharedCheck>,
    ) -> Result<TokenPair, LoginError> {
        let Inner { engine, store, config, session_cache, .. } = &*self.0;
        let Login { name, password, origin } = login;
        let password = Password::attempt(password);
        let mut attempt = Attempt::new(self, "login", &name, &origin);
        attempt.begin(None, limits).await?;
        let permit = engine.reserve(HashPurpose::Verify).map_err(LoginError::Hash)?;
        let account =
            store.credentials(&name, engine.dummy_hash()).await.map_err(LoginError::Store)?;
        let found = account.user;
        let verdict = match engine.verify(permit, password, &account.password_hash).await {
            Ok(verdict) => verdict,
            Err(HashError::Stored(error)) => {
                return Err(attempt.unusable(found, &error).await.into());
            }
            Err(error) => return Err(LoginError::Hash(error)),
        };
        let user = found.filter(|_| verdict.matches && account.is_active);
        let Some(user) = user else { return Err(attempt.failed(found).await.into()) };
        attempt.succeed(user, &account.names).await?;
        let session = SessionId::random();
        trace::note_session(session.0.as_u128());
        let pair = self.pair(user, session, 0).map_err(LoginError::Token)?;
        let opened = store
            .insert_session(&NewSession {
                id: session,
                user,
                account_version: account.updated_at,
                ttl: config.refresh_ttl,
                origin: &origin,
                sessions_max: config.sessions_per_account,
            })
            .await
            .map_err(LoginError::Store)?;
        let Some(ended) = opened else {
            // The account was disabled, or its password changed, during the hash.
            attempt.note("rejected", found);
            return Err(LoginError::Rejected);
        };
        ended.into_iter().for_each(|session| session_cache.ended(session));
        if let Some(password) = verdict.outdated {
            self.rehash(user, account.password_hash, password);
        }
        Ok(pair)
    }
}

impl From<Refusal> for LoginError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rejected => Self::Rejected,
            Refusal::Locked { retry_after } => Self::Locked { retry_after },
            Refusal::Limited(status) => Self::Limited(status),
        }
    }
}
