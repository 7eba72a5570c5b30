//! Admission: which jobs may wait, limited by number and by predicted time.
//!
//! Work is counted in loop rounds (a hash of cost c has 2^c), and speed in rounds per second.
//! Logins and new passwords each have a queue with half of the places, and workers balance the two
//! by work. Neither can starve the other. `prediction` computes a job's wait from the earlier work,
//! and `speed` measures how fast it is done.

use super::HashError;
use super::moving_average::MovingAverage;
use super::prediction::Load;
use super::speed::{self, Speed};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The purpose of hashing a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashPurpose {
    /// A login.
    Verify,
    /// A registration or a password change.
    Hash,
}

impl HashPurpose {
    /// The value of the metric label `op`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Hash => "hash",
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Verify => Self::Hash,
            Self::Hash => Self::Verify,
        }
    }
}

/// The part of the deadline reserved for the error of the prediction: one in 8, and up to a quarter
/// of a second more.
///
/// The speed of the next two seconds is less certain than that of the next forty.
const PREDICTION_ERROR: u32 = 8;
const PREDICTION_ERROR_SHORT: Duration = Duration::from_millis(250);

/// The waiting work, the work in the lanes, and the speed at which it is done.
pub(super) struct Admission {
    verify: WaitingWork,
    hash: WaitingWork,
    workers: Vec<BusyLanes>,
    lanes: usize,
    pub(super) speed: Speed,
    /// Jobs of one purpose that may wait.
    jobs_max: usize,
    /// The longest time that a job may wait, and the longest predicted wait that is accepted.
    deadline: Duration,
    wait_max: Duration,
}

struct WaitingWork {
    jobs: AtomicUsize,
    rounds: AtomicU64,
    /// The part of the work started while jobs of this purpose waited that was for the other one.
    other_share: MovingAverage,
}

/// The lanes of one worker that logins and new passwords occupy.
#[derive(Default)]
struct BusyLanes {
    jobs: AtomicUsize,
    /// Rounds that the jobs still need.
    rounds: AtomicU64,
}

/// A place in a queue for one password. Dropping it releases the place.
pub struct Permit(Arc<Work>);

/// Held by the caller that waits for a job's answer.
///
/// Dropping it removes the work from the prediction. The job itself stays in the queue until a
/// worker reaches it and skips it.
pub(super) struct WaitGuard(Arc<Work>);

struct Work {
    admission: Arc<Admission>,
    purpose: HashPurpose,
    /// Rounds counted as waiting; 0 once they are released.
    rounds: AtomicU64,
}

impl WaitingWork {
    fn new(deadline: Duration) -> Self {
        let other_share = MovingAverage::new(0.0, speed::averaged_over(deadline));
        Self { jobs: AtomicUsize::new(0), rounds: AtomicU64::new(0), other_share }
    }
}

impl Admission {
    /// `lanes`: of each worker. `deadline`: the longest time that a job may wait.
    pub(super) fn new(
        workers: usize,
        lanes: usize,
        speed: Speed,
        queue: usize,
        deadline: Duration,
    ) -> Self {
        Self {
            verify: WaitingWork::new(deadline),
            hash: WaitingWork::new(deadline),
            workers: (0..workers).map(|_| BusyLanes::default()).collect(),
            lanes: workers * lanes,
            speed,
            jobs_max: places(queue),
            deadline,
            wait_max: wait_max(deadline),
        }
    }

    /// Takes a place for a number of rounds of work.
    ///
    /// # Errors
    /// [`HashError::QueueFull`] or [`HashError::WaitTooLong`], both with the predicted wait.
    pub(super) fn admit(
        self: &Arc<Self>,
        purpose: HashPurpose,
        rounds: u64,
    ) -> Result<Permit, HashError> {
        let wait = self.predicted_wait(purpose);
        if wait > self.wait_max {
            return Err(HashError::WaitTooLong { retry_after: wait });
        }
        let waiting = self.of(purpose);
        let take = |jobs| (jobs < self.jobs_max).then_some(jobs + 1);
        if waiting.jobs.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_err() {
            return Err(HashError::QueueFull { retry_after: wait });
        }
        waiting.rounds.fetch_add(rounds, Ordering::AcqRel);
        let admission = Arc::clone(self);
        Ok(Permit(Arc::new(Work { admission, purpose, rounds: AtomicU64::new(rounds) })))
    }

    /// The predicted wait of a new job.
    pub(super) fn predicted_wait(&self, purpose: HashPurpose) -> Duration {
        self.load(purpose).wait(self.speed.planned())
    }

    fn load(&self, purpose: HashPurpose) -> Load {
        let (own, other) = (self.of(purpose), self.of(purpose.other()));
        let workers = self.workers.iter();
        Load {
            lanes: self.lanes,
            busy: workers.clone().map(|lanes| lanes.jobs.load(Ordering::Relaxed)).sum(),
            busy_rounds: workers.map(|lanes| lanes.rounds.load(Ordering::Relaxed)).sum(),
            waiting: own.jobs.load(Ordering::Acquire) + other.jobs.load(Ordering::Acquire),
            own_rounds: own.rounds.load(Ordering::Acquire),
            other_rounds: other.rounds.load(Ordering::Acquire),
            other_share: own.other_share.get(),
        }
    }

    /// Records a job that leaves its queue. `other_waits`: whether jobs of the other purpose wait.
    pub(super) fn started(&self, purpose: HashPurpose, rounds: u32, other_waits: bool) {
        let time = Duration::try_from_secs_f64(f64::from(rounds) / self.speed.planned().max(1.0));
        let time = time.unwrap_or_default();
        self.of(purpose).other_share.add(0.0, time);
        if other_waits {
            self.of(purpose.other()).other_share.add(1.0, time);
        }
    }

    /// Records the jobs in a worker's lanes and the rounds that they still need.
    pub(super) fn set_busy(&self, worker: usize, jobs: usize, rounds: u64) {
        if let Some(lanes) = self.workers.get(worker) {
            lanes.jobs.store(jobs, Ordering::Relaxed);
            lanes.rounds.store(rounds, Ordering::Relaxed);
        }
    }

    /// The longest predicted wait that is accepted.
    #[cfg(test)]
    pub(super) fn wait_max(&self) -> Duration {
        self.wait_max
    }

    pub(super) fn waiting(&self, purpose: HashPurpose) -> usize {
        self.of(purpose).jobs.load(Ordering::Acquire)
    }

    fn of(&self, purpose: HashPurpose) -> &WaitingWork {
        match purpose {
            HashPurpose::Verify => &self.verify,
            HashPurpose::Hash => &self.hash,
        }
    }
}

/// The longest predicted wait that is accepted.
fn wait_max(deadline: Duration) -> Duration {
    let part = deadline / PREDICTION_ERROR;
    deadline - part - part.min(PREDICTION_ERROR_SHORT)
}

/// The places of one purpose in a queue of that size.
pub(super) fn places(queue: usize) -> usize {
    queue.div_ceil(2).max(1)
}

impl Permit {
    /// Corrects the assumed work, once the stored hash and its cost are known.
    ///
    /// # Errors
    /// [`HashError::WaitTooLong`]: the other waiting work alone takes longer than the deadline,
    /// because many jobs were admitted at once and take more work than assumed.
    pub(super) fn set_rounds(&self, rounds: u64) -> Result<(), HashError> {
        let Work { admission, purpose, .. } = &*self.0;
        self.0.waiting().rounds.fetch_add(rounds, Ordering::AcqRel);
        let assumed = self.0.rounds.swap(rounds, Ordering::AcqRel);
        self.0.waiting().rounds.fetch_sub(assumed, Ordering::AcqRel);
        let mut others = admission.load(*purpose);
        others.own_rounds = others.own_rounds.saturating_sub(rounds);
        others.waiting = others.waiting.saturating_sub(1);
        let wait = others.wait(admission.speed.planned());
        if wait > admission.deadline {
            return Err(HashError::WaitTooLong { retry_after: wait });
        }
        Ok(())
    }

    pub(super) fn purpose(&self) -> HashPurpose {
        self.0.purpose
    }

    pub(super) fn wait_guard(&self) -> WaitGuard {
        WaitGuard(Arc::clone(&self.0))
    }
}

impl Work {
    fn waiting(&self) -> &WaitingWork {
        self.admission.of(self.purpose)
    }

    /// Removes the rounds from the waiting work, once.
    fn release(&self) {
        let rounds = self.rounds.swap(0, Ordering::AcqRel);
        self.waiting().rounds.fetch_sub(rounds, Ordering::AcqRel);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
        self.0.waiting().jobs.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Two workers of one lane each, with 500 rounds per second each. Both lanes are about to end.
    fn admission(queue: usize, deadline: Duration) -> Arc<Admission> {
        let admission = Admission::new(2, 1, Speed::new(2, 500, 500, deadline), queue, deadline);
        (0..2).for_each(|worker| admission.set_busy(worker, 1, 0));
        Arc::new(admission)
    }

    // Reliability: B3.
    #[test]
    fn each_purpose_has_half_of_the_places() {
        let admission = admission(4, SECOND);
        let verify: Vec<_> =
            (0..2).map(|_| admission.admit(HashPurpose::Verify, 1).unwrap()).collect();
        assert!(matches!(
            admission.admit(HashPurpose::Verify, 1),
            Err(HashError::QueueFull { .. })
        ));
        assert!(
            admission.admit(HashPurpose::Hash, 1).is_ok(),
            "logins cannot use the places of new passwords"
        );
        drop(verify);
        assert!(admission.admit(HashPurpose::Verify, 1).is_ok());
    }

    #[test]
    fn the_predicted_wait_is_the_earlier_work_over_the_speed() {
        let admission = admission(100, SECOND);
        let _own = admission.admit(HashPurpose::Verify, 600).unwrap();
        assert_eq!(admission.predicted_wait(HashPurpose::Verify), Duration::from_millis(600));
        assert_eq!(
            admission.predicted_wait(HashPurpose::Hash),
            Duration::ZERO,
            "logins delay new passwords only by an equal amount of work"
        );
        let _other = admission.admit(HashPurpose::Hash, 200).unwrap();
        assert_eq!(admission.predicted_wait(HashPurpose::Verify), Duration::from_millis(800));
        assert_eq!(admission.predicted_wait(HashPurpose::Hash), Duration::from_millis(400));
    }

    // Reliability: B1.
    #[test]
    fn a_job_that_would_start_too_late_is_refused_with_the_predicted_wait() {
        let admission = admission(100, SECOND);
        let first = admission.admit(HashPurpose::Verify, 700).unwrap();
        let second = admission.admit(HashPurpose::Verify, 600).unwrap();
        let refused = admission.admit(HashPurpose::Verify, 1).err();
        assert_eq!(
            refused,
            Some(HashError::WaitTooLong { retry_after: Duration::from_millis(1_300) })
        );
        first.set_rounds(100).unwrap();
        assert!(admission.admit(HashPurpose::Verify, 1).is_ok());
        drop((first, second));
        assert_eq!(admission.predicted_wait(HashPurpose::Verify), Duration::ZERO);
        assert_eq!(admission.waiting(HashPurpose::Verify), 0);
    }

    // Reliability: B2.
    #[test]
    fn abandoned_work_is_not_part_of_the_prediction() {
        let admission = admission(100, SECOND);
        let permit = admission.admit(HashPurpose::Verify, 900).unwrap();
        let guard = permit.wait_guard();
        assert_eq!(admission.predicted_wait(HashPurpose::Verify), Duration::from_millis(900));
        drop(guard);
        assert_eq!(admission.predicted_wait(HashPurpose::Verify), Duration::ZERO);
        assert_eq!(
            admission.waiting(HashPurpose::Verify),
            1,
            "the place is occupied until a worker skips the job"
        );
        drop(permit);
        assert_eq!(admission.waiting(HashPurpose::Verify), 0);
        assert_eq!(
            admission.predicted_wait(HashPurpose::Verify),
            Duration::ZERO,
            "the rounds are released once"
        );
    }

    #[test]
    fn the_work_in_the_lanes_counts_until_it_is_done() {
        let admission = admission(100, SECOND);
        admission.set_busy(0, 1, 400);
        admission.set_busy(1, 1, 200);
        assert_eq!(admission.predicted_wait(HashPurpose::Verify), Duration::from_millis(600));
        admission.set_busy(1, 0, 0);
        assert_eq!(admission.predicted_wait(HashPurpose::Verify), Duration::ZERO, "a free lane");
    }

    #[test]
    fn a_job_that_is_costlier_than_assumed_is_refused_if_the_others_fill_the_deadline() {
        let admission = admission(100, SECOND);
        let admitted: Vec<_> =
            (0..7).map(|_| admission.admit(HashPurpose::Verify, 100).unwrap()).collect();
        // Each takes four times as long as assumed.
        let may_wait = |permit: &Permit| permit.set_rounds(400).is_ok();
        let kept: Vec<_> = admitted.into_iter().filter(may_wait).collect();
        assert_eq!(kept.len(), 3, "the last one waits for the other two");
        assert_eq!(admission.waiting(HashPurpose::Verify), 3);
    }

    #[test]
    fn the_wait_is_predicted_from_the_measured_speed() {
        let admission = admission(100, SECOND);
        for _ in 0..100 {
            admission.speed.add(0, 10_000.0, SECOND);
            admission.speed.add(1, 10_000.0, SECOND);
        }
        let _work = admission.admit(HashPurpose::Verify, 20_000).unwrap();
        let wait = admission.predicted_wait(HashPurpose::Verify);
        assert!((0.95..1.05).contains(&wait.as_secs_f64()), "{wait:?}");
    }
}
