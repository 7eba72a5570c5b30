//! A real server on its own port for each test, with its own real database.
//!
//! ```text
//! let app = TestApp::builder().set("STAUNCH_LIMIT_LOGIN", "3/min").start().await;
//! let reply = app.anonymous().login("ada", "wrong").await;
//! reply.assert_problem(401, "credentials-rejected");
//! ```
//!
//! The server has its own threads and uses the test's clock, so nothing here waits for time to
//! pass. Dropping a `TestApp` stops the server as SIGTERM would and removes its database.
//!
//! Tests must pass on a busy machine. Rules for that:
//! - Wait for a condition with [`until`] and [`SOON`] (60 s). Do not sleep until something has
//!   probably happened.
//! - A promise about time ("within 5 s") is a condition that repeats the whole attempt until one is
//!   in time.
//! - If time is the subject, advance the clock. Count work (queries, hashes, log lines) instead of
//!   measuring time.
//! - Each test has its own database, its own folder and port 0.
//! - Hash at cost 4. Hashing threads have a low priority, and a busy machine leaves them a few
//!   percent of a core. For a slow hash, use cost 14 and a client that disconnects before its end.
//! - A test cannot stop the database's clock, so limits that the database checks are long.

mod certificates;
mod client;
mod collector;
pub(crate) mod contract;
mod database;
mod proxy;
mod raw;

pub(crate) use certificates::{Authority, Issued};
pub(crate) use client::{Client, Reply, Tokens, form};
pub(crate) use collector::{Collector, attributes};
pub(crate) use database::{CLEANUP_LOCK, TestDatabase};
pub(crate) use proxy::{Link, Proxy};
pub(crate) use raw::{ALIVE, Raw, RawReply, raw_login};

use staunch::app::{App, StartError};
use staunch::auth::{NewClient, add_client};
use staunch::clock::Clock;
use staunch::config::Config;
use staunch::store::{Admin, Deadlines};
use staunch::telemetry::log::Log;
use staunch::tokens::{Algorithm, KeyFolder, TokenConfig};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Limit of every wait. It is far longer than any wait needs, because the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A password that satisfies every rule.
pub(crate) const PASSWORD: &str = "TestPass123!";

/// The issuer of every test server.
pub(crate) const ISSUER: &str = "http://localhost:8080";

/// A running server with its clock, database and folder.
pub(crate) struct TestApp {
    pub(crate) address: SocketAddr,
    pub(crate) metrics_address: Option<SocketAddr>,
    /// Stopped until the test advances it, unless the builder uses the system clock.
    pub(crate) clock: Clock,
    pub(crate) database: Arc<TestDatabase>,
    /// The server's own keys, which a test can reload without waiting.
    pub(crate) keys: staunch::tokens::Tokens,
    /// The server's TLS, if configured.
    pub(crate) tls: Option<staunch::http::Tls>,
    folder: Arc<tempfile::TempDir>,
    /// Keeps the clean-up from removing rows that a test reads.
    _no_cleanup: Option<tokio_postgres::Client>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<std::thread::JoinHandle<()>>,
}

/// The settings and parts of a test's server.
pub(crate) struct Builder {
    settings: HashMap<&'static str, String>,
    clock: Clock,
    database: Option<Arc<TestDatabase>>,
    folder: Option<Arc<tempfile::TempDir>>,
    deadlines: Deadlines,
}

impl Builder {
    /// Sets one setting.
    pub(crate) fn set(mut self, variable: &'static str, value: impl Into<String>) -> Self {
        self.settings.insert(variable, value.into());
        self
    }

    /// Uses an existing database.
    pub(crate) fn on(mut self, database: &Arc<TestDatabase>) -> Self {
        self.database = Some(Arc::clone(database));
        self
    }

    /// Lets statements wait for a lock that the test holds, however long the test takes.
    pub(crate) fn long_locks(mut self) -> Self {
        (self.deadlines.statement, self.deadlines.lock) = (SOON, SOON);
        self
    }

    /// Lets calls wait for a lock that the test holds, however long the test takes.
    pub(crate) fn long_calls(mut self) -> Self {
        self.deadlines.call = SOON;
        self.long_locks()
    }

    /// Uses real time, for tests of timeouts on the wire.
    pub(crate) fn system_clock(mut self) -> Self {
        self.clock = Clock::system();
        self
    }

    /// Puts a proxy between the server and its database.
    pub(crate) async fn behind_proxy(mut self) -> (Self, Proxy) {
        let database = Arc::new(TestDatabase::create().await);
        let proxy = Proxy::start(&database.config).await;
        self.settings.insert("STAUNCH_DATABASE_URL", database.url_at(proxy.address));
        self.database = Some(database);
        (self, proxy)
    }

    pub(crate) async fn start(self) -> TestApp {
        self.try_start().await.expect("the server starts")
    }

    pub(crate) async fn try_start(self) -> Result<TestApp, StartError> {
        let database = match self.database {
            Some(database) => database,
            None => Arc::new(TestDatabase::create().await),
        };
        let folder = self.folder.unwrap_or_else(|| {
            Arc::new(tempfile::tempdir().expect("a temporary folder can be created"))
        });
        let mut settings = self.settings;
        let no_cleanup = if settings.contains_key("STAUNCH_CLEANUP_INTERVAL") {
            None
        } else {
            Some(database.without_cleanup().await)
        };
        settings.entry("STAUNCH_DATABASE_URL").or_insert_with(|| database.url());
        settings.entry("STAUNCH_DATA_DIR").or_insert_with(|| folder.path().display().to_string());
        let config = Config::read(|setting| settings.get(setting.variable).cloned())
            .expect("the settings are valid")
            .with_deadlines(self.deadlines);
        let (clock, served_clock) = (self.clock.clone(), self.clock);
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, starting) = oneshot::channel();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                match App::build(config, served_clock, Log::default()).await {
                    Ok(app) => {
                        started.send(Ok((app.facts().clone(), app.tokens(), app.tls()))).ok();
                        app.run(async {
                            stopped.await.ok();
                        })
                        .await;
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        });
        let (facts, keys, tls) = starting.await.expect("the server's thread is running")?;
        Ok(TestApp {
            address: facts.address,
            metrics_address: facts.metrics_address,
            clock,
            database,
            keys,
            tls,
            folder,
            _no_cleanup: no_cleanup,
            stop: Some(stop),
            server: Some(server),
        })
    }
}

impl TestApp {
    /// A server with cheap hashes, a small pool, no limits, and no clean-up unless the test sets
    /// its interval.
    pub(crate) fn builder() -> Builder {
        let settings = [
            ("STAUNCH_LISTEN", "127.0.0.1:0"),
            // Servers that share keys must have the same issuer. Unset, it would contain the port.
            ("STAUNCH_JWT_ISSUER", ISSUER),
            ("STAUNCH_BCRYPT_COST", "4"),
            ("STAUNCH_HASH_THREADS", "1"),
            // Set, not measured: the start is faster and the number of concurrent hashes known.
            ("STAUNCH_HASH_LANES", "2"),
            ("STAUNCH_DB_POOL_MIN", "1"),
            ("STAUNCH_DB_POOL_MAX", "4"),
            ("STAUNCH_LIMIT_REGISTER", "off"),
            ("STAUNCH_LIMIT_LOGIN", "off"),
            ("STAUNCH_LIMIT_REFRESH", "off"),
            ("STAUNCH_LIMIT_CLIENTS", "off"),
            ("STAUNCH_LIMIT_GLOBAL", "off"),
            ("STAUNCH_SHUTDOWN_GRACE", "3s"),
            // The longest: the database checks it, and its clock does not stop for a busy machine.
            ("STAUNCH_REFRESH_GRACE", "5m"),
        ];
        Builder {
            settings: settings.map(|(variable, value)| (variable, value.to_owned())).into(),
            clock: Clock::manual(),
            database: None,
            folder: None,
            deadlines: Deadlines::default(),
        }
    }

    pub(crate) async fn start() -> Self {
        Self::builder().start().await
    }

    /// Another server with this one's database, keys and clock.
    pub(crate) fn sibling(&self) -> Builder {
        Builder {
            database: Some(Arc::clone(&self.database)),
            folder: Some(Arc::clone(&self.folder)),
            clock: self.clock.clone(),
            ..Self::builder()
        }
    }

    /// The key folder, as an operator sees it.
    pub(crate) fn key_folder(&self, algorithm: Algorithm) -> KeyFolder {
        let config = TokenConfig {
            algorithm,
            issuer: ISSUER.into(),
            audience: "staunch".into(),
            keys_dir: self.keys_dir(),
            access_ttl: Duration::from_secs(1_800),
            refresh_ttl: Duration::from_secs(7 * 24 * 3_600),
        };
        KeyFolder::new(config, self.clock.clone())
    }

    pub(crate) fn keys_dir(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    /// A client without a token.
    pub(crate) fn anonymous(&self) -> Client {
        Client::new(self.address)
    }

    /// Sends a readiness probe after the shared answer has expired; it queries the database.
    pub(crate) async fn readiness(&self) -> Reply {
        self.clock.advance(Duration::from_secs(1));
        self.anonymous().get("/health/readiness").await
    }

    /// Waits until the server is ready. On a busy machine, one answer of the database may be late.
    pub(crate) async fn ready(&self) {
        until("it is ready", SOON, async || self.readiness().await.status == 200).await;
    }

    /// Opens a raw connection.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::connect(self.address).await
    }

    /// Registers `name` with `name@example.com` and [`PASSWORD`]; returns the account's id.
    pub(crate) async fn register(&self, name: &str) -> i64 {
        let reply = self.anonymous().register(&format!("{name}@example.com"), name, PASSWORD).await;
        reply.assert_status(201);
        reply.json()["id"].as_i64().expect("an id")
    }

    /// Registers `name` and logs in.
    pub(crate) async fn registered(&self, name: &str) -> Tokens {
        self.register(name).await;
        self.anonymous().login(name, PASSWORD).await.tokens()
    }

    /// Two sessions of ada and one of eve, all cached by the server as live.
    pub(crate) async fn three_sessions(&self) -> [Tokens; 3] {
        let mine = self.registered("ada").await;
        let other = self.anonymous().log_in("ada").await;
        let sessions = [mine, other, self.registered("eve").await];
        for tokens in &sessions {
            self.anonymous().me(&tokens.access).await.assert_status(200);
        }
        sessions
    }

    /// Adds an OAuth client as the command line does.
    pub(crate) async fn oauth_client(&self) -> NewClient {
        let admin = Admin::open(&self.database.config.clone().into()).await.expect("a connection");
        let made = add_client(&admin, "billing").await.expect("a client");
        admin.close().await;
        made
    }

    /// Opens a connection to the test's database.
    pub(crate) async fn db(&self) -> tokio_postgres::Client {
        self.database.connect().await
    }

    /// The value of a metric, named as in `/metrics`: `name` or `name{label="value"}`. Zero if
    /// it is missing.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let place = self.metrics_address.unwrap_or(self.address);
        let reply = Client::new(place).get("/metrics").await;
        reply.assert_status(200);
        let page = reply.text();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Waits until the pool has that many connections; returns their backends' pids.
    pub(crate) async fn backends(&self, connections: usize) -> BTreeSet<i32> {
        let db = self.db().await;
        let query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
             AND application_name = 'staunch' AND query NOT LIKE '-- health%'
             AND query NOT LIKE '-- listener%' AND query NOT LIKE 'LISTEN%'";
        let pids = async || -> BTreeSet<i32> {
            db.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
        };
        until("the pool has its connections", SOON, async || pids().await.len() == connections)
            .await;
        pids().await
    }

    /// Waits until the server listens for other servers' session events.
    pub(crate) async fn listening(&self) {
        until("it listens", SOON, async || self.metric("staunch_notify_connected").await == 1.0)
            .await;
    }

    /// How many times a named statement ran.
    pub(crate) async fn queries(&self, name: &str) -> f64 {
        self.metric(&format!("staunch_db_query_seconds_count{{query=\"{name}\"}}")).await
    }

    /// The number of statements that requests ran, without background work and readiness probes.
    pub(crate) async fn all_queries(&self) -> f64 {
        let background = ["insert_events", "query=\"clean_"];
        let page = self.anonymous().get("/metrics").await;
        let counts = page.text().lines().filter(|line| {
            line.starts_with("staunch_db_query_seconds_count{")
                && !background.iter().any(|name| line.contains(name))
        });
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Starts the shutdown and returns at once.
    pub(crate) fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.begin_stop();
        if let Some(server) = self.server.take() {
            let ended = server.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server's thread panicked");
        }
    }
}

/// Waits until `condition` holds, and fails after `limit`.
///
/// A promise about time is tested by a condition that is a whole attempt: "a login is refused
/// within 5 s". A busy machine slows some attempts; a server without the deadline fails them all.
pub(crate) async fn until(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) -> Duration {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}
