//! Login with a password.

use super::lockout::{Locked, Who};
use super::{Auth, Inner, TokenPair, hash_label, store_label};
use crate::hashing::{HashError, Password, Purpose};
use crate::identity::{LoginName, Origin, SessionId, UserId};
use crate::store::{Credentials, NewSession, StoreError};
use crate::telemetry::trace;
use crate::tokens::AccessError;
use std::time::Duration;

/// A try to log in.
#[derive(Debug)]
pub struct Login {
    /// Username or e-mail address.
    pub name: LoginName,
    /// The password.
    pub password: Password,
    /// Where it comes from: what failures are counted by, and for the owner's list of sessions.
    pub origin: Origin,
}

/// Why a login did not yield tokens.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Unknown name, wrong password, disabled account: one variant, so that no answer can tell
    /// them apart.
    #[error("credentials rejected")]
    Rejected,
    /// Too many failures under that name; the password, right or wrong, was not looked at.
    #[error("too many failed logins, retry in {retry_after:?}")]
    Locked {
        /// Until the next try is looked at.
        retry_after: Duration,
    },
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
    /// the same for every name and password. Whether its name is locked is asked first, and the
    /// place in the hash queue taken next: a login that either refuses costs no query.
    ///
    /// # Errors
    /// See [`LoginError`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the hash and stores nothing, or leaves a session without a
    /// token, which expires. A failure counts only if its answer was on its way.
    pub async fn login(&self, login: Login) -> Result<TokenPair, LoginError> {
        let result = self.try_login(login).await;
        let label = match &result {
            Ok(_) => "success",
            Err(LoginError::Rejected) => "rejected",
            Err(LoginError::Locked { .. }) => "locked",
            Err(LoginError::Hash(error)) => hash_label(error),
            Err(LoginError::Store(error)) => store_label(error),
            Err(LoginError::Token(_)) => "error",
        };
        self.0.meters.logins.increment(label);
        result
    }

    async fn try_login(&self, login: Login) -> Result<TokenPair, LoginError> {
        let Inner { engine, store, config, sessions, lockout, .. } = &*self.0;
        let Login { name, password, origin } = login;
        let who = lockout.as_ref().and_then(|lockout| lockout.who(&name, origin.address));
        let attempt = Attempt { auth: self, who, origin: &origin };
        attempt.may_go_on(None)?;
        let permit = engine.reserve(Purpose::Verify).map_err(LoginError::Hash)?;
        let credentials = store.credentials(&name).await.map_err(LoginError::Store)?;
        let user = credentials.as_ref().map(|credentials| credentials.user);
        let stored = credentials.as_ref().map(|credentials| credentials.password_hash.as_str());
        let verdict = match engine.verify(permit, password, stored).await {
            Ok(verdict) => verdict,
            Err(HashError::Stored(error)) => {
                // A row to be looked at by a person; to its client, a wrong password.
                let (user_id, trace_id) = (user.map(|user| user.0), trace::current_id());
                tracing::error!(user = user_id, %error, %trace_id, "an account cannot log in");
                return Err(attempt.failed(user));
            }
            Err(error) => return Err(LoginError::Hash(error)),
        };
        let account = credentials.filter(|account| verdict.matches && account.is_active);
        let Some(account) = account else { return Err(attempt.failed(user)) };
        // Others may have failed while it was hashed.
        attempt.may_go_on(user)?;
        attempt.succeeded(&account);
        let session = SessionId::random();
        trace::note_session(session.0.as_u128());
        let pair = self.pair(account.user, session, 0).map_err(LoginError::Token)?;
        let opened = store
            .insert_session(&NewSession {
                id: session,
                user: account.user,
                account_version: account.updated_at,
                ttl: config.refresh_ttl,
                origin: &origin,
                sessions_max: config.sessions_per_account,
            })
            .await
            .map_err(LoginError::Store)?;
        let Some(ended) = opened else {
            // Disabled, or given another password, while we hashed.
            attempt.note("rejected", user);
            return Err(LoginError::Rejected);
        };
        ended.into_iter().for_each(|session| sessions.ended(session));
        if let Some(password) = verdict.outdated {
            self.rehash(account, password);
        }
        Ok(pair)
    }
}

/// A login on its way, for the lockout and the audit log.
struct Attempt<'a> {
    auth: &'a Auth,
    /// `None`: not counted.
    who: Option<Who>,
    origin: &'a Origin,
}

impl Attempt<'_> {
    /// Whether its password is looked at, or its verdict told.
    fn may_go_on(&self, user: Option<UserId>) -> Result<(), LoginError> {
        let Inner { lockout, clock, .. } = &*self.auth.0;
        match (lockout, self.who) {
            (Some(lockout), Some(who)) => {
                lockout.check(who, clock.now()).map_err(|locked| self.locked(locked, user))
            }
            _ => Ok(()),
        }
    }

    /// Counts a failure; what its client hears of it.
    fn failed(&self, user: Option<UserId>) -> LoginError {
        let Inner { lockout, clock, .. } = &*self.auth.0;
        if let (Some(lockout), Some(who)) = (lockout, self.who)
            && let Err(locked) = lockout.fail(who, clock.now())
        {
            return self.locked(locked, user);
        }
        self.note("rejected", user);
        LoginError::Rejected
    }

    fn succeeded(&self, account: &Credentials) {
        if let Some(lockout) = &self.auth.0.lockout {
            let names = account.names.each_ref().map(String::as_str);
            lockout.succeed(names, self.origin.address, self.auth.0.clock.now());
        }
    }

    /// The first refusal of a wait is logged; the others, of which there may be any number, are
    /// not.
    fn locked(&self, Locked { retry_after, first }: Locked, user: Option<UserId>) -> LoginError {
        if first {
            self.note("limited", user);
        }
        LoginError::Locked { retry_after }
    }

    fn note(&self, outcome: &'static str, user: Option<UserId>) {
        let Inner { audit, clock, .. } = &*self.auth.0;
        audit.note(("login", outcome), user, self.origin, clock.now());
    }
}
