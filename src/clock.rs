//! The clock, the only external input that tests replace.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The source of time for the whole program.
///
/// Limits, deadlines and waits use [`Clock::now`], which is monotonic: a step of the wall clock
/// does not affect it. Tokens use [`Clock::unix_s`], because other machines read their times.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Manual),
}

#[derive(Clone)]
struct Manual {
    start: Instant,
    start_unix_s: u64,
    passed_ms: Arc<AtomicU64>,
    stepped_s: Arc<AtomicI64>,
}

impl Manual {
    fn passed(&self) -> Duration {
        Duration::from_millis(self.passed_ms.load(Ordering::SeqCst))
    }

    fn since_epoch(&self) -> Duration {
        let stepped_s = self.stepped_s.load(Ordering::SeqCst);
        Duration::from_secs(self.start_unix_s.saturating_add_signed(stepped_s)) + self.passed()
    }
}

impl Clock {
    /// The clock of the machine.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock for tests that stands still until [`Clock::advance`] is called.
    pub fn manual() -> Self {
        Self(Source::Manual(Manual {
            start: monotonic(),
            start_unix_s: wall_s(),
            passed_ms: Arc::new(AtomicU64::new(0)),
            stepped_s: Arc::new(AtomicI64::new(0)),
        }))
    }

    /// The monotonic time.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::System => monotonic(),
            Source::Manual(manual) => manual.start + manual.passed(),
        }
    }

    /// The wall clock in whole seconds since 1970-01-01 UTC (NumericDate of RFC 7519 §2).
    pub fn unix_s(&self) -> u64 {
        match &self.0 {
            Source::System => wall_s(),
            Source::Manual(manual) => manual.since_epoch().as_secs(),
        }
    }

    /// The wall clock, for dating events that were measured on the monotonic one.
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            Source::System => wall(),
            Source::Manual(manual) => UNIX_EPOCH + manual.since_epoch(),
        }
    }

    /// Steps a manual clock's wall time forward or back, as NTP may do.
    ///
    /// The monotonic time is not affected.
    pub fn step_wall(&self, by_s: i64) {
        if let Source::Manual(manual) = &self.0 {
            manual.stepped_s.fetch_add(by_s, Ordering::SeqCst);
        }
    }

    /// Moves a manual clock forward, to the millisecond. Does nothing to the system clock.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX / 2);
            manual.passed_ms.fetch_add(ms, Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock itself")]
fn monotonic() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the clock itself")]
fn wall() -> SystemTime {
    SystemTime::now()
}

fn wall_s() -> u64 {
    wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_on_request() {
        let clock = Clock::manual();
        let (before, before_unix_s) = (clock.now(), clock.unix_s());
        clock.advance(Duration::from_secs(90));
        assert_eq!(clock.now() - before, Duration::from_secs(90));
        assert_eq!(clock.unix_s() - before_unix_s, 90);
        clock.step_wall(-3_600);
        assert_eq!(clock.unix_s() + 3_600 - before_unix_s, 90);
        assert_eq!(clock.wall(), UNIX_EPOCH + Duration::from_secs(clock.unix_s()));
        assert_eq!(clock.now() - before, Duration::from_secs(90));
    }
}
