//! One request against several buckets: allowed by all of them or charged to none.

use std::time::Duration;

use super::bucket::{Bucket, Rate};
use super::policy::{PerPolicy, Policy};
use super::quota::Quota;

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Every policy asked about is off; nothing was counted and there is nothing to tell.
    Unlimited,
    /// One token was taken from each bucket.
    Allowed(Standing),
    /// A bucket was empty; none was charged.
    Limited {
        /// The policy with the longest wait, its `remaining` 0.
        standing: Standing,
        /// Exact time until the same request is allowed, if nothing else comes first. Never zero.
        /// Round up for `Retry-After`.
        retry_after: Duration,
    },
}

impl Decision {
    /// Whether to serve the request.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        match self {
            Self::Unlimited | Self::Allowed(_) => true,
            Self::Limited { .. } => false,
        }
    }

    /// The bucket that binds, for the `RateLimit` fields; `None` if no limit applies.
    #[must_use]
    pub const fn standing(&self) -> Option<&Standing> {
        match self {
            Self::Unlimited => None,
            Self::Allowed(standing) | Self::Limited { standing, .. } => Some(standing),
        }
    }

    /// The one of two that binds: the longer wait, else the fewer tokens, else the first.
    fn tighter(self, other: Self) -> Self {
        let other_binds = match (&self, &other) {
            (_, Self::Unlimited) => false,
            (Self::Unlimited, _) | (Self::Allowed(_), Self::Limited { .. }) => true,
            (Self::Limited { .. }, Self::Allowed(_)) => false,
            (Self::Allowed(one), Self::Allowed(two)) => two.remaining < one.remaining,
            (Self::Limited { retry_after: one, .. }, Self::Limited { retry_after: two, .. }) => {
                two > one
            }
        };
        if other_binds { other } else { self }
    }
}

/// Where a client stands with one policy, after the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Which policy.
    pub policy: Policy,
    /// Its quota: `q` and `w` of `RateLimit-Policy`.
    pub quota: Quota,
    /// Whole tokens left, 0 to the quota's burst: `r` of `RateLimit`.
    pub remaining: u32,
    /// Time until the bucket is full again: `t` of `RateLimit`, rounded up.
    pub reset: Duration,
}

/// Whether some bucket has no token left.
pub(super) fn is_limited(
    buckets: &PerPolicy<Bucket>,
    rates: &PerPolicy<Option<Rate>>,
    now_ns: u64,
) -> bool {
    Policy::ALL.iter().any(|&policy| {
        let rate = *rates.get(policy);
        rate.is_some_and(|rate| rate.take(*buckets.get(policy), now_ns).is_err())
    })
}

/// Asks each policy's bucket for a token and takes them only if all have one.
pub(super) fn judge(
    buckets: &mut PerPolicy<Bucket>,
    rates: &PerPolicy<Option<Rate>>,
    policies: &[Policy],
    now_ns: u64,
) -> Decision {
    let mut charges = PerPolicy::<Option<Bucket>>::default();
    let mut decision = Decision::Unlimited;
    for &policy in policies {
        let Some(rate) = *rates.get(policy) else {
            continue;
        };
        let standing = |bucket: Bucket| Standing {
            policy,
            quota: rate.quota,
            remaining: rate.remaining(bucket, now_ns),
            reset: bucket.until_full(now_ns),
        };
        // Not charged yet, so a policy named twice is asked twice and charged once.
        let bucket = *buckets.get(policy);
        decision = decision.tighter(match rate.take(bucket, now_ns) {
            Ok(charged) => {
                *charges.get_mut(policy) = Some(charged);
                Decision::Allowed(standing(charged))
            }
            Err(retry_after) => Decision::Limited { standing: standing(bucket), retry_after },
        });
    }
    if decision.is_allowed() {
        // Only what changed is written: the rest may lie in a cache line not yet loaded.
        for &policy in policies {
            if let Some(charged) = *charges.get(policy) {
                *buckets.get_mut(policy) = charged;
            }
        }
    }
    decision
}

#[cfg(test)]
mod tests {
    use super::super::quota::Window;
    use super::*;
    use proptest::prelude::*;

    /// Login 2/min (a token in 30 s), global 3/s (a token in a third of a second), the rest off.
    fn rates() -> PerPolicy<Option<Rate>> {
        let rate = |burst, window| Quota::new(burst, window).map(Rate::new);
        PerPolicy {
            login: rate(2, Window::Minute),
            global: rate(3, Window::Second),
            ..PerPolicy::default()
        }
    }

    const BOTH: [Policy; 2] = [Policy::Login, Policy::Global];

    #[test]
    fn a_refused_request_spends_nothing_anywhere() {
        let mut buckets = PerPolicy::default();
        for left in [1, 0] {
            let decision = judge(&mut buckets, &rates(), &BOTH, 0);
            let standing = decision.standing().copied().unwrap();
            assert!(decision.is_allowed());
            assert_eq!((standing.policy, standing.remaining), (Policy::Login, left));
        }
        let before = buckets;
        let refused = judge(&mut buckets, &rates(), &BOTH, 0);
        assert_eq!(buckets, before);
        let Decision::Limited { standing, retry_after } = refused else { panic!("{refused:?}") };
        assert_eq!(retry_after, Duration::from_secs(30));
        assert_eq!((standing.policy, standing.remaining), (Policy::Login, 0));
        assert_eq!(standing.reset, Duration::from_secs(60));
        // The global token that the refused login left is still there.
        assert!(judge(&mut buckets, &rates(), &[Policy::Global], 0).is_allowed());
        assert!(!judge(&mut buckets, &rates(), &[Policy::Global], 0).is_allowed());
    }

    #[test]
    fn off_has_no_say_and_twice_is_once() {
        let mut buckets = PerPolicy::default();
        assert_eq!(judge(&mut buckets, &rates(), &[], 0), Decision::Unlimited);
        assert_eq!(judge(&mut buckets, &rates(), &[Policy::Register], 0), Decision::Unlimited);
        let twice = [Policy::Login, Policy::Register, Policy::Login];
        assert_eq!(judge(&mut buckets, &rates(), &twice, 0).standing().unwrap().remaining, 1);
    }

    proptest! {
        /// For any state: allowed means every bucket granted; limited means none changed and the
        /// same request is allowed after exactly the wait.
        #[test]
        fn all_or_nothing(login_ns in 0..200_u64, global_ns in 0..200_u64, now in 0..200_u64) {
            const SCALE: u64 = 500_000_000;
            let rates = rates();
            let floor = |ns: u64| Bucket::default().full_no_sooner_than(ns * SCALE);
            let before = PerPolicy {
                login: floor(login_ns),
                global: floor(global_ns),
                ..PerPolicy::default()
            };
            let now_ns = now * SCALE;
            let mut after = before;
            match judge(&mut after, &rates, &BOTH, now_ns) {
                Decision::Unlimited => prop_assert!(false),
                Decision::Allowed(_) => {
                    prop_assert_eq!(Ok(after.login), rates.login.unwrap().take(before.login, now_ns));
                    prop_assert_eq!(Ok(after.global), rates.global.unwrap().take(before.global, now_ns));
                }
                Decision::Limited { retry_after, .. } => {
                    prop_assert_eq!(after, before);
                    let then_ns = now_ns + u64::try_from(retry_after.as_nanos()).unwrap();
                    prop_assert!(!judge(&mut after, &rates, &BOTH, then_ns - 1).is_allowed());
                    prop_assert!(judge(&mut after, &rates, &BOTH, then_ns).is_allowed());
                }
            }
        }
    }
}
