//! One attempt at an account's password: its lockout checks and its audit log lines.
//!
//! With counters that all nodes share, an attempt has to pass the store and the tables of this node.
//! Without an answer of the store, the tables decide.

use super::lockout::{Locked, LoginKey};
use super::shared_counts::{SharedLogin, is_usual};
use super::{Auth, Inner};
use crate::counters::{LoginAct, LoginState};
use crate::hashing::StoredHashError;
use crate::identity::{LoginName, Origin, UserId};
use crate::limiter::{QuotaStatus, SharedCheck};
use crate::telemetry::trace;
use std::time::Duration;

/// Why an attempt was refused, as told to its client.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The password was checked and is wrong.
    Rejected,
    /// Too many earlier failures. Says nothing about whether the password is right.
    Locked {
        /// The time until the next attempt is checked.
        retry_after: Duration,
    },
    /// A limit that all nodes share is reached.
    Limited(QuotaStatus),
}

/// A login attempt in progress.
///
/// Call [`Attempt::begin`] before any other work, and [`Attempt::failed`] or [`Attempt::succeed`] after
/// the comparison.
pub(super) struct Attempt<'a> {
    auth: &'a Auth,
    /// The name of the event in the audit log.
    event: &'static str,
    name: &'a LoginName,
    /// `None` if the attempt is not counted.
    login_key: Option<LoginKey>,
    /// `None` if each node counts on its own, or the attempt is not counted.
    shared: Option<SharedLogin<'a>>,
    /// The store's first answer, if it allowed the attempt.
    begun: Option<LoginState>,
    origin: &'a Origin,
}

impl<'a> Attempt<'a> {
    /// Starts an attempt under a name. `event` is its name in the audit log.
    pub(super) fn new(
        auth: &'a Auth,
        event: &'static str,
        name: &'a LoginName,
        origin: &'a Origin,
    ) -> Self {
        let lockout = auth.0.lockout.as_ref();
        let login_key = lockout.and_then(|lockout| lockout.login_key(name, origin.address));
        let shared = auth.shared_login(name, origin.address);
        Self { auth, event, name, login_key, shared, begun: None, origin }
    }

    /// Counts the attempt against the limits that all nodes share, and returns an error if it is locked
    /// out. `user` is the account, if one was found.
    ///
    /// With a store, this is one round trip to it.
    pub(super) async fn begin(
        &mut self,
        user: Option<UserId>,
        limits: Option<&SharedCheck>,
    ) -> Result<(), Refusal> {
        let state = match &self.shared {
            Some(shared) => shared.begin(limits).await.map_err(Refusal::Limited)?,
            None => {
                self.auth.count_shared(limits).await.map_err(Refusal::Limited)?;
                None
            }
        };
        if let Some(state) = state {
            self.begun = self.follow(LoginAct::Check, state, user).await?;
        }
        self.check_locally(user).await
    }

    /// Counts a failure, and returns the refusal for the client.
    ///
    /// Counts it here before it is counted in the store, so that the store never reports a failure of
    /// this node that this node has yet to count.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the failure counted.
    pub(super) async fn failed(&self, user: Option<UserId>) -> Refusal {
        let Inner { lockout, clock, .. } = &*self.auth.0;
        let (Some(lockout), Some(login_key)) = (lockout, self.login_key) else {
            self.note("rejected", user);
            return Refusal::Rejected;
        };
        if let Err(locked) = lockout.fail(login_key, clock.now()) {
            return self.locked(locked, user);
        }
        let state = match &self.shared {
            Some(shared) => shared.ask(LoginAct::Fail, false).await,
            None => None,
        };
        if let Some(state) = state {
            lockout.learn(login_key, state.streaks, clock.now());
            if let Some(wait) = state.wait {
                return self.locked(wait.into(), user);
            }
        }
        self.note("rejected", user);
        Refusal::Rejected
    }

    /// Counts a failure for an account whose stored hash cannot be used.
    ///
    /// The log names the account for the operator. The client sees a wrong password.
    pub(super) async fn unusable(&self, user: Option<UserId>, error: &StoredHashError) -> Refusal {
        let (user_id, trace_id) = (user.map(|user| user.0), trace::current_id());
        tracing::error!(user = user_id, %error, %trace_id, "the stored hash of an account cannot be used: the login was rejected");
        self.failed(user).await
    }

    /// Checks again, because other attempts may have failed during the hash. Then resets the failures of
    /// the address and makes it known, under both names of the account.
    ///
    /// The store is not asked again if it has answered that the address is known and has no failures:
    /// then only failures on this node refuse the attempt.
    pub(super) async fn succeed(
        &mut self,
        user: UserId,
        names: &[LoginName],
    ) -> Result<(), Refusal> {
        self.check_locally(Some(user)).await?;
        let usual = self.begun.as_ref().and_then(|state| is_usual(&state.streaks));
        let answer = match (&self.shared, usual) {
            (Some(shared), None) => shared.ask(LoginAct::Succeed, true).await,
            _ => None,
        };
        let is_counted = match answer {
            Some(answer) => self.follow(LoginAct::Succeed, answer, Some(user)).await?.is_some(),
            None => false,
        };
        let Inner { lockout, clock, .. } = &*self.auth.0;
        let Some(lockout) = lockout else { return Ok(()) };
        lockout.succeed(names, self.origin.address, clock.now());
        let others = || names.iter().filter(|name| *name != self.name);
        if is_counted {
            // After the check, because a refused attempt must make no address known.
            self.auth.know_shared(others().cloned().collect(), self.origin.address).await;
        } else if usual == Some(true) {
            let (auth, names, address) = (self.auth.clone(), names.to_vec(), self.origin.address);
            tokio::spawn(async move { auth.know_shared(names, address).await });
        }
        Ok(())
    }

    /// Follows the store's answer. Returns it if it allows the attempt, or `None` if the store was away
    /// at a second question.
    async fn follow(
        &self,
        act: LoginAct,
        mut state: LoginState,
        user: Option<UserId>,
    ) -> Result<Option<LoginState>, Refusal> {
        let Inner { lockout, clock, .. } = &*self.auth.0;
        let (Some(lockout), Some(login_key), Some(shared)) =
            (lockout, self.login_key, &self.shared)
        else {
            return Ok(Some(state));
        };
        if state.claimed {
            self.auth.restore_shared_blocks(self.name, self.origin.address).await;
            match shared.ask(act, false).await {
                Some(again) => state = again,
                None => return Ok(None),
            }
        }
        lockout.learn(login_key, state.streaks, clock.now());
        match state.wait {
            Some(wait) => Err(self.locked(wait.into(), user)),
            None => Ok(Some(state)),
        }
    }

    /// Returns an error if this node's own counters lock the attempt out.
    async fn check_locally(&self, user: Option<UserId>) -> Result<(), Refusal> {
        let Inner { lockout, clock, .. } = &*self.auth.0;
        let (Some(lockout), Some(login_key)) = (lockout, self.login_key) else { return Ok(()) };
        self.auth.restore_known_blocks(self.name, login_key).await;
        lockout.check(login_key, clock.now()).map_err(|locked| self.locked(locked, user))
    }

    /// Logs the first refusal of a wait only, because the number of the others is unbounded.
    fn locked(&self, Locked { retry_after, first }: Locked, user: Option<UserId>) -> Refusal {
        if first {
            self.note("limited", user);
        }
        Refusal::Locked { retry_after }
    }

    pub(super) fn note(&self, outcome: &'static str, user: Option<UserId>) {
        let Inner { audit, clock, .. } = &*self.auth.0;
        audit.note((self.event, outcome), user, self.origin, clock.now());
    }
}
