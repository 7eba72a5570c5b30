//! A try at an account's password, as the lockout and the audit log see it.

use super::lockout::{Locked, Who};
use super::{Auth, Inner};
use crate::hashing::StoredHashError;
use crate::identity::{LoginName, Origin, UserId};
use crate::telemetry::trace;
use std::time::Duration;

/// What somebody hears whose try came to nothing.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It was looked at, and is wrong.
    Rejected,
    /// Too many failures before; whether it is right is not told.
    Locked {
        /// Until the next try is looked at.
        retry_after: Duration,
    },
}

/// A try on its way. Ask [`Attempt::may_go_on`] before anything is done for it, and again when the
/// password was compared.
pub(super) struct Attempt<'a> {
    auth: &'a Auth,
    /// In the audit log.
    event: &'static str,
    name: &'a LoginName,
    /// `None`: not counted.
    who: Option<Who>,
    origin: &'a Origin,
}

impl<'a> Attempt<'a> {
    /// A try under that name. `event` is what the audit log calls it.
    pub(super) fn new(
        auth: &'a Auth,
        event: &'static str,
        name: &'a LoginName,
        origin: &'a Origin,
    ) -> Self {
        let lockout = auth.0.lockout.as_ref();
        let who = lockout.and_then(|lockout| lockout.who(name, origin.address));
        Self { auth, event, name, who, origin }
    }

    /// Whether its password is looked at, or its verdict told. `user` is the account, if one was
    /// found.
    pub(super) async fn may_go_on(&self, user: Option<UserId>) -> Result<(), Refusal> {
        let Inner { lockout, clock, .. } = &*self.auth.0;
        let (Some(lockout), Some(who)) = (lockout, self.who) else { return Ok(()) };
        self.auth.restore_known_blocks(self.name, who).await;
        lockout.check(who, clock.now()).map_err(|locked| self.locked(locked, user))
    }

    /// Counts a failure; what its client hears of it.
    pub(super) fn failed(&self, user: Option<UserId>) -> Refusal {
        let Inner { lockout, clock, .. } = &*self.auth.0;
        if let (Some(lockout), Some(who)) = (lockout, self.who)
            && let Err(locked) = lockout.fail(who, clock.now())
        {
            return self.locked(locked, user);
        }
        self.note("rejected", user);
        Refusal::Rejected
    }

    /// The same for an account whose stored hash cannot be used. The log names it, for a person to look
    /// at; to its client it was a wrong password.
    pub(super) fn unusable(&self, user: Option<UserId>, error: &StoredHashError) -> Refusal {
        let (user_id, trace_id) = (user.map(|user| user.0), trace::current_id());
        tracing::error!(user = user_id, %error, %trace_id, "an account cannot log in");
        self.failed(user)
    }

    /// Ends the failures of its address, under both names of the account.
    pub(super) fn succeeded(&self, names: &[LoginName]) {
        if let Some(lockout) = &self.auth.0.lockout {
            lockout.succeed(names, self.origin.address, self.auth.0.clock.now());
        }
    }

    /// The first refusal of a wait is logged; the others, of which there may be any number, are
    /// not.
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
