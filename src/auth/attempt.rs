//! One attempt at an account's password: its lockout checks and its audit log lines.

use super::lockout::{Locked, LoginKey};
use super::{Auth, Inner};
use crate::hashing::StoredHashError;
use crate::identity::{LoginName, Origin, UserId};
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
}

/// A login attempt in progress.
///
/// Call [`Attempt::check_not_locked`] before any other work and again after the comparison.
pub(super) struct Attempt<'a> {
    auth: &'a Auth,
    /// The name of the event in the audit log.
    event: &'static str,
    name: &'a LoginName,
    /// `None` if the attempt is not counted.
    login_key: Option<LoginKey>,
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
        Self { auth, event, name, login_key, origin }
    }

    /// Returns an error if the attempt is locked out. `user` is the account, if one was found.
    pub(super) async fn check_not_locked(&self, user: Option<UserId>) -> Result<(), Refusal> {
        let Inner { lockout, clock, .. } = &*self.auth.0;
        let (Some(lockout), Some(login_key)) = (lockout, self.login_key) else { return Ok(()) };
        self.auth.restore_known_blocks(self.name, login_key).await;
        lockout.check(login_key, clock.now()).map_err(|locked| self.locked(locked, user))
    }

    /// Counts a failure, and returns the refusal for the client.
    pub(super) fn failed(&self, user: Option<UserId>) -> Refusal {
        let Inner { lockout, clock, .. } = &*self.auth.0;
        if let (Some(lockout), Some(login_key)) = (lockout, self.login_key)
            && let Err(locked) = lockout.fail(login_key, clock.now())
        {
            return self.locked(locked, user);
        }
        self.note("rejected", user);
        Refusal::Rejected
    }

    /// Counts a failure for an account whose stored hash cannot be used.
    ///
    /// The log names the account for the operator. The client sees a wrong password.
    pub(super) fn unusable(&self, user: Option<UserId>, error: &StoredHashError) -> Refusal {
        let (user_id, trace_id) = (user.map(|user| user.0), trace::current_id());
        tracing::error!(user = user_id, %error, %trace_id, "the stored hash of an account cannot be used: the login was rejected");
        self.failed(user)
    }

    /// Resets the failures of the address, under both names of the account.
    pub(super) fn succeeded(&self, names: &[LoginName]) {
        if let Some(lockout) = &self.auth.0.lockout {
            lockout.succeed(names, self.origin.address, self.auth.0.clock.now());
        }
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
