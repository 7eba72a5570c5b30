//! The CPU time that hashing may use behind a CPU limit, as a token bucket.
//!
//! The bucket fills with the limit's CPU time less the reserve. Everything that the limit counts
//! empties it: the hashing threads report their own time after each slice, and now and then the
//! usage of the whole group is read, which adds that of all other work. So the sum stays below the
//! limit, and the kernel has no reason to stop the process.
//!
//! The bucket is small: a part of the reserve of one period. Hashing therefore uses no more than the
//! limit in any period, even after it was idle.

use std::time::{Duration, Instant};

/// The bucket holds this part of the CPU time that is reserved in a period.
const BURST: f64 = 0.75;
/// A thread that finds the bucket empty waits until it is filled to this part.
///
/// So a thread makes a pause of milliseconds every few tens of slices, and not one after each.
const RESUME: f64 = 0.25;
/// The most that other work takes of what the bucket receives. Hashing always gets the rest.
///
/// A thread of a low priority gets about as much when it competes with others for a core.
const OTHERS_MAX: f64 = 0.9;
/// The usage of the group is read this often in a period.
const READINGS: u32 = 5;

pub(super) struct CpuBudget {
    /// CPU seconds per second.
    rate: f64,
    /// The most that the bucket holds. Unit: CPU seconds, as in the fields below.
    burst: f64,
    /// What the bucket holds. Negative: work has begun that is not yet paid for.
    balance: f64,
    filled_at: Instant,
    period: Duration,
    /// When the usage of the group was last read, and the usage.
    reading: Option<(Instant, Duration)>,
    /// What the hashing threads reported since that reading.
    reported: f64,
}

impl CpuBudget {
    /// `cores`: the limit. `reserve`: the part of it that stays unused, between 0 and 1.
    pub(super) fn new(cores: f64, reserve: f64, period: Duration, now: Instant) -> Self {
        let burst = cores * reserve * period.as_secs_f64() * BURST;
        Self {
            rate: cores * (1.0 - reserve),
            burst,
            balance: burst,
            filled_at: now,
            period,
            reading: None,
            reported: 0.0,
        }
    }

    /// Adds what has become available until now, and takes what a thread has used.
    pub(super) fn spend(&mut self, now: Instant, used: Duration) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        let used = used.as_secs_f64();
        self.balance = (self.balance + passed * self.rate).min(self.burst) - used;
        self.reported += used;
    }

    /// Whether it is time to read the usage of the group again.
    pub(super) fn reading_is_due(&self, now: Instant) -> bool {
        let age = |(at, _)| now.saturating_duration_since(at);
        self.reading.map(age).is_none_or(|age| age >= self.period / READINGS)
    }

    /// Takes what other work of the group has used since the last reading.
    ///
    /// If hashing threads reported more than the group has used, the difference is given back: the
    /// reports and the readings are not of the same moment. A reading that is older than a period
    /// does not count, because nothing was hashed meanwhile.
    pub(super) fn read(&mut self, now: Instant, group: Duration) {
        if let Some((at, before)) = self.reading {
            let passed = now.saturating_duration_since(at);
            if passed <= self.period {
                let others = group.saturating_sub(before).as_secs_f64() - self.reported;
                let most = passed.as_secs_f64() * self.rate * OTHERS_MAX;
                self.balance = (self.balance - others.min(most)).min(self.burst);
            }
        }
        self.reading = Some((now, group));
        self.reported = 0.0;
    }

    /// How long a thread must wait before its next slice. Zero: it need not.
    pub(super) fn wait(&self) -> Duration {
        if self.balance >= 0.0 {
            return Duration::ZERO;
        }
        let missing = self.burst * RESUME - self.balance;
        Duration::try_from_secs_f64(missing / self.rate).unwrap_or(self.period).min(self.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const PERIOD: Duration = Duration::from_millis(100);
    const SLICE: Duration = Duration::from_micros(300);

    fn start() -> Instant {
        Clock::manual().now()
    }

    fn near(value: Duration, expected_ms: f64, within_ms: f64) {
        let ms = value.as_secs_f64() * 1000.0;
        assert!((ms - expected_ms).abs() <= within_ms, "{ms} is not {expected_ms}");
    }

    /// Threads that hash whenever the budget lets them, next to other work.
    struct Simulation {
        budget: CpuBudget,
        now: Instant,
        threads: u32,
        /// Cores that other work uses.
        others: f64,
        group: Duration,
        /// When each slice of all threads ended, and the CPU time used until then.
        hashed: Vec<(Instant, Duration)>,
    }

    impl Simulation {
        fn new(cores: f64, reserve: f64, threads: u32) -> Self {
            let now = start();
            let budget = CpuBudget::new(cores, reserve, PERIOD, now);
            Self { budget, now, threads, others: 0.0, group: Duration::ZERO, hashed: Vec::new() }
        }

        fn run(&mut self, time: Duration) -> Duration {
            let (end, before) = (self.now + time, self.used());
            while self.now < end {
                let wait = self.budget.wait();
                if wait.is_zero() {
                    self.pass(SLICE, SLICE * self.threads);
                } else {
                    self.pass(wait, Duration::ZERO);
                }
            }
            self.used() - before
        }

        fn pass(&mut self, time: Duration, hashing: Duration) {
            self.now += time;
            self.group += hashing + time.mul_f64(self.others);
            self.hashed.push((self.now, self.used() + hashing));
            self.budget.spend(self.now, hashing);
            if self.budget.reading_is_due(self.now) {
                self.budget.read(self.now, self.group);
            }
        }

        fn used(&self) -> Duration {
            self.hashed.last().map_or(Duration::ZERO, |(_, used)| *used)
        }

        /// The most that was hashed in any window of that length.
        fn most_in(&self, window: Duration) -> Duration {
            let within = |(index, (end, used)): (usize, &(Instant, Duration))| {
                let earlier = self.hashed[..index].iter().rev();
                let before = earlier.take_while(|(at, _)| *at + window >= *end).last();
                before.map_or(Duration::ZERO, |(_, before)| *used - *before)
            };
            self.hashed.iter().enumerate().map(within).max().unwrap()
        }
    }

    // Case C1 of the field list: hashing alone never uses up the limit.
    #[test]
    fn hashing_stays_below_the_limit_in_every_window_of_a_period() {
        for (cores, threads) in [(0.5, 1), (1.0, 1), (1.5, 2), (3.0, 4)] {
            let mut simulation = Simulation::new(cores, 0.1, threads);
            let used = simulation.run(PERIOD * 20);
            near(used / 20, cores * 90.0, cores * 1.0);
            let most = simulation.most_in(PERIOD).as_secs_f64();
            let slices = (SLICE * threads).as_secs_f64();
            let limit = cores * PERIOD.as_secs_f64();
            assert!(most <= limit * 0.975 + slices, "{most} with {cores} cores");
        }
    }

    #[test]
    fn an_idle_engine_saves_up_a_part_of_the_reserve_and_no_more() {
        let mut simulation = Simulation::new(1.0, 0.1, 2);
        simulation.pass(Duration::from_secs(3600), Duration::ZERO);
        let used = simulation.run(Duration::from_millis(10));
        // 9 ms for the time, 7.5 ms saved, and a slice of each thread that had begun.
        assert!(used <= Duration::from_micros(17_100), "{used:?}");
        assert!(used >= Duration::from_millis(9), "{used:?}");
    }

    #[test]
    fn what_other_work_uses_is_not_hashed() {
        let mut simulation = Simulation::new(1.0, 0.1, 1);
        simulation.run(PERIOD);
        simulation.others = 0.3;
        near(simulation.run(PERIOD * 20) / 20, 60.0, 2.0);
        simulation.others = 0.0;
        near(simulation.run(PERIOD * 20) / 20, 90.0, 2.0);
    }

    #[test]
    fn hashing_gets_a_tenth_of_the_budget_next_to_any_load() {
        let mut simulation = Simulation::new(1.0, 0.1, 1);
        simulation.others = 1.0;
        simulation.run(PERIOD);
        near(simulation.run(PERIOD * 20) / 20, 9.0, 1.0);
    }

    #[test]
    fn a_report_that_comes_late_counts_once() {
        let now = start();
        let mut budget = CpuBudget::new(1.0, 0.1, PERIOD, now);
        budget.read(now, Duration::ZERO);
        // A hash of other software runs for 40 ms. The readings show it before it is reported.
        for step in 1..=4 {
            let now = now + Duration::from_millis(10) * step;
            budget.spend(now, Duration::ZERO);
            budget.read(now, Duration::from_millis(10) * step);
        }
        let now = now + Duration::from_millis(40);
        let before = budget.balance;
        budget.spend(now, Duration::from_millis(40));
        budget.read(now, Duration::from_millis(40));
        assert!((budget.balance - before).abs() < 1e-9, "{before} {}", budget.balance);
    }

    #[test]
    fn a_wait_is_at_most_a_period() {
        let now = start();
        let mut budget = CpuBudget::new(1.0, 0.1, PERIOD, now);
        budget.spend(now, Duration::from_secs(60));
        assert_eq!(budget.wait(), PERIOD);
    }
}
