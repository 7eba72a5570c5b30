//! The engine: a bounded queue in front of long-lived hashing threads.
//!
//! `reserve` takes a place in the queue before any other work is done for a login, so a refused
//! one costs neither a connection nor a hash; the permit turns into a job once the stored hash is
//! known. The queue's channel has as many places as there are permits, so it is never full.

use super::password::Password;
use super::phc::StoredHash;
use super::worker::{self, Job, Op};
use super::{HashError, StoredHashError};
use crate::clock::Clock;
use crate::telemetry::{Metrics, declared};
use crossbeam_channel::{Receiver, Sender, bounded};
use metrics::{Counter, Gauge, Histogram};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// A stored hash may cost this much more than the setting: four times the work.
const COST_ABOVE_SETTING_MAX: u32 = 2;

/// How passwords are hashed.
#[derive(Clone, Debug)]
pub struct HashConfig {
    /// The cost of new hashes: 2^cost rounds. 4 to 15.
    pub cost: u32,
    /// Hashing threads, at least 1.
    pub threads: usize,
    /// Jobs that may wait, at least 1.
    pub queue: usize,
    /// Longest time a job may wait before it is dropped unhashed.
    pub deadline: Duration,
}

/// The engine. Cheap to clone; all clones share the queue.
#[derive(Clone)]
pub struct HashEngine(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
    /// Dropped to tell the workers to finish.
    stop: Mutex<Option<Sender<()>>>,
    /// Closed when the last worker has ended. Dropping a rayon pool does not wait for its jobs.
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
    /// What an unknown account's login is checked against.
    dummy: StoredHash,
    config: HashConfig,
    /// Keeps the threads' pool; it ends by itself when its jobs do.
    _pool: rayon::ThreadPool,
}

/// What the engine and its workers share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) metrics: HashMetrics,
    waiting: AtomicUsize,
    threads: usize,
    /// Time of one hash at the configured cost, as measured at start.
    hash_time: Duration,
    stopping: AtomicBool,
    aborted: AtomicBool,
    usual_priority: AtomicBool,
}

/// The engine's metrics, looked up once.
pub(super) struct HashMetrics {
    verify_seconds: Histogram,
    hash_seconds: Histogram,
    pub(super) wait: Histogram,
    depth: Gauge,
    pub(super) lanes_busy: Gauge,
    queue_full: Counter,
    pub(super) expired: Counter,
    shutting_down: Counter,
    pub(super) cancelled: Counter,
    pub(super) panics: Counter,
}

/// A place in the queue, for one password. Dropping it gives the place back.
pub struct Permit(Arc<Shared>);

impl HashEngine {
    /// Measures one hash and starts the threads.
    ///
    /// # Errors
    /// When the operating system gives no threads or no random numbers.
    pub fn start(
        config: &HashConfig,
        metrics: &Metrics,
        clock: Clock,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let threads = config.threads.max(1);
        let shared = Arc::new(Shared {
            hash_time: measure(config.cost, &clock),
            clock,
            metrics: HashMetrics::new(metrics),
            waiting: AtomicUsize::new(0),
            threads,
            stopping: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            usual_priority: AtomicBool::new(false),
        });
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("staunch-hash-{index}"))
            .build()?;
        let (jobs, queue): (_, Receiver<Job>) = bounded(config.queue.max(1));
        let (stop, stopped) = bounded(0);
        let (alive, ended) = mpsc::channel(1);
        for _ in 0..threads {
            let (shared, queue, stopped, alive) =
                (Arc::clone(&shared), queue.clone(), stopped.clone(), alive.clone());
            pool.spawn(move || {
                worker::run(&shared, &queue, &stopped);
                drop(alive);
            });
        }
        #[expect(clippy::cast_precision_loss, reason = "a thread count")]
        metrics.gauge(declared::HASH_LANES, &[]).set(threads as f64);
        Ok(Self(Arc::new(Inner {
            shared,
            jobs,
            stop: Mutex::new(Some(stop)),
            ended: tokio::sync::Mutex::new(ended),
            dummy: StoredHash::dummy(config.cost)?,
            config: config.clone(),
            _pool: pool,
        })))
    }

    /// Time of one hash at the configured cost, as measured at start.
    pub fn hash_time(&self) -> Duration {
        self.0.shared.hash_time
    }

    /// Takes a place in the queue, before anything else is done for the password.
    ///
    /// # Errors
    /// [`HashError::QueueFull`] or [`HashError::ShuttingDown`]: nothing was queued.
    pub fn reserve(&self) -> Result<Permit, HashError> {
        let shared = &self.0.shared;
        if shared.stopping.load(Ordering::Acquire) {
            shared.metrics.shutting_down.increment(1);
            return Err(HashError::ShuttingDown);
        }
        let take = |waiting| (waiting < self.0.config.queue).then_some(waiting + 1);
        if shared.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_err() {
            shared.metrics.queue_full.increment(1);
            return Err(HashError::QueueFull { retry_after: shared.retry_after() });
        }
        shared.metrics.depth.increment(1.0);
        Ok(Permit(Arc::clone(shared)))
    }

    /// Whether the password is the one of `stored`; `None` is an account that does not exist, and
    /// takes as long. Costs the caller no CPU.
    ///
    /// # Errors
    /// - [`HashError::Expired`]: the deadline passed while it waited; nothing was hashed.
    /// - [`HashError::Stored`]: the stored hash cannot be used; a dummy was hashed instead.
    /// - [`HashError::ShuttingDown`], [`HashError::Panicked`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the job; a worker that has not begun skips it.
    pub async fn verify(
        &self,
        permit: Permit,
        password: Password,
        stored: Option<&str>,
    ) -> Result<bool, HashError> {
        let possible = password.is_possible();
        let (hash, known) = match stored.map(|text| self.usable(text)) {
            Some(Ok(hash)) => (hash, Ok(true)),
            Some(Err(error)) => (self.0.dummy.clone(), Err(error)),
            None => (self.0.dummy.clone(), Ok(false)),
        };
        let digest = self.submit(permit, Op::Verify, password, hash.salt, hash.cost).await?;
        let same = hash.matches(&digest);
        known.map(|known| known & possible & same).map_err(HashError::Stored)
    }

    /// Hashes a new password at the configured cost, with a random salt.
    ///
    /// # Errors
    /// As [`HashEngine::verify`], and [`HashError::Random`].
    ///
    /// # Cancel safety
    /// As [`HashEngine::verify`].
    pub async fn hash(&self, permit: Permit, password: Password) -> Result<StoredHash, HashError> {
        let cost = self.0.config.cost;
        let mut salt = [0; super::phc::SALT_OCTETS];
        getrandom::fill(&mut salt).map_err(|_| HashError::Random)?;
        let digest = self.submit(permit, Op::Hash, password, salt, cost).await?;
        Ok(StoredHash { cost, salt, digest })
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

    /// Makes the workers refuse what still waits, for a drain that has run out of time.
    pub fn abort(&self) {
        self.0.shared.aborted.store(true, Ordering::Release);
    }

    /// Parses a stored hash and refuses one that would take a core for minutes: a damaged or
    /// planted row must not.
    fn usable(&self, text: &str) -> Result<StoredHash, StoredHashError> {
        let hash: StoredHash = text.parse()?;
        let max = self.0.config.cost + COST_ABOVE_SETTING_MAX;
        if hash.cost > max {
            return Err(StoredHashError::TooCostly { cost: hash.cost, max });
        }
        Ok(hash)
    }

    async fn submit(
        &self,
        permit: Permit,
        op: Op,
        password: Password,
        salt: [u8; super::phc::SALT_OCTETS],
        cost: u32,
    ) -> Result<[u8; super::phc::DIGEST_OCTETS], HashError> {
        let (reply, answer) = oneshot::channel();
        let queued_at = self.0.shared.clock.now();
        let deadline = queued_at + self.0.config.deadline;
        let job = Job { op, password, salt, cost, queued_at, deadline, reply, permit };
        // A worker that ends drops what is queued after it: the answer is then closed.
        self.0.jobs.try_send(job).map_err(|_| HashError::ShuttingDown)?;
        answer.await.unwrap_or(Err(HashError::ShuttingDown))
    }
}

impl Shared {
    /// When the jobs that wait now will have been hashed, at least a second.
    pub(super) fn retry_after(&self) -> Duration {
        let waiting = self.waiting.load(Ordering::Acquire);
        let jobs = u32::try_from(waiting / self.threads).unwrap_or(u32::MAX);
        self.hash_time.saturating_mul(jobs).max(Duration::from_secs(1))
    }

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

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.depth.decrement(1.0);
    }
}

impl HashMetrics {
    fn new(metrics: &Metrics) -> Self {
        let seconds = |op: Op| metrics.histogram(declared::HASH_SECONDS, &[("op", op.label())]);
        let rejected = |reason| metrics.counter(declared::HASH_REJECTED, &[("reason", reason)]);
        Self {
            verify_seconds: seconds(Op::Verify),
            hash_seconds: seconds(Op::Hash),
            wait: metrics.histogram(declared::HASH_WAIT_SECONDS, &[]),
            depth: metrics.gauge(declared::HASH_QUEUE_DEPTH, &[]),
            lanes_busy: metrics.gauge(declared::HASH_LANES_BUSY, &[]),
            queue_full: rejected("queue_full"),
            expired: rejected("expired"),
            shutting_down: rejected("shutting_down"),
            cancelled: metrics.counter(declared::HASH_CANCELLED, &[]),
            panics: metrics.counter(declared::HASH_PANICS, &[]),
        }
    }

    pub(super) fn seconds(&self, op: Op) -> &Histogram {
        match op {
            Op::Verify => &self.verify_seconds,
            Op::Hash => &self.hash_seconds,
        }
    }
}

/// Times a hash at a cost of 9 at most, the best of three, and scales it: the work doubles with
/// each step of the cost.
fn measure(cost: u32, clock: &Clock) -> Duration {
    const COST_MAX: u32 = 9;
    let measured_cost = cost.min(COST_MAX);
    let time = |_| {
        let begun: Instant = clock.now();
        std::hint::black_box(worker::digest(
            measured_cost,
            [7; 16],
            &Password::attempt("measure".into()),
        ));
        clock.now().saturating_duration_since(begun)
    };
    (0..3).map(time).min().unwrap_or_default() * (1 << (cost - measured_cost))
}
