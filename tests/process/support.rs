//! Starts the program in a temporary folder and observes it.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

/// Limit of every wait. It is far longer than any wait needs, because the machine may be busy and
/// many programs start by creating a database.
pub(crate) const SOON: Duration = Duration::from_secs(180);

pub(crate) const PASSWORD: &str = "TestPass123!";

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_staunch");

/// A folder for the data and `.env`. PostgreSQL's account can enter it when the tests run as root.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// The program without this process's settings, working in `folder`.
pub(crate) fn staunch(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = prepared(Command::new(PROGRAM), folder);
    command.args(arguments);
    command
}

/// A command without this process's settings, working in `folder`.
pub(crate) fn prepared(command: Command, folder: &Path) -> Command {
    let mut command = without_settings(command);
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Removes this process's settings from a command.
pub(crate) fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("STAUNCH_") || text == "DATABASE_URL" {
            command.env_remove(&name);
        }
    }
    command
}

/// The result of a finished run.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) async fn run(mut command: Command) -> Ended {
    let output = timeout(SOON, command.output()).await.expect("it ends").unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A server with its embedded database.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: String,
    /// The start lines, if the log is text.
    pub(crate) lines: Vec<String>,
    /// The start line, if the log is JSON.
    pub(crate) facts: Value,
    /// `None` once closed.
    out: Option<BufReader<tokio::process::ChildStdout>>,
    log: PathBuf,
}

impl Server {
    /// Starts the server and waits until it listens.
    pub(crate) async fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        // A file accepts every line. A pipe without a reader would fill up.
        let log = folder.join("log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        Self::start_logging_to(folder, settings, file).await
    }

    /// Starts the server with its log in `file`.
    pub(crate) async fn start_logging_to(
        folder: &Path,
        settings: &[(&str, &str)],
        file: fs::File,
    ) -> Self {
        Self::start_by(staunch(folder, &[]), folder, settings, file).await
    }

    /// Starts the server by a command that executes it.
    pub(crate) async fn start_by(
        mut command: Command,
        folder: &Path,
        settings: &[(&str, &str)],
        file: fs::File,
    ) -> Self {
        let log = folder.join("log");
        let earlier = fs::read_to_string(&log).map_or(0, |text| text.len());
        command
            .env("STAUNCH_LISTEN", "127.0.0.1:0")
            .env("STAUNCH_DATA_DIR", folder.join("data"))
            // Unset, it would contain the port, which changes with a restart.
            .env("STAUNCH_JWT_ISSUER", "http://localhost:8080")
            .env("STAUNCH_BCRYPT_COST", "4")
            // Set, not measured: the start is faster.
            .env("STAUNCH_HASH_LANES", "2")
            // A slow request would log a different line.
            .env("STAUNCH_LOG_SLOW", "300s")
            .env("STAUNCH_DB_POOL_MIN", "1")
            .env("STAUNCH_DB_POOL_MAX", "5")
            .envs(settings.iter().copied());
        for limit in ["REGISTER", "LOGIN", "REFRESH", "CLIENTS", "GLOBAL"] {
            command.env(format!("STAUNCH_LIMIT_{limit}"), "off");
        }
        command.stderr(file);
        let mut process = command.spawn().unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let written = || fs::read_to_string(&log).unwrap_or_default();
        let (mut lines, mut facts) = (Vec::new(), Value::Null);
        if settings.contains(&("STAUNCH_LOG_FORMAT", "text")) {
            while lines.last().is_none_or(|line: &String| !line.starts_with("try")) {
                let mut line = String::new();
                let read = timeout(SOON, out.read_line(&mut line)).await;
                assert_ne!(read.expect("it starts").unwrap(), 0, "it ended: {}", written());
                lines.push(line.trim_end().to_owned());
            }
        } else {
            until("it listens", async || {
                let ended = process.try_wait().unwrap();
                let text = written();
                facts = listening(&text[earlier..]);
                assert!(ended.is_none() || facts.is_object(), "it ended: {text}");
                facts.is_object()
            })
            .await;
        }
        let told = lines.iter().find_map(|line| line.split("://").nth(1));
        let address = told.or_else(|| facts["address"].as_str()).unwrap().to_owned();
        Self { process, address, lines, facts, out: Some(out), log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// Closes the reading end of the server's standard output.
    pub(crate) fn close_output(&mut self) {
        self.out = None;
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the exit; returns the exit code and the rest of standard output.
    pub(crate) async fn ended(&mut self) -> (Option<i32>, String) {
        let status = timeout(SOON, self.process.wait()).await;
        let status = status.expect("it ends").unwrap();
        let mut rest = String::new();
        if let Some(out) = &mut self.out {
            let read = timeout(SOON, out.read_to_string(&mut rest)).await;
            read.expect("no child holds its output").unwrap();
        }
        (status.code(), rest)
    }

    /// Stops the server as systemd would, and asserts exit code 0.
    pub(crate) async fn stop(mut self) -> String {
        self.signal(rustix::process::Signal::TERM);
        let (code, _) = self.ended().await;
        let log = self.log();
        assert_eq!(code, Some(0), "{log}");
        log
    }

    /// The log of this and earlier runs in the folder.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Reply> {
        request(&self.address, &format!("GET {path} HTTP/1.1\r\n"), "", "").await
    }

    /// Waits until the server is ready. On a busy machine, one answer of the database may be late.
    pub(crate) async fn ready(&self) {
        until("it is ready", async || self.get("/health/readiness").await.unwrap().status == 200)
            .await;
    }

    /// Whether a password is being hashed.
    pub(crate) async fn hashes(&self) -> bool {
        let page = self.get("/metrics").await.unwrap();
        let busy = page.body.lines().find_map(|line| line.strip_prefix("staunch_hash_lanes_busy "));
        busy.unwrap().parse::<f64>().unwrap() >= 1.0
    }

    pub(crate) async fn register(&self, name: &str) -> Option<Reply> {
        let body = format!(
            r#"{{"email":"{name}@example.com","username":"{name}","password":"{PASSWORD}"}}"#
        );
        let head = "POST /api/v1/auth/register HTTP/1.1\r\n";
        request(&self.address, head, "application/json", &body).await
    }

    pub(crate) async fn refresh(&self, token: &str) -> Option<Reply> {
        let body = format!(r#"{{"refresh_token":"{token}"}}"#);
        let head = "POST /api/v1/auth/refresh HTTP/1.1\r\n";
        request(&self.address, head, "application/json", &body).await
    }

    /// `headers` are complete lines, each with its line end.
    pub(crate) async fn post_json(&self, path: &str, headers: &str, body: &str) -> Option<Reply> {
        let head = format!("POST {path} HTTP/1.1\r\n{headers}");
        request(&self.address, &head, "application/json", body).await
    }

    pub(crate) async fn post_form(&self, path: &str, body: &str) -> Option<Reply> {
        self.post_form_with(path, "", body).await
    }

    pub(crate) async fn post_form_with(
        &self,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Option<Reply> {
        let head = format!("POST {path} HTTP/1.1\r\n{headers}");
        request(&self.address, &head, "application/x-www-form-urlencoded", body).await
    }

    pub(crate) async fn me(&self, access: &str) -> Option<Reply> {
        let head = format!("GET /api/v1/auth/me HTTP/1.1\r\nAuthorization: Bearer {access}\r\n");
        request(&self.address, &head, "", "").await
    }

    pub(crate) async fn login(&self, name: &str) -> Option<Reply> {
        login(&self.address, name).await
    }
}

/// The log's `listening` line, or null if there is none yet.
fn listening(log: &str) -> Value {
    let mut objects = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    objects.rfind(|line: &Value| line["message"] == "listening").unwrap_or_default()
}

pub(crate) async fn login(address: &str, name: &str) -> Option<Reply> {
    let body = format!("username={name}&password={PASSWORD}");
    let head = "POST /api/v1/auth/token HTTP/1.1\r\n";
    request(address, head, "application/x-www-form-urlencoded", &body).await
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Sends one request on a new connection. `None` if the answer is incomplete; the reason goes to
/// standard error, which a failed test shows.
async fn request(address: &str, line: &str, media_type: &str, body: &str) -> Option<Reply> {
    let answer = try_request(address, line, media_type, body).await;
    answer.map_err(|error| eprintln!("{line:?} to {address}: {error}")).ok()
}

async fn try_request(
    address: &str,
    line: &str,
    media_type: &str,
    body: &str,
) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(address).await?;
    let content = match media_type {
        "" => String::new(),
        _ => format!("Content-Type: {media_type}\r\nContent-Length: {}\r\n", body.len()),
    };
    let text = format!("{line}Host: x\r\nConnection: close\r\n{content}\r\n{body}");
    stream.write_all(text.as_bytes()).await?;
    let mut bytes = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut bytes)).await;
    read.expect("an answer or an end")?;
    let text = String::from_utf8(bytes).unwrap();
    let cut = || std::io::Error::other(format!("cut off after {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut)?;
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    if length.is_some_and(|length: usize| length != body.len()) {
        return Err(cut());
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Reply { status: status.ok_or_else(cut)?, body: body.to_owned() })
}

pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < SOON, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The texts that occur in the memory of a process: heap, stacks and data.
pub(crate) fn in_memory<'a>(pid: u32, texts: &[&'a str]) -> BTreeSet<&'a str> {
    const CHUNK: usize = 1 << 20;
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let longest = texts.iter().map(|text| text.len()).max().unwrap();
    let mut found = BTreeSet::new();
    let mut chunk = vec![0; CHUNK];
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, mode) = (words.next().unwrap(), words.next().unwrap());
        if !mode.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let mut at = u64::from_str_radix(from, 16).unwrap();
        let end = u64::from_str_radix(to, 16).unwrap();
        while at < end {
            let wanted = usize::try_from(end - at).unwrap().min(CHUNK);
            memory.seek(SeekFrom::Start(at)).unwrap();
            // A region may shrink or be unmapped while it is read.
            let Ok(count @ 1..) = memory.read(&mut chunk[..wanted]) else { break };
            for text in texts {
                if holds(&chunk[..count], text.as_bytes()) {
                    found.insert(*text);
                }
            }
            // A text across the end of a chunk is complete in the next one.
            let last = at + count as u64 >= end || count <= longest;
            at += count as u64 - if last { 0 } else { longest as u64 };
        }
    }
    found
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == text[0]) {
        if rest[at..].starts_with(text) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Processes, except zombies, with this folder in their command line or as working directory.
pub(crate) fn processes_on(folder: &Path) -> Vec<String> {
    let wanted = folder.canonicalize().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let place = entry.path();
        let command = fs::read(place.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let works_in = fs::read_link(place.join("cwd")).unwrap_or_default();
        let dead = fs::read_to_string(place.join("stat")).is_ok_and(|stat| {
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
        });
        if !dead && (command.contains(wanted.to_str().unwrap()) || works_in.starts_with(&wanted)) {
            found.push(command);
        }
    }
    found
}
