//! Limits and lockouts that all nodes share, as the rules use them.
//!
//! A request asks the store once, after its body is read and before the hash queue or the database: a
//! refused one costs no query and no hash. A login's usual case, a known address without failures, needs
//! no second call. A failure and any other success are counted by a call that is awaited, so that
//! concurrent guesses on several nodes are limited like those on one.
//!
//! The keys of the store are hashed with a secret derived from the key that seals refresh tokens. When
//! another key takes over, the counters start again; the tables of each node still have their own.

use super::lockout::RULES;
use super::{Auth, Inner};
use crate::counters::{Bucket, Counted, Counters, Keys, LoginAct, LoginKeys, LoginState, Streaks};
use crate::identity::{LoginName, address_block};
use crate::limiter::{Decision, QuotaStatus, SharedBucket, SharedCheck};
use std::net::IpAddr;
use std::time::Duration;

/// What the derived secret is for.
const LABEL: &str = "staunch shared counters";
/// A known block's time is brought up to date when it is older.
const SEEN_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The counters of one login in the store.
pub(super) struct SharedLogin<'a> {
    counters: &'a Counters,
    keys: Keys<'a>,
    login: LoginKeys,
}

impl Auth {
    /// Whether some limits are counted for all nodes together.
    pub fn shares_limits(&self) -> bool {
        self.0.counters.is_some()
    }

    /// Counts a request in the store, if there is one and it answers.
    ///
    /// # Errors
    /// A limit over all nodes is reached.
    pub(super) async fn count_shared(
        &self,
        limits: Option<&SharedCheck>,
    ) -> Result<(), QuotaStatus> {
        let (Some(counters), Some(limits)) = (&self.0.counters, limits) else { return Ok(()) };
        let keys = self.counter_keys(counters);
        let counted = counters.count(&keys, &buckets(limits)).await;
        decide(limits, counted)
    }

    /// The counters of a login. `None` without a store, and for a name that no account can have.
    pub(super) fn shared_login(
        &self,
        name: &LoginName,
        address: IpAddr,
    ) -> Option<SharedLogin<'_>> {
        let Inner { counters, lockout, .. } = &*self.0;
        let (Some(counters), Some(_)) = (counters, lockout) else { return None };
        let (LoginName::Username(name) | LoginName::Email(name)) = name else { return None };
        let keys = self.counter_keys(counters);
        let login = keys.login(name, address_block(address));
        Some(SharedLogin { counters, keys, login })
    }

    fn counter_keys<'a>(&self, counters: &'a Counters) -> Keys<'a> {
        counters.keys(&self.0.tokens.derive_secret(LABEL))
    }
}

impl SharedLogin<'_> {
    /// Counts a login against the limits, and checks whether it may go on.
    ///
    /// # Errors
    /// A limit over all nodes is reached.
    pub(super) async fn begin(
        &self,
        limits: Option<&SharedCheck>,
    ) -> Result<Option<LoginState>, QuotaStatus> {
        let Some(limits) = limits else { return Ok(self.ask(LoginAct::Check, true).await) };
        let Self { counters, keys, login } = self;
        let mut claim = PossibleClaim { login: self, is_open: true };
        let (counted, state) = counters.begin_login(keys, &buckets(limits), &RULES, login).await;
        let decision = decide(limits, counted);
        claim.is_open = decision.is_err() && state.is_some_and(|state| state.claimed);
        decision.map(|()| state)
    }

    /// Checks or counts the login. `None` if the store gave no answer.
    pub(super) async fn ask(&self, act: LoginAct, may_claim: bool) -> Option<LoginState> {
        let mut claim = PossibleClaim { login: self, is_open: may_claim };
        let state = self.counters.login(&RULES, &self.login, act, may_claim).await;
        claim.is_open = false;
        state
    }

    /// Makes the block known, without a check.
    pub(super) async fn know(&self) {
        self.counters.know(&RULES, &self.login).await;
    }

    /// Makes the blocks of live sessions known.
    pub(super) async fn restore(&self, blocks: &[(LoginKeys, Duration)]) {
        self.counters.restore(&RULES, &self.login, blocks).await;
    }

    /// Lets the next login look up the sessions.
    pub(super) async fn release(&self) {
        self.counters.release(&RULES, &self.login).await;
    }

    pub(super) fn into_keys(self) -> LoginKeys {
        self.login
    }
}

/// A call that may claim the look-up of the account's sessions. If the login ends before it can look
/// them up, because its client disconnects or is over a limit, the next login may claim it.
struct PossibleClaim<'a> {
    login: &'a SharedLogin<'a>,
    is_open: bool,
}

impl Drop for PossibleClaim<'_> {
    fn drop(&mut self) {
        // There is no runtime while the process ends.
        if self.is_open
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (counters, login) = (self.login.counters.clone(), self.login.login.clone());
            runtime.spawn(async move { counters.release(&RULES, &login).await });
        }
    }
}

/// Whether a login needs no second call: its block is known and has no failures. If so, returns
/// whether the time of its last login is old.
pub(super) fn is_usual(streaks: &Streaks) -> Option<bool> {
    match streaks {
        Streaks::Known { seen, streak } if streak.failures == 0 => Some(*seen > SEEN_AGE_MAX),
        Streaks::Known { .. } | Streaks::Unknown { .. } => None,
    }
}

fn buckets(limits: &SharedCheck) -> Vec<Bucket<'_>> {
    limits.buckets().iter().map(bucket).collect()
}

fn bucket(shared: &SharedBucket) -> Bucket<'_> {
    Bucket {
        name: &shared.label,
        network: shared.network,
        prefix: shared.prefix,
        token_us: shared.token_us(),
        tolerance_us: shared.tolerance_us(),
    }
}

/// Reads the answer of the store. Without one, the decision of this node stands.
fn decide(limits: &SharedCheck, counted: Option<Counted>) -> Result<(), QuotaStatus> {
    let decide = |counted: Counted| limits.decide(counted.allowed, &counted.full_in_us);
    match counted.and_then(decide) {
        Some(Decision::Limited { status, .. }) => Err(status),
        Some(Decision::Allowed(_) | Decision::Unlimited) | None => Ok(()),
    }
}
