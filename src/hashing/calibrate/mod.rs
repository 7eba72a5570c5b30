//! Measures how fast this machine hashes and which lane count suits it.
//!
//! The speed is measured at start because processors differ too much for a table. The best lane
//! count is 5 or 6 on cores with three loads per cycle and 32 to 48 KiB of first-level cache, and
//! lower on smaller cores. On cores whose hyperthreads run other work it is lower, too, and the
//! speed is about half. So two speeds are measured: the *best* of any moment, which a dedicated core
//! reaches all the time, and the *sustained* one, which decides.

mod windows;

use super::kernel::{Batch, Cost, LANES_MAX, LaneJob, PasswordKey};
use super::lane_counts::lane_counts;
use super::worker::SLICE_ROUNDS;
use crate::clock::Clock;
use std::time::Duration;
use windows::{RoundTime, Work};

/// Windows of each lane count, if the time suffices.
const WINDOWS: usize = 14;
/// Windows when the lane count is set. The speed is measured again while the server runs.
const WINDOWS_FIXED: usize = 3;
/// The time for the whole measurement. When it is over, the windows measured so far count.
const TIME_MAX: Duration = Duration::from_millis(900);
/// The highest latency of a hash that a lane count may cause, relative to one lane.
const LATENCY_FACTOR_MAX: u32 = 2;
/// Two measurements of the same thing differ by about this much.
const NOISE_PERCENT: u64 = 3;

/// The speed of one thread with a given number of busy lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSpeed {
    /// Lanes stepped together.
    pub lanes: usize,
    /// Time in which each lane advances by one loop round. A hash takes 2^cost rounds.
    pub round_time: Duration,
}

/// The two speeds of a lane count, measured on all hashing threads at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuredSpeed {
    /// In the fastest 0.3 ms.
    pub best: LaneSpeed,
    /// In the median of windows of several milliseconds.
    pub sustained: LaneSpeed,
}

/// The measurements and the lane count chosen from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// The measured lane counts, ascending.
    pub speeds: Vec<MeasuredSpeed>,
    /// The lane count to use.
    pub chosen: MeasuredSpeed,
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

    /// The speed of a thread that runs for that share of the time.
    pub(super) fn paced(self, share: f64) -> Self {
        let round_time = Duration::try_from_secs_f64(self.round_time.as_secs_f64() / share);
        Self { round_time: round_time.unwrap_or(Duration::MAX), ..self }
    }

    /// Lane rounds per second of one thread, at least 1.
    pub(super) fn rounds_per_second(&self) -> u64 {
        let nanos = self.round_time.as_nanos().max(1);
        let lanes = self.lanes as u128;
        u64::try_from(lanes * 1_000_000_000 / nanos).unwrap_or(u64::MAX).max(1)
    }
}

impl MeasuredSpeed {
    /// The lane count.
    pub fn lanes(&self) -> usize {
        self.sustained.lanes
    }

    /// The sustained speed relative to the best one: 1 on a dedicated core.
    pub fn sustained_share(&self) -> f64 {
        let round_s = |speed: LaneSpeed| speed.round_time.as_secs_f64();
        round_s(self.best) / round_s(self.sustained).max(f64::MIN_POSITIVE)
    }

    fn new(lanes: usize, RoundTime { least, median }: RoundTime) -> Self {
        let speed = |round_time| LaneSpeed { lanes, round_time };
        Self { best: speed(least), sustained: speed(median) }
    }
}

impl Calibration {
    /// Measures the lane counts that suit the cache, on that many threads, and chooses the best one.
    ///
    /// The best is the count with the highest sustained throughput whose latency stays under twice
    /// that of one lane. Takes 0.9 s.
    pub fn measure(threads: usize, clock: &Clock) -> Self {
        Self::of(&lane_counts(), WINDOWS, threads, clock)
    }

    /// Measures one lane and a configured lane count. Takes about 50 ms.
    pub fn measure_fixed(lanes: usize, threads: usize, clock: &Clock) -> Self {
        let mut counts = vec![1, lanes.clamp(1, LANES_MAX)];
        counts.dedup();
        let mut calibration = Self::of(&counts, WINDOWS_FIXED, threads, clock);
        if let Some(last) = calibration.speeds.last() {
            calibration.chosen = *last;
        }
        calibration
    }

    /// The speed of one lane in each thread, which gives the latency of a hash on an idle machine.
    pub fn one_lane(&self) -> MeasuredSpeed {
        self.speeds.first().copied().unwrap_or(self.chosen)
    }

    /// For each number of busy lanes, how many rounds a full worker does in the time of one round.
    ///
    /// 0: not known. A single busy lane does not count either, because then other workers may be
    /// idle and leave it more of the machine than it has when all are busy.
    pub(super) fn full_rounds(&self) -> Vec<f64> {
        let LaneSpeed { lanes: full, round_time } = self.chosen.sustained;
        let mut rounds = vec![0.0; full + 1];
        for MeasuredSpeed { sustained, .. } in &self.speeds {
            let counts = sustained.lanes == full || sustained.lanes >= 2;
            if let Some(rounds) = rounds.get_mut(sustained.lanes).filter(|_| counts) {
                #[expect(clippy::cast_precision_loss, reason = "a lane count")]
                let full = full as f64;
                *rounds = full * sustained.round_time.as_secs_f64() / round_time.as_secs_f64();
            }
        }
        rounds
    }

    fn of(counts: &[usize], windows: usize, threads: usize, clock: &Clock) -> Self {
        let kinds = || counts.iter().map(|lanes| stepping(*lanes)).collect();
        let measured = windows::measure(threads, windows, TIME_MAX, clock, kinds);
        let counts = counts.iter().zip(measured);
        let speeds: Vec<_> = counts.map(|(lanes, time)| MeasuredSpeed::new(*lanes, time)).collect();
        let chosen = choose(&speeds);
        Self { speeds, chosen }
    }
}

/// Chooses the lane count: the best sustained throughput within the latency limit.
///
/// Of counts that are equal within the noise, the one with the fewest lanes is chosen.
fn choose(speeds: &[MeasuredSpeed]) -> MeasuredSpeed {
    let unmeasured = || MeasuredSpeed::new(1, RoundTime::UNMEASURED);
    let alone = speeds.first().copied().unwrap_or_else(unmeasured);
    let limit = alone.sustained.round_time.saturating_mul(LATENCY_FACTOR_MAX);
    let fits = || {
        let fast = |speed: &LaneSpeed| speed.lanes == 1 || speed.round_time < limit;
        speeds.iter().filter(move |speed| fast(&speed.sustained))
    };
    let rate = |speed: &MeasuredSpeed| speed.sustained.rounds_per_second();
    let best = fits().map(rate).max().unwrap_or(1);
    let as_good = best - best / 100 * NOISE_PERCENT;
    fits().find(|speed| rate(speed) >= as_good).copied().unwrap_or(alone)
}

/// Full lanes, stepped as a worker does. Their hashes never end.
fn stepping(lanes: usize) -> Work {
    let mut batch = Batch::new(lanes);
    for lane in 0..lanes {
        let salt = [u8::try_from(lane).unwrap_or_default(); 16];
        if let Ok(key) = PasswordKey::new(b"calibrate") {
            // The batch has one lane for each job, so `insert` succeeds.
            drop(batch.insert(LaneJob { key, salt, cost: Cost::MAX }, ()));
        }
    }
    Box::new(move || batch.step(SLICE_ROUNDS))
}

/// The speed of the bcrypt crate on that many threads, as most servers use it.
pub fn bcrypt_crate_speed(threads: usize, clock: &Clock) -> MeasuredSpeed {
    // A hash at this cost takes about 4 ms. Its set-up adds less than 1 %.
    const STEP_COST: u32 = 6;
    const WINDOWS: usize = 40;
    let kinds = || -> Vec<Work> {
        vec![Box::new(|| {
            std::hint::black_box(bcrypt::bcrypt(STEP_COST, [7; 16], b"calibrate\0"));
            1 << STEP_COST
        })]
    };
    let measured = windows::measure(threads, WINDOWS, TIME_MAX, clock, kinds);
    MeasuredSpeed::new(1, measured.first().copied().unwrap_or(RoundTime::UNMEASURED))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `best` and `sustained`: microseconds per round.
    fn speed(lanes: usize, best: u64, sustained: u64) -> MeasuredSpeed {
        let time = Duration::from_micros;
        MeasuredSpeed::new(lanes, RoundTime { least: time(best), median: time(sustained) })
    }

    #[test]
    fn the_best_throughput_under_twice_the_latency_is_chosen() {
        let dedicated = |lanes, micros| speed(lanes, micros, micros);
        let speeds = [
            dedicated(1, 55),
            dedicated(2, 58),
            dedicated(4, 75),
            dedicated(5, 82),
            dedicated(6, 109),
            dedicated(8, 130),
        ];
        // 8 lanes have the best rate but take too long. 5 lanes have a better rate than 6.
        assert_eq!(choose(&speeds).lanes(), 5);
        let as_good = [dedicated(1, 55), dedicated(6, 83), dedicated(7, 96)];
        assert_eq!(choose(&as_good).lanes(), 6, "7 are as good");
        assert_eq!(choose(&[dedicated(1, 55), dedicated(2, 120)]).lanes(), 1);
        assert_eq!(choose(&[]).lanes(), 1);
    }

    // Case C2 of the field list: six lanes are the best on a free core, and lose half of their speed
    // if the other hyperthread is busy.
    #[test]
    fn the_sustained_speed_decides_and_not_the_best() {
        let shared = [
            speed(1, 59, 64),
            speed(2, 62, 73),
            speed(3, 64, 98),
            speed(4, 70, 100),
            speed(6, 93, 190),
        ];
        let chosen = choose(&shared);
        assert_eq!(chosen.lanes(), 4);
        assert!((chosen.sustained.hashes_per_second(10) - 39.1).abs() < 0.1);
        assert!((chosen.best.hashes_per_second(10) - 55.8).abs() < 0.1);
        assert!((chosen.sustained_share() - 0.7).abs() < 0.01);
    }

    #[test]
    fn a_lane_speed_gives_the_time_and_rate_of_a_cost() {
        let speed = speed(5, 75, 75).sustained;
        assert_eq!(speed.hash_time(10), Duration::from_micros(76_800));
        assert!((speed.hashes_per_second(10) - 65.1).abs() < 0.1);
        assert_eq!(speed.rounds_per_second(), 66_666);
    }

    #[test]
    fn fewer_busy_lanes_are_scaled_by_their_calibrated_speed() {
        let speeds = vec![speed(1, 50, 50), speed(2, 50, 60), speed(4, 60, 80), speed(6, 90, 190)];
        let calibration = Calibration { chosen: speeds[2], speeds };
        // While two lanes advance by 4 rounds, four would advance by 3 each.
        assert_eq!(calibration.full_rounds(), [0.0, 0.0, 3.0, 0.0, 4.0]);
        let speeds = vec![speed(1, 50, 50)];
        let calibration = Calibration { chosen: speeds[0], speeds };
        assert_eq!(calibration.full_rounds(), [0.0, 1.0]);
    }

    #[test]
    fn a_fixed_lane_count_is_measured_and_kept() {
        let calibration = Calibration::measure_fixed(3, 2, &Clock::system());
        assert_eq!(calibration.chosen.lanes(), 3);
        assert_eq!(calibration.one_lane().lanes(), 1);
        assert!(calibration.chosen.sustained.round_time < Duration::from_secs(1));
        assert!(calibration.chosen.best.round_time <= calibration.chosen.sustained.round_time);
    }
}
