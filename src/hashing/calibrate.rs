//! How fast this machine hashes, and how many lanes suit it.
//!
//! Measured on the spot, because it differs between processors by more than any table could say:
//! the best lane count is 5 or 6 where three loads a cycle and 32 to 48 KiB of first-level cache
//! meet, and fewer on smaller cores.

use super::kernel::{Batch, Cost, Job, Key, LANES_MAX};
use crate::clock::Clock;
use std::time::Duration;

/// Loop rounds timed at once: about a millisecond, longer than most interruptions are apart.
const ROUNDS: u32 = 16;
/// Repetitions of each lane count; the fastest counts, as noise only ever slows. So many, because a
/// start is a noisy moment, and what is chosen then stays.
const REPETITIONS: u32 = 50;
/// The same where nothing is chosen by it: the lane count is set, and the speed is measured anew
/// whenever all lanes are busy.
const REPETITIONS_FIXED: u32 = 10;
/// Time for all of it. What is not measured by then keeps what repetitions it has.
const BUDGET: Duration = Duration::from_millis(800);
/// A lane count is taken only if one hash takes at most this many times as long as alone.
const LATENCY_FACTOR_MAX: u32 = 2;

/// Two measurements of one thing differ by about this much.
const NOISE_PERCENT: u64 = 2;

/// How fast one thread is with so many lanes busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSpeed {
    /// Lanes stepped together.
    pub lanes: usize,
    /// Time in which each of them advances by one loop round; a hash takes 2^cost.
    pub round_time: Duration,
}

/// What was measured, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// By lane count, ascending; the lane counts that were asked for.
    pub speeds: Vec<LaneSpeed>,
    /// The lane count to use.
    pub chosen: LaneSpeed,
}

impl LaneSpeed {
    /// Time of one hash at that cost while all lanes are busy.
    pub fn hash_time(&self, cost: u32) -> Duration {
        self.round_time.saturating_mul(1 << cost.min(31))
    }

    /// Hashes a second of one thread at that cost while all lanes are busy.
    pub fn hashes_per_second(&self, cost: u32) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a lane count")]
        let lanes = self.lanes as f64;
        lanes / self.hash_time(cost).as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Lane rounds a second of one thread, at least 1.
    pub(super) fn rounds_per_second(&self) -> u64 {
        let nanos = self.round_time.as_nanos().max(1);
        let lanes = self.lanes as u128;
        u64::try_from(lanes * 1_000_000_000 / nanos).unwrap_or(u64::MAX).max(1)
    }
}

impl Calibration {
    /// Times lane counts 1 to 8 and chooses the one with the best throughput among those whose
    /// latency stays under twice that of one lane. Takes half a second, 0.8 s at most.
    pub fn measure(clock: &Clock) -> Self {
        Self::of(&(1..=LANES_MAX).collect::<Vec<_>>(), REPETITIONS, clock)
    }

    /// Times one lane and the count that somebody chose; takes some 20 ms.
    pub fn measure_fixed(lanes: usize, clock: &Clock) -> Self {
        let mut counts = vec![1, lanes.clamp(1, LANES_MAX)];
        counts.dedup();
        let mut calibration = Self::of(&counts, REPETITIONS_FIXED, clock);
        if let Some(last) = calibration.speeds.last() {
            calibration.chosen = *last;
        }
        calibration
    }

    /// One lane's speed, the latency of a hash on an idle machine.
    pub fn one_lane(&self) -> LaneSpeed {
        self.speeds.first().copied().unwrap_or(self.chosen)
    }

    fn of(counts: &[usize], repetitions: u32, clock: &Clock) -> Self {
        let end = clock.now() + BUDGET;
        let unmeasured = |lanes: &usize| LaneSpeed { lanes: *lanes, round_time: Duration::MAX };
        let mut speeds: Vec<LaneSpeed> = counts.iter().map(unmeasured).collect();
        // Each count in turn, over and over: a slow spell of the machine hits them all alike.
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

/// The rule by which a lane count is chosen: the best throughput whose latency is bearable, and of
/// those that are as good to within the noise the one with the least latency.
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
        if let Ok(key) = Key::new(b"calibrate") {
            // The batch has as many lanes as there are jobs.
            drop(batch.insert(Job { key, salt, cost: Cost::MAX }, ()));
        }
    }
    batch.step(1);
    let begun = clock.now();
    batch.step(ROUNDS);
    (clock.now().saturating_duration_since(begun) / ROUNDS).max(Duration::from_nanos(1))
}

/// Time of one hash at that cost by the bcrypt crate, one at a time, as most servers do it.
pub fn bcrypt_crate_hash_time(cost: u32, clock: &Clock) -> Duration {
    // The difference of two costs leaves out what does not grow with it.
    const COSTS: [u32; 2] = [4, 6];
    let mut least = [Duration::MAX; 2];
    for _ in 0..REPETITIONS {
        for (least, cost) in least.iter_mut().zip(COSTS) {
            let begun = clock.now();
            std::hint::black_box(bcrypt::bcrypt(cost, [7; 16], b"calibrate\0"));
            *least = (*least).min(clock.now().saturating_duration_since(begun));
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
        // 8 lanes do most a second but take too long; 5 do more than 6.
        assert_eq!(choose(&speeds).lanes, 5);
        assert_eq!(choose(&[speed(1, 55), speed(6, 83), speed(7, 96)]).lanes, 6, "7 are as good");
        assert_eq!(choose(&[speed(1, 55), speed(2, 120)]).lanes, 1);
    }

    #[test]
    fn a_speed_says_what_a_cost_means() {
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
