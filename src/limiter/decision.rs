//! One request against several buckets: allowed by all of them or charged to none.

use std::time::Duration;

use super::bucket::Bucket;
use super::key::Level;
use super::policy::Policy;
use super::quota_layout::{ActiveQuota, Buckets, QuotaLayout, QuotaName, Slots};

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Every policy asked about is off; nothing was counted and there is nothing to tell.
    Unlimited,
    /// One token was taken from each bucket.
    Allowed(QuotaStatus),
    /// A bucket was empty; none was charged.
    Limited {
        /// The quota with the longest wait, its `remaining` 0.
        status: QuotaStatus,
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
    pub const fn status(&self) -> Option<&QuotaStatus> {
        match self {
            Self::Unlimited => None,
            Self::Allowed(status) | Self::Limited { status, .. } => Some(status),
        }
    }

    /// The one of two that binds: the longer wait, else the fewer tokens, else the first.
    pub(super) fn tighter(self, other: Self) -> Self {
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

/// Where a client stands with one quota, after the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaStatus {
    /// Which policy.
    pub policy: Policy,
    /// Which of its quotas: the name of the item of `RateLimit`.
    pub name: QuotaName,
    /// Whole tokens left, 0 to the quota's burst: `r` of `RateLimit`.
    pub remaining: u32,
    /// Time until there is one more; until then no more than `remaining` can be used. `t` of
    /// `RateLimit`, rounded up. Of a refusal it is `retry_after`.
    pub more_after: Duration,
}

/// One request: what it is counted to, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check<'a> {
    pub(super) layout: &'a QuotaLayout,
    pub(super) policies: &'a [Policy],
    pub(super) now_ns: u64,
}

impl Check<'_> {
    /// Asks each bucket of the policies at one level for a token.
    ///
    /// `so_far` is what the levels before have decided. `rest` gets that with this level's decision,
    /// lets the levels after decide, and returns what all of them together came to. Only if that is an
    /// allowance are the tokens taken, here as at every other level.
    pub(super) fn evaluate(
        &self,
        level: Level,
        buckets: &mut Buckets,
        so_far: Decision,
        rest: impl FnOnce(Decision) -> Decision,
    ) -> Decision {
        let mut charges = Slots::<Option<Bucket>>::default();
        let mut decision = so_far;
        for (policy, active) in self.asked() {
            let (bucket, rate) = (buckets.get(active.index), active.rate(level));
            let status = |bucket| {
                let (remaining, more_after) = rate.remaining(bucket, self.now_ns);
                QuotaStatus { policy, name: active.name, remaining, more_after }
            };
            // Not charged yet, so a policy named twice is asked twice and charged once.
            decision = decision.tighter(match rate.take(bucket, self.now_ns) {
                Ok(charged) => {
                    charges.set(active.index, Some(charged));
                    Decision::Allowed(status(charged))
                }
                Err(retry_after) => Decision::Limited { status: status(bucket), retry_after },
            });
        }
        let decision = rest(decision);
        if decision.is_allowed() {
            // Only what changed is written: the rest may lie in a cache line not yet loaded.
            for (_, active) in self.asked() {
                if let Some(charged) = charges.get(active.index) {
                    buckets.set(active.index, charged);
                }
            }
        }
        decision
    }

    fn asked(&self) -> impl Iterator<Item = (Policy, &ActiveQuota)> {
        let quotas = |policy| self.layout.quotas(policy).iter().map(move |active| (policy, active));
        self.policies.iter().copied().flat_map(quotas)
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::PerPolicy;
    use super::super::quota::Limit;
    use super::*;
    use proptest::prelude::*;

    /// The rest is off.
    fn layout(login: &str, global: &str) -> QuotaLayout {
        let limit = |text: &str| text.parse::<Limit>().unwrap();
        let limits =
            PerPolicy { login: limit(login), global: limit(global), ..PerPolicy::default() };
        QuotaLayout::new(&limits)
    }

    /// Login: a token in 30 s; global: one in a third of a second.
    fn usual() -> QuotaLayout {
        layout("2/min", "3/s")
    }

    /// At a level alone.
    fn evaluate(
        buckets: &mut Buckets,
        layout: &QuotaLayout,
        policies: &[Policy],
        now_ns: u64,
    ) -> Decision {
        let check = Check { layout, policies, now_ns };
        check.evaluate(Level::Address, buckets, Decision::Unlimited, |decision| decision)
    }

    const BOTH: [Policy; 2] = [Policy::Login, Policy::Global];
    const SECOND_NS: u64 = 1_000_000_000;

    /// The name of the quota that binds, and its tokens left.
    fn status(decision: Decision) -> (String, u32) {
        let status = decision.status().unwrap();
        (status.name.to_string(), status.remaining)
    }

    #[test]
    fn a_refused_request_spends_nothing_anywhere() {
        let (mut buckets, layout) = (Buckets::default(), usual());
        for left in [1, 0] {
            let decision = evaluate(&mut buckets, &layout, &BOTH, 0);
            assert!(decision.is_allowed());
            assert_eq!(status(decision), ("login".to_owned(), left));
        }
        let before = buckets;
        let refused = evaluate(&mut buckets, &layout, &BOTH, 0);
        assert_eq!(buckets, before);
        let Decision::Limited { status, retry_after } = refused else { panic!("{refused:?}") };
        assert_eq!(retry_after, Duration::from_secs(30));
        assert_eq!((status.policy, status.remaining), (Policy::Login, 0));
        assert_eq!(status.more_after, retry_after);
        // The global token that the refused login left is still there.
        assert!(evaluate(&mut buckets, &layout, &[Policy::Global], 0).is_allowed());
        assert!(!evaluate(&mut buckets, &layout, &[Policy::Global], 0).is_allowed());
    }

    #[test]
    fn off_has_no_say_and_twice_is_once() {
        let (mut buckets, layout) = (Buckets::default(), usual());
        assert_eq!(evaluate(&mut buckets, &layout, &[], 0), Decision::Unlimited);
        assert_eq!(evaluate(&mut buckets, &layout, &[Policy::Register], 0), Decision::Unlimited);
        let twice = [Policy::Login, Policy::Register, Policy::Login];
        assert_eq!(status(evaluate(&mut buckets, &layout, &twice, 0)), ("login".to_owned(), 1));
    }

    #[test]
    fn every_window_of_a_policy_must_have_room() {
        let (mut buckets, layout) = (Buckets::default(), layout("3/min,5/h", "off"));
        let mut login =
            |now_s: u64| evaluate(&mut buckets, &layout, &[Policy::Login], now_s * SECOND_NS);
        for left in [2, 1, 0] {
            assert_eq!(status(login(0)), ("login".to_owned(), left));
        }
        let Decision::Limited { status: binds, retry_after } = login(0) else { panic!() };
        assert_eq!((binds.name.to_string(), retry_after.as_secs()), ("login".to_owned(), 20));
        // Refused, it cost the hour nothing: two are left of five.
        assert_eq!(status(login(60)), ("login-h".to_owned(), 1));
        assert_eq!(status(login(60)), ("login-h".to_owned(), 0));
        let Decision::Limited { status: binds, retry_after } = login(60) else { panic!() };
        assert_eq!((binds.policy, binds.name.to_string()), (Policy::Login, "login-h".to_owned()));
        assert_eq!(retry_after.as_secs(), 3_600 / 5 - 60);
        // Nor did that one cost the minute anything.
        assert_eq!(status(login(720)), ("login-h".to_owned(), 0));
        assert!(!login(720).is_allowed());
    }

    proptest! {
        /// For any state: allowed means every bucket granted; limited means none changed and the
        /// same request is allowed after exactly the wait.
        #[test]
        fn all_or_nothing(full_ns in prop::array::uniform3(0..200_u64), now in 0..200_u64) {
            let layout = layout("2/min,3/h", "3/s");
            let mut before = Buckets::default();
            for (active, part) in layout.all().zip(full_ns) {
                // Up to twice what a bucket takes to fill.
                let full_ns = part * u64::try_from(active.quota.period().as_nanos()).unwrap() / 100;
                before.set(active.index, before.get(active.index).full_no_sooner_than(full_ns));
            }
            let now_ns = now * 500_000_000;
            let mut after = before;
            match evaluate(&mut after, &layout, &BOTH, now_ns) {
                Decision::Unlimited => prop_assert!(false),
                Decision::Allowed(_) => for active in layout.all() {
                    let granted = active.rate(Level::Address).take(before.get(active.index), now_ns);
                    prop_assert_eq!(Ok(after.get(active.index)), granted);
                }
                Decision::Limited { retry_after, status } => {
                    prop_assert_eq!(after, before);
                    prop_assert_eq!((status.remaining, status.more_after), (0, retry_after));
                    let then_ns = now_ns + u64::try_from(retry_after.as_nanos()).unwrap();
                    prop_assert!(!evaluate(&mut after, &layout, &BOTH, then_ns - 1).is_allowed());
                    prop_assert!(evaluate(&mut after, &layout, &BOTH, then_ns).is_allowed());
                }
            }
        }
    }
}
