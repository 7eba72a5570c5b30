//! A streak of failed logins and the wait after it. Pure: the caller passes the time.

use std::time::Duration;

/// The longest streak of failures (NIST SP 800-63B §5.2.2).
///
/// The wait after the last failure is [`STREAK_TTL`], so the streak ends there.
pub(super) const FAILURES_MAX: u8 = 100;
/// A streak ends after this time without a failure.
pub(super) const STREAK_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The waits after failed logins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// The failure that causes the first wait. 1 to [`FAILURES_MAX`].
    pub(super) first: u8,
    /// The first wait. Each further failure doubles it.
    pub(super) wait: Duration,
    /// The longest wait before [`FAILURES_MAX`].
    pub(super) wait_max: Duration,
}

/// Consecutive failed logins. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FailureStreak {
    /// The time of the last failure. Unit: ms since the start.
    failed_ms: u64,
    /// The number of failures, up to [`FAILURES_MAX`].
    failures: u8,
    /// Whether a login was refused since the last failure.
    refused: bool,
    /// Whether the account's sessions were looked up since the last failure.
    looked_up: bool,
}

/// The wait of a refused login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// The remaining time. Never zero.
    pub(super) left: Duration,
    /// Whether this is the first refusal of the wait.
    pub(super) first: bool,
}

impl FailureStreak {
    /// Makes a streak whose last failure was at `failed_ms`.
    pub(super) fn new(failures: u8, failed_ms: u64, refused: bool, looked_up: bool) -> Self {
        Self { failed_ms, failures: failures.min(FAILURES_MAX), refused, looked_up }
    }

    /// Returns the remaining wait and records a refusal. `None` if a login may proceed.
    pub(super) fn wait(&mut self, rule: Rule, now_ms: u64) -> Option<Wait> {
        let left = self.left(rule, now_ms)?;
        let first = !std::mem::replace(&mut self.refused, true);
        Some(Wait { left, first })
    }

    /// Returns the remaining wait without recording a refusal.
    pub(super) fn left(&self, rule: Rule, now_ms: u64) -> Option<Duration> {
        let wait = Some(rule.wait_after(self.failures)).filter(|wait| !wait.is_zero())?;
        let until_ms = self.failed_ms.saturating_add(millis(wait));
        let left_ms = until_ms.checked_sub(now_ms).filter(|left_ms| *left_ms > 0)?;
        Some(Duration::from_millis(left_ms))
    }

    /// Counts a failure, or returns the wait that concurrent failures caused.
    ///
    /// In that case the response must be the same as to a later login.
    pub(super) fn fail(&mut self, rule: Rule, now_ms: u64) -> Option<Wait> {
        let wait = self.wait(rule, now_ms);
        if wait.is_none() {
            let so_far = if self.is_over(now_ms) { 0 } else { self.failures };
            let failures = so_far.saturating_add(1).min(FAILURES_MAX);
            // The times of two threads may arrive out of order.
            *self = Self { failed_ms: self.failed_ms.max(now_ms), failures, ..Self::default() };
        }
        wait
    }

    /// Claims the one look-up of sessions per wait. False if there is no wait, or it is claimed.
    pub(super) fn claim_lookup(&mut self, rule: Rule, now_ms: u64) -> bool {
        self.left(rule, now_ms).is_some() && !std::mem::replace(&mut self.looked_up, true)
    }

    /// Releases the claim after a failed look-up.
    pub(super) fn release_lookup(&mut self) {
        self.looked_up = false;
    }

    /// Whether the streak has ended.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        self.failures == 0 || now_ms.saturating_sub(self.failed_ms) >= millis(STREAK_TTL)
    }

    /// Whether this streak causes longer waits than another: it has more failures, or later ones.
    pub(super) fn outweighs(&self, other: &Self, now_ms: u64) -> bool {
        let weight = |streak: &Self| (!streak.is_over(now_ms), streak.failures, streak.failed_ms);
        weight(self) > weight(other)
    }

    /// The eviction order: ended streaks first, then few failures, then the oldest.
    ///
    /// `None` for a streak that causes waits, which is not evicted before it ends.
    pub(super) fn eviction_rank(&self, rule: Rule, now_ms: u64) -> Option<(bool, u8, u64)> {
        let goes_on = !self.is_over(now_ms);
        let stays = goes_on && self.failures >= rule.first;
        (!stays).then_some((goes_on, self.failures, self.failed_ms))
    }
}

impl Rule {
    /// Returns the wait after a number of consecutive failures.
    fn wait_after(self, failures: u8) -> Duration {
        match failures.checked_sub(self.first) {
            None => Duration::ZERO,
            Some(_) if failures >= FAILURES_MAX => STREAK_TTL,
            Some(doublings) => {
                let factor = 1_u32.checked_shl(doublings.into()).unwrap_or(u32::MAX);
                self.wait.saturating_mul(factor).min(self.wait_max)
            }
        }
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{ACCOUNT, PAIR};
    use super::*;
    use proptest::prelude::*;

    /// Returns the wait after each failure of the fastest possible streak. Unit: s.
    fn waits(rule: Rule, failures: usize) -> Vec<u64> {
        let (mut streak, mut now_ms) = (FailureStreak::default(), 0);
        (0..failures)
            .map(|_| {
                assert_eq!(streak.fail(rule, now_ms), None);
                let left = streak.wait(rule, now_ms).map_or(Duration::ZERO, |wait| wait.left);
                now_ms += millis(left);
                left.as_secs()
            })
            .collect()
    }

    #[test]
    fn the_waits_match_the_documentation() {
        let hour = 3_600;
        let expected = [0, 0, 0, 0, 30, 60, 120, 240, 480, 960, 1_920, hour, hour];
        assert_eq!(waits(PAIR, 13), expected);
        let account = waits(ACCOUNT, 28);
        assert!(account[..19].iter().all(|wait| *wait == 0));
        assert_eq!(account[19..], [60, 120, 240, 480, 960, 1_920, hour, hour, hour]);
    }

    #[test]
    fn the_hundredth_failure_ends_the_streak() {
        for rule in [PAIR, ACCOUNT] {
            let waits = waits(rule, 101);
            assert_eq!(waits[98], rule.wait_max.as_secs());
            assert_eq!(waits[99], STREAK_TTL.as_secs());
            assert_eq!(waits[100], 0, "a new streak");
            let all: u64 = waits[..99].iter().sum();
            assert!(all > 3 * 24 * 3_600, "{all} s for a hundred guesses");
        }
    }

    #[test]
    fn a_streak_ends_after_a_day_without_a_failure() {
        let mut streak = FailureStreak::default();
        for _ in 0..4 {
            streak.fail(PAIR, 1);
        }
        let day_ms = millis(STREAK_TTL);
        assert!(!streak.is_over(day_ms) && streak.is_over(day_ms + 1));
        streak.fail(PAIR, day_ms + 1);
        assert_eq!(streak.failures, 1);
    }

    #[test]
    fn the_first_refusal_of_a_wait_is_marked() {
        let mut streak = FailureStreak::default();
        for _ in 0..5 {
            assert_eq!(streak.fail(PAIR, 0), None);
        }
        let is_first = |wait: Option<Wait>| wait.map(|wait| wait.first);
        assert_eq!(is_first(streak.wait(PAIR, 10)), Some(true));
        assert_eq!(is_first(streak.wait(PAIR, 11)), Some(false));
        assert_eq!(streak.fail(PAIR, 30_000), None);
        assert_eq!(is_first(streak.wait(PAIR, 30_001)), Some(true));
    }

    proptest! {
        /// For any times in any order: nothing overflows, a login may proceed exactly when its wait
        /// has ended, and waits only grow during a streak.
        #[test]
        fn the_wait_is_exact(steps in prop::collection::vec((0..200_000_u64, any::<bool>()), 1..200)) {
            for rule in [PAIR, ACCOUNT] {
                let mut streak = FailureStreak::default();
                let (mut now_ms, mut last) = (0_u64, Duration::ZERO);
                for (step_ms, back) in &steps {
                    now_ms = if *back { now_ms.saturating_sub(*step_ms) } else { now_ms + step_ms };
                    let over = streak.is_over(now_ms);
                    if streak.fail(rule, now_ms).is_some() {
                        continue;
                    }
                    let length = rule.wait_after(streak.failures);
                    prop_assert!(length >= last || over);
                    last = length;
                    let end_ms = streak.failed_ms + millis(length);
                    prop_assert!(streak.wait(rule, end_ms).is_none());
                    prop_assert_eq!(streak.wait(rule, end_ms.saturating_sub(1)).is_some(), !length.is_zero());
                }
            }
        }

        /// The number of guesses per time is bounded for any timing.
        #[test]
        fn guesses_are_bounded_by_time(pauses_s in prop::collection::vec(0..90_000_u64, 1..400)) {
            for rule in [PAIR, ACCOUNT] {
                let (mut streak, mut now_ms, mut guesses) = (FailureStreak::default(), 0_u64, 0_u64);
                for pause_s in &pauses_s {
                    // As many at once as possible.
                    while streak.fail(rule, now_ms).is_none() {
                        guesses += 1;
                    }
                    now_ms += pause_s * 1_000;
                }
                // Seven doublings reach the longest wait. Then there is one guess an hour, or
                // another ramp after a day without failures.
                let ramp = u64::from(rule.first) + 7;
                let hours = now_ms / 3_600_000;
                prop_assert!(guesses <= ramp + hours + hours / 24 * ramp, "{guesses} in {hours} h");
            }
        }

        #[test]
        fn no_state_overflows(failed_ms: u64, failures: u8, now_ms: u64) {
            let mut streak = FailureStreak { failed_ms, failures, ..FailureStreak::default() };
            for rule in [PAIR, ACCOUNT] {
                streak.wait(rule, now_ms);
                streak.fail(rule, now_ms);
            }
        }
    }
}
