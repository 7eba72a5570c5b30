//! The arithmetic of one token bucket. Pure: no clock, no lock, no table.
//!
//! A token bucket is usually two numbers, tokens and the time they were counted. Both follow from
//! one: the time at which the bucket will be full again. A full bucket's is in the past; each
//! token taken moves it one token's refill time into the future; a bucket with less than one
//! token left is one whose time lies too far ahead. Telephone networks know this as the generic
//! cell rate algorithm (ITU-T I.371), with that time called the theoretical arrival time. It
//! needs no refill job, no floating point, and eight bytes a bucket.
//!
//! A token's refill time is `period / burst` rounded up to a whole nanosecond, so rounding never
//! grants more than the quota says. It slows the refill of an address's bucket by 0.1 % at the largest
//! quota and by less than a millionth up to 1,000/s; of a /48's bucket, by sixteen times as much.

use std::time::Duration;

use super::quota::Quota;

/// The state of one bucket. The default is a full one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    /// When the bucket is full again. Unit: ns since the limiter's start.
    full_at_ns: u64,
}

impl Bucket {
    /// When it is full again, in ns since the limiter's start. From then on it may be forgotten:
    /// a new one is no fuller.
    pub(super) const fn full_at_ns(self) -> u64 {
        self.full_at_ns
    }

    /// The same bucket, or a bucket that is full only at `floor_ns` if that is later.
    pub(super) fn full_no_sooner_than(self, floor_ns: u64) -> Self {
        Self { full_at_ns: self.full_at_ns.max(floor_ns) }
    }
}

/// A quota, or a multiple of it, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// Refill time of one token, rounded up. 63 to 3.6e12.
    token_ns: u64,
    /// How far ahead a bucket's time may lie with a whole token still in it: the refill time of
    /// all tokens but one. Below 3.6e12 + 1.6e7, so sums of a few never overflow.
    tolerance_ns: u64,
}

impl Rate {
    /// `multiple` times the quota, as burst and as rate.
    pub(super) fn new(quota: Quota, multiple: u32) -> Self {
        let burst = u64::from(quota.burst().get()) * u64::from(multiple);
        let period_ns = u64::try_from(quota.period().as_nanos()).unwrap_or(u64::MAX);
        let token_ns = period_ns.div_ceil(burst);
        Self { token_ns, tolerance_ns: token_ns.saturating_mul(burst - 1) }
    }

    /// The same rate with times in whole microseconds, rounded up: no more than before.
    pub(super) fn in_whole_us(self) -> Self {
        let token_ns = self.token_ns.div_ceil(1_000) * 1_000;
        let others = self.tolerance_ns / self.token_ns.max(1);
        Self { token_ns, tolerance_ns: token_ns.saturating_mul(others) }
    }

    pub(super) const fn token_us(self) -> u64 {
        self.token_ns / 1_000
    }

    pub(super) const fn tolerance_us(self) -> u64 {
        self.tolerance_ns / 1_000
    }

    /// Takes one token at `now_ns` and returns the bucket after it, or else how long to wait.
    ///
    /// The wait is exact: at `now_ns` + wait a token is there, one nanosecond earlier it is not.
    ///
    /// Nothing is assumed about the order of times. A time before that of an earlier call finds
    /// the bucket as far or further from full, never nearer, so it is granted no more.
    pub(super) fn take(self, bucket: Bucket, now_ns: u64) -> Result<Bucket, Duration> {
        let full_at_ns = bucket.full_at_ns.max(now_ns);
        let ahead_ns = full_at_ns - now_ns;
        if let Some(short_ns) = ahead_ns.checked_sub(self.tolerance_ns)
            && short_ns > 0
        {
            return Err(Duration::from_nanos(short_ns));
        }
        // Past the end of time (584 years) requests are refused rather than unlimited.
        match full_at_ns.checked_add(self.token_ns) {
            Some(full_at_ns) => Ok(Bucket { full_at_ns }),
            None => Err(Duration::from_nanos(self.token_ns)),
        }
    }

    /// Whole tokens in the bucket, 0 to burst, and the time until there is one more: zero for a
    /// full bucket. Until then no more than those can be taken.
    pub(super) fn remaining(self, bucket: Bucket, now_ns: u64) -> (u32, Duration) {
        let ahead_ns = bucket.full_at_ns.saturating_sub(now_ns);
        let tokens = (self.tolerance_ns + self.token_ns).saturating_sub(ahead_ns) / self.token_ns;
        let there_ns = tokens * self.token_ns;
        // `there_ns` is not zero only where `ahead_ns` is small: the sum does not overflow.
        let is_full = there_ns > self.tolerance_ns;
        let more_ns =
            if is_full { 0 } else { (ahead_ns + there_ns).saturating_sub(self.tolerance_ns) };
        (u32::try_from(tokens).unwrap_or(u32::MAX), Duration::from_nanos(more_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::super::quota::tests::quotas;
    use super::super::quota::{Quota, Window};
    use super::*;
    use proptest::prelude::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn ten_a_minute() -> Rate {
        Rate::new(Quota::new(10, Window::Minute).unwrap(), 1)
    }

    /// Takes as many tokens as there are.
    fn drain(rate: Rate, mut bucket: Bucket, now_ns: u64) -> (Bucket, u32) {
        let mut taken = 0;
        while let Ok(next) = rate.take(bucket, now_ns) {
            bucket = next;
            taken += 1;
        }
        (bucket, taken)
    }

    #[test]
    fn ten_at_once_then_one_every_six_seconds() {
        let rate = ten_a_minute();
        let (bucket, taken) = drain(rate, Bucket::default(), 5);
        assert_eq!(taken, 10);
        assert_eq!(rate.take(bucket, 5), Err(Duration::from_secs(6)));
        assert_eq!(rate.remaining(bucket, 5), (0, Duration::from_secs(6)));
        let half = 5 + 31 * SECOND_NS;
        assert_eq!(rate.remaining(bucket, half), (5, Duration::from_secs(5)));
        assert_eq!(rate.remaining(bucket, 5 + 60 * SECOND_NS), (10, Duration::ZERO));
        assert_eq!(drain(rate, bucket, 5 + 6 * SECOND_NS).1, 1);
        assert_eq!(drain(rate, bucket, 5 + 30 * SECOND_NS).1, 5);
        assert_eq!(drain(rate, bucket, 5 + 60 * SECOND_NS).1, 10);
        assert_eq!(drain(rate, bucket, 5 + 3_600 * SECOND_NS).1, 10);
    }

    #[test]
    fn the_end_of_time_refuses() {
        let rate = ten_a_minute();
        let (bucket, taken) = drain(rate, Bucket::default(), u64::MAX);
        assert_eq!(taken, 0);
        assert!(rate.take(bucket, u64::MAX).is_err());
        let (_, taken) = drain(rate, Bucket::default(), u64::MAX - 20 * SECOND_NS);
        assert_eq!(taken, 3);
    }

    proptest! {
        /// A bucket's state is any word, the time any word: nothing overflows, and what is
        /// reported agrees with what is granted.
        #[test]
        fn never_more_than_burst(quota in quotas(), full_at_ns: u64, now_ns: u64) {
            let rate = Rate::new(quota, 1);
            let bucket = Bucket { full_at_ns };
            let burst = quota.burst().get();
            let (remaining, _) = rate.remaining(bucket, now_ns);
            prop_assert!(remaining <= burst);
            prop_assume!(now_ns < u64::MAX - 4_000 * SECOND_NS);
            let taken = (0..=burst).try_fold(bucket, |bucket, taken| {
                rate.take(bucket, now_ns).map_err(|_| taken)
            });
            prop_assert_eq!(taken.unwrap_err(), remaining);
        }

        /// Of what is reported the time is exact, too.
        #[test]
        fn one_more_token_is_there_when_it_was_said(quota in quotas(), full_at_ns in 0..u64::MAX / 2, now_ns in 0..u64::MAX / 4) {
            let rate = Rate::new(quota, 1);
            let bucket = Bucket { full_at_ns };
            let (remaining, more) = rate.remaining(bucket, now_ns);
            let then_ns = now_ns + u64::try_from(more.as_nanos()).unwrap();
            if remaining == quota.burst().get() {
                prop_assert_eq!(more, Duration::ZERO);
            } else {
                prop_assert_eq!(rate.remaining(bucket, then_ns).0, remaining + 1);
                prop_assert_eq!(rate.remaining(bucket, then_ns - 1).0, remaining);
            }
            if let Err(wait) = rate.take(bucket, now_ns) {
                prop_assert_eq!(wait, more);
            }
        }

        /// The rounding is never in the client's favour, and under a nanosecond a token.
        #[test]
        fn refilling_all_tokens_takes_the_period_or_hardly_more(quota in quotas()) {
            let burst = u128::from(quota.burst().get());
            let refill_ns = u128::from(Rate::new(quota, 1).token_ns) * burst;
            let period_ns = quota.period().as_nanos();
            prop_assert!((period_ns..period_ns + burst).contains(&refill_ns));
        }

        #[test]
        fn the_wait_is_exact(quota in quotas(), full_at_ns in 0..u64::MAX / 2, now_ns in 0..u64::MAX / 4) {
            let rate = Rate::new(quota, 1);
            let bucket = Bucket { full_at_ns };
            if let Err(wait) = rate.take(bucket, now_ns) {
                let wait_ns = u64::try_from(wait.as_nanos()).unwrap();
                prop_assert!(rate.take(bucket, now_ns + wait_ns).is_ok());
                prop_assert!(rate.take(bucket, now_ns + wait_ns - 1).is_err());
            }
        }

        /// Grants in any span of time are at most burst + rate x span, in whole numbers.
        ///
        /// The times go up and down: the law holds for the set of times, not their order.
        // Reliability: E6.
        #[test]
        fn granted_is_at_most_burst_plus_rate_times_span(
            quota in quotas(),
            start_ns in 0..u64::MAX / 2,
            steps in prop::collection::vec((0..=2_000_u64, any::<bool>(), 1..=30_u32), 1..60),
            (from, to) in (0..60_usize, 0..60_usize),
        ) {
            let rate = Rate::new(quota, 1);
            let period_ns = quota.period().as_nanos();
            let mut now_ns = start_ns;
            let mut bucket = Bucket::default();
            let mut grants: Vec<u64> = Vec::new();
            for (permille, back, asks) in steps {
                let step_ns = u64::try_from(period_ns).unwrap() / 1_000 * permille;
                now_ns = if back { now_ns.saturating_sub(step_ns) } else { now_ns + step_ns };
                for _ in 0..asks {
                    if let Ok(next) = rate.take(bucket, now_ns) {
                        bucket = next;
                        grants.push(now_ns);
                    }
                }
            }
            prop_assume!(!grants.is_empty());
            let (a, b) = (grants[from % grants.len()], grants[to % grants.len()]);
            let (first, last) = (a.min(b), a.max(b));
            let granted = grants.iter().filter(|at| (first..=last).contains(at)).count() as u128;
            let burst = u128::from(quota.burst().get());
            prop_assert!(granted * period_ns <= burst * period_ns + burst * u128::from(last - first));
        }

        /// A client that takes whatever is there gets the whole quota, less only the rounding.
        #[test]
        fn the_quota_is_really_given(burst in 1..=1_000_u32, periods in 1..5_u64) {
            for window in [Window::Second, Window::Minute, Window::Hour] {
                let quota = Quota::new(burst, window).unwrap();
                let rate = Rate::new(quota, 1);
                let (empty, _) = drain(rate, Bucket::default(), 0);
                let mut bucket = empty;
                let mut granted = 0;
                // The rounding delays `burst` tokens by under `burst` ns a period.
                let end_ns = periods * (u64::try_from(quota.period().as_nanos()).unwrap() + u64::from(burst));
                let mut now_ns = 0;
                loop {
                    match rate.take(bucket, now_ns) {
                        Ok(next) => { bucket = next; granted += 1; }
                        Err(wait) => now_ns += u64::try_from(wait.as_nanos()).unwrap(),
                    }
                    if now_ns > end_ns { break; }
                }
                prop_assert!(granted >= u64::from(burst) * periods);
            }
        }

        #[test]
        fn an_earlier_time_grants_no_more(quota in quotas(), full_at_ns: u64, now_ns: u64, back_ns: u64) {
            let rate = Rate::new(quota, 1);
            let bucket = Bucket { full_at_ns };
            let then_ns = now_ns.saturating_sub(back_ns);
            prop_assert!(rate.remaining(bucket, then_ns).0 <= rate.remaining(bucket, now_ns).0);
            if let Ok(after) = rate.take(bucket, now_ns) {
                prop_assert!(after.full_at_ns > bucket.full_at_ns);
            }
        }
    }
}
