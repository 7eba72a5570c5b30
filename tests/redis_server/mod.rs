//! A Redis or Valkey server for one test, on a Unix socket in a folder of its own, and on a port if the test
//! needs one.

use redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The programs that can run as the server. The first one that is installed is used.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// Limit of the server's start. It is far longer than a start needs, because the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

pub(crate) struct RedisServer {
    folder: tempfile::TempDir,
    program: &'static str,
    settings: Vec<String>,
    process: Child,
}

impl RedisServer {
    /// Starts a server with these settings of its configuration, as `--name value`.
    ///
    /// Without an installed server, says so and returns `None`. The test is then skipped.
    pub(crate) async fn start(settings: &[&str]) -> Option<Self> {
        Self::start_with(&[], settings).await
    }

    /// Starts a server whose first argument is a configuration file with this text.
    ///
    /// Sentinel needs such a file, because it writes to it.
    pub(crate) async fn start_configured(text: &str, settings: &[&str]) -> Option<Self> {
        Self::start_with(&[text], settings).await
    }

    async fn start_with(file: &[&str], settings: &[&str]) -> Option<Self> {
        let installed = |program: &&&str| {
            let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
            version.is_ok_and(|status| status.success())
        };
        let Some(program) = PROGRAMS.iter().find(installed) else {
            eprintln!("skipped: neither redis-server nor valkey-server is installed");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let mut settings: Vec<String> = settings.iter().map(|text| (*text).to_owned()).collect();
        for text in file {
            std::fs::write(folder.path().join("redis.conf"), text).expect("a file");
            settings.insert(0, "redis.conf".to_owned());
        }
        let process = spawn(program, &folder, &settings);
        let mut server = Self { folder, program, settings, process };
        server.answering().await;
        Some(server)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// The URL, without user and password.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Opens a connection, for a test that looks into the store or changes it.
    pub(crate) async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a URL");
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(SOON));
        client.get_multiplexed_async_connection_with_config(&config).await.expect("a connection")
    }

    /// Runs a command, as words with blanks between them.
    pub(crate) async fn run<T: redis::FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().expect("a command"));
        words.for_each(|word| {
            command.arg(word);
        });
        command.query_async(&mut self.connect().await).await.expect("an answer")
    }

    /// All keys of the store.
    pub(crate) async fn keys(&self) -> Vec<String> {
        self.run("KEYS *").await
    }

    /// Stops the process as the kernel does, until [`RedisServer::resume`].
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends the process without warning. Its data is lost.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("the server runs");
        self.process.wait().expect("the server ends");
    }

    /// Starts the server again after [`RedisServer::kill`].
    pub(crate) async fn restart(&mut self) {
        self.process = spawn(self.program, &self.folder, &self.settings);
        self.answering().await;
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("the server runs");
    }

    async fn answering(&mut self) {
        let begun = tokio::time::Instant::now();
        while tokio::net::UnixStream::connect(self.socket()).await.is_err() {
            assert!(begun.elapsed() < SOON, "{} did not start", self.program);
            let ended = self.process.try_wait().expect("a process");
            assert!(ended.is_none(), "{} ended: {ended:?}", self.program);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn spawn(program: &str, folder: &tempfile::TempDir, settings: &[String]) -> Child {
    Command::new(program)
        .current_dir(folder.path())
        .args(settings.first().filter(|first| !first.starts_with("--")))
        .args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"])
        .args(settings.iter().skip_while(|first| !first.starts_with("--")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts")
}
