//! Who may wait: by number and by time, each kind of work apart.
//!
//! Work is counted in loop rounds (a hash of cost c is 2^c), speed in rounds a second, as each
//! worker measures it while it has all lanes busy. Logins and new passwords have a queue each, half
//! of the places each, and are served in turn, so neither can starve the other: before a job comes
//! the work of its own kind, and at most as much of the other.

use super::HashError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// What a password is hashed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A login.
    Verify,
    /// A registration or a change of password.
    Hash,
}

impl Purpose {
    /// The value of the metric label `op`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Hash => "hash",
        }
    }
}

/// This part of the deadline is left to the error of the prediction: at three times capacity 1 % of
/// those admitted up to the deadline itself expired in the queue.
const PREDICTION_ERROR: u32 = 16;

/// What waits, and how fast it goes.
pub(super) struct Admission {
    verify: Waiting,
    hash: Waiting,
    /// Rounds a second of each worker: a moving estimate.
    speeds: Vec<AtomicU64>,
    /// Jobs of one purpose that may wait.
    jobs_max: usize,
    /// Longest predicted wait that is accepted.
    wait_max: Duration,
}

#[derive(Default)]
struct Waiting {
    jobs: AtomicUsize,
    rounds: AtomicU64,
}

/// A place in a queue, for one password. Dropping it gives the place back.
pub struct Permit(Arc<Work>);

/// The other end of a permit, kept by who waits for the answer. Dropping it takes the work out of
/// the prediction, though its job stays in the queue until a worker comes by and skips it.
pub(super) struct Interest(Arc<Work>);

struct Work {
    admission: Arc<Admission>,
    purpose: Purpose,
    /// Counted as waiting; 0 once given back.
    rounds: AtomicU64,
}

impl Admission {
    pub(super) fn new(workers: usize, speed: u64, queue: usize, deadline: Duration) -> Self {
        Self {
            verify: Waiting::default(),
            hash: Waiting::default(),
            speeds: (0..workers).map(|_| AtomicU64::new(speed.max(1))).collect(),
            jobs_max: places(queue),
            wait_max: deadline - deadline / PREDICTION_ERROR,
        }
    }

    /// Takes a place for so many rounds of work.
    ///
    /// # Errors
    /// [`HashError::QueueFull`] or [`HashError::WaitTooLong`], both with the predicted wait.
    pub(super) fn admit(
        self: &Arc<Self>,
        purpose: Purpose,
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

    /// When a job that came now would begin: the work before it over the speed of all workers.
    pub(super) fn predicted_wait(&self, purpose: Purpose) -> Duration {
        let (own, other) = match purpose {
            Purpose::Verify => (&self.verify, &self.hash),
            Purpose::Hash => (&self.hash, &self.verify),
        };
        let own = own.rounds.load(Ordering::Acquire);
        let before = own.saturating_add(own.min(other.rounds.load(Ordering::Acquire)));
        let micros = u128::from(before) * 1_000_000 / u128::from(self.speed());
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// Rounds a second of all workers with all lanes busy, at least 1: calibrated at the start, then
    /// as last measured.
    pub(super) fn speed(&self) -> u64 {
        self.speeds.iter().map(|speed| speed.load(Ordering::Relaxed)).sum::<u64>().max(1)
    }

    /// Jobs of that purpose that wait now.
    pub(super) fn waiting(&self, purpose: Purpose) -> usize {
        self.of(purpose).jobs.load(Ordering::Acquire)
    }

    /// Folds a measurement of one worker with all lanes busy into its estimate: an eighth of the
    /// difference, so that a few slices (milliseconds) are noise and a busy neighbour is not.
    pub(super) fn measured(&self, worker: usize, rounds: u64, took: Duration) {
        let nanos = took.as_nanos().max(1);
        let now = u64::try_from(u128::from(rounds) * 1_000_000_000 / nanos).unwrap_or(u64::MAX);
        if let Some(speed) = self.speeds.get(worker) {
            // Only its worker writes it.
            let before = speed.load(Ordering::Relaxed);
            let after = before - before / 8 + now / 8;
            speed.store(after.max(1), Ordering::Relaxed);
        }
    }

    fn of(&self, purpose: Purpose) -> &Waiting {
        match purpose {
            Purpose::Verify => &self.verify,
            Purpose::Hash => &self.hash,
        }
    }
}

/// Places of one purpose in a queue of that size.
pub(super) fn places(queue: usize) -> usize {
    queue.div_ceil(2).max(1)
}

impl Permit {
    /// Corrects the work that was assumed, once the stored hash and with it the cost is known.
    pub(super) fn set_rounds(&self, rounds: u64) {
        self.0.waiting().rounds.fetch_add(rounds, Ordering::AcqRel);
        let assumed = self.0.rounds.swap(rounds, Ordering::AcqRel);
        self.0.waiting().rounds.fetch_sub(assumed, Ordering::AcqRel);
    }

    pub(super) fn purpose(&self) -> Purpose {
        self.0.purpose
    }

    pub(super) fn interest(&self) -> Interest {
        Interest(Arc::clone(&self.0))
    }
}

impl Work {
    fn waiting(&self) -> &Waiting {
        self.admission.of(self.purpose)
    }

    /// Once, whoever comes first.
    fn give_back(&self) {
        let rounds = self.rounds.swap(0, Ordering::AcqRel);
        self.waiting().rounds.fetch_sub(rounds, Ordering::AcqRel);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.give_back();
        self.0.waiting().jobs.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Two workers that do 500 rounds a second each.
    fn admission(queue: usize, deadline: Duration) -> Arc<Admission> {
        Arc::new(Admission::new(2, 500, queue, deadline))
    }

    #[test]
    fn b3_each_purpose_has_half_of_the_places() {
        let admission = admission(4, SECOND);
        let verify: Vec<_> = (0..2).map(|_| admission.admit(Purpose::Verify, 1).unwrap()).collect();
        assert!(matches!(admission.admit(Purpose::Verify, 1), Err(HashError::QueueFull { .. })));
        assert!(
            admission.admit(Purpose::Hash, 1).is_ok(),
            "a flood of logins leaves room for others"
        );
        drop(verify);
        assert!(admission.admit(Purpose::Verify, 1).is_ok());
    }

    #[test]
    fn a_wait_is_the_work_before_over_the_speed() {
        let admission = admission(100, SECOND);
        let _own = admission.admit(Purpose::Verify, 600).unwrap();
        assert_eq!(admission.predicted_wait(Purpose::Verify), Duration::from_millis(600));
        assert_eq!(admission.predicted_wait(Purpose::Hash), Duration::ZERO, "served in turn");
        let _other = admission.admit(Purpose::Hash, 200).unwrap();
        assert_eq!(admission.predicted_wait(Purpose::Verify), Duration::from_millis(800));
        assert_eq!(admission.predicted_wait(Purpose::Hash), Duration::from_millis(400));
    }

    #[test]
    fn b1_a_job_that_would_begin_too_late_is_refused_with_the_wait() {
        let admission = admission(100, SECOND);
        let first = admission.admit(Purpose::Verify, 900).unwrap();
        let second = admission.admit(Purpose::Verify, 600).unwrap();
        let refused = admission.admit(Purpose::Verify, 1).err();
        assert_eq!(
            refused,
            Some(HashError::WaitTooLong { retry_after: Duration::from_millis(1_500) })
        );
        first.set_rounds(100);
        assert!(admission.admit(Purpose::Verify, 1).is_ok());
        drop((first, second));
        assert_eq!(admission.predicted_wait(Purpose::Verify), Duration::ZERO);
        assert_eq!(admission.waiting(Purpose::Verify), 0);
    }

    #[test]
    fn b2_work_that_nobody_waits_for_is_not_predicted() {
        let admission = admission(100, SECOND);
        let permit = admission.admit(Purpose::Verify, 900).unwrap();
        let interest = permit.interest();
        assert_eq!(admission.predicted_wait(Purpose::Verify), Duration::from_millis(900));
        drop(interest);
        assert_eq!(admission.predicted_wait(Purpose::Verify), Duration::ZERO);
        assert_eq!(admission.waiting(Purpose::Verify), 1, "its place is taken until it is skipped");
        drop(permit);
        assert_eq!(admission.waiting(Purpose::Verify), 0);
        assert_eq!(admission.predicted_wait(Purpose::Verify), Duration::ZERO, "once, not twice");
    }

    #[test]
    fn the_speed_follows_what_is_measured() {
        let admission = admission(100, SECOND);
        for _ in 0..100 {
            admission.measured(0, 10_000, SECOND);
            admission.measured(1, 10_000, SECOND);
        }
        let _work = admission.admit(Purpose::Verify, 20_000).unwrap();
        let wait = admission.predicted_wait(Purpose::Verify);
        assert!((0.95..1.05).contains(&wait.as_secs_f64()), "{wait:?}");
    }
}
