//! The hash engine: bounded queues in front of long-lived hashing threads.
//!
//! `reserve` takes a place in a queue before any other work is done for a password. A refused
//! request therefore costs neither a database connection nor a hash. The permit becomes a job when
//! the stored hash is known. A queue's channel has one place for each permit, so it is never full.

use super::admission::{self, Admission, HashPurpose, Permit};
use super::calibrate::{Calibration, MeasuredSpeed};
use super::config::HashConfig;
use super::error::{HashError, RehashError, StoredHashError};
use super::imported::{ImportedHash, ImportedHashQueue};
use super::job::{AnswerReceiver, Job};
use super::kernel::{self, Cost, Digest, PasswordKey};
use super::password::Password;
use super::phc::{BcryptHash, HashFormat, SALT_BYTES, StoredHash};
use super::shared::Shared;
use super::speed::{Speed, SpeedWindow};
use super::worker::{Queues, Worker};
use super::worker_load::WorkerLoad;
use crate::clock::Clock;
use crate::telemetry::trace::{self, Stage};
use crate::telemetry::{Metrics, definitions};
use crossbeam_channel::{Sender, TrySendError, bounded};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Slices for which a worker leaves a job to a less busy worker.
///
/// 64 slices are about 20 ms, a few times the delay until a woken thread gets a core. Unit tests
/// share the cores with other programs, so their workers wait without limit.
const DEFERRAL_SLICES: u32 = if cfg!(test) { u32::MAX } else { 64 };
/// Rehashes that may wait for a spare lane. Excess rehashes are dropped; the next login retries.
pub(super) const SPARE_JOBS_MAX: usize = 64;

/// A handle to the engine. Cheap to clone; all clones share the queues.
#[derive(Clone)]
pub struct HashEngine(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    verify: Sender<Job>,
    hash: Sender<Job>,
    spare: Sender<Job>,
    imported: ImportedHashQueue,
    /// Dropped to tell the workers to finish.
    stop: Mutex<Option<Sender<()>>>,
    /// Closes when the last worker has ended. Dropping a rayon pool does not wait for its jobs.
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
    /// The hash that a login to an unknown account is checked against. It has the configured cost
    /// and matches no password.
    dummy: BcryptHash,
    dummy_hash: String,
    calibration: Calibration,
    config: HashConfig,
    /// Keeps the thread pool alive. The pool ends when its jobs end.
    _pool: rayon::ThreadPool,
}

/// The result of checking a login's password.
#[derive(Debug)]
pub struct Verdict {
    /// Whether the password matches the stored hash.
    pub matches: bool,
    /// The password, returned for [`HashEngine::rehash`] when the stored hash is out of date.
    ///
    /// It is returned if it matches a hash that has another cost than the setting or was made by
    /// other software. A password that bcrypt cannot represent (over 72 bytes, or with a NUL) is
    /// not returned: it keeps its imported hash.
    pub outdated: Option<Password>,
}

impl HashEngine {
    /// Measures the machine (1 s at most) and starts the threads.
    ///
    /// # Errors
    /// The operating system provides no threads or no random numbers.
    pub fn start(
        config: &HashConfig,
        metrics: &Metrics,
        clock: Clock,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let threads = config.threads.max(1);
        let calibration = match config.lanes {
            None => Calibration::measure(threads, &clock),
            Some(lanes) => Calibration::measure_fixed(lanes, threads, &clock),
        };
        let lanes = calibration.chosen.lanes();
        tracing::debug!(lanes, threads, "hash engine calibrated");
        let HashConfig { queue, deadline, .. } = *config;
        let admission = |threads, lanes, MeasuredSpeed { best, sustained }| {
            let share = config.share_of(threads);
            let [best, sustained] =
                [best, sustained].map(|all| all.paced(share).rounds_per_second());
            let speed = Speed::new(threads, sustained, best, deadline);
            Admission::new(threads, lanes, speed, queue, deadline)
        };
        let imported_threads = ImportedHashQueue::threads(threads);
        let imported_admission = admission(imported_threads, 1, calibration.one_lane());
        let admission = admission(threads, lanes, calibration.chosen);
        let load = WorkerLoad::new(threads, DEFERRAL_SLICES);
        let shared =
            Arc::new(Shared::new(clock, metrics, admission, imported_admission, load, config));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads + imported_threads)
            .thread_name(|index| format!("staunch-hash-{index}"))
            .build()?;
        let places = admission::places(config.queue);
        let (verify, verify_jobs) = bounded(places);
        let (hash, hash_jobs) = bounded(places);
        let (spare, spare_jobs) = bounded(SPARE_JOBS_MAX);
        let (stop, stopped) = bounded(0);
        let (alive, ended) = mpsc::channel(1);
        let imported =
            ImportedHashQueue::start(imported_threads, config, &pool, &shared, &stopped, &alive);
        let queues =
            Queues { verify: verify_jobs, hash: hash_jobs, spare: spare_jobs, stop: stopped };
        for index in 0..threads {
            let window = SpeedWindow::new(calibration.full_rounds());
            let worker = Worker::new(index, lanes, window, Arc::clone(&shared), queues.clone());
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
            imported,
            stop: Mutex::new(Some(stop)),
            ended: tokio::sync::Mutex::new(ended),
            dummy_hash: dummy.to_string(),
            dummy,
            calibration,
            config: HashConfig { threads, ..config.clone() },
            _pool: pool,
        }));
        #[expect(clippy::cast_precision_loss, reason = "a lane count")]
        metrics.gauge(definitions::HASH_LANES, &[]).set((threads * lanes) as f64);
        Ok(engine)
    }

    /// The measurements taken at start.
    pub fn calibration(&self) -> &Calibration {
        &self.0.calibration
    }

    /// Sustained hashes per second of all threads at the configured cost, as measured at start.
    pub fn hashes_per_second(&self) -> f64 {
        let config = &self.0.config;
        let speed = self.0.calibration.chosen.sustained.paced(config.paced_share());
        #[expect(clippy::cast_precision_loss, reason = "a thread count")]
        let threads = config.threads as f64;
        speed.hashes_per_second(config.cost) * threads
    }

    /// Updates the queue and speed gauges for a metrics scrape.
    #[expect(clippy::cast_precision_loss, reason = "a queue length")]
    pub fn observe(&self) {
        let Shared { admission, imported, metrics, .. } = &*self.0.shared;
        let ours = admission.waiting(HashPurpose::Verify) + admission.waiting(HashPurpose::Hash);
        metrics.observe(self.0.config.cpu.as_ref());
        metrics.depth.set((ours + imported.waiting(HashPurpose::Verify)) as f64);
        metrics.capacity.set(admission.speed.recent() / f64::from(1 << self.0.config.cost));
        metrics.share_of_best.set(admission.speed.share_of_best());
        metrics.predicted_wait.set(admission.predicted_wait(HashPurpose::Verify).as_secs_f64());
    }

    /// Takes a place in the queue, before any other work for the password.
    ///
    /// # Errors
    /// [`HashError::QueueFull`], [`HashError::WaitTooLong`] or [`HashError::ShuttingDown`]: nothing
    /// was queued.
    pub fn reserve(&self, purpose: HashPurpose) -> Result<Permit, HashError> {
        let shared = &self.0.shared;
        if shared.is_stopping() {
            shared.metrics.shutting_down.increment(1);
            return Err(HashError::ShuttingDown);
        }
        self.admit(&shared.admission, purpose, 1 << self.0.config.cost)
    }

    fn admit(
        &self,
        admission: &Arc<Admission>,
        purpose: HashPurpose,
        rounds: u64,
    ) -> Result<Permit, HashError> {
        let metrics = &self.0.shared.metrics;
        admission.admit(purpose, rounds).inspect_err(|error| {
            let full = matches!(error, HashError::QueueFull { .. });
            if full { &metrics.queue_full } else { &metrics.predicted }.increment(1);
        })
    }

    /// A stored hash for accounts that do not exist.
    ///
    /// No password matches it. Checking it takes as long as checking a hash of the configured cost.
    pub fn dummy_hash(&self) -> &str {
        &self.0.dummy_hash
    }

    /// Checks a password against the hash `stored`. Costs the caller no CPU.
    ///
    /// # Errors
    /// - [`HashError::Expired`]: the deadline passed while the job waited; nothing was hashed.
    /// - [`HashError::Stored`]: the stored hash cannot be used; a dummy was hashed instead.
    /// - [`HashError::WaitTooLong`]: the waiting hashes cost more than [`HashEngine::reserve`]
    ///   assumed; nothing was queued.
    /// - [`HashError::QueueFull`]: only for an imported hash, which has its own queue; nothing was
    ///   queued.
    /// - [`HashError::ShuttingDown`], [`HashError::Panicked`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the job. A waiting job is never started. A started bcrypt job
    /// frees its lane at the end of the slice. A started imported hash is computed to the end.
    pub async fn verify(
        &self,
        permit: Permit,
        password: Password,
        stored: &str,
    ) -> Result<Verdict, HashError> {
        let (hash, known) = match StoredHash::usable(stored, self.0.config.cost) {
            Ok(StoredHash(HashFormat::Imported(hash))) => {
                return self.verify_imported(permit, password, hash).await;
            }
            Ok(StoredHash(HashFormat::Bcrypt(hash))) => (hash, Ok(())),
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

    /// Hashes a password again in a spare lane, at the configured cost.
    ///
    /// # Errors
    /// - [`RehashError::QueueFull`]: too many rehashes wait; nothing was queued.
    /// - [`RehashError::Displaced`]: a login needed the lane.
    /// - [`RehashError::Hash`]: the engine is stopping, or hashing failed.
    ///
    /// # Cancel safety
    /// As [`HashEngine::verify`].
    pub async fn rehash(&self, password: &Password) -> Result<StoredHash, RehashError> {
        let (cost, salt) = (self.0.config.cost, random_salt()?);
        let (job, answer) = self.job(None, HashPurpose::Hash, password, salt, cost)?;
        self.0.spare.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => RehashError::QueueFull,
            TrySendError::Disconnected(_) => HashError::ShuttingDown.into(),
        })?;
        match answer.await {
            Ok(done) => Ok(hashed(cost, salt, &done?.answer)),
            Err(_) if self.0.shared.is_stopping() => Err(HashError::ShuttingDown.into()),
            Err(_) => Err(RehashError::Displaced),
        }
    }

    /// Refuses new work, finishes the waiting jobs, and returns when the workers have ended.
    pub async fn drain(&self) {
        self.0.shared.stop();
        if let Ok(mut stop) = self.0.stop.lock() {
            drop(stop.take());
        }
        // The workers never send. The channel closes when the last of them ends.
        self.0.ended.lock().await.recv().await;
    }

    /// Refuses waiting jobs and drops running ones, for a drain that ran out of time.
    pub fn abort(&self) {
        // `stop` comes first, so that callers of dropped jobs get `ShuttingDown` and not
        // `Panicked`.
        self.0.shared.stop();
        self.0.shared.abort();
    }

    async fn submit(
        &self,
        permit: Permit,
        password: &Password,
        salt: [u8; SALT_BYTES],
        cost: u32,
    ) -> Result<Digest, HashError> {
        let predicted = &self.0.shared.metrics.predicted;
        permit.set_rounds(1 << cost).inspect_err(|_| predicted.increment(1))?;
        let (purpose, _waiting) = (permit.purpose(), permit.wait_guard());
        let (job, answer) = self.job(Some(permit), purpose, password, salt, cost)?;
        let queued_at = job.queued_at;
        let queue = match purpose {
            HashPurpose::Verify => &self.0.verify,
            HashPurpose::Hash => &self.0.hash,
        };
        queue.try_send(job).map_err(|_| HashError::ShuttingDown)?;
        self.answer(queued_at, answer).await
    }

    /// Verifies an imported hash on the threads for imported hashes.
    async fn verify_imported(
        &self,
        permit: Permit,
        password: Password,
        hash: ImportedHash,
    ) -> Result<Verdict, HashError> {
        let Shared { clock, imported, .. } = &*self.0.shared;
        // From here on the job counts against the queue of imported hashes, which may be full.
        let place = self.admit(imported, HashPurpose::Verify, hash.rounds())?;
        drop(permit);
        let _waiting = place.wait_guard();
        let (bytes, possible) = password.imported_bytes();
        let queued_at = clock.now();
        let answer = self.0.imported.send(queued_at, place, bytes, hash)?;
        let matches = self.answer(queued_at, answer).await? & possible;
        let outdated = (matches && password.is_possible()).then_some(password);
        Ok(Verdict { matches, outdated })
    }

    /// Waits for a job's answer and records the stages of its time.
    async fn answer<A>(
        &self,
        queued_at: Instant,
        answer: AnswerReceiver<A>,
    ) -> Result<A, HashError> {
        let done = answer.await.unwrap_or_else(|_| Err(self.unanswered()));
        let ended = self.0.shared.clock.now();
        let started = done.as_ref().map_or(ended, |done| done.started);
        trace::note(Stage::HashWait, None, queued_at, started);
        let done = done?;
        trace::note(Stage::Hash, None, started, ended);
        Ok(done.answer)
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    fn job(
        &self,
        permit: Option<Permit>,
        purpose: HashPurpose,
        password: &Password,
        salt: [u8; SALT_BYTES],
        cost: u32,
    ) -> Result<(Job, AnswerReceiver<Digest>), HashError> {
        let malformed = HashError::Stored(StoredHashError::Malformed);
        let key = PasswordKey::new(password.bytes()).map_err(|_| malformed)?;
        let cost = Cost::new(cost).ok_or(malformed)?;
        let (reply, answer) = oneshot::channel();
        let queued_at = self.0.shared.clock.now();
        let deadline = queued_at + self.0.config.deadline;
        #[cfg(test)]
        let injected = super::tests::Injected::of(password.bytes());
        let job = Job {
            work: kernel::LaneJob { key, salt, cost },
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

    /// The reason why a job was dropped without an answer.
    fn unanswered(&self) -> HashError {
        if self.0.shared.is_stopping() { HashError::ShuttingDown } else { HashError::Panicked }
    }
}

fn hashed(cost: u32, salt: [u8; SALT_BYTES], digest: &Digest) -> StoredHash {
    StoredHash(HashFormat::Bcrypt(BcryptHash { cost, salt, digest: *digest.as_bytes() }))
}

fn random_salt() -> Result<[u8; SALT_BYTES], HashError> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|_| HashError::Random)?;
    Ok(salt)
}
