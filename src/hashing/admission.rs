//! Admission: which jobs may wait, limited by number and by predicted time.
//!
//! Work is counted in loop rounds (a hash of cost c has 2^c). Speed is counted in rounds per
//! second, as each worker measures it while all its lanes are busy. Logins and new passwords each
//! have a queue with half of the places, and workers balance the two by work. Neither can starve
//! the other: a job waits for the earlier work of the same kind, and for at most as much of the
//! other kind.
//!
//! A job whose predicted wait (waiting work divided by speed) exceeds the deadline is refused with
//! that wait, before anything else is done for it.

use super::HashError;
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
}

/// The part of the deadline reserved for the error of the prediction: one in 16.
///
/// Without it, at three times the capacity, 1 % of the admitted jobs expired in the queue.
const PREDICTION_ERROR: u32 = 16;

/// The waiting work and the speed at which it is done.
pub(super) struct Admission {
    verify: WaitingWork,
    hash: WaitingWork,
    /// Rounds per second of each worker, as a moving average.
    speeds: Vec<AtomicU64>,
    /// Jobs of one purpose that may wait.
    jobs_max: usize,
    /// The longest predicted wait that is accepted.
    wait_max: Duration,
}

#[derive(Default)]
struct WaitingWork {
    jobs: AtomicUsize,
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

impl Admission {
    pub(super) fn new(workers: usize, speed: u64, queue: usize, deadline: Duration) -> Self {
        Self {
            verify: WaitingWork::default(),
            hash: WaitingWork::default(),
            speeds: (0..workers).map(|_| AtomicU64::new(speed.max(1))).collect(),
            jobs_max: places(queue),
            wait_max: deadline - deadline / PREDICTION_ERROR,
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

    /// The wait of a new job: the earlier work over the speed of all workers.
    pub(super) fn predicted_wait(&self, purpose: HashPurpose) -> Duration {
        let (own, other) = match purpose {
            HashPurpose::Verify => (&self.verify, &self.hash),
            HashPurpose::Hash => (&self.hash, &self.verify),
        };
        let own = own.rounds.load(Ordering::Acquire);
        let before = own.saturating_add(own.min(other.rounds.load(Ordering::Acquire)));
        let micros = u128::from(before) * 1_000_000 / u128::from(self.speed());
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// Rounds per second of all workers with all lanes busy, at least 1.
    ///
    /// The value is calibrated at start and then follows the measurements.
    pub(super) fn speed(&self) -> u64 {
        self.speeds.iter().map(|speed| speed.load(Ordering::Relaxed)).sum::<u64>().max(1)
    }

    pub(super) fn waiting(&self, purpose: HashPurpose) -> usize {
        self.of(purpose).jobs.load(Ordering::Acquire)
    }

    /// Adds a measurement of one worker, with all lanes busy, to its moving average.
    ///
    /// Each measurement moves the average by an eighth of the difference. Short noise (a few
    /// slices, milliseconds) has little effect; a lasting change of speed shows.
    pub(super) fn measured(&self, worker: usize, rounds: u64, took: Duration) {
        let nanos = took.as_nanos().max(1);
        let now = u64::try_from(u128::from(rounds) * 1_000_000_000 / nanos).unwrap_or(u64::MAX);
        if let Some(speed) = self.speeds.get(worker) {
            // Each speed has one writer, its worker.
            let before = speed.load(Ordering::Relaxed);
            let after = before - before / 8 + now / 8;
            speed.store(after.max(1), Ordering::Relaxed);
        }
    }

    fn of(&self, purpose: HashPurpose) -> &WaitingWork {
        match purpose {
            HashPurpose::Verify => &self.verify,
            HashPurpose::Hash => &self.hash,
        }
    }
}

/// The places of one purpose in a queue of that size.
pub(super) fn places(queue: usize) -> usize {
    queue.div_ceil(2).max(1)
}

impl Permit {
    /// Corrects the assumed work, once the stored hash and its cost are known.
    pub(super) fn set_rounds(&self, rounds: u64) {
        self.0.waiting().rounds.fetch_add(rounds, Ordering::AcqRel);
        let assumed = self.0.rounds.swap(rounds, Ordering::AcqRel);
        self.0.waiting().rounds.fetch_sub(assumed, Ordering::AcqRel);
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

    /// Two workers with 500 rounds per second each.
    fn admission(queue: usize, deadline: Duration) -> Arc<Admission> {
        Arc::new(Admission::new(2, 500, queue, deadline))
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
        let first = admission.admit(HashPurpose::Verify, 900).unwrap();
        let second = admission.admit(HashPurpose::Verify, 600).unwrap();
        let refused = admission.admit(HashPurpose::Verify, 1).err();
        assert_eq!(
            refused,
            Some(HashError::WaitTooLong { retry_after: Duration::from_millis(1_500) })
        );
        first.set_rounds(100);
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
    fn the_speed_follows_the_measurements() {
        let admission = admission(100, SECOND);
        for _ in 0..100 {
            admission.measured(0, 10_000, SECOND);
            admission.measured(1, 10_000, SECOND);
        }
        let _work = admission.admit(HashPurpose::Verify, 20_000).unwrap();
        let wait = admission.predicted_wait(HashPurpose::Verify);
        assert!((0.95..1.05).contains(&wait.as_secs_f64()), "{wait:?}");
    }
}
