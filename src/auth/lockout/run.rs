//! A run of failed logins: how many in a row, and how long the next one has to wait. Pure: handed
//! the time.

use std::time::Duration;

/// The most failures in a row (NIST SP 800-63B §5.2.2). The last one's wait is [`FORGET`], so a run
/// never goes on after it.
pub(super) const FAILURES_MAX: u8 = 100;
/// A run without a failure for so long is over, and the next failure begins a new one.
pub(super) const FORGET: Duration = Duration::from_secs(24 * 60 * 60);

/// When failures begin to cost time, and how much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// The failure after which the first wait comes. 1 to [`FAILURES_MAX`].
    pub(super) first: u8,
    /// That wait; each further failure doubles it.
    pub(super) wait: Duration,
    /// The longest wait before [`FAILURES_MAX`].
    pub(super) wait_max: Duration,
}

/// Failures in a row. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    /// When the last failure was. Unit: ms since the start.
    failed_ms: u64,
    /// Up to [`FAILURES_MAX`].
    failures: u8,
    /// Whether somebody was refused since the last failure.
    refused: bool,
    /// Whether the account's sessions were looked up since the last failure.
    looked_up: bool,
}

/// A login that has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// How long. Never zero.
    pub(super) left: Duration,
    /// Whether nobody was refused in this wait before.
    pub(super) first: bool,
}

impl Run {
    /// The wait that is left; `None`: a login may be tried.
    pub(super) fn wait(&mut self, rule: Rule, now_ms: u64) -> Option<Wait> {
        let left = self.left(rule, now_ms)?;
        let first = !std::mem::replace(&mut self.refused, true);
        Some(Wait { left, first })
    }

    /// The same, for somebody who only looks.
    pub(super) fn left(&self, rule: Rule, now_ms: u64) -> Option<Duration> {
        let wait = Some(rule.wait_after(self.failures)).filter(|wait| !wait.is_zero())?;
        let until_ms = self.failed_ms.saturating_add(millis(wait));
        let left_ms = until_ms.checked_sub(now_ms).filter(|left_ms| *left_ms > 0)?;
        Some(Duration::from_millis(left_ms))
    }

    /// Counts a failure, unless it came while others made a wait of it: then it tells its client
    /// no more than a login that came later.
    pub(super) fn fail(&mut self, rule: Rule, now_ms: u64) -> Option<Wait> {
        let wait = self.wait(rule, now_ms);
        if wait.is_none() {
            let so_far = if self.is_over(now_ms) { 0 } else { self.failures };
            let failures = so_far.saturating_add(1).min(FAILURES_MAX);
            // Times of two threads may arrive in the wrong order.
            *self = Self { failed_ms: self.failed_ms.max(now_ms), failures, ..Self::default() };
        }
        wait
    }

    /// Claims the one look-up of sessions that a wait allows; false if there is no wait, or somebody
    /// has claimed it.
    pub(super) fn claim_lookup(&mut self, rule: Rule, now_ms: u64) -> bool {
        self.left(rule, now_ms).is_some() && !std::mem::replace(&mut self.looked_up, true)
    }

    /// Gives the look-up back: it did not happen.
    pub(super) fn release_lookup(&mut self) {
        self.looked_up = false;
    }

    /// Whether nothing of it counts any more.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        self.failures == 0 || now_ms.saturating_sub(self.failed_ms) >= millis(FORGET)
    }

    /// Whether it has come to cost time: such a run is not forgotten before its time.
    pub(super) fn is_spent(&self, rule: Rule) -> bool {
        self.failures >= rule.first
    }

    /// What to forget first where there is no room: few failures, long ago.
    pub(super) fn weight(&self) -> (u8, u64) {
        (self.failures, self.failed_ms)
    }
}

impl Rule {
    /// The wait after so many failures in a row.
    fn wait_after(self, failures: u8) -> Duration {
        match failures.checked_sub(self.first) {
            None => Duration::ZERO,
            Some(_) if failures >= FAILURES_MAX => FORGET,
            Some(doublings) => {
                let factor = 1_u32.checked_shl(doublings.into()).unwrap_or(u32::MAX);
                self.wait.saturating_mul(factor).min(self.wait_max)
            }
        }
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{ACCOUNT, PAIR};
    use super::*;
    use proptest::prelude::*;

    /// Waits in seconds after each failure of a run that is kept up as fast as it may be.
    fn waits(rule: Rule, failures: usize) -> Vec<u64> {
        let (mut run, mut now_ms) = (Run::default(), 0);
        (0..failures)
            .map(|_| {
                assert_eq!(run.fail(rule, now_ms), None);
                let left = run.wait(rule, now_ms).map_or(Duration::ZERO, |wait| wait.left);
                now_ms += millis(left);
                left.as_secs()
            })
            .collect()
    }

    #[test]
    fn the_waits_are_those_of_the_readme() {
        let hour = 3_600;
        let expected = [0, 0, 0, 0, 30, 60, 120, 240, 480, 960, 1_920, hour, hour];
        assert_eq!(waits(PAIR, 13), expected);
        let account = waits(ACCOUNT, 28);
        assert!(account[..19].iter().all(|wait| *wait == 0));
        assert_eq!(account[19..], [60, 120, 240, 480, 960, 1_920, hour, hour, hour]);
    }

    #[test]
    fn the_hundredth_failure_ends_the_run() {
        for rule in [PAIR, ACCOUNT] {
            let waits = waits(rule, 101);
            assert_eq!(waits[98], rule.wait_max.as_secs());
            assert_eq!(waits[99], FORGET.as_secs());
            assert_eq!(waits[100], 0, "a new run");
            let all: u64 = waits[..99].iter().sum();
            assert!(all > 3 * 24 * 3_600, "{all} s for a hundred guesses");
        }
    }

    #[test]
    fn a_run_is_over_after_a_day_without_a_failure() {
        let mut run = Run::default();
        for _ in 0..4 {
            run.fail(PAIR, 1);
        }
        let day_ms = millis(FORGET);
        assert!(!run.is_over(day_ms) && run.is_over(day_ms + 1));
        run.fail(PAIR, day_ms + 1);
        assert_eq!(run.weight().0, 1);
    }

    #[test]
    fn the_first_refusal_of_a_wait_is_told_apart() {
        let mut run = Run::default();
        for _ in 0..5 {
            assert_eq!(run.fail(PAIR, 0), None);
        }
        let first = |run: &mut Run, now_ms| run.wait(PAIR, now_ms).map(|wait| wait.first);
        assert_eq!(first(&mut run, 10), Some(true));
        assert_eq!(first(&mut run, 11), Some(false));
        assert_eq!(run.fail(PAIR, 30_000), None);
        assert_eq!(first(&mut run, 30_001), Some(true));
    }

    proptest! {
        /// Whatever the times, in whatever order: nothing overflows, a login is let through exactly
        /// when its wait is over, and waits only grow while the run lasts.
        #[test]
        fn the_wait_is_exact(steps in prop::collection::vec((0..200_000_u64, any::<bool>()), 1..200)) {
            for rule in [PAIR, ACCOUNT] {
                let (mut run, mut now_ms, mut last) = (Run::default(), 0_u64, Duration::ZERO);
                for (step_ms, back) in &steps {
                    now_ms = if *back { now_ms.saturating_sub(*step_ms) } else { now_ms + step_ms };
                    let over = run.is_over(now_ms);
                    if run.fail(rule, now_ms).is_some() {
                        continue;
                    }
                    let length = rule.wait_after(run.failures);
                    prop_assert!(length >= last || over);
                    last = length;
                    let end_ms = run.failed_ms + millis(length);
                    prop_assert!(run.wait(rule, end_ms).is_none());
                    prop_assert_eq!(run.wait(rule, end_ms.saturating_sub(1)).is_some(), !length.is_zero());
                }
            }
        }

        /// The law: at most so many guesses in so much time, however they are spread.
        #[test]
        fn guesses_are_bounded_by_time(pauses_s in prop::collection::vec(0..90_000_u64, 1..400)) {
            for rule in [PAIR, ACCOUNT] {
                let (mut run, mut now_ms, mut guesses) = (Run::default(), 0_u64, 0_u64);
                for pause_s in &pauses_s {
                    // As many at once as there are to be had.
                    while run.fail(rule, now_ms).is_none() {
                        guesses += 1;
                    }
                    now_ms += pause_s * 1_000;
                }
                // A run's ramp up to the longest wait is seven doublings; then one in an hour, or
                // a day of silence and another ramp.
                let ramp = u64::from(rule.first) + 7;
                let hours = now_ms / 3_600_000;
                prop_assert!(guesses <= ramp + hours + hours / 24 * ramp, "{guesses} in {hours} h");
            }
        }

        #[test]
        fn hostile_state_never_overflows(failed_ms: u64, failures: u8, now_ms: u64) {
            let mut run = Run { failed_ms, failures, ..Run::default() };
            for rule in [PAIR, ACCOUNT] {
                run.wait(rule, now_ms);
                run.fail(rule, now_ms);
            }
        }
    }
}
