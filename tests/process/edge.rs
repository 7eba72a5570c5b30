//! The listening socket: few file descriptors, two processes on one port, many connections.

use crate::support::{SOON, Server, folder, until};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, timeout};

const ALIVE: &str = "GET /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n";
const LAST: &str = "GET /health/liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Reads one liveness response, head and body. `None` if the connection ended before its first
/// byte; a partial response fails the test.
async fn ask(stream: &mut TcpStream, request: &str) -> Option<String> {
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    let mut bytes = [0; 4_096];
    while !text.ends_with(r#"{"status":"alive"}"#) {
        let read = timeout(SOON, stream.read(&mut bytes)).await.expect("an answer or an end");
        match read {
            Ok(count @ 1..) => text.push_str(std::str::from_utf8(&bytes[..count]).unwrap()),
            ended => {
                assert_eq!(text, "", "a partial response, then {ended:?}");
                return None;
            }
        }
    }
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    Some(text)
}

fn open_files(server: &Server) -> u64 {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count() as u64
}

fn cpu_ticks(server: &Server) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Limits the server to `more` additional open files.
fn limit_files(server: &Server, more: u64) {
    let current = Some(open_files(server) + more);
    let pid = Pid::from_raw(server.pid().cast_signed());
    prlimit(pid, Resource::Nofile, Rlimit { current, maximum: current }).unwrap();
}

// Reliability: A10.
#[tokio::test]
async fn accepting_pauses_without_file_descriptors_and_resumes() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    limit_files(&server, 8);
    // Unfinished heads: none of these connections can be evicted.
    let mut held = Vec::new();
    for _ in 0..30 {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(b"GET /").await.unwrap();
        held.push(stream);
    }
    let complaints = || server.log().matches("cannot accept connections").count();
    until("it is logged", async || complaints() > 0).await;
    let before = cpu_ticks(&server);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = cpu_ticks(&server) - before;
    assert!(spent < 50, "{spent} ticks of 100 a second: a busy loop");
    drop(held);
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    assert!(ask(&mut stream, ALIVE).await.is_some());
    assert_eq!(complaints(), 1, "once a minute");
    server.stop().await;
}

// Reliability: A10.
#[tokio::test]
async fn idle_connections_are_evicted_to_free_file_descriptors() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    limit_files(&server, 8);
    let mut held = Vec::new();
    for _ in 0..30 {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        assert!(ask(&mut stream, ALIVE).await.is_some());
        held.push(stream);
    }
    server.stop().await;
}

/// Settings of a server that shares a port, a database and keys.
fn shared(top: &Path, listen: &str) -> [(&'static str, String); 4] {
    let postgres = top.join("data/postgres");
    let password = std::fs::read_to_string(postgres.join("password")).unwrap();
    let socket = postgres.join("run").canonicalize().unwrap().display().to_string();
    let url =
        format!("postgresql://staunch:{}@{}/staunch", password.trim(), socket.replace('/', "%2F"));
    [
        ("STAUNCH_REUSE_PORT", "on".into()),
        ("STAUNCH_LISTEN", listen.into()),
        ("STAUNCH_DATABASE_URL", url),
        ("STAUNCH_KEYS_DIR", top.join("data/keys").display().to_string()),
    ]
}

async fn sharing(top: &Path, name: &str, listen: &str) -> Server {
    let own = top.join(name);
    std::fs::create_dir(&own).unwrap();
    let settings = shared(top, listen);
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    Server::start(&own, &settings).await
}

#[derive(Default)]
struct Clients {
    stop: AtomicBool,
    answered: AtomicUsize,
    /// Requests repeated on a new connection, as RFC 9110 §9.2.2 allows.
    retried: AtomicUsize,
    closed_by_server: AtomicUsize,
}

impl Clients {
    async fn each_on_a_new_connection(self: Arc<Self>, address: String) {
        while !self.stop.load(Ordering::Relaxed) {
            self.with_retry(&address, LAST).await;
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn on_a_connection_that_is_kept(self: Arc<Self>, address: String) {
        let mut kept = None;
        while !self.stop.load(Ordering::Relaxed) {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => TcpStream::connect(&address).await.expect("a listener"),
            };
            match ask(&mut stream, ALIVE).await {
                Some(answer) if answer.contains("connection: close") => {
                    self.closed_by_server.fetch_add(1, Ordering::Relaxed);
                }
                Some(_) => kept = Some(stream),
                None => {
                    self.retried.fetch_add(1, Ordering::Relaxed);
                    self.with_retry(&address, LAST).await;
                }
            }
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends the request on a new connection, and repeats it once if necessary.
    async fn with_retry(&self, address: &str, request: &str) {
        let mut stream = TcpStream::connect(address).await.expect("a listener");
        if ask(&mut stream, request).await.is_none() {
            self.retried.fetch_add(1, Ordering::Relaxed);
            let mut stream = TcpStream::connect(address).await.expect("a listener");
            ask(&mut stream, request).await.expect("a retry succeeds");
        }
    }
}

// Reliability: D3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_on_one_port_are_replaced_without_a_failed_request() {
    let top = folder();
    let database = Server::start(top.path(), &[]).await;
    let mut old = sharing(top.path(), "a", "127.0.0.1:0").await;
    let address = old.address.clone();
    let clients = Arc::new(Clients::default());
    let mut running = Vec::new();
    for _ in 0..3 {
        let (a, b) = (Arc::clone(&clients), Arc::clone(&clients));
        running.push(tokio::spawn(a.each_on_a_new_connection(address.clone())));
        running.push(tokio::spawn(b.on_a_connection_that_is_kept(address.clone())));
    }
    for name in ["b", "c"] {
        let new = sharing(top.path(), name, &address).await;
        assert_eq!(new.address, address);
        let told = clients.closed_by_server.load(Ordering::Relaxed);
        old.signal(Signal::TERM);
        let (code, _) = old.ended().await;
        assert_eq!(code, Some(0), "{}", old.log());
        // Clients with open connections received `Connection: close`, and reconnected.
        let now_told = clients.closed_by_server.load(Ordering::Relaxed);
        let before = clients.answered.load(Ordering::Relaxed);
        until("clients continue", async || clients.answered.load(Ordering::Relaxed) > before + 100)
            .await;
        assert!(name == "c" || now_told > told, "{now_told}");
        old = new;
    }
    clients.stop.store(true, Ordering::Relaxed);
    for client in running {
        client.await.expect("every request is answered");
    }
    // Connections whose handshake completed between the last accept and the close of the socket.
    let retried = clients.retried.load(Ordering::Relaxed);
    assert!(retried <= 4, "{retried}");
    old.stop().await;
    database.stop().await;
}

// Reliability: D3.
#[tokio::test]
async fn connections_in_the_accept_queue_at_sigterm_are_served() {
    until("all are served", served_from_the_queue).await;
}

/// Returns false if a busy machine was too slow, and requests came after their one second.
async fn served_from_the_queue() -> bool {
    let top = folder();
    let mut server = Server::start(top.path(), &[]).await;
    // The server is stopped, so that only the kernel accepts connections.
    server.signal(Signal::STOP);
    let mut queued = Vec::new();
    for number in 0..20 {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(ALIVE.as_bytes()).await.unwrap();
        }
        queued.push((number, stream));
    }
    server.signal(Signal::TERM);
    let begun = Instant::now();
    server.signal(Signal::CONT);
    until("it drains", async || server.log().contains("draining")).await;
    // Every second client still has to send its request.
    for (number, stream) in &mut queued {
        if *number % 2 == 1 {
            stream.write_all(ALIVE.as_bytes()).await.ok();
        }
    }
    let in_time = begun.elapsed() < Duration::from_secs(1);
    let mut all = true;
    for (number, mut stream) in queued {
        let answer = ask(&mut stream, "").await;
        // Requests sent earlier may have been answered before the server handled the signal.
        let told = |answer: &String| number % 2 == 0 || answer.contains("connection: close\r\n");
        assert!(answer.as_ref().is_none_or(told), "{answer:?}");
        assert!(answer.is_some() || number % 2 == 1 && !in_time, "{number} is not served");
        all &= answer.is_some();
    }
    let (code, _) = server.ended().await;
    assert_eq!(code, Some(0), "{}", server.log());
    all
}

// Reliability: D3.
#[tokio::test]
async fn a_port_is_shared_only_if_both_servers_ask_for_it() {
    let top = folder();
    let database = Server::start(top.path(), &[]).await;
    let settings = shared(top.path(), &database.address);
    let own = top.path().join("a");
    std::fs::create_dir(&own).unwrap();
    let mut command = crate::support::staunch(&own, &[]);
    command.envs(settings.each_ref().map(|(name, value)| (*name, value.as_str())));
    let ended = crate::support::run(command).await;
    assert_eq!(ended.code, Some(69), "{}", ended.err);
    database.stop().await;
}

// Case F20 of the field list: it was reported only after initdb, migrations and calibration.
#[tokio::test]
async fn a_taken_port_is_reported_before_anything_is_created() {
    let top = folder();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for listen in ["STAUNCH_LISTEN", "STAUNCH_METRICS_LISTEN"] {
        let mut command = crate::support::staunch(top.path(), &[]);
        command.env("STAUNCH_LISTEN", "127.0.0.1:0").env(listen, &address);
        let ended = crate::support::run(command).await;
        assert_eq!(ended.code, Some(69), "{}", ended.err);
        assert!(ended.err.contains(&format!("cannot listen on {address}")), "{}", ended.err);
        assert!(!top.path().join("staunch-data").exists(), "{listen}: {}", ended.err);
    }
}

// Case F20: with STAUNCH_REUSE_PORT, a starting server must not get connections it cannot serve.
#[tokio::test]
async fn a_starting_server_refuses_connections_until_it_is_ready() {
    let top = folder();
    // A database that accepts and never answers keeps the start from finishing.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut command = crate::support::staunch(top.path(), &[]);
    command
        .env("STAUNCH_LISTEN", address.to_string())
        .env("STAUNCH_DATABASE_URL", format!("postgresql://x@{}/x", mute.local_addr().unwrap()));
    let mut starting = command.spawn().unwrap();
    let asked = timeout(SOON, mute.accept()).await;
    asked.expect("the server connects to its database").unwrap();
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    starting.kill().await.unwrap();
}

/// Resident memory in bytes (proc_pid_status(5)).
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

// Reliability: A11.
#[tokio::test]
async fn an_idle_connection_uses_less_memory_than_the_bound() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    let mut held = Vec::new();
    let mut open = async |count| {
        for _ in 0..count {
            let mut stream = TcpStream::connect(&server.address).await.unwrap();
            assert!(ask(&mut stream, ALIVE).await.is_some());
            held.push(stream);
        }
    };
    // Allocations that are made once are now done.
    open(50).await;
    let before = resident(&server);
    open(1_000).await;
    let each = resident(&server).saturating_sub(before) / 1_000;
    let bound = staunch::http::CONNECTION_BYTES_MAX;
    assert!(each <= bound && each <= 24_000, "{each} bytes each, {bound} in the bound");
    server.stop().await;
}
