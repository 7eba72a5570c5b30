//! The speed of the hashing threads, measured on the work that they do.
//!
//! Speed is counted in loop rounds per second with all lanes busy. Each worker reports what it did
//! in a window of a quarter of a second, and the windows are averaged over time. There are two
//! averages. The one for admission reaches back in proportion to the deadline: a wait of 40 seconds
//! is predicted from the last ten, so a dip of a few seconds hardly changes it, and a wait of two
//! seconds from the last one. The one for the gauges follows within a few seconds.

use super::moving_average::MovingAverage;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The shortest time that is averaged into one measurement.
const WINDOW: Duration = Duration::from_millis(250);
/// The part of the deadline over which the speed for admission is averaged: a quarter.
const DEADLINE_PARTS: u32 = 4;
/// The least and the most time over which it is averaged.
const AVERAGED_MIN: Duration = Duration::from_secs(1);
const AVERAGED_MAX: Duration = Duration::from_secs(10);
/// The time over which the speed for the gauges is averaged.
const RECENT: Duration = Duration::from_secs(2);
/// A slow measurement counts as at least this part of the average.
///
/// A single window, such as one in which the process was stopped, then has a limited effect. A
/// lasting change still shows, after a few windows more. A fast window is never wrong: something
/// that takes the cores makes a window slow.
const SLOWDOWN_MAX: f64 = 0.5;

/// The measured speed of all workers.
pub(super) struct Speed {
    workers: Vec<WorkerSpeed>,
    /// The highest recent speed of all workers, at least the calibrated best. Bits of an `f64`.
    best: AtomicU64,
}

struct WorkerSpeed {
    planned: MovingAverage,
    recent: MovingAverage,
}

impl Speed {
    /// `sustained` and `best` are the calibrated rounds per second of one worker.
    pub(super) fn new(workers: usize, sustained: u64, best: u64, deadline: Duration) -> Self {
        let (sustained, best) = (to_f64(sustained.max(1)), to_f64(best.max(1)));
        let planned_over = averaged_over(deadline);
        let worker = || WorkerSpeed {
            planned: MovingAverage::new(sustained, planned_over),
            recent: MovingAverage::new(sustained, RECENT),
        };
        let best = best.max(sustained) * to_f64(workers as u64);
        Self {
            workers: (0..workers).map(|_| worker()).collect(),
            best: AtomicU64::new(best.to_bits()),
        }
    }

    /// Adds a measurement of one worker.
    pub(super) fn add(&self, worker: usize, rounds_per_second: f64, took: Duration) {
        if let Some(worker) = self.workers.get(worker) {
            for average in [&worker.planned, &worker.recent] {
                let least = (average.get() * SLOWDOWN_MAX).max(1.0);
                average.add(rounds_per_second.max(least), took);
            }
            // Positive numbers compare as their bits do.
            self.best.fetch_max(self.recent().to_bits(), Ordering::Relaxed);
        }
    }

    /// Rounds per second of all workers, for predictions up to the deadline.
    pub(super) fn planned(&self) -> f64 {
        self.workers.iter().map(|worker| worker.planned.get()).sum()
    }

    /// Rounds per second of all workers in the last seconds.
    pub(super) fn recent(&self) -> f64 {
        self.workers.iter().map(|worker| worker.recent.get()).sum()
    }

    /// The recent speed relative to the best that was seen: 1, or less on shared cores.
    pub(super) fn share_of_best(&self) -> f64 {
        self.recent() / f64::from_bits(self.best.load(Ordering::Relaxed))
    }
}

/// The time over which admission averages what it measures.
pub(super) fn averaged_over(deadline: Duration) -> Duration {
    (deadline / DEADLINE_PARTS).clamp(AVERAGED_MIN, AVERAGED_MAX)
}

/// What one worker did since its last measurement.
pub(super) struct SpeedWindow {
    /// For each number of busy lanes, how many rounds a full worker would do in the time of one.
    ///
    /// 0: slices with that number do not count.
    full_rounds: Vec<f64>,
    rounds: f64,
    time: Duration,
}

impl SpeedWindow {
    pub(super) fn new(full_rounds: Vec<f64>) -> Self {
        Self { full_rounds, rounds: 0.0, time: Duration::ZERO }
    }

    /// Adds a slice: rounds of each of the busy lanes, and the time they took.
    ///
    /// Returns the rounds per second and the time of a window when it is complete.
    pub(super) fn add(
        &mut self,
        busy: usize,
        rounds: u32,
        took: Duration,
    ) -> Option<(f64, Duration)> {
        let full_rounds = self.full_rounds.get(busy).copied().filter(|rounds| *rounds > 0.0)?;
        self.rounds += full_rounds * f64::from(rounds);
        self.time += took;
        if self.time < WINDOW {
            return None;
        }
        let window = (self.rounds / self.time.as_secs_f64(), self.time);
        (self.rounds, self.time) = (0.0, Duration::ZERO);
        Some(window)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of rounds far below 2^52")]
pub(super) fn to_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn near(value: f64, expected: f64) {
        assert!((value / expected - 1.0).abs() < 0.02, "{value} is not {expected}");
    }

    /// Reports windows of a quarter of a second for `seconds`.
    fn run(speed: &Speed, rounds_per_second: f64, seconds: u32) {
        for _ in 0..seconds * 4 {
            speed.add(0, rounds_per_second, SECOND / 4);
        }
    }

    #[test]
    fn the_average_for_admission_reaches_back_for_a_quarter_of_the_deadline() {
        for (deadline_s, over_s) in [(1, 1), (2, 1), (20, 5), (40, 10), (300, 10)] {
            let speed = Speed::new(1, 1_000, 1_000, SECOND * deadline_s);
            run(&speed, 500.0, over_s);
            near(speed.planned(), 500.0 + 500.0 / std::f64::consts::E);
        }
    }

    // Case C2 of the field list: the gauge shows what the machine does now.
    #[test]
    fn the_recent_speed_follows_within_seconds_up_and_down() {
        let speed = Speed::new(1, 1_000, 1_000, 40 * SECOND);
        run(&speed, 500.0, 8);
        near(speed.recent(), 500.0);
        run(&speed, 1_000.0, 8);
        near(speed.recent(), 1_000.0);
    }

    #[test]
    fn one_slow_measurement_counts_as_a_halving_at_most() {
        let speed = Speed::new(1, 1_000, 1_000, SECOND);
        speed.add(0, 0.001, Duration::from_secs(600));
        near(speed.planned(), 500.0);
        near(speed.recent(), 500.0);
    }

    #[test]
    fn a_calibration_beside_other_work_is_corrected_by_the_first_seconds_of_load() {
        let speed = Speed::new(1, 150, 1_000, 30 * SECOND);
        run(&speed, 1_000.0, 5);
        assert!(speed.planned() > 550.0, "{}", speed.planned());
    }

    #[test]
    fn the_share_of_the_best_is_relative_to_the_calibration_and_to_later_speeds() {
        let speed = Speed::new(1, 600, 1_000, SECOND);
        near(speed.share_of_best(), 0.6);
        run(&speed, 1_200.0, 20);
        near(speed.share_of_best(), 1.0);
        run(&speed, 600.0, 20);
        near(speed.share_of_best(), 0.5);
    }

    #[test]
    fn slices_with_fewer_busy_lanes_are_scaled_and_unknown_ones_ignored() {
        // Two busy lanes step as fast as four.
        let mut window = SpeedWindow::new(vec![0.0, 0.0, 4.0, 0.0, 4.0]);
        let slice = Duration::from_millis(125);
        assert_eq!(window.add(1, 100, slice), None);
        assert_eq!(window.add(3, 100, slice), None);
        assert_eq!(window.add(2, 100, slice), None);
        assert_eq!(window.add(4, 100, slice), Some((3_200.0, slice * 2)));
        assert_eq!(window.add(4, 100, slice), None, "a new window begins");
    }
}
