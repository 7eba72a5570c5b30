//! The prediction of how long a new job waits, as a pure function.

use super::speed::to_f64;
use std::time::Duration;

/// What is in the queues and in the lanes when a job asks for a place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Lanes of all workers.
    pub(super) lanes: usize,
    /// Lanes that a login or a new password occupies.
    pub(super) busy: usize,
    /// Rounds that those lanes still have to do.
    pub(super) busy_rounds: u64,
    /// Waiting jobs of both purposes.
    pub(super) waiting: usize,
    /// Rounds of the waiting jobs of the same purpose.
    pub(super) own_rounds: u64,
    /// Rounds of the waiting jobs of the other purpose.
    pub(super) other_rounds: u64,
    /// The part of the work that the other purpose recently got while jobs of this one waited.
    pub(super) other_share: f64,
}

impl Load {
    /// The time until a new job's hashing starts, at a speed in rounds per second of all lanes.
    ///
    /// All lanes are busy until then, so the earlier work takes at most its rounds over the speed.
    /// It is the work in the lanes, the waiting work of the same purpose, and the work of the other
    /// purpose that is done meanwhile: what waits now, or what its share of the recent work
    /// suggests, and not more than that of the same purpose, because workers balance the two.
    pub(super) fn wait(&self, speed: f64) -> Duration {
        if self.busy + self.waiting < self.lanes {
            return Duration::ZERO;
        }
        let [busy, own, other] = [self.busy_rounds, self.own_rounds, self.other_rounds].map(to_f64);
        let arriving = own * self.other_share / (1.0 - self.other_share).max(f64::MIN_POSITIVE);
        let rounds = busy + own + own.min(other.max(arriving));
        Duration::try_from_secs_f64(rounds / speed.max(1.0)).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Load = Load {
        lanes: 4,
        busy: 4,
        busy_rounds: 2_000,
        waiting: 3,
        own_rounds: 3_000,
        other_rounds: 0,
        other_share: 0.0,
    };

    #[test]
    fn a_job_waits_for_the_earlier_work_in_the_lanes_and_in_its_queue() {
        assert_eq!(FULL.wait(1_000.0), Duration::from_secs(5));
        assert_eq!(FULL.wait(2_000.0), Duration::from_millis(2_500));
        let none_waiting = Load { waiting: 0, own_rounds: 0, ..FULL };
        assert_eq!(none_waiting.wait(1_000.0), Duration::from_secs(2));
    }

    #[test]
    fn a_job_waits_for_as_much_work_of_the_other_purpose_as_of_its_own() {
        let both = |other_rounds| Load { other_rounds, ..FULL }.wait(1_000.0).as_secs();
        assert_eq!([both(0), both(1_000), both(3_000), both(90_000)], [5, 6, 8, 8]);
    }

    #[test]
    fn a_purpose_whose_jobs_never_wait_still_takes_its_share_of_the_time() {
        let share = |other_share| Load { other_share, ..FULL }.wait(1_000.0).as_secs();
        // A quarter of the work: three rounds of this purpose take as long as four.
        assert_eq!([share(0.0), share(0.25), share(0.5), share(1.0)], [5, 6, 8, 8]);
    }

    #[test]
    fn a_job_does_not_wait_while_there_are_more_free_lanes_than_waiting_jobs() {
        let load = |busy, waiting| Load { busy, waiting, ..FULL }.wait(1_000.0);
        assert_eq!(load(3, 0), Duration::ZERO);
        assert_eq!(load(0, 3), Duration::ZERO);
        assert_ne!(load(2, 2), Duration::ZERO);
        assert_ne!(load(0, 4), Duration::ZERO, "four jobs will fill the four lanes");
    }
}
