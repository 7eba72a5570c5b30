//! The circuit breaker: when the store counts as away, and when it is tried again. Pure.
//!
//! It opens after [`FAILURES_MAX`] consecutive failures, or at once if the connection broke. While it is
//! open, no request waits for the store. One probe at a time, by a background task, tries to close it:
//! immediately after a success, and then with a delay that doubles.

use std::time::Duration;

/// The consecutive failures that open the breaker.
const FAILURES_MAX: u32 = 5;
/// The delay before the second probe.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// The longest delay between two probes.
const DELAY_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// The delay before the next probe.
    delay: Duration,
}

impl Breaker {
    /// Records an answer in time.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Records a failure. True if the breaker opens. `broken` is for a broken connection.
    pub(super) fn failed(&mut self, broken: bool) -> bool {
        self.failures = self.failures.saturating_add(1);
        broken || self.failures >= FAILURES_MAX
    }

    /// The delay before the next probe. Each call without a success in between returns a longer one.
    pub(super) fn next_delay(&mut self) -> Duration {
        let delay = self.delay;
        self.delay = (delay * 2).clamp(DELAY_MIN, DELAY_MAX);
        delay
    }

    /// Closes the breaker after a probe. The delay remains until a call succeeds.
    pub(super) fn close(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_consecutive_failures_or_a_broken_connection_open_it() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            assert!((1..FAILURES_MAX).all(|_| !breaker.failed(false)));
            breaker.succeeded();
        }
        assert!((1..FAILURES_MAX).all(|_| !breaker.failed(false)));
        assert!(breaker.failed(false));
        assert!(Breaker::default().failed(true));
    }

    #[test]
    fn probes_start_at_once_and_become_rarer_until_a_call_succeeds() {
        let mut breaker = Breaker::default();
        let delays: Vec<u128> = (0..8).map(|_| breaker.next_delay().as_millis()).collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
        breaker.close();
        assert_eq!(breaker.next_delay(), DELAY_MAX, "a probe proves less than a call");
        breaker.succeeded();
        assert_eq!(breaker.next_delay(), Duration::ZERO);
    }
}
