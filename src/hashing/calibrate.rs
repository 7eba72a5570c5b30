//! Measures how fast this machine hashes and which lane count suits it.
//!
//! The speed is measured at start because processors differ too much for a table. The best lane
//! count is 5 or 6 on cores with three loads per cycle and 32 to 48 KiB of first-level cache, and
//! lower on smaller cores.

use super::kernel::{Batch, Cost, LANES_MAX, LaneJob, PasswordKey};
use super::lane_counts::lane_counts;
use crate::clock::Clock;
use std::time::Duration;

/// Loop rounds timed at once: about a millisecond, shorter than most gaps between interruptions.
const ROUNDS: u32 = 16;
/// Repetitions of each lane count. The fastest one counts, because noise only slows a run down.
///
/// There are many, because the machine is busy at a start and the choice then stays.
const REPETITIONS: u32 = 50;
/// Repetitions when the lane count is set. The speed is measured again whenever all lanes are busy.
const REPETITIONS_FIXED: u32 = 10;
/// The time for the whole measurement. When it is over, the repetitions done so far count.
const BUDGET: Duration = Duration::from_millis(800);
/// The highest latency of a hash that a lane count may cause, relative to one lane.
const LATENCY_FACTOR_MAX: u32 = 2;

/// Two measurements of the same thing differ by about this much.
const NOISE_PERCENT: u64 = 2;

/// The speed of one thread with a given number of busy lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSpeed {
    /// Lanes stepped together.
    pub lanes: usize,
    /// Time in which each lane advances by one loop round. A hash takes 2^cost rounds.
    pub round_time: Duration,
}

/// The measurements and the lane count chosen from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// The measured lane counts, ascending.
    pub speeds: Vec<LaneSpeed>,
    /// The lane count to use.
    pub chosen: LaneSpeed,
}

impl LaneSpeed {
    /// Time of one hash at that cost while all lanes are busy.
    pub fn hash_time(&self, cost: u32) -> Duration {
        self.round_time.saturating_mul(1 << cost.min(31))
    }

    /// Hashes per second of one thread at that cost while all lanes are busy.
    pub fn hashes_per_second(&self, cost: u32) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a lane count")]
        let lanes = self.lanes as f64;
        lanes / self.hash_time(cost).as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Lane rounds per second of one thread, at least 1.
    pub(super) fn rounds_per_second(&self) -> u64 {
        let nanos = self.round_time.as_nanos().max(1);
        let lanes = self.lanes as u128;
        u64::try_from(lanes * 1_000_000_000 / nanos).unwrap_or(u64::MAX).max(1)
    }
}

impl Calibration {
    /// Measures the lane counts that suit the cache and chooses the best one.
    ///
    /// The best is the count with the highest throughput whose latency stays under twice that of
    /// one lane. Takes half a second, 0.8 s at most.
    pub fn measure(clock: &Clock) -> Self {
        Self::of(&lane_counts(), REPETITIONS, clock)
    }

    /// Measures one lane and a configured lane count. Takes about 20 ms.
    pub fn measure_fixed(lanes: usize, clock: &Clock) -> Self {
        let mut counts = vec![1, lanes.clamp(1, LANES_MAX)];
        counts.dedup();
        let mut calibration = Self::of(&counts, REPETITIONS_FIXED, clock);
        if let Some(last) = calibration.speeds.last() {
            calibration.chosen = *last;
        }
        calibration
    }

    /// The speed of one lane: the latency of a hash on an idle machine.
    pub fn one_lane(&self) -> LaneSpeed {
        self.speeds.first().copied().unwrap_or(self.chosen)
    }

    fn of(counts: &[usize], repetitions: u32, clock: &Clock) -> Self {
        let end = clock.now() + BUDGET;
        let unmeasured = |lanes: &usize| LaneSpeed { lanes: *lanes, round_time: Duration::MAX };
        let mut speeds: Vec<LaneSpeed> = counts.iter().map(unmeasured).collect();
        // The counts alternate, so that a slow phase of the machine affects all of them.
        for repetition in 0..repetitions {
            for speed in &mut speeds {
                if repetition == 0 || clock.now() < end {
                    speed.round_time = speed.round_time.min(time(speed.lanes, clock));
                }
            }
        }
        let chosen = choose(&speeds);
        Self { speeds, chosen }
    }
}

/// Chooses the lane count: the best throughput within the latency limit.
///
/// Of counts that are equal within the noise, the one with the lowest latency is chosen.
fn choose(speeds: &[LaneSpeed]) -> LaneSpeed {
    let alone = speeds.first().map_or(Duration::MAX, |speed| speed.round_time);
    let limit = alone.saturating_mul(LATENCY_FACTOR_MAX);
    let fits = || speeds.iter().filter(|speed| speed.lanes == 1 || speed.round_time < limit);
    let best = fits().map(LaneSpeed::rounds_per_second).max().unwrap_or(1);
    let as_good = best - best / 100 * NOISE_PERCENT;
    let fewest = fits().find(|speed| speed.rounds_per_second() >= as_good);
    fewest.copied().unwrap_or(LaneSpeed { lanes: 1, round_time: Duration::MAX })
}

fn time(lanes: usize, clock: &Clock) -> Duration {
    let mut batch = Batch::new(lanes);
    for lane in 0..lanes {
        let salt = [u8::try_from(lane).unwrap_or_default(); 16];
        if let Ok(key) = PasswordKey::new(b"calibrate") {
            // The batch has one lane for each job, so `insert` succeeds.
            drop(batch.insert(LaneJob { key, salt, cost: Cost::MAX }, ()));
        }
    }
    batch.step(1);
    let started = clock.now();
    batch.step(ROUNDS);
    (clock.now().saturating_duration_since(started) / ROUNDS).max(Duration::from_nanos(1))
}

/// Time of one hash at that cost by the bcrypt crate, as most servers compute it.
pub fn bcrypt_crate_hash_time(cost: u32, clock: &Clock) -> Duration {
    // The difference of two costs removes the part that does not depend on the cost.
    const COSTS: [u32; 2] = [4, 6];
    let mut least = [Duration::MAX; 2];
    for _ in 0..REPETITIONS {
        for (least, cost) in least.iter_mut().zip(COSTS) {
            let started = clock.now();
            std::hint::black_box(bcrypt::bcrypt(cost, [7; 16], b"calibrate\0"));
            *least = (*least).min(clock.now().saturating_duration_since(started));
        }
    }
    let [short, long] = least;
    let rounds = (1 << COSTS[1]) - (1 << COSTS[0]);
    long.saturating_sub(short) / rounds * (1 << cost.min(31))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed(lanes: usize, micros: u64) -> LaneSpeed {
        LaneSpeed { lanes, round_time: Duration::from_micros(micros) }
    }

    #[test]
    fn the_best_throughput_under_twice_the_latency_is_chosen() {
        let speeds =
            [speed(1, 55), speed(2, 58), speed(4, 75), speed(5, 82), speed(6, 109), speed(8, 130)];
        // 8 lanes have the best rate but take too long. 5 lanes have a better rate than 6.
        assert_eq!(choose(&speeds).lanes, 5);
        assert_eq!(choose(&[speed(1, 55), speed(6, 83), speed(7, 96)]).lanes, 6, "7 are as good");
        assert_eq!(choose(&[speed(1, 55), speed(2, 120)]).lanes, 1);
    }

    #[test]
    fn a_lane_speed_gives_the_time_and_rate_of_a_cost() {
        let speed = speed(5, 75);
        assert_eq!(speed.hash_time(10), Duration::from_micros(76_800));
        assert!((speed.hashes_per_second(10) - 65.1).abs() < 0.1);
        assert_eq!(speed.rounds_per_second(), 66_666);
    }

    #[test]
    fn a_fixed_lane_count_is_measured_and_kept() {
        let calibration = Calibration::measure_fixed(3, &Clock::system());
        assert_eq!(calibration.chosen.lanes, 3);
        assert_eq!(calibration.one_lane().lanes, 1);
        assert!(calibration.chosen.round_time < Duration::from_secs(1));
    }
}
