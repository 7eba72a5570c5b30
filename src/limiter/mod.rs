//! Rate limits by client address, decided before a request costs any work.
//!
//! Each address has one token bucket per quota of each [`Policy`]. A bucket starts full with the
//! quota's count of tokens, gives one to each request and is refilled evenly, the count per period.
//!
//! - `quota`: what a setting such as `10/min` means.
//! - `policy`: the fixed set of limits. `config`: which quotas each has, and the key cap.
//! - `quota_layout`: which bucket belongs to which quota.
//! - `bucket`: the arithmetic of one bucket, a pure function of its state and the time.
//! - `decision`: several buckets for one request, all or nothing.
//! - `key`: an address or an IPv6 prefix, and the levels at which an IPv6 address is counted.
//! - `table`: the DashMap of one level, how many keys it has at most, and what happens at that cap.
//! - `levels`: the tables of all levels, and a check against them.
//! - `shared`: what a store that all nodes share counts as well.
//!
//! Invariants. Nothing here reads a clock, logs, or knows HTTP: the time is handed in and
//! [`Decision`] holds what the headers need. A request costs one look-up for an IPv4 address and
//! three for an IPv6 address, whatever the number of policies and quotas. A bucket that is not full is
//! never forgotten, so over any time T an address is granted at most `burst + rate x T`, a /56 four
//! times and a /48 sixteen times as much, exactly, whatever other addresses do, however many threads
//! ask, and in whatever order their times arrive.

mod bucket;
mod config;
mod decision;
mod key;
mod levels;
mod policy;
#[cfg(test)]
mod prefix_tests;
#[cfg(test)]
mod property_tests;
mod quota;
mod quota_layout;
mod shared;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use config::LimiterConfig;
pub use decision::{Decision, QuotaStatus};
pub use policy::Policy;
pub use quota::{Limit, Quota, QuotaError, Window};
pub use quota_layout::QuotaName;
pub use shared::{SharedBucket, SharedCheck};

use decision::Check;
use key::Level;
use levels::Levels;
use quota_layout::QuotaLayout;

/// Handle to the buckets of every client address. Cloning it is cheap; clones share the buckets.
#[derive(Clone, Debug)]
pub struct Limiter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    layout: QuotaLayout,
    levels: Levels,
    start: Instant,
}

impl Limiter {
    /// How often to call [`Limiter::sweep`]. A full table of the default size is then swept once in
    /// about 50 s.
    pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

    /// A limiter in which every bucket is full.
    ///
    /// `start` is the earliest time that will be handed in; buckets count nanoseconds from it,
    /// and earlier times are read as `start`. `config.keys_max` is brought into
    /// [`LimiterConfig::KEYS_MAX_RANGE`]; of too many quotas
    /// ([`LimiterConfig::has_too_many_quotas`]) the last are not counted.
    #[must_use]
    pub fn new(config: &LimiterConfig, start: Instant) -> Self {
        let shared = Shared {
            layout: QuotaLayout::new(&config.limits()),
            levels: Levels::new(config.keys_bounded()),
            start,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Counts one request by `address` under `policy` at time `now`.
    ///
    /// An IPv6 address is counted by its /64, and with larger quotas by its /56 and its /48. An
    /// IPv4-mapped one is the same client as the plain IPv4 address.
    #[must_use = "a limited request must not be served"]
    pub fn check(&self, policy: Policy, address: IpAddr, now: Instant) -> Decision {
        self.check_all(&[policy], address, now)
    }

    /// Counts one request under several policies at once, such as its route's and
    /// [`Policy::Global`].
    ///
    /// All or nothing, in one step while all buckets are locked: the request is allowed only if each
    /// bucket has a token, and a refused one spends none. So a client that is over its login limit does
    /// not also use up the allowance its other calls live on, and `retry_after` stays true while
    /// it keeps trying. The decision is the one that binds: of an allowed request the quota with
    /// the fewest tokens left, of a limited one the quota with the longest wait. A policy that is
    /// off is left out, and one named twice counts once.
    #[must_use = "a limited request must not be served"]
    pub fn check_all(&self, policies: &[Policy], address: IpAddr, now: Instant) -> Decision {
        let Shared { layout, levels, .. } = &*self.shared;
        if policies.iter().all(|policy| layout.quotas(*policy).is_empty()) {
            return Decision::Unlimited;
        }
        levels.check(&Check { layout, policies, now_ns: self.nanos(now) }, address)
    }

    /// What a store that all nodes share has to count of a request; `None` if nothing.
    ///
    /// The request has passed [`Limiter::check_all`] under the same policies.
    #[must_use]
    pub fn shared_check(&self, policies: &[Policy], address: IpAddr) -> Option<SharedCheck> {
        SharedCheck::new(&self.shared.layout, policies, address)
    }

    /// Drops addresses and prefixes whose buckets are all full again, and returns how many.
    ///
    /// This only frees memory: a new entry is in the same state. One call looks at 8,192 addresses
    /// and a third as many prefixes at most, in the order in which it last saw them. It holds a lock for
    /// one of them at a time. When few are left it also shrinks the tables.
    pub fn sweep(&self, now: Instant) -> usize {
        self.shared.levels.sweep(self.nanos(now))
    }

    /// Addresses, /56s and /48s of which some bucket is empty at `now`: the next request would be
    /// refused.
    ///
    /// Exact up to 4,096 of a kind. Of more, 4,096 are looked at and the rest is assumed to be like
    /// them: the tables are in the order of a random hash. So it looks at 12,288 entries at most,
    /// under the read lock of one shard at a time.
    #[must_use]
    pub fn limited(&self, now: Instant) -> usize {
        let Shared { layout, levels, .. } = &*self.shared;
        levels.limited(layout, self.nanos(now))
    }

    /// The quotas that requests under those policies are counted to: the items of `RateLimit-Policy`.
    pub fn quotas(&self, policies: &[Policy]) -> impl Iterator<Item = (QuotaName, Quota)> {
        let quotas = policies.iter().flat_map(|policy| self.shared.layout.quotas(*policy));
        quotas.map(|active| (active.name, active.quota))
    }

    /// Addresses held at most.
    #[must_use]
    pub fn keys_max(&self) -> usize {
        self.shared.levels.table(Level::Address).keys_max()
    }

    /// Addresses held now. Never above `keys_max`.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.shared.levels.table(Level::Address).keys()
    }

    /// Nanoseconds from `start`; the 64 bits last 584 years.
    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.shared.start);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}
