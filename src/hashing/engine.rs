//! The engine: bounded queues in front of long-lived hashing threads.
//!
//! `reserve` takes a place in a queue before any other work is done for a password, so a refused
//! one costs neither a connection nor a hash; the permit turns into a job once the stored hash is
//! known. A queue's channel has as many places as there are permits, so it is never full.

use super::admission::{self, Admission, Permit, Purpose};
use super::board::Board;
use super::calibrate::Calibration;
use super::foreign::{ForeignHash, ForeignQueue};
use super::job::{Done, Job};
use super::kernel::{self, Cost, Digest, Key};
use super::meters::Meters;
use super::password::Password;
use super::phc::{BcryptHash, Form, SALT_OCTETS, StoredHash};
use super::worker::{Queues, Worker};
use super::{HashError, StoredHashError};
use crate::clock::Clock;
use crate::telemetry::trace::{self, Stage};
use crate::telemetry::{Metrics, declared};
use crossbeam_channel::{Sender, bounded};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Slices for which a worker leaves a job to a less busy one: 20 ms, a few times what a woken
/// thread may wait for a core. Unit tests, which share the cores with others, wait for ever.
const PATIENCE_SLICES: u32 = if cfg!(test) { u32::MAX } else { 64 };
/// Rehashes that may wait for a spare lane. More are dropped: the next login brings them again.
const SPARE_JOBS_MAX: usize = 64;

/// How passwords are hashed.
#[derive(Clone, Debug)]
pub struct HashConfig {
    /// The cost of new hashes: 2^cost rounds. 4 to 15.
    pub cost: u32,
    /// Hashing threads, at least 1.
    pub threads: usize,
    /// Passwords hashed together in one thread; `None` measures what suits the machine.
    pub lanes: Option<usize>,
    /// Jobs that may wait, half of them logins and half new passwords.
    pub queue: usize,
    /// Longest time a job may wait before it is dropped unhashed.
    pub deadline: Duration,
}

/// The engine. Cheap to clone; all clones share the queues.
#[derive(Clone)]
pub struct HashEngine(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    verify: Sender<Job>,
    hash: Sender<Job>,
    spare: Sender<Job>,
    foreign: ForeignQueue,
    /// Dropped to tell the workers to finish.
    stop: Mutex<Option<Sender<()>>>,
    /// Closed when the last worker has ended. Dropping a rayon pool does not wait for its jobs.
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
    /// What an unknown account's login is checked against.
    /// Of no password, at the configured cost.
    dummy: BcryptHash,
    /// Its text.
    stand_in: String,
    calibration: Calibration,
    config: HashConfig,
    /// Keeps the threads' pool; it ends by itself when its jobs do.
    _pool: rayon::ThreadPool,
}

/// What the engine and its workers share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) meters: Meters,
    pub(super) admission: Arc<Admission>,
    /// Who may wait for the threads of foreign hashes, all as [`Purpose::Verify`].
    pub(super) foreign: Arc<Admission>,
    pub(super) board: Board,
    stopping: AtomicBool,
    aborted: AtomicBool,
    usual_priority: AtomicBool,
    /// Where tests hold a job.
    #[cfg(test)]
    pub(super) gate: super::tests::Gate,
}

/// What came of a login's password.
#[derive(Debug)]
pub struct Verdict {
    /// Whether it is the stored one.
    pub matches: bool,
    /// The password back, if it matches a hash of another cost than the setting, or of other
    /// software: [`HashEngine::rehash`] makes one of the right cost. One that bcrypt cannot have
    /// (over 72 octets, or with a NUL) keeps the hash it has.
    pub outdated: Option<Password>,
}

impl HashEngine {
    /// Measures the machine (0.8 s at most) and starts the threads.
    ///
    /// # Errors
    /// When the operating system gives no threads or no random numbers.
    pub fn start(
        config: &HashConfig,
        metrics: &Metrics,
        clock: Clock,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let threads = config.threads.max(1);
        let calibration = match config.lanes {
            None => Calibration::measure(&clock),
            Some(lanes) => Calibration::measure_fixed(lanes, &clock),
        };
        let speed = calibration.chosen;
        tracing::info!(?calibration.speeds, lanes = speed.lanes, threads, "hash engine calibrated");
        let HashConfig { queue, deadline, .. } = *config;
        let admission = Admission::new(threads, speed.rounds_per_second(), queue, deadline);
        let foreign_threads = ForeignQueue::threads(threads);
        let one_lane = calibration.one_lane().rounds_per_second();
        let foreign_admission = Admission::new(foreign_threads, one_lane, queue, deadline);
        let shared = Arc::new(Shared {
            clock,
            meters: Meters::new(metrics),
            admission: Arc::new(admission),
            foreign: Arc::new(foreign_admission),
            board: Board::new(threads, PATIENCE_SLICES),
            stopping: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            usual_priority: AtomicBool::new(false),
            #[cfg(test)]
            gate: super::tests::Gate::default(),
        });
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads + foreign_threads)
            .thread_name(|index| format!("staunch-hash-{index}"))
            .build()?;
        let places = admission::places(config.queue);
        let (verify, verify_jobs) = bounded(places);
        let (hash, hash_jobs) = bounded(places);
        let (spare, spare_jobs) = bounded(SPARE_JOBS_MAX);
        let (stop, stopped) = bounded(0);
        let (alive, ended) = mpsc::channel(1);
        let foreign =
            ForeignQueue::start(foreign_threads, config, &pool, &shared, &stopped, &alive);
        let queues =
            Queues { verify: verify_jobs, hash: hash_jobs, spare: spare_jobs, stop: stopped };
        for index in 0..threads {
            let worker = Worker::new(index, speed.lanes, Arc::clone(&shared), queues.clone());
            let alive = alive.clone();
            pool.spawn(move || {
                worker.run();
                drop(alive);
            });
        }
        let dummy = BcryptHash::dummy(config.cost)?;
        let engine = Self(Arc::new(Inner {
            shared,
            verify,
            hash,
            spare,
            foreign,
            stop: Mutex::new(Some(stop)),
            ended: tokio::sync::Mutex::new(ended),
            stand_in: dummy.to_string(),
            dummy,
            calibration,
            config: HashConfig { threads, ..config.clone() },
            _pool: pool,
        }));
        #[expect(clippy::cast_precision_loss, reason = "a lane count")]
        metrics.gauge(declared::HASH_LANES, &[]).set((threads * speed.lanes) as f64);
        Ok(engine)
    }

    /// What was measured at start.
    pub fn calibration(&self) -> &Calibration {
        &self.0.calibration
    }

    /// Hashes a second at the configured cost, all threads together, as measured at start.
    pub fn hashes_per_second(&self) -> f64 {
        let HashConfig { cost, threads, .. } = self.0.config;
        #[expect(clippy::cast_precision_loss, reason = "a thread count")]
        let threads = threads as f64;
        self.0.calibration.chosen.hashes_per_second(cost) * threads
    }

    /// Updates the gauges of what waits and how fast it goes, for a scrape.
    #[expect(clippy::cast_precision_loss, reason = "a queue length, and a speed far below 2^52")]
    pub fn observe(&self) {
        let Shared { admission, foreign, meters, .. } = &*self.0.shared;
        let ours = admission.waiting(Purpose::Verify) + admission.waiting(Purpose::Hash);
        meters.depth.set((ours + foreign.waiting(Purpose::Verify)) as f64);
        meters.capacity.set(admission.speed() as f64 / f64::from(1 << self.0.config.cost));
        meters.predicted_wait.set(admission.predicted_wait(Purpose::Verify).as_secs_f64());
    }

    /// Takes a place in the queue, before anything else is done for the password.
    ///
    /// # Errors
    /// [`HashError::QueueFull`], [`HashError::WaitTooLong`] or [`HashError::ShuttingDown`]:
    /// nothing was queued.
    pub fn reserve(&self, purpose: Purpose) -> Result<Permit, HashError> {
        let Shared { meters, admission, stopping, .. } = &*self.0.shared;
        if stopping.load(Ordering::Acquire) {
            meters.shutting_down.increment(1);
            return Err(HashError::ShuttingDown);
        }
        self.admit(admission, purpose, 1 << self.0.config.cost)
    }

    fn admit(
        &self,
        admission: &Arc<Admission>,
        purpose: Purpose,
        rounds: u64,
    ) -> Result<Permit, HashError> {
        let meters = &self.0.shared.meters;
        admission.admit(purpose, rounds).inspect_err(|error| {
            let full = matches!(error, HashError::QueueFull { .. });
            if full { &meters.queue_full } else { &meters.predicted }.increment(1);
        })
    }

    /// What stands for the stored hash of an account that does not exist: no password has it, and
    /// looking at it takes as long as at one of the configured cost.
    pub fn stand_in(&self) -> &str {
        &self.0.stand_in
    }

    /// Whether the password is the one of `stored`. Costs the caller no CPU.
    ///
    /// # Errors
    /// - [`HashError::Expired`]: the deadline passed while it waited; nothing was hashed.
    /// - [`HashError::Stored`]: the stored hash cannot be used; a dummy was hashed instead.
    /// - [`HashError::QueueFull`], [`HashError::WaitTooLong`]: for a hash of other software alone,
    ///   which has another queue; nothing was queued.
    /// - [`HashError::ShuttingDown`], [`HashError::Panicked`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the job: waiting, it is never begun; begun, its lane is free at
    /// the end of the slice. A hash of other software that was begun is computed to its end.
    pub async fn verify(
        &self,
        permit: Permit,
        password: Password,
        stored: &str,
    ) -> Result<Verdict, HashError> {
        let (hash, known) = match StoredHash::usable(stored, self.0.config.cost) {
            Ok(StoredHash(Form::Foreign(hash))) => {
                return self.verify_foreign(permit, password, hash).await;
            }
            Ok(StoredHash(Form::Bcrypt(hash))) => (hash, Ok(())),
            Err(error) => (self.0.dummy.clone(), Err(error)),
        };
        let digest = self.submit(permit, &password, hash.salt, hash.cost).await?;
        let same = digest.matches(&hash.digest);
        known.map_err(HashError::Stored)?;
        let matches = password.is_possible() & same;
        let outdated = matches && hash.cost != self.0.config.cost;
        Ok(Verdict { matches, outdated: outdated.then_some(password) })
    }

    /// Hashes a new password at the configured cost, with a random salt.
    ///
    /// # Errors
    /// As [`HashEngine::verify`], and [`HashError::Random`].
    ///
    /// # Cancel safety
    /// As [`HashEngine::verify`].
    pub async fn hash(&self, permit: Permit, password: Password) -> Result<StoredHash, HashError> {
        let (cost, salt) = (self.0.config.cost, random_salt()?);
        let digest = self.submit(permit, &password, salt, cost).await?;
        Ok(hashed(cost, salt, &digest))
    }

    /// Hashes a password anew in a lane that nobody else wants; gives up when there is none.
    ///
    /// # Errors
    /// [`HashError::ShuttingDown`] when it was dropped in favour of a login, or there are too many.
    ///
    /// # Cancel safety
    /// As [`HashEngine::verify`].
    pub async fn rehash(&self, password: &Password) -> Result<StoredHash, HashError> {
        let (cost, salt) = (self.0.config.cost, random_salt()?);
        let (job, answer) = self.job(None, Purpose::Hash, password, salt, cost)?;
        self.0.spare.try_send(job).map_err(|_| HashError::ShuttingDown)?;
        let Done { answer, .. } = answer.await.unwrap_or(Err(HashError::ShuttingDown))?;
        Ok(hashed(cost, salt, &answer))
    }

    /// Refuses new work, lets the workers finish what waits, and returns when they have ended.
    pub async fn drain(&self) {
        self.0.shared.stopping.store(true, Ordering::Release);
        if let Ok(mut stop) = self.0.stop.lock() {
            drop(stop.take());
        }
        // The workers never send: the channel closes with the last of them.
        self.0.ended.lock().await.recv().await;
    }

    /// Makes the workers refuse what waits and drop what is in their lanes, for a drain that has
    /// run out of time.
    pub fn abort(&self) {
        // Before the lanes are dropped: their callers shall hear that we stop, not that we failed.
        self.0.shared.stopping.store(true, Ordering::Release);
        self.0.shared.aborted.store(true, Ordering::Release);
    }

    async fn submit(
        &self,
        permit: Permit,
        password: &Password,
        salt: [u8; SALT_OCTETS],
        cost: u32,
    ) -> Result<Digest, HashError> {
        permit.set_rounds(1 << cost);
        let (purpose, _interest) = (permit.purpose(), permit.interest());
        let (job, answer) = self.job(Some(permit), purpose, password, salt, cost)?;
        let queued_at = job.queued_at;
        let queue = match purpose {
            Purpose::Verify => &self.0.verify,
            Purpose::Hash => &self.0.hash,
        };
        queue.try_send(job).map_err(|_| HashError::ShuttingDown)?;
        self.answer(queued_at, answer).await
    }

    /// Verifies a hash of other software, on the threads for those.
    async fn verify_foreign(
        &self,
        permit: Permit,
        password: Password,
        hash: ForeignHash,
    ) -> Result<Verdict, HashError> {
        let Shared { clock, foreign, .. } = &*self.0.shared;
        // It waits among its own kind from here on, where there may be no place for it.
        let place = self.admit(foreign, Purpose::Verify, hash.rounds())?;
        drop(permit);
        let _interest = place.interest();
        let (octets, possible) = password.foreign_octets();
        let queued_at = clock.now();
        let answer = self.0.foreign.send(queued_at, place, octets, hash)?;
        let matches = self.answer(queued_at, answer).await? & possible;
        let outdated = (matches && password.is_possible()).then_some(password);
        Ok(Verdict { matches, outdated })
    }

    /// Waits for a job's answer, and notes where its time went.
    async fn answer<A>(&self, queued_at: Instant, answer: Answer<A>) -> Result<A, HashError> {
        let done = answer.await.unwrap_or_else(|_| Err(self.unanswered()));
        let ended = self.0.shared.clock.now();
        let begun = done.as_ref().map_or(ended, |done| done.begun);
        trace::note(Stage::HashWait, None, queued_at, begun);
        let done = done?;
        trace::note(Stage::Hash, None, begun, ended);
        Ok(done.answer)
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    fn job(
        &self,
        permit: Option<Permit>,
        purpose: Purpose,
        password: &Password,
        salt: [u8; SALT_OCTETS],
        cost: u32,
    ) -> Result<(Job, Answer<Digest>), HashError> {
        let malformed = HashError::Stored(StoredHashError::Malformed);
        let key = Key::new(password.octets()).map_err(|_| malformed)?;
        let cost = Cost::new(cost).ok_or(malformed)?;
        let (reply, answer) = oneshot::channel();
        let queued_at = self.0.shared.clock.now();
        let deadline = queued_at + self.0.config.deadline;
        #[cfg(test)]
        let injected = super::tests::Injected::of(password.octets());
        let job = Job {
            work: kernel::Job { key, salt, cost },
            purpose,
            queued_at,
            deadline,
            reply,
            permit,
            #[cfg(test)]
            injected,
        };
        Ok((job, answer))
    }

    /// Why a job was dropped without an answer.
    fn unanswered(&self) -> HashError {
        if self.0.shared.stopping.load(Ordering::Acquire) {
            HashError::ShuttingDown
        } else {
            HashError::Panicked
        }
    }
}

pub(super) type Answer<A> = oneshot::Receiver<Result<Done<A>, HashError>>;

fn hashed(cost: u32, salt: [u8; SALT_OCTETS], digest: &Digest) -> StoredHash {
    StoredHash(Form::Bcrypt(BcryptHash { cost, salt, digest: *digest.as_bytes() }))
}

fn random_salt() -> Result<[u8; SALT_OCTETS], HashError> {
    let mut salt = [0; SALT_OCTETS];
    getrandom::fill(&mut salt).map_err(|_| HashError::Random)?;
    Ok(salt)
}

impl Shared {
    /// Says, once for all threads, that the operating system keeps them at the usual priority.
    pub(super) fn priority_not_lowered(&self, error: &dyn std::fmt::Debug) {
        if !self.usual_priority.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                ?error,
                "hashing threads keep the usual priority: other calls may be slower"
            );
        }
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }
}
