//! Tests of the whole engine: results, every outcome, fairness, and shutdown.

use super::phc::BcryptHash;
use super::*;
use crate::SOON;
use crate::clock::Clock;
use crate::secret::Secret;
use crate::telemetry::Metrics;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::MutexGuard;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// A job with this password panics in its worker.
pub(super) const PANICS: &str = "panic, please";
/// A job with this password keeps its worker until the test opens the [`Gate`].
const HELD: &str = "hold, please";

/// What a test makes a job do in its worker.
#[derive(Clone, Copy)]
pub(super) enum Injected {
    Panic,
    Hold,
}

/// Where a held job waits in its worker.
#[derive(Default)]
pub(super) struct Gate {
    shut: tokio::sync::Mutex<()>,
    reached: AtomicBool,
}

impl Injected {
    pub(super) fn of(password: &[u8]) -> Option<Self> {
        [(PANICS, Self::Panic), (HELD, Self::Hold)]
            .into_iter()
            .find_map(|(text, injected)| (text.as_bytes() == password).then_some(injected))
    }

    /// Called by the worker when the job starts.
    pub(super) fn act(self, gate: &Gate) {
        match self {
            Self::Panic => panic!("injected"),
            Self::Hold => {
                gate.reached.store(true, Ordering::Release);
                drop(gate.shut.blocking_lock());
            }
        }
    }
}

/// A cost at which a job never finishes within a test. Its client leaves, or the engine ends.
pub(super) const LONG: u32 = 14;

pub(super) type Login = JoinHandle<Result<Verdict, HashError>>;

pub(super) struct Setup {
    pub(super) engine: HashEngine,
    metrics: Metrics,
    pub(super) clock: Clock,
}

pub(super) fn config(cost: u32, threads: usize, lanes: usize) -> HashConfig {
    let deadline = Duration::from_secs(30);
    HashConfig { cost, threads, lanes: Some(lanes), queue: 64, deadline, cpu: None }
}

/// Starts an engine with a manual clock. Its speed seems unlimited, so no wait is predicted.
pub(super) fn start(config: &HashConfig) -> Setup {
    let (metrics, clock) = (Metrics::new().unwrap(), Clock::manual());
    let engine = HashEngine::start(config, &metrics, clock.clone()).unwrap();
    Setup { engine, metrics, clock }
}

impl Setup {
    pub(super) async fn verify(
        &self,
        password: &str,
        stored: Option<&str>,
    ) -> Result<Verdict, HashError> {
        let permit = self.engine.reserve(HashPurpose::Verify)?;
        // `None`: as for an account that does not exist.
        let stored = stored.unwrap_or_else(|| self.engine.dummy_hash());
        self.engine
            .verify(permit, Password::attempt(Secret::new(password.to_owned())), stored)
            .await
    }

    async fn hash(&self, password: &str) -> Result<StoredHash, HashError> {
        let permit = self.engine.reserve(HashPurpose::Hash)?;
        self.engine.hash(permit, Password::attempt(Secret::new(password.to_owned()))).await
    }

    /// Starts a login, as a task.
    pub(super) fn spawn(&self, password: &str, stored: &str) -> Login {
        let permit = self.engine.reserve(HashPurpose::Verify).unwrap();
        let (engine, stored) = (self.engine.clone(), stored.to_owned());
        let password = Password::attempt(Secret::new(password.to_owned()));
        tokio::spawn(async move { engine.verify(permit, password, &stored).await })
    }

    /// Starts a login that takes long.
    pub(super) fn long(&self) -> Login {
        self.spawn("long", &stored(LONG))
    }

    /// Starts a login that keeps a worker busy until the guard is dropped.
    pub(super) async fn held(&self, stored: &str) -> (Login, MutexGuard<'_, ()>) {
        let gate = &self.engine.shared().gate;
        let guard = gate.shut.lock().await;
        let login = self.spawn(HELD, stored);
        self.until("it is held", |_| gate.reached.load(Ordering::Acquire)).await;
        (login, guard)
    }

    pub(super) fn busy(&self) -> Vec<usize> {
        self.engine.shared().worker_load.busy()
    }

    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(timeout(SOON, wait).await.is_ok(), "{what}: {:?}", self.busy());
    }

    pub(super) fn counter(&self, line: &str) -> u64 {
        let page = self.metrics.render();
        let found = page.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no {line} in {page}"))
    }
}

/// A hash of that cost which matches none of the passwords in these tests.
pub(super) fn stored(cost: u32) -> String {
    BcryptHash::dummy(cost).unwrap().to_string()
}

#[tokio::test]
async fn passwords_verify_against_hashes_of_the_bcrypt_crate() {
    let setup = start(&config(4, 1, 3));
    let longest = "x".repeat(72);
    for password in ["", "a", "correct horse", "pässwörd", &longest] {
        let theirs = bcrypt::hash(password, 5).unwrap();
        assert!(setup.verify(password, Some(&theirs)).await.unwrap().matches, "{password}");
        assert!(!setup.verify("other", Some(&theirs)).await.unwrap().matches);
        let ours = setup.hash(password).await.unwrap().to_string();
        assert!(ours.starts_with("$2b$04$") && bcrypt::verify(password, &ours).unwrap());
    }
    // bcrypt alone would accept both of these passwords.
    let theirs = bcrypt::hash(&longest, 4).unwrap();
    assert!(!setup.verify(&format!("{longest}y"), Some(&theirs)).await.unwrap().matches);
    let theirs = bcrypt::hash("abc", 4).unwrap();
    assert!(!setup.verify("abc\0def", Some(&theirs)).await.unwrap().matches);
}

#[tokio::test]
async fn a_login_to_an_unknown_account_costs_one_hash_and_never_matches() {
    let setup = start(&config(4, 1, 1));
    assert!(!setup.verify("anything", None).await.unwrap().matches);
    assert_eq!(setup.counter(r#"staunch_hash_seconds_count{op="verify"}"#), 1);
}

// Reliability: F10.
#[tokio::test]
async fn unusable_stored_hashes_are_refused_at_the_cost_of_one_hash() {
    let setup = start(&config(4, 1, 1));
    let verify = async |text: &str| setup.verify("anything", Some(text)).await.err();
    let broken = stored(4).replace("$2b$", "$2x$");
    assert_eq!(verify(&broken).await, Some(HashError::Stored(StoredHashError::Broken)));
    let costly = HashError::Stored(StoredHashError::TooCostly { cost: 31, max: 6 });
    assert_eq!(verify(&stored(31)).await, Some(costly));
    let malformed = HashError::Stored(StoredHashError::Malformed);
    assert_eq!(verify("$7$CU..../....salt$hash").await, Some(malformed));
    assert_eq!(setup.counter(r#"staunch_hash_seconds_count{op="verify"}"#), 3);
}

#[tokio::test]
async fn jobs_spread_evenly_over_the_workers() {
    let setup = start(&config(LONG, 3, 4));
    for _ in 0..20 {
        let jobs: Vec<_> = (0..3).map(|_| setup.long()).collect();
        setup.until("one each", |setup| setup.busy() == [1, 1, 1]).await;
        jobs.iter().for_each(tokio::task::JoinHandle::abort);
        setup.until("none", |setup| setup.busy() == [0, 0, 0]).await;
    }
    let jobs: Vec<_> = (0..5).map(|_| setup.long()).collect();
    setup
        .until("evenly", |setup| {
            let busy = setup.busy();
            busy.iter().sum::<usize>() == 5 && busy.iter().all(|lanes| (1..=2).contains(lanes))
        })
        .await;
    jobs.iter().for_each(tokio::task::JoinHandle::abort);
}

// Reliability: B2.
#[tokio::test]
async fn a_disconnected_client_frees_its_lane_and_its_queue_place() {
    let setup = start(&config(LONG, 1, 1));
    let (running, waiting) = (setup.long(), setup.long());
    setup.until("busy", |setup| setup.busy() == [1]).await;
    waiting.abort();
    running.abort();
    setup.until("free", |setup| setup.busy() == [0]).await;
    setup.until("both counted", |setup| setup.counter("staunch_hash_cancelled_total ") == 2).await;
    let hashes = r#"staunch_hash_seconds_count{op="verify"}"#;
    assert_eq!(setup.counter(hashes), 0, "neither hash was completed");
    let next = setup.verify("next", Some(&stored(4))).await;
    assert!(!next.unwrap().matches);
}

// Reliability: B3.
#[tokio::test]
async fn a_full_queue_for_new_passwords_still_accepts_logins() {
    let setup = start(&HashConfig { queue: 4, ..config(4, 1, 1) });
    let permits: Vec<_> =
        (0..2).map(|_| setup.engine.reserve(HashPurpose::Hash).unwrap()).collect();
    assert!(matches!(setup.engine.reserve(HashPurpose::Hash), Err(HashError::QueueFull { .. })));
    assert!(!setup.verify("a login", None).await.unwrap().matches);
    drop(permits);
    assert!(setup.engine.reserve(HashPurpose::Hash).is_ok());
    assert_eq!(setup.counter(r#"staunch_hash_rejected_total{reason="queue_full"}"#), 1);
}

// Reliability: B3.
// Case F13 of the field list: it passes next to a compiler, because little is hashed.
#[tokio::test]
async fn logins_and_new_passwords_share_a_worker_by_work() {
    let setup = start(&config(8, 1, 1));
    let (_running, gate) = setup.held(&stored(4)).await;
    let mut order = Vec::new();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    for purpose in [HashPurpose::Hash; 4].into_iter().chain([HashPurpose::Verify; 4]) {
        let permit = setup.engine.reserve(purpose).unwrap();
        let (engine, sender) = (setup.engine.clone(), sender.clone());
        let password = Password::attempt(Secret::new("queued".into()));
        let stored = stored(4);
        tokio::spawn(async move {
            match purpose {
                HashPurpose::Verify => drop(engine.verify(permit, password, &stored).await),
                // At the configured cost, which is 16 times the work of a login here.
                HashPurpose::Hash => drop(engine.hash(permit, password).await),
            }
            sender.send(purpose).ok();
        });
    }
    let depth = |setup: &Setup| {
        let admission = &setup.engine.shared().admission;
        admission.waiting(HashPurpose::Verify) + admission.waiting(HashPurpose::Hash)
    };
    setup.until("queued", |setup| depth(setup) == 8).await;
    drop(gate);
    // Shares are by work, not by number: all logins come before the second new password.
    for _ in 0..5 {
        order.push(timeout(SOON, receiver.recv()).await.unwrap().unwrap());
    }
    let logins = order.iter().filter(|purpose| **purpose == HashPurpose::Verify).count();
    assert!(logins >= 4, "{order:?}");
    setup.engine.abort();
}

// Reliability: B2.
#[tokio::test]
async fn a_job_that_expires_in_the_queue_is_not_hashed() {
    let blocked = start(&config(LONG, 1, 1));
    let (running, waiting) = (blocked.long(), blocked.long());
    blocked.until("busy", |setup| setup.busy() == [1]).await;
    blocked
        .until("queued", |setup| setup.engine.shared().admission.waiting(HashPurpose::Verify) == 1)
        .await;
    blocked.clock.advance(Duration::from_secs(31));
    running.abort();
    let late = timeout(SOON, waiting).await.unwrap().unwrap();
    assert!(matches!(late, Err(HashError::Expired { .. })), "{late:?}");
    assert_eq!(blocked.counter(r#"staunch_hash_rejected_total{reason="expired"}"#), 1);
}

#[tokio::test]
async fn a_worker_reports_its_speed_and_the_work_in_its_lanes() {
    let setup = start(&config(LONG, 1, 1));
    let admission = &setup.engine.shared().admission;
    let wait = || admission.predicted_wait(HashPurpose::Verify);
    let running = setup.long();
    setup.until("busy", |_| setup.busy() == [1] && wait() > Duration::ZERO).await;
    let before = admission.speed.recent();
    let slower = |setup: &Setup| {
        setup.clock.advance(Duration::from_secs(1));
        admission.speed.recent() < before * 0.9
    };
    setup.until("measured", slower).await;
    running.abort();
    setup.until("free", |_| wait() == Duration::ZERO).await;
}

// Reliability: D4.
#[tokio::test]
async fn a_panic_fails_only_its_own_job() {
    let setup = start(&config(4, 1, 2));
    let good = bcrypt::hash("good", 4).unwrap();
    for _ in 0..3 {
        let (bad, well) =
            tokio::join!(setup.verify(PANICS, None), setup.verify("good", Some(&good)));
        assert_eq!(bad.err(), Some(HashError::Panicked));
        assert!(well.unwrap().matches);
    }
    assert_eq!(setup.counter("staunch_hash_panics_total "), 3);
    setup.until("free", |setup| setup.busy() == [0]).await;
}

#[tokio::test]
async fn a_drain_finishes_waiting_jobs_and_refuses_new_ones() {
    let setup = start(&config(4, 2, 2));
    let permits: Vec<_> =
        (0..20).map(|_| setup.engine.reserve(HashPurpose::Verify).unwrap()).collect();
    let hash = stored(6);
    let jobs = permits.into_iter().map(|permit| {
        setup.engine.verify(permit, Password::attempt(Secret::new("waits".into())), &hash)
    });
    let jobs = futures_util::future::join_all(jobs);
    let (answers, ()) = tokio::join!(jobs, setup.engine.drain());
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(matches!(setup.engine.reserve(HashPurpose::Verify), Err(HashError::ShuttingDown)));
}

#[tokio::test]
async fn an_aborted_drain_refuses_all_jobs_and_ends() {
    let setup = start(&config(LONG, 1, 1));
    let jobs: Vec<_> = (0..4).map(|_| setup.long()).collect();
    setup.until("busy", |setup| setup.busy() == [1]).await;
    setup.engine.abort();
    assert!(timeout(SOON, setup.engine.drain()).await.is_ok());
    for job in jobs {
        assert_eq!(job.await.unwrap().err(), Some(HashError::ShuttingDown));
    }
}

// Reliability: E7.
#[tokio::test(flavor = "multi_thread")]
async fn every_job_ends_in_exactly_one_outcome() {
    const JOBS: u64 = 400;
    let setup = start(&HashConfig { queue: 40, ..config(4, 2, 3) });
    let hash = bcrypt::hash("right", 4).unwrap();
    let (mut answered, mut refused, mut left, mut panicked) = (0, 0, 0, 0);
    let mut jobs = Vec::new();
    for number in 0..JOBS {
        let Ok(permit) = setup.engine.reserve(HashPurpose::Verify) else {
            refused += 1;
            tokio::task::yield_now().await;
            continue;
        };
        let (engine, hash) = (setup.engine.clone(), hash.clone());
        let text = if number % 13 == 0 { PANICS } else { "right" };
        let password = Password::attempt(Secret::new(text.to_owned()));
        let job = tokio::spawn(async move { engine.verify(permit, password, &hash).await });
        if number % 5 == 0 {
            tokio::task::yield_now().await;
            job.abort();
        }
        jobs.push(job);
    }
    for job in jobs {
        match timeout(SOON, job).await.expect("no job hangs") {
            Ok(Ok(verdict)) => {
                assert!(verdict.matches);
                answered += 1;
            }
            Ok(Err(HashError::Panicked)) => panicked += 1,
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => left += 1,
        }
    }
    setup.engine.drain().await;
    assert_eq!(answered + refused + left + panicked, JOBS);
    let hashed = setup.counter(r#"staunch_hash_seconds_count{op="verify"}"#);
    let cancelled = setup.counter("staunch_hash_cancelled_total ");
    let panics = setup.counter("staunch_hash_panics_total ");
    assert_eq!(setup.counter(r#"staunch_hash_rejected_total{reason="queue_full"}"#), refused);
    // An abandoned job may have been hashed, dropped or never sent, or it may have panicked.
    assert!(hashed + cancelled + panics <= answered + panicked + left);
    assert!(hashed >= answered && panics >= panicked);
    assert_eq!(setup.busy(), [0, 0]);
    assert_eq!(
        setup.engine.shared().admission.waiting(HashPurpose::Verify),
        0,
        "every place is free again"
    );
}
