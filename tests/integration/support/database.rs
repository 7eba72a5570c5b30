//! One PostgreSQL server per test process, one database per test.
//!
//! The server is an embedded one, or that of `TEST_DATABASE_URL`. A template is migrated once; each
//! test gets a copy. Names contain the time, so that a later run can remove the databases that a
//! killed run left on a shared server.

use super::{SOON, until};
use staunch::clock::Clock;
use staunch::postgres::{
    DataDir, DataFolder, Durability, EmbeddedPostgres, PostgresConfig, Purpose,
};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

/// Test databases on a shared server are removed when they are older than this.
const LEFTOVER_AGE_S: u64 = 3_600;
/// The advisory lock of the node that cleans up: "staunch" in ASCII.
pub(crate) const CLEANUP_LOCK: i64 = 0x73_7461_756e_6368;
/// Prefix of the embedded server's folder name.
const FOLDER_PREFIX: &str = "staunch-tests-";

/// The PostgreSQL server, which outlives every test's runtime.
struct Server {
    runtime: Handle,
    config: Config,
    admin: Client,
    template: String,
    /// ` STRATEGY FILE_COPY` if the server supports it (15 and later): copying then writes no WAL.
    strategy: &'static str,
}

/// The database of one test, dropped with this value.
pub(crate) struct TestDatabase {
    pub(crate) name: String,
    pub(crate) config: Config,
}

static SERVER: OnceLock<Server> = OnceLock::new();

fn server() -> &'static Server {
    SERVER.get_or_init(|| {
        let (send, receive) = std::sync::mpsc::channel();
        // Ends with the process. The server's guard then stops the server.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (server, embedded) = start().await;
                send.send(server).unwrap();
                std::future::pending::<()>().await;
                drop(embedded);
            });
        });
        receive.recv().expect("a PostgreSQL server for the tests")
    })
}

async fn start() -> (Server, Option<EmbeddedPostgres>) {
    let (config, embedded) = match std::env::var("TEST_DATABASE_URL") {
        Ok(url) => (url.parse().expect("TEST_DATABASE_URL"), None),
        Err(_) => {
            let embedded = start_embedded().await;
            (embedded.connect_config(), Some(embedded))
        }
    };
    let (admin, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    sweep_databases(&admin).await;
    let version = admin.query_one("SHOW server_version_num", &[]).await;
    let version: i32 = version.unwrap().get::<_, String>(0).parse().unwrap();
    let template = name("template");
    let create = format!("CREATE DATABASE {template}");
    admin.batch_execute(&create).await.unwrap();
    let mut at_template = config.clone();
    at_template.dbname(&template);
    staunch::store::migrate(&at_template.into()).await.unwrap();
    // Copying fails while anyone is connected to the original.
    let close = format!("ALTER DATABASE {template} WITH ALLOW_CONNECTIONS false");
    admin.batch_execute(&close).await.unwrap();
    let server = Server {
        runtime: Handle::current(),
        config,
        admin,
        template,
        strategy: if version >= 150_000 { " STRATEGY FILE_COPY" } else { "" },
    };
    (server, embedded)
}

async fn start_embedded() -> EmbeddedPostgres {
    let top = std::env::temp_dir();
    sweep_folders(&top);
    let path = top.join(format!("{FOLDER_PREFIX}{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    // When the tests run as root, PostgreSQL's account must be able to enter.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let folder = DataFolder::open(&DataDir::Set(path), Purpose::Database).await.unwrap();
    let config = PostgresConfig {
        bin_dir: std::env::var_os("TEST_POSTGRES_BIN").map(PathBuf::from),
        offline: false,
        pool_max: 180,
        durability: Durability::None,
    };
    let server = EmbeddedPostgres::start(&config, folder).await.unwrap();
    trust_everybody(&server).await;
    server
}

/// Turns password checks off: SCRAM costs each of a thousand connections 4,096 rounds of HMAC.
/// `tests/embedded_postgres/start.rs` tests that a wrong password is rejected.
async fn trust_everybody(server: &EmbeddedPostgres) {
    let (client, connection) = server.connect_config().connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let file = server.data_dir().join("pg_hba.conf");
    let write = format!("COPY (SELECT 'local all all trust') TO '{}'", file.display());
    client.batch_execute(&write).await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

/// Removes the folders of test processes that have ended.
fn sweep_folders(top: &Path) {
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(FOLDER_PREFIX))
            .and_then(|pid| pid.parse::<i32>().ok())
            .and_then(rustix::process::Pid::from_raw);
        let ended = |pid| {
            rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
                // An earlier process with the same pid as this one.
                || pid == rustix::process::getpid()
        };
        if owner.is_some_and(ended) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

async fn sweep_databases(admin: &Client) {
    let rows = admin.query("SELECT datname FROM pg_database", &[]).await.unwrap();
    for row in rows {
        let name: String = row.get(0);
        let mut parts = name.strip_prefix("staunch_test_").unwrap_or("").split('_');
        let made = parts.nth(1).and_then(|time| time.parse::<u64>().ok());
        if made.is_some_and(|made| made + LEFTOVER_AGE_S < Clock::system().unix_s()) {
            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            admin.batch_execute(&drop).await.ok();
        }
    }
}

fn name(kind: &str) -> String {
    let random = uuid::Uuid::new_v4().simple();
    format!("staunch_test_{kind}_{}_{random}", Clock::system().unix_s())
}

impl TestDatabase {
    /// Creates a copy of the migrated template.
    pub(crate) async fn create() -> Self {
        let server = server();
        let template = &server.template;
        Self::make(&format!(" TEMPLATE {template}{}", server.strategy)).await
    }

    /// Creates an empty database.
    pub(crate) async fn create_empty() -> Self {
        Self::make("").await
    }

    /// Creates an empty database with an ICU default locale. `None` if the server has none of these:
    /// PostgreSQL before 15, or built without ICU.
    pub(crate) async fn create_icu(locale: &str) -> Option<Self> {
        let query = "SELECT 1 FROM pg_collation WHERE collprovider = 'i' LIMIT 1";
        let task = server().runtime.spawn(async move { server().admin.query(query, &[]).await });
        let known = !task.await.unwrap().unwrap().is_empty() && !server().strategy.is_empty();
        if !known {
            eprintln!("skipped: this PostgreSQL has no ICU locales for databases");
            return None;
        }
        let from = format!(" TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE '{locale}'");
        Some(Self::make(&from).await)
    }

    async fn make(from: &str) -> Self {
        let server = server();
        let name = name("t");
        let create = format!("CREATE DATABASE {name}{from}");
        let task =
            server.runtime.spawn(async move { self::server().admin.batch_execute(&create).await });
        task.await.unwrap().expect("the test's database is created");
        let mut config = server.config.clone();
        config.dbname(&name);
        Self { name, config }
    }

    pub(crate) async fn connect(&self) -> Client {
        let mut config = self.config.clone();
        // Lets a test distinguish its connections from the server's.
        config.application_name("staunch-test");
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Prevents servers from removing ended rows while the returned client is connected.
    pub(super) async fn without_cleanup(&self) -> Client {
        let client = self.connect().await;
        // Another server of the test may already hold the lock.
        let lock = "SELECT pg_try_advisory_lock($1)";
        client.execute(lock, &[&CLEANUP_LOCK]).await.unwrap();
        client
    }

    /// Waits until `count` of the database's connections wait for a lock.
    pub(crate) async fn until_blocked(&self, count: i64) {
        let query = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        // A separate connection, because a transaction keeps seeing one snapshot of the activity.
        let watching = self.connect().await;
        until("they wait for a lock", SOON, async || {
            watching.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == count
        })
        .await;
    }

    /// Refuses connections and terminates the open ones, or allows them again.
    pub(crate) async fn set_open(&self, open: bool) {
        let name = &self.name;
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname";
        let statements = format!(
            "ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {open};
             {terminate} = '{name}' AND NOT {open}"
        );
        let task =
            server().runtime.spawn(async move { server().admin.batch_execute(&statements).await });
        task.await.unwrap().unwrap();
    }

    /// The connection settings, as a value of STAUNCH_DATABASE_URL.
    pub(crate) fn url(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        self.url_with(&host, &port.to_string())
    }

    /// The same settings with another role. The last of two values for a key wins.
    pub(crate) fn url_as(&self, user: &str, password: &str) -> String {
        format!("{} user='{user}' password='{password}'", self.url())
    }

    /// The same settings with another address, for a proxy.
    pub(crate) fn url_at(&self, address: SocketAddr) -> String {
        self.url_at_each(&[address])
    }

    /// The same settings with several hosts.
    pub(crate) fn url_at_each(&self, addresses: &[SocketAddr]) -> String {
        let joined = |text: fn(&SocketAddr) -> String| {
            addresses.iter().map(text).collect::<Vec<_>>().join(",")
        };
        let hosts = joined(|address| address.ip().to_string());
        self.url_with(&hosts, &joined(|address| address.port().to_string()))
    }

    fn url_with(&self, host: &str, port: &str) -> String {
        let quoted = |text: &str| format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"));
        let password = self.config.get_password().unwrap_or_default();
        format!(
            "host={} port={port} user={} password={} dbname={}",
            quoted(host),
            quoted(self.config.get_user().unwrap_or_default()),
            quoted(std::str::from_utf8(password).unwrap()),
            quoted(&self.name)
        )
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let (done, wait) = std::sync::mpsc::channel();
        server().runtime.spawn(async move {
            server().admin.batch_execute(&drop).await.ok();
            done.send(()).ok();
        });
        // A failure here does not fail the test: the next run removes the database.
        wait.recv_timeout(Duration::from_secs(10)).ok();
    }
}

/// The runtime for tasks that must outlive the test's own runtime.
pub(super) fn runtime() -> Handle {
    server().runtime.clone()
}
