//! The buckets of a request that all nodes share, and what the store's answer means.
//!
//! Only the limits that protect accounts and the hash engine are shared: logins, registrations and
//! refreshes. The table of this node decides first. The arithmetic is that of `bucket`, in whole
//! microseconds; the store keeps the buckets and the time.

use super::bucket::{Bucket, Rate};
use super::decision::{Decision, QuotaStatus};
use super::key::{ClientKey, Level};
use super::policy::Policy;
use super::quota_layout::{ActiveQuota, QuotaLayout, QuotaName};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// One request's count in the store: which buckets, and the answer once there is one.
#[derive(Debug)]
pub struct SharedCheck {
    buckets: Vec<SharedBucket>,
    /// For the `RateLimit` header of the response.
    status: Mutex<Option<QuotaStatus>>,
}

/// A bucket in the store.
#[derive(Debug)]
pub struct SharedBucket {
    /// The name of its quota, for an IPv6 prefix with its length.
    pub label: String,
    /// The IPv4 address or the /48, which all buckets of the request have in common.
    pub network: u64,
    /// The /56 or the /64, if the bucket is one of those.
    pub prefix: Option<u64>,
    policy: Policy,
    name: QuotaName,
    rate: Rate,
}

impl SharedBucket {
    /// The refill time of one token. Unit: µs.
    pub fn token_us(&self) -> u64 {
        self.rate.token_us()
    }

    /// The refill time of all tokens but one. Unit: µs.
    pub fn tolerance_us(&self) -> u64 {
        self.rate.tolerance_us()
    }
}

impl SharedCheck {
    /// The buckets of a request under those policies. `None` if there are none.
    pub(super) fn new(layout: &QuotaLayout, policies: &[Policy], address: IpAddr) -> Option<Self> {
        let shared = policies.iter().copied().filter(|policy| policy.is_shared());
        let quotas = shared
            .flat_map(|policy| layout.quotas(policy).iter().map(move |quota| (policy, quota)));
        let bucket = |(policy, quota): (Policy, &ActiveQuota), level, label, network, prefix| {
            let rate = quota.rate(level).in_whole_us();
            SharedBucket { label, network, prefix, policy, name: quota.name, rate }
        };
        let buckets: Vec<SharedBucket> = match address.to_canonical() {
            IpAddr::V4(v4) => {
                let network = ClientKey::v4(v4).bits();
                quotas
                    .map(|quota| {
                        bucket(quota, Level::Address, quota.1.name.to_string(), network, None)
                    })
                    .collect()
            }
            IpAddr::V6(v6) => {
                let key = |level| ClientKey::v6(v6, level).bits();
                let network = key(Level::Prefix48);
                let at = |quota: (Policy, &ActiveQuota), level: Level| {
                    let label = format!("{}/{}", quota.1.name, level.prefix_bits());
                    let prefix = Some(key(level)).filter(|_| level != Level::Prefix48);
                    bucket(quota, level, label, network, prefix)
                };
                quotas.flat_map(|quota| Level::ALL.map(|level| at(quota, level))).collect()
            }
        };
        let status = Mutex::default();
        (!buckets.is_empty()).then_some(Self { buckets, status })
    }

    /// The buckets to count in.
    pub fn buckets(&self) -> &[SharedBucket] {
        &self.buckets
    }

    /// Reads the store's answer: whether it counted the request, and the time until each bucket is full.
    ///
    /// `None` if the answer contradicts itself.
    pub fn decide(&self, allowed: bool, full_in_us: &[u64]) -> Option<Decision> {
        let mut decision = Decision::Unlimited;
        for (shared, full_in_us) in self.buckets.iter().zip(full_in_us) {
            let SharedBucket { policy, name, rate, .. } = *shared;
            let bucket = Bucket::default().full_no_sooner_than(full_in_us.saturating_mul(1_000));
            let (remaining, more_after) = rate.remaining(bucket, 0);
            let status = QuotaStatus { policy, name, remaining, more_after };
            decision = decision.tighter(match rate.take(bucket, 0) {
                Err(retry_after) if !allowed => Decision::Limited { status, retry_after },
                _ => Decision::Allowed(status),
            });
        }
        if decision.is_allowed() != allowed {
            return None;
        }
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = decision.status().copied();
        Some(decision)
    }

    /// The tighter one of two statuses: that of this node, and the store's if it has answered.
    pub fn tighter(&self, local: Option<QuotaStatus>) -> Option<QuotaStatus> {
        let shared = *self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match (local, shared) {
            (Some(local), Some(shared)) if shared.remaining < local.remaining => Some(shared),
            (local, shared) => local.or(shared),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::PerPolicy;
    use super::super::quota::Quota;
    use super::super::quota::tests::quotas;
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn check(login: &str, address: &str) -> Option<SharedCheck> {
        let limits = PerPolicy {
            login: login.parse().unwrap(),
            global: "200/min".parse().unwrap(),
            ..PerPolicy::default()
        };
        let policies = [Policy::Login, Policy::Global];
        SharedCheck::new(&QuotaLayout::new(&limits), &policies, address.parse().unwrap())
    }

    #[test]
    fn an_ipv4_address_has_a_bucket_for_each_shared_quota() {
        let check_v4 = check("10/min,100/h", "192.0.2.1").unwrap();
        let labels: Vec<&str> = check_v4.buckets().iter().map(|b| b.label.as_str()).collect();
        assert_eq!(labels, ["login", "login-h"]);
        let first = &check_v4.buckets()[0];
        assert_eq!((first.token_us(), first.tolerance_us()), (6_000_000, 54_000_000));
        let mapped = check("10/min", "::ffff:192.0.2.1").unwrap();
        assert_eq!(mapped.buckets()[0].network, first.network);
        assert!(check("off", "192.0.2.1").is_none(), "the global limit is not shared");
    }

    #[test]
    fn an_ipv6_address_has_a_bucket_at_each_level() {
        let one = check("10/min", "2001:db8:0:1::1").unwrap();
        let labels: Vec<&str> = one.buckets().iter().map(|b| b.label.as_str()).collect();
        assert_eq!(labels, ["login/64", "login/56", "login/48"]);
        let tokens: Vec<u64> = one.buckets().iter().map(SharedBucket::token_us).collect();
        assert_eq!(tokens, [6_000_000, 1_500_000, 375_000]);
        let other = check("10/min", "2001:db8:0:2::1").unwrap();
        let keys = |check: &SharedCheck| -> Vec<(u64, Option<u64>)> {
            check.buckets().iter().map(|bucket| (bucket.network, bucket.prefix)).collect()
        };
        assert_ne!(keys(&one)[0], keys(&other)[0]);
        assert_eq!(keys(&one)[1..], keys(&other)[1..], "one /56 and one /48");
        assert_eq!(keys(&one)[2].1, None);
    }

    #[test]
    fn an_answer_reads_like_a_decision_of_this_node() {
        let check = check("3/min,5/h", "192.0.2.1").unwrap();
        assert_eq!(check.tighter(None), None);
        let minute = 60_000_000;
        let Some(Decision::Allowed(status)) = check.decide(true, &[minute / 3, 720_000_000]) else {
            panic!()
        };
        assert_eq!((status.name.to_string(), status.remaining), ("login".to_owned(), 2));
        assert_eq!(check.tighter(None), Some(status));
        let looser = QuotaStatus { remaining: 9, ..status };
        assert_eq!(check.tighter(Some(looser)), Some(status));
        let full = [minute, 5 * 720_000_000];
        let Some(Decision::Limited { status, retry_after }) = check.decide(false, &full) else {
            panic!()
        };
        assert_eq!((status.name.to_string(), status.remaining), ("login-h".to_owned(), 0));
        assert_eq!(retry_after, Duration::from_secs(720));
        assert_eq!(check.decide(false, &[0, 0]), None, "a refusal without an empty bucket");
    }

    proptest! {
        /// Rounding to microseconds is never in the client's favour.
        #[test]
        fn whole_microseconds_grant_no_more(quota in quotas(), multiple in prop::sample::select(vec![1_u32, 4, 16])) {
            let exact = Rate::new(quota, multiple);
            let rounded = exact.in_whole_us();
            let burst = u64::from(quota.burst().get()) * u64::from(multiple);
            prop_assert!(u128::from(rounded.token_us()) * 1_000 * u128::from(burst) >= quota.period().as_nanos());
            prop_assert_eq!(rounded.tolerance_us(), rounded.token_us() * (burst - 1));
            if burst <= 1_000 && quota.period().as_micros().is_multiple_of(u128::from(burst)) {
                prop_assert_eq!(rounded, exact);
            }
            let _ = Quota::BURST_MAX;
        }
    }
}
