//! Which bucket belongs to which quota: the settings, laid out for a check.

use super::bucket::{Bucket, Rate};
use super::key::{Level, PerLevel};
use super::policy::{PerPolicy, Policy};
use super::quota::{Limit, Quota, Window};
use std::fmt;

/// Quotas at most, over all policies. Each address has eight bytes for each of them, in use or not.
///
/// One for each of the five policies, and two more for a second window such as `10/min,100/h`. That
/// is meant for logins and registrations, to stop slow guessing. An address and its buckets then take
/// 64 bytes.
pub(super) const QUOTAS_MAX: usize = 7;

/// The buckets of one address: 56 bytes. The default is full ones.
pub(super) type Buckets = Slots<Bucket>;

/// One `T` for each quota. An array, so that how many quotas a policy has is a matter of the
/// settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Slots<T>([T; QUOTAS_MAX]);

impl<T: Copy + Default> Slots<T> {
    pub(super) fn get(&self, index: BucketIndex) -> T {
        self.0.get(index.0).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, index: BucketIndex, value: T) {
        if let Some(slot) = self.0.get_mut(index.0) {
            *slot = value;
        }
    }
}

impl Buckets {
    /// When the last of them is full. Unit: ns since start.
    pub(super) fn full_at_ns(&self) -> u64 {
        self.0.iter().map(|bucket| bucket.full_at_ns()).max().unwrap_or_default()
    }

    /// The same, but each full only at `floor_ns` if that is later.
    pub(super) fn full_no_sooner_than(self, floor_ns: u64) -> Self {
        Self(self.0.map(|bucket| bucket.full_no_sooner_than(floor_ns)))
    }
}

/// Where a bucket lies among those of an address. Below [`QUOTAS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BucketIndex(usize);

/// The name of a quota in the `RateLimit` fields: its policy's, and for a policy's second and
/// third quota the unit with it, as `login-h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaName {
    policy: Policy,
    /// `None`: the policy's first.
    window: Option<Window>,
}

impl fmt::Display for QuotaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.policy.as_str())?;
        self.window.map_or(Ok(()), |window| write!(f, "-{}", window.as_str()))
    }
}

/// A quota, its name, and where its bucket lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct ActiveQuota {
    pub(super) name: QuotaName,
    pub(super) quota: Quota,
    rates: PerLevel<Rate>,
    pub(super) index: BucketIndex,
}

impl ActiveQuota {
    /// The quota times the level's multiple, in nanoseconds.
    pub(super) const fn rate(&self, level: Level) -> Rate {
        *self.rates.get(level)
    }
}

/// Every quota in force, by policy. A policy without one is off.
#[derive(Debug, Default)]
pub(super) struct QuotaLayout {
    quotas: PerPolicy<Vec<ActiveQuota>>,
}

impl QuotaLayout {
    /// Gives each quota of the limits a bucket. Quotas beyond [`QUOTAS_MAX`] are not counted; see
    /// [`super::LimiterConfig::has_too_many_quotas`].
    ///
    /// Each policy's first quota comes before any second one, so every policy that is on has a bucket.
    pub(super) fn new(limits: &PerPolicy<Limit>) -> Self {
        let mut layout = Self::default();
        let mut indexes = (0..QUOTAS_MAX).map(BucketIndex);
        for round in 0..Window::ALL.len() {
            for policy in Policy::BY_USE {
                let Some(quota) = limits.get(policy).quotas().get(round).copied() else {
                    continue;
                };
                let Some(index) = indexes.next() else { return layout };
                let window = (round > 0).then_some(quota.window());
                let name = QuotaName { policy, window };
                let rates = PerLevel::new(|level| Rate::new(quota, level.multiple()));
                let active = ActiveQuota { name, quota, rates, index };
                layout.quotas.get_mut(policy).push(active);
            }
        }
        layout
    }

    /// The quotas of a policy.
    pub(super) fn quotas(&self, policy: Policy) -> &[ActiveQuota] {
        self.quotas.get(policy)
    }

    /// All quotas.
    pub(super) fn all(&self) -> impl Iterator<Item = &ActiveQuota> {
        Policy::ALL.into_iter().flat_map(|policy| self.quotas(policy))
    }

    /// Whether one of those buckets has no token left.
    pub(super) fn is_limited(&self, level: Level, buckets: &Buckets, now_ns: u64) -> bool {
        self.all().any(|active| active.rate(level).take(buckets.get(active.index), now_ns).is_err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(login: &str, global: &str) -> QuotaLayout {
        let limits = PerPolicy {
            login: login.parse().unwrap(),
            global: global.parse().unwrap(),
            ..PerPolicy::default()
        };
        QuotaLayout::new(&limits)
    }

    #[test]
    fn every_quota_has_a_place_and_a_name_of_its_own() {
        let layout = layout("10/min,100/h", "200/min,5/s,1000/h");
        let mut indexes: Vec<usize> = layout.all().map(|active| active.index.0).collect();
        indexes.sort_unstable();
        assert_eq!(indexes, [0, 1, 2, 3, 4]);
        let names: Vec<String> = layout.all().map(|active| active.name.to_string()).collect();
        assert_eq!(names, ["login", "login-h", "global", "global-s", "global-h"]);
        assert!(layout.quotas(Policy::Register).is_empty());
        // The first of the busiest comes first.
        assert_eq!(layout.quotas(Policy::Global)[0].index, BucketIndex(0));
        assert_eq!(layout.quotas(Policy::Login)[0].index, BucketIndex(1));
    }

    #[test]
    fn what_has_no_place_is_left_out_and_nothing_else() {
        let all: Limit = "1/s,2/min,3/h".parse().unwrap();
        let limits = PerPolicy::<()>::default().map(|()| all.clone());
        let layout = QuotaLayout::new(&limits);
        assert_eq!(layout.all().count(), QUOTAS_MAX);
        assert!(Policy::ALL.iter().all(|policy| !layout.quotas(*policy).is_empty()));
    }
}
