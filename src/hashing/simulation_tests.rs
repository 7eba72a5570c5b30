//! Admission against simulated machines: the real decisions, on a simulated clock.
//!
//! Two workers of four lanes hash 62.5 passwords a second at cost 10, times a factor that each test
//! changes over time. Admission gets the measurements that the workers would have made.

use super::HashError;
use super::admission::{Admission, HashPurpose, Permit};
use super::fair_share::FairShare;
use super::speed::{Speed, SpeedWindow};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const WORKERS: usize = 2;
const LANES: usize = 4;
/// Rounds of each lane per millisecond, at a factor of 1.
const LANE_ROUNDS: f64 = 8.0;
const COST_10: u64 = 1 << 10;
const COST_12: u64 = 1 << 12;
/// Hashes per second of all workers at cost 10.
const CAPACITY: f64 = 62.5;
const MS: Duration = Duration::from_millis(1);
const SECOND_MS: u32 = 1_000;

/// The speed of a worker, as a factor, at a time in milliseconds.
type Factor = Box<dyn FnMut(usize, u32) -> f64>;

struct Machine {
    admission: Arc<Admission>,
    deadline_ms: u32,
    now_ms: u32,
    factor: Factor,
    workers: Vec<SimulatedWorker>,
    verify: VecDeque<Waiting>,
    hash: VecDeque<Waiting>,
    tally: Tally,
}

struct Waiting {
    purpose: HashPurpose,
    rounds: u64,
    queued_ms: u32,
    _permit: Permit,
}

struct SimulatedWorker {
    /// Rounds left in each busy lane.
    lanes: Vec<u64>,
    /// The part of a round that is done in addition.
    fraction: f64,
    fair_share: FairShare,
    window: SpeedWindow,
}

/// How the offered passwords ended.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    offered: u32,
    refused: u32,
    hashed: u32,
    expired: u32,
}

impl Tally {
    fn since(self, before: Self) -> Self {
        Self {
            offered: self.offered - before.offered,
            refused: self.refused - before.refused,
            hashed: self.hashed - before.hashed,
            expired: self.expired - before.expired,
        }
    }

    fn expired_share(self) -> f64 {
        f64::from(self.expired) / f64::from(self.offered)
    }
}

impl Machine {
    /// `calibrated`: the factor that the calibration measured.
    fn new(
        deadline_s: u32,
        calibrated: f64,
        factor: impl FnMut(usize, u32) -> f64 + 'static,
    ) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small number"
        )]
        let per_worker = (4.0 * LANE_ROUNDS * 1000.0 * calibrated) as u64;
        let deadline = Duration::from_secs(deadline_s.into());
        let speed = Speed::new(WORKERS, per_worker, per_worker, deadline);
        let worker = || SimulatedWorker {
            lanes: Vec::new(),
            fraction: 0.0,
            fair_share: FairShare::default(),
            // The speed of a lane does not depend on the number of busy lanes.
            window: SpeedWindow::new(vec![0.0, 0.0, 4.0, 4.0, 4.0]),
        };
        Self {
            admission: Arc::new(Admission::new(WORKERS, LANES, speed, 65_536, deadline)),
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap(),
            now_ms: 0,
            factor: Box::new(factor),
            workers: (0..WORKERS).map(|_| worker()).collect(),
            verify: VecDeque::new(),
            hash: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    /// Offers passwords whose hashes take `rounds` each.
    ///
    /// Admission assumes the rounds of cost 10 until all of them have a place.
    fn offer_all(&mut self, purpose: HashPurpose, rounds: u64, count: u32) {
        self.tally.offered += count;
        let reserve = |_| self.admission.admit(purpose, COST_10);
        let reserved: Vec<_> = (0..count).map(reserve).collect();
        for permit in reserved {
            let admitted = permit.and_then(|permit| permit.set_rounds(rounds).map(|()| permit));
            match admitted {
                Ok(permit) => {
                    let job = Waiting { purpose, rounds, queued_ms: self.now_ms, _permit: permit };
                    self.queue(purpose).push_back(job);
                }
                Err(HashError::WaitTooLong { .. }) => self.tally.refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn queue(&mut self, purpose: HashPurpose) -> &mut VecDeque<Waiting> {
        match purpose {
            HashPurpose::Verify => &mut self.verify,
            HashPurpose::Hash => &mut self.hash,
        }
    }

    /// Advances by that time. `arrivals` is called every millisecond and offers passwords.
    fn run(&mut self, seconds: u32, mut arrivals: impl FnMut(&mut Self)) -> Tally {
        let before = self.tally;
        for _ in 0..seconds * SECOND_MS {
            arrivals(self);
            for worker in 0..WORKERS {
                self.fill(worker);
                self.step(worker);
            }
            self.now_ms += 1;
        }
        self.tally.since(before)
    }

    /// As the real worker: jobs that are too late are dropped and cost nothing.
    fn fill(&mut self, worker: usize) {
        while self.workers[worker].lanes.len() < LANES {
            let next = self.workers[worker].fair_share.next();
            let first = if self.queue(next).is_empty() { next.other() } else { next };
            let Some(job) = self.queue(first).pop_front() else { break };
            let rounds = u32::try_from(job.rounds).unwrap();
            let other_waits = !self.queue(job.purpose.other()).is_empty();
            self.workers[worker].fair_share.started(job.purpose, rounds, other_waits);
            self.admission.started(job.purpose, rounds, other_waits);
            if self.now_ms - job.queued_ms >= self.deadline_ms {
                self.tally.expired += 1;
            } else {
                self.workers[worker].lanes.push(job.rounds);
            }
        }
    }

    fn step(&mut self, index: usize) {
        let factor = (self.factor)(index, self.now_ms);
        let worker = &mut self.workers[index];
        let busy = worker.lanes.len();
        worker.fraction += LANE_ROUNDS * factor;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small number"
        )]
        let rounds = worker.fraction as u32;
        worker.fraction -= f64::from(rounds);
        for left in &mut worker.lanes {
            *left = left.saturating_sub(u64::from(rounds));
        }
        worker.lanes.retain(|left| *left > 0);
        self.tally.hashed += u32::try_from(busy - worker.lanes.len()).unwrap();
        if let Some((speed, took)) = worker.window.add(busy, rounds, MS) {
            self.admission.speed.add(index, speed, took);
        }
        self.admission.set_busy(index, worker.lanes.len(), worker.lanes.iter().sum());
    }
}

/// Logins of cost 10 in an open loop.
fn logins(per_second: f64) -> impl FnMut(&mut Machine) {
    offered(HashPurpose::Verify, COST_10, per_second)
}

fn offered(purpose: HashPurpose, rounds: u64, per_second: f64) -> impl FnMut(&mut Machine) {
    let mut due = 0.0;
    move |machine| {
        due += per_second / 1000.0;
        while due >= 1.0 {
            due -= 1.0;
            machine.offer_all(purpose, rounds, 1);
        }
    }
}

fn nothing(_: &mut Machine) {}

/// A machine with busy neighbours: each worker has half the speed at random times.
fn noise(seed: u64) -> impl FnMut(usize, u32) -> f64 {
    let mut random = seed;
    let mut until_ms = [0; WORKERS];
    let mut factor = [1.0; WORKERS];
    move |worker, now_ms| {
        if now_ms >= until_ms[worker] {
            // A linear congruential generator; its upper bits are good enough.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            until_ms[worker] = now_ms + 20 + u32::try_from(random >> 54).unwrap();
            factor[worker] = if factor[worker] < 1.0 { 1.0 } else { 0.5 };
        }
        factor[worker]
    }
}

// Case C4 of the field list: what can be done within the deadline is accepted.
#[test]
fn a_burst_whose_clients_slow_the_machine_while_they_start_is_accepted() {
    for dip_s in [0, 3, 5, 8] {
        let dip = move |_, now_ms| if now_ms < dip_s * SECOND_MS { 0.03 } else { 1.0 };
        let mut machine = Machine::new(40, 1.0, dip);
        let arrivals_s = dip_s.max(1);
        machine.run(arrivals_s, logins(1_000.5 / f64::from(arrivals_s)));
        machine.run(40, nothing);
        let Tally { offered, hashed, .. } = machine.tally;
        assert_eq!((offered, hashed), (1_000, 1_000), "{dip_s} s: {:?}", machine.tally);
    }
}

// Case C4 of the field list.
#[test]
fn of_a_burst_beyond_the_deadline_what_fits_is_accepted_and_hashed() {
    let mut machine = Machine::new(40, 1.0, |_, _| 1.0);
    machine.offer_all(HashPurpose::Verify, COST_10, 5_000);
    machine.run(60, nothing);
    let Tally { hashed, expired, .. } = machine.tally;
    assert!(f64::from(hashed) > 0.85 * 40.0 * CAPACITY, "{hashed}");
    assert_eq!(expired, 0);
}

// Case C3 of the field list: refusals come at admission.
#[test]
fn at_twice_the_capacity_almost_nothing_expires_and_no_lane_is_idle() {
    for rounds in [COST_10, COST_12] {
        let capacity = CAPACITY * 1024.0 / f64::from(u32::try_from(rounds).unwrap());
        for seed in 0..8 {
            let factor: Factor =
                if seed == 0 { Box::new(|_, _| 1.0) } else { Box::new(noise(seed)) };
            let mut machine = Machine::new(2, 1.0, factor);
            let tally = machine.run(60, offered(HashPurpose::Verify, rounds, 2.0 * capacity));
            assert!(tally.expired_share() <= 0.005, "{seed}: {tally:?}");
            // The noise takes a quarter.
            let possible = 60.0 * capacity * if seed == 0 { 1.0 } else { 0.75 };
            assert!(f64::from(tally.hashed) > 0.93 * possible, "{seed}: {tally:?}");
        }
    }
}

// Case C3 of the field list: the calibration said twice what the machine does.
#[test]
fn a_false_calibration_is_corrected_before_a_job_expires() {
    let mut machine = Machine::new(2, 2.0, |_, _| 1.0);
    let tally = machine.run(30, logins(2.0 * CAPACITY));
    assert_eq!(tally.expired, 0, "{tally:?}");
}

#[test]
fn after_a_step_down_by_half_only_jobs_that_waited_already_expire() {
    let step = |_, now_ms| if now_ms < 60 * SECOND_MS { 1.0 } else { 0.5 };
    for deadline_s in [2, 10, 30] {
        let mut machine = Machine::new(deadline_s, 1.0, step);
        let before = machine.run(60, logins(2.0 * CAPACITY));
        let after = machine.run(120, logins(2.0 * CAPACITY));
        assert_eq!(before.expired, 0, "{deadline_s} s: {before:?}");
        // What waited at the step takes twice as long; the part beyond the deadline is lost.
        let waited = machine.admission.wait_max().as_secs_f64() * CAPACITY;
        let in_time = f64::from(deadline_s) * CAPACITY / 2.0;
        let lost = f64::from(after.expired);
        assert!(lost <= waited - in_time + 1.0, "{deadline_s} s: {after:?}");
        assert!(f64::from(after.hashed) > 0.98 * 120.0 * CAPACITY / 2.0, "{after:?}");
    }
}

#[test]
fn after_a_step_up_the_new_capacity_is_used_within_seconds() {
    let step = |_, now_ms| if now_ms < 20 * SECOND_MS { 0.5 } else { 1.0 };
    for deadline_s in [2, 10, 30] {
        let mut machine = Machine::new(deadline_s, 0.5, step);
        let before = machine.run(20, logins(2.0 * CAPACITY));
        let first = machine.run(5, logins(2.0 * CAPACITY));
        let then = machine.run(20, logins(2.0 * CAPACITY));
        assert_eq!(before.expired + first.expired + then.expired, 0, "{deadline_s} s");
        assert!(f64::from(first.hashed) > 0.97 * 5.0 * CAPACITY, "{deadline_s} s: {first:?}");
        assert!(f64::from(then.hashed) > 0.98 * 20.0 * CAPACITY, "{deadline_s} s: {then:?}");
    }
}

#[test]
fn new_passwords_beside_a_flood_of_logins_make_no_waiting_job_expire() {
    for share in [0.1, 0.5, 2.0] {
        let mut machine = Machine::new(2, 1.0, |_, _| 1.0);
        machine.run(10, logins(2.0 * CAPACITY));
        let mut flood = logins(2.0 * CAPACITY);
        let mut beside = offered(HashPurpose::Hash, COST_10, share * CAPACITY);
        let mut both = |machine: &mut Machine| {
            flood(machine);
            beside(machine);
        };
        // When they begin, logins are waiting that then take up to twice as long.
        let first = machine.run(5, &mut both);
        assert!(f64::from(first.expired) < CAPACITY, "{share}: {first:?}");
        let then = machine.run(40, &mut both);
        assert_eq!(then.expired, 0, "{share}: {then:?}");
        assert!(f64::from(then.hashed) > 0.98 * 40.0 * CAPACITY, "{share}: {then:?}");
    }
}

#[test]
fn a_burst_of_costlier_hashes_than_assumed_does_not_expire() {
    let mut machine = Machine::new(10, 1.0, |_, _| 1.0);
    machine.offer_all(HashPurpose::Verify, COST_12, 1_000);
    machine.run(20, nothing);
    let Tally { hashed, expired, .. } = machine.tally;
    assert_eq!(expired, 0);
    assert!(f64::from(hashed) > 0.85 * 10.0 * CAPACITY / 4.0, "{hashed}");
}
