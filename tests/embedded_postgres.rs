//! The embedded PostgreSQL with real programs and real signals.
//!
//! A test that needs a process to kill starts this test binary again, running only [`starter`].

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a failed test; clippy exempts only the tests themselves"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use staunch::postgres::{
    DataDir, DataFolder, Durability, EmbeddedPostgres, PostgresConfig, PostgresError, Purpose,
};
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

/// Limit of every wait. It is far longer than any wait needs, because the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

const FOLDER_VARIABLE: &str = "EMBEDDED_POSTGRES_TEST_FOLDER";
const DURABLE_VARIABLE: &str = "EMBEDDED_POSTGRES_TEST_DURABLE";

fn config(durability: Durability) -> PostgresConfig {
    PostgresConfig {
        // Unset: the installed version. Set: the same tests with another version.
        bin_dir: std::env::var_os("TEST_POSTGRES_BIN").map(PathBuf::from),
        offline: true,
        pool_max: 10,
        durability,
    }
}

/// A folder that PostgreSQL's account can enter when the tests run as root.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

async fn open(path: &Path) -> Result<DataFolder, PostgresError> {
    DataFolder::open(&DataDir::Set(path.to_path_buf()), Purpose::Database).await
}

/// Opens a folder that no server uses. The lock of a server that has ended may be held a little
/// longer by another test's child, until it runs its own program.
async fn open_free(path: &Path) -> DataFolder {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match open(path).await {
            Err(PostgresError::InUse { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            opened => return opened.unwrap(),
        }
    }
}

async fn start_with(path: &Path, durability: Durability) -> EmbeddedPostgres {
    EmbeddedPostgres::start(&config(durability), open_free(path).await).await.unwrap()
}

async fn start(path: &Path) -> EmbeddedPostgres {
    start_with(path, Durability::None).await
}

async fn connect(server: &EmbeddedPostgres) -> Client {
    connect_with(&server.connect_config()).await.unwrap()
}

async fn connect_with(config: &tokio_postgres::Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Adds a row to those of the earlier rounds.
async fn one_more_row(top: &Path) -> Client {
    let client = connect_with(&config_in(top)).await.unwrap();
    let insert = "CREATE TABLE IF NOT EXISTS kept (n bigint); INSERT INTO kept VALUES (1)";
    client.batch_execute(insert).await.unwrap();
    client
}

async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Whether a process runs and is not a zombie.
fn runs(pid: u32) -> bool {
    let exists = test_kill_process(Pid::from_raw(pid.cast_signed()).unwrap())
        != Err(rustix::io::Errno::SRCH);
    let zombie = fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").unwrap().1.starts_with('Z'));
    exists && !zombie
}

/// Every process with this folder in its command line or as working directory.
fn processes_on(path: &Path) -> Vec<u32> {
    let wanted = path.canonicalize().unwrap();
    let numbered = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    numbered
        .filter(|pid| *pid != std::process::id() && runs(*pid))
        .filter(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).into_owned();
            let place = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            command.contains(wanted.to_str().unwrap()) || place.starts_with(&wanted)
        })
        .collect()
}

fn is_guard(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|command| command.contains("staunch-postgres-guard"))
}

fn children_of(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
                let after = stat.rsplit_once(") ").unwrap().1.to_owned();
                after.split(' ').nth(1) == Some(&parent)
            })
        })
        .collect()
}

/// Not a test: the process that the tests below start and kill.
#[tokio::test]
#[ignore = "started by other tests"]
async fn starter() {
    let Some(path) = std::env::var_os(FOLDER_VARIABLE) else {
        return;
    };
    let durability = match std::env::var_os(DURABLE_VARIABLE) {
        Some(_) => Durability::Full,
        None => Durability::None,
    };
    let server = start_with(Path::new(&path), durability).await;
    println!("READY {}", server.pid().unwrap());
    std::future::pending::<()>().await;
    drop(server);
}

struct Starter {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Starter {
    fn spawn(path: &Path, durability: Durability) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "starter", "--ignored", "--nocapture"])
            .env(FOLDER_VARIABLE, path)
            .env_remove(DURABLE_VARIABLE)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if durability == Durability::Full {
            command.env(DURABLE_VARIABLE, "1");
        }
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    /// Waits until PostgreSQL is ready; returns its pid.
    fn ready(&mut self) -> u32 {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some((_, pid)) = line.split_once("READY ") {
                return pid.trim().parse().unwrap();
            }
        }
    }

    fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills the process and reads its output, which ends only if no child holds the pipe.
    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
    }
}

/// The connection settings of a server that another process started.
fn config_in(path: &Path) -> tokio_postgres::Config {
    let postgres = path.join("postgres");
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(postgres.join("run"))
        .user("staunch")
        .dbname("staunch")
        .password(fs::read_to_string(postgres.join("password")).unwrap());
    config
}

#[tokio::test]
async fn the_first_start_creates_a_database_and_the_second_reuses_it() {
    let top = folder();
    let path = top.path().join("new/data");
    let begun = Instant::now();
    let server = start_with(&path, Durability::Full).await;
    println!("first start: {:?}", begun.elapsed());
    let client = connect(&server).await;
    client
        .batch_execute("CREATE TABLE kept (n bigint); INSERT INTO kept VALUES (42)")
        .await
        .unwrap();
    for (setting, value) in [
        ("listen_addresses", ""),
        ("max_connections", "30"),
        ("shared_buffers", "64MB"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("timezone", "UTC"),
        ("cluster_name", "staunch"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("password_encryption", "scram-sha-256"),
    ] {
        let found: String = client.query_one(&format!("SHOW {setting}"), &[]).await.unwrap().get(0);
        assert_eq!(found, value, "{setting}");
    }
    assert!(server.data_dir().join("PG_VERSION").exists());
    assert!(!server.data_dir().with_extension("new").exists());
    drop(client);
    server.stop().await;

    for (name, mode) in
        [("run", 0o700), ("password", 0o600), ("postgres.log", 0o600), ("data", 0o700)]
    {
        let found = fs::metadata(path.join("postgres").join(name)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, mode, "{name}");
    }

    let begun = Instant::now();
    let server = start_with(&path, Durability::Full).await;
    println!("second start: {:?}", begun.elapsed());
    assert_eq!(number(&connect(&server).await, "SELECT n FROM kept").await, 42);
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_rejected() {
    let top = folder();
    let server = start(top.path()).await;
    let mut config = server.connect_config();
    config.password("wrong");
    let error = connect_with(&config).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "28P01");
    server.stop().await;
}

#[tokio::test]
async fn a_folder_in_use_is_an_error_that_names_the_process() {
    let top = folder();
    let mut starter = Starter::spawn(top.path(), Durability::None);
    starter.ready();
    let error = open(top.path()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, PostgresError::InUse { pid, .. } if pid == Some(starter.id())),
        "{text}"
    );
    assert!(
        text.contains(&format!("is in use by another staunch (pid {})", starter.id())),
        "{text}"
    );
    starter.kill();
}

#[tokio::test]
async fn postgres_stops_when_its_parent_is_killed_and_the_next_start_works() {
    let top = folder();
    for round in 0..2 {
        let mut starter = Starter::spawn(top.path(), Durability::Full);
        let postgres = starter.ready();
        let client = one_more_row(top.path()).await;
        assert_eq!(number(&client, "SELECT count(*) FROM kept").await, round + 1);
        let guards: Vec<u32> =
            children_of(starter.id()).into_iter().filter(|pid| is_guard(*pid)).collect();
        assert_eq!(guards.len(), 1);
        starter.kill();
        wait_for("postgres ends", || !runs(postgres)).await;
        wait_for("the guard ends", || !runs(guards[0])).await;
        assert!(!top.path().join("postgres/data/postmaster.pid").exists(), "not a clean stop");
    }
    // Right after the kill, while the old server may still be shutting down.
    let mut starter = Starter::spawn(top.path(), Durability::Full);
    starter.ready();
    starter.kill();
    let server = start_with(top.path(), Durability::Full).await;
    assert_eq!(number(&connect(&server).await, "SELECT count(*) FROM kept").await, 2);
    server.stop().await;
}

#[tokio::test]
async fn killing_both_processes_loses_no_commit() {
    let top = folder();
    for round in 0..2 {
        let mut starter = Starter::spawn(top.path(), Durability::Full);
        let postgres = starter.ready();
        let client = one_more_row(top.path()).await;
        assert_eq!(number(&client, "SELECT count(*) FROM kept").await, round + 1);
        // A busy backend does not notice the kill, and keeps the shared memory in use.
        let busy = connect_with(&config_in(top.path())).await.unwrap();
        let work = tokio::spawn(async move {
            busy.batch_execute(
                "SELECT count(*) FROM generate_series(1, 10000000000) AS n WHERE n < 0",
            )
            .await
        });
        let deadline = Instant::now() + DEADLINE;
        while number(&client, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'").await
            < 2
        {
            assert!(Instant::now() < deadline);
        }
        send(postgres, Signal::KILL);
        starter.kill();
        assert!(top.path().join("postgres/data/postmaster.pid").exists());

        let server = start_with(top.path(), Durability::Full).await;
        assert_eq!(number(&connect(&server).await, "SELECT count(*) FROM kept").await, round + 1);
        work.await.unwrap().unwrap_err();
        server.stop().await;
        assert_eq!(processes_on(top.path()), Vec::<u32>::new());
    }
}

#[tokio::test]
async fn an_orphaned_server_is_stopped_before_a_new_start() {
    let top = folder();
    let mut starter = Starter::spawn(top.path(), Durability::None);
    let postgres = starter.ready();
    let client = connect_with(&config_in(top.path())).await.unwrap();
    client.batch_execute("CREATE TABLE kept (n bigint)").await.unwrap();
    for guard in children_of(starter.id()).into_iter().filter(|pid| is_guard(*pid)) {
        send(guard, Signal::KILL);
    }
    starter.kill();
    assert!(runs(postgres));
    let server = start(top.path()).await;
    assert!(!runs(postgres));
    assert_eq!(number(&connect(&server).await, "SELECT count(*) FROM kept").await, 0);
    server.stop().await;
}

#[tokio::test]
#[ignore = "waits 10 s for the supervisor's check"]
async fn a_killed_guard_is_replaced() {
    let top = folder();
    let mut starter = Starter::spawn(top.path(), Durability::None);
    let postgres = starter.ready();
    let guard = |starter: &Starter| {
        let children = children_of(starter.id());
        children.into_iter().find(|pid| is_guard(*pid) && runs(*pid))
    };
    let first = guard(&starter).unwrap();
    send(first, Signal::KILL);
    wait_for("another guard", || guard(&starter).is_some_and(|pid| pid != first)).await;
    starter.kill();
    wait_for("postgres ends", || !runs(postgres)).await;
}

#[tokio::test]
#[ignore = "waits 15 s for the gentler steps of a stop"]
async fn an_unresponsive_server_is_killed() {
    let top = folder();
    let server = start(top.path()).await;
    send(server.pid().unwrap(), Signal::STOP);
    let begun = Instant::now();
    server.stop().await;
    assert!(begun.elapsed() >= Duration::from_secs(15));
    assert_eq!(processes_on(top.path()), Vec::<u32>::new());
    let server = start(top.path()).await;
    server.stop().await;
}

#[tokio::test]
async fn stale_files_of_a_dead_server_do_not_block_the_start() {
    let top = folder();
    start(top.path()).await.stop().await;
    let data = top.path().join("postgres/data");
    let run = top.path().join("postgres/run");

    let mut other_program = Command::new("sleep").arg("600").spawn().unwrap();
    // Exits at once, and is reaped only at the end of the test.
    let mut zombie = Command::new("true").spawn().unwrap();
    wait_for("a zombie", || !runs(zombie.id())).await;
    for pid in [other_program.id(), zombie.id(), 1, 4_000_000] {
        let text = format!("{pid}\n{}\n1700000000\n5432\n{}\n\n", data.display(), run.display());
        fs::write(data.join("postmaster.pid"), &text).unwrap();
        fs::write(run.join(".s.PGSQL.5432.lock"), &text).unwrap();
        fs::write(run.join(".s.PGSQL.5432"), "").unwrap();
        let server = start(top.path()).await;
        assert_eq!(number(&connect(&server).await, "SELECT 1::bigint").await, 1);
        server.stop().await;
    }
    assert!(runs(other_program.id()), "only PostgreSQL gets signals");
    other_program.kill().unwrap();
    other_program.wait().unwrap();
    zombie.wait().unwrap();
}

#[tokio::test]
async fn an_interrupted_first_start_needs_no_repair() {
    let top = folder();
    let new = top.path().join("postgres/data.new");
    for stage in ["PG_VERSION", "base/1", "global/pg_control"] {
        let starter = Starter::spawn(top.path(), Durability::Full);
        wait_for(stage, || new.join(stage).exists()).await;
        starter.kill();
        assert!(new.exists());
        assert!(!top.path().join("postgres/data").exists());
    }
    let server = start(top.path()).await;
    assert!(!new.exists());
    assert_eq!(number(&connect(&server).await, "SELECT 1::bigint").await, 1);
    server.stop().await;
    assert_eq!(processes_on(top.path()), Vec::<u32>::new());
}

#[tokio::test]
async fn a_wrong_program_folder_is_an_error_that_names_it() {
    let top = folder();
    let mut config = config(Durability::None);
    config.bin_dir = Some(PathBuf::from("/nonexistent/bin"));
    let error = EmbeddedPostgres::start(&config, open_free(top.path()).await).await.unwrap_err();
    assert!(
        matches!(&error, PostgresError::BadBinDir { path, .. } if path == Path::new("/nonexistent/bin")),
        "{error}"
    );
    // The lock is released.
    drop(open_free(top.path()).await);
}

#[tokio::test]
async fn a_long_path_moves_the_socket_and_special_characters_work() {
    let top = folder();
    let long = top.path().join("x".repeat(120));
    let server = start(&long).await;
    let sockets = server.connect_config().get_hosts().to_vec();
    let [tokio_postgres::config::Host::Unix(sockets)] = sockets.as_slice() else {
        panic!("{sockets:?}");
    };
    assert!(sockets.starts_with("/tmp") && !sockets.starts_with(&long));
    assert_eq!(fs::metadata(sockets).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(number(&connect(&server).await, "SELECT 1::bigint").await, 1);
    server.stop().await;
    assert!(!sockets.exists(), "no folder remains in /tmp");

    let odd = top.path().join(r#"a "b", c's ü"#);
    let server = start(&odd).await;
    assert_eq!(number(&connect(&server).await, "SELECT 1::bigint").await, 1);
    server.stop().await;
}

#[tokio::test]
async fn a_killed_postgres_is_restarted() {
    let top = folder();
    let server = start(top.path()).await;
    for signal in [Signal::KILL, Signal::QUIT, Signal::TERM] {
        let before = server.pid().unwrap();
        send(before, signal);
        wait_for("a new server", || server.pid().is_some_and(|pid| pid != before)).await;
        assert_eq!(number(&connect(&server).await, "SELECT 1::bigint").await, 1);
    }
    server.stop().await;
    assert_eq!(processes_on(top.path()), Vec::<u32>::new());
}

#[tokio::test]
async fn a_stop_during_restarts_leaves_no_process() {
    let top = folder();
    let server = start(top.path()).await;
    // Prevents the next start.
    let data = server.data_dir().to_path_buf();
    fs::rename(data.join("global"), data.join("global.away")).unwrap();
    send(server.pid().unwrap(), Signal::KILL);
    wait_for("it is down", || server.pid().is_none()).await;
    server.stop().await;
    assert_eq!(processes_on(top.path()), Vec::<u32>::new());
    drop(open_free(top.path()).await);
}

#[tokio::test]
async fn a_failed_start_quotes_the_log_and_leaves_no_process() {
    let top = folder();
    start(top.path()).await.stop().await;
    let data = top.path().join("postgres/data");
    fs::remove_file(data.join("global/pg_control")).unwrap();
    let error = EmbeddedPostgres::start(&config(Durability::None), open_free(top.path()).await)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, PostgresError::EndedEarly { .. }), "{text}");
    assert!(text.contains("pg_control"), "{text}");
    assert_eq!(processes_on(top.path()), Vec::<u32>::new());
}

#[tokio::test]
async fn stop_and_drop_leave_no_process() {
    let top = folder();
    let server = start(top.path()).await;
    // An open connection does not delay the stop.
    let client = connect(&server).await;
    let pid = server.pid().unwrap();
    let begun = Instant::now();
    server.stop().await;
    println!("stop: {:?}", begun.elapsed());
    assert!(!runs(pid));
    assert_eq!(processes_on(top.path()), Vec::<u32>::new());
    drop(client);

    let server = start(top.path()).await;
    let pid = server.pid().unwrap();
    drop(server);
    wait_for("it stops in the background", || !runs(pid)).await;
    wait_for("the lock is free", || !top.path().join("postgres/data/postmaster.pid").exists())
        .await;
}

#[test]
fn postgres_stops_with_the_async_runtime() {
    let top = folder();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(start(top.path()));
    let pid = server.pid().unwrap();
    drop(runtime);
    let waiting = tokio::runtime::Runtime::new().unwrap();
    waiting.block_on(wait_for("the guard stops it", || !runs(pid)));
    drop(server);
}

#[tokio::test]
async fn children_inherit_no_file_descriptors_or_process_group() {
    let top = folder();
    let mut starter = Starter::spawn(top.path(), Durability::None);
    let postgres = starter.ready();
    let log = top.path().canonicalize().unwrap().join("postgres/postgres.log");
    for pid in children_of(starter.id()) {
        let place = |number: u32| fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
        if is_guard(pid) {
            assert_eq!(place(1), Path::new("/dev/null"));
            assert_eq!(place(2), Path::new("/dev/null"));
        } else {
            assert_eq!(pid, postgres);
            assert_eq!(place(0), Path::new("/dev/null"));
            assert_eq!(place(1), log);
            assert_eq!(place(2), log);
        }
        let group = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let group = group.rsplit_once(") ").unwrap().1.split(' ').nth(2).unwrap().to_owned();
        assert_eq!(group, pid.to_string(), "ctrl-C must not reach it");
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&variables).contains("PATH="));
        let root = rustix::process::geteuid().is_root();
        if root {
            use std::os::unix::fs::MetadataExt;
            assert_ne!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 0);
        }
    }
    starter.kill();
}

#[tokio::test]
async fn data_of_another_major_version_is_not_modified() {
    let top = folder();
    start(top.path()).await.stop().await;
    let file = top.path().join("postgres/data/PG_VERSION");
    fs::write(&file, "12\n").unwrap();
    let error = EmbeddedPostgres::start(&config(Durability::None), open_free(top.path()).await)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, PostgresError::OtherMajor { wanted: 12, .. }), "{text}");
    assert!(text.contains("was made by PostgreSQL 12, and no PostgreSQL 12 was found"), "{text}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "12\n");
}

#[tokio::test]
async fn a_lost_password_file_is_not_recreated() {
    let top = folder();
    start(top.path()).await.stop().await;
    let password = top.path().join("postgres/password");
    fs::remove_file(&password).unwrap();
    let error = EmbeddedPostgres::start(&config(Durability::None), open_free(top.path()).await)
        .await
        .unwrap_err();
    assert!(matches!(error, PostgresError::PasswordLost { .. }), "{error}");
    assert!(!password.exists());
}
