//! Settings of the limiter: the quotas of each policy and how many addresses to hold.

use std::ops::RangeInclusive;

use super::levels::Levels;
use super::policy::{PerPolicy, Policy};
use super::quota::{Limit, Quota, Window};
use super::quota_layout::QUOTAS_MAX;

/// Settings of the limiter. The defaults are those of the HTTP contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimiterConfig {
    /// New accounts per address. Default: 5/min.
    pub register: Limit,
    /// Password logins per address. Default: 10/min.
    pub login: Limit,
    /// Refreshes per address. Default: 20/min.
    pub refresh: Limit,
    /// Introspections and revocations per address. Default: 600/s.
    ///
    /// A resource server asks once for each request that it serves, which can be hundreds a second.
    /// A stranger can ask as often, at the cost of a hash or, with an unknown client id, of an indexed
    /// read. Guessing a secret of 256 bits that way is hopeless.
    pub clients: Limit,
    /// All other limited requests per address together. Default: 200/min.
    ///
    /// Below another policy's rate it makes that policy moot; that is allowed.
    pub global: Limit,
    /// Addresses held, at most. Unit: addresses. Default: 400,000. See
    /// [`LimiterConfig::KEYS_MAX_RANGE`].
    ///
    /// If it is too low, a flood from many addresses makes more newcomers share a bucket with the
    /// others of their network. If it is too high, such a flood costs memory:
    /// [`LimiterConfig::memory_bytes_max`].
    pub keys_max: usize,
}

impl LimiterConfig {
    /// The values that `keys_max` may have. The lower end keeps a typing slip (`4` for `400000`) from
    /// putting nearly all clients in the shared buckets. The upper end costs 6 GiB.
    pub const KEYS_MAX_RANGE: RangeInclusive<usize> = 64..=16_777_216;

    /// Memory that the limiter can come to hold, at most. Unit: bytes. By default, 291 an address.
    ///
    /// The sum of the tables' bounds: of the table of addresses, of the one of /56s, which has a
    /// quarter as many keys, and of the one of /48s, which has a sixteenth.
    #[must_use]
    pub fn memory_bytes_max(&self) -> usize {
        Levels::bytes_max(self.keys_bounded())
    }

    /// Quotas at most, over all limits. Each of them takes memory for every address.
    pub const QUOTAS_MAX: usize = QUOTAS_MAX;

    /// Whether the limits list more quotas than [`LimiterConfig::QUOTAS_MAX`].
    #[must_use]
    pub fn has_too_many_quotas(&self) -> bool {
        let limits = self.limits();
        let quotas = Policy::ALL.iter().map(|policy| limits.get(*policy).quotas().len());
        quotas.sum::<usize>() > QUOTAS_MAX
    }

    pub(super) fn keys_bounded(&self) -> usize {
        self.keys_max.clamp(*Self::KEYS_MAX_RANGE.start(), *Self::KEYS_MAX_RANGE.end())
    }

    pub(super) fn limits(&self) -> PerPolicy<Limit> {
        PerPolicy {
            register: self.register.clone(),
            login: self.login.clone(),
            refresh: self.refresh.clone(),
            clients: self.clients.clone(),
            global: self.global.clone(),
        }
    }
}

impl Default for LimiterConfig {
    fn default() -> Self {
        let limit = |count, window| Quota::new(count, window).map_or(Limit::OFF, Limit::from);
        Self {
            register: limit(5, Window::Minute),
            login: limit(10, Window::Minute),
            refresh: limit(20, Window::Minute),
            clients: limit(600, Window::Second),
            global: limit(200, Window::Minute),
            keys_max: 400_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_contract() {
        let shown = LimiterConfig::default().limits().map(|limit| limit.to_string());
        let expected = PerPolicy {
            register: "5/min",
            login: "10/min",
            refresh: "20/min",
            clients: "600/s",
            global: "200/min",
        };
        assert_eq!(shown, expected.map(str::to_owned));
    }

    #[test]
    fn the_key_cap_is_never_absent() {
        for (asked, held) in [(0, 64), (64, 64), (1_000, 1_000), (usize::MAX, 16_777_216)] {
            let config = LimiterConfig { keys_max: asked, ..LimiterConfig::default() };
            assert_eq!(config.keys_bounded(), held);
        }
    }
}
