//! Login with a password.

use super::{Auth, Inner, TokenPair, hash_label, store_label};
use crate::hashing::{HashError, Password, Purpose};
use crate::identity::{LoginName, Origin, SessionId};
use crate::store::{NewSession, StoreError};
use crate::telemetry::trace;
use crate::tokens::AccessError;

/// A try to log in.
#[derive(Debug)]
pub struct Login {
    /// Username or e-mail address.
    pub name: LoginName,
    /// The password.
    pub password: Password,
    /// For the owner's list of sessions.
    pub origin: Origin,
}

/// Why a login did not yield tokens.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Unknown name, wrong password, disabled account: one variant, so that no answer can tell
    /// them apart.
    #[error("credentials rejected")]
    Rejected,
    /// The password was not hashed.
    #[error("the password was not hashed")]
    Hash(#[source] HashError),
    /// The database gave no answer.
    #[error("the account store gave no answer")]
    Store(#[source] StoreError),
    /// The access token could not be signed.
    #[error("no token")]
    Token(#[source] AccessError),
}

impl Auth {
    /// Checks a name and password and opens a session: one indexed read, one hash, one insert,
    /// the same for every name and password. The place in the hash queue is taken first: a login
    /// that the engine refuses costs no query.
    ///
    /// # Errors
    /// See [`LoginError`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the hash and stores nothing, or leaves a session without a
    /// token, which expires.
    pub async fn login(&self, login: Login) -> Result<TokenPair, LoginError> {
        let result = self.try_login(login).await;
        let label = match &result {
            Ok(_) => "success",
            Err(LoginError::Rejected) => "rejected",
            Err(LoginError::Hash(error)) => hash_label(error),
            Err(LoginError::Store(error)) => store_label(error),
            Err(LoginError::Token(_)) => "error",
        };
        self.0.meters.logins.increment(label);
        result
    }

    async fn try_login(&self, login: Login) -> Result<TokenPair, LoginError> {
        let Inner { engine, store, config, sessions, .. } = &*self.0;
        let permit = engine.reserve(Purpose::Verify).map_err(LoginError::Hash)?;
        let credentials = store.credentials(&login.name).await.map_err(LoginError::Store)?;
        let stored = credentials.as_ref().map(|credentials| credentials.password_hash.as_str());
        let verdict = match engine.verify(permit, login.password, stored).await {
            Ok(verdict) => verdict,
            Err(HashError::Stored(error)) => {
                // A row to be looked at by a person; to its client, a wrong password.
                let user = credentials.as_ref().map(|credentials| credentials.user.0);
                let trace_id = trace::current_id();
                tracing::error!(user, %error, %trace_id, "an account cannot log in");
                return Err(LoginError::Rejected);
            }
            Err(error) => return Err(LoginError::Hash(error)),
        };
        let account = credentials.filter(|account| verdict.matches && account.is_active);
        let account = account.ok_or(LoginError::Rejected)?;
        let session = SessionId::random();
        trace::note_session(session.0.as_u128());
        let pair = self.pair(account.user, session, 0).map_err(LoginError::Token)?;
        let opened = store
            .insert_session(&NewSession {
                id: session,
                user: account.user,
                account_version: account.updated_at,
                ttl: config.refresh_ttl,
                origin: &login.origin,
                sessions_max: config.sessions_per_account,
            })
            .await
            .map_err(LoginError::Store)?;
        // None: disabled, or given another password, while we hashed.
        let ended = opened.ok_or(LoginError::Rejected)?;
        ended.into_iter().for_each(|session| sessions.ended(session));
        if let Some(password) = verdict.outdated {
            self.rehash(account, password);
        }
        Ok(pair)
    }
}
