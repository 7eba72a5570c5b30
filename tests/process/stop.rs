//! SIGTERM, ctrl-C, and the log of a complete run.

use crate::support::{PASSWORD, Server, folder, login, processes_on, until};
use rustix::process::Signal;

// Reliability: D2.
#[tokio::test]
async fn sigterm_lets_a_login_in_progress_finish() {
    let top = folder();
    // The signal arrives during a hash, and the grace period suffices for some of the logins.
    let settings = [
        ("STAUNCH_BCRYPT_COST", "9"),
        ("STAUNCH_HASH_THREADS", "1"),
        ("STAUNCH_SHUTDOWN_GRACE", "2m"),
    ];
    let mut server = Server::start(top.path(), &settings).await;
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    let logins: Vec<_> = (0..8)
        .map(|_| {
            let address = server.address.clone();
            tokio::spawn(async move { login(&address, "ada").await })
        })
        .collect();
    until("a login is being hashed", async || server.hashes().await).await;
    server.signal(Signal::TERM);
    let mut served = 0;
    for login in logins {
        // A connection that was not accepted has no answer. An accepted one is never cut off.
        if let Some(reply) = login.await.unwrap() {
            assert!([200, 503].contains(&reply.status), "{}", reply.status);
            served += usize::from(reply.status == 200);
        }
    }
    assert!(served >= 1);
    let (code, _) = server.ended().await;
    let log = server.log();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("draining") && log.contains("stopped"), "{log}");
    assert_eq!(processes_on(top.path()), Vec::<String>::new());
}

#[tokio::test]
async fn sigterm_while_the_database_starts_stops_cleanly() {
    let top = folder();
    let mut command = crate::support::staunch(top.path(), &["--listen", "127.0.0.1:0"]);
    command.env("STAUNCH_DATA_DIR", top.path().join("data"));
    let mut process = command.spawn().unwrap();
    until("initdb runs", async || top.path().join("data/postgres/data.new").exists()).await;
    let pid = rustix::process::Pid::from_raw(process.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let status = tokio::time::timeout(crate::support::SOON, process.wait()).await;
    assert_eq!(status.unwrap().unwrap().code(), Some(0));
    until("no process remains", async || processes_on(top.path()).is_empty()).await;
}

// Reliability: F9.
#[tokio::test]
async fn the_log_has_one_line_per_request_and_no_secret() {
    let top = folder();
    let settings = [("STAUNCH_LOG", "trace"), ("STAUNCH_LOG_FORMAT", "json")];
    let server = Server::start(top.path(), &settings).await;
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    let tokens = server.login("ada").await.unwrap().json();
    assert_eq!(server.login("nobody").await.unwrap().status, 401);
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let access = tokens["access_token"].as_str().unwrap();
    let next = server.refresh(refresh).await.unwrap();
    assert_eq!(next.status, 200);
    let next = next.json()["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(server.refresh(&next).await.unwrap().status, 200);
    assert_eq!(server.refresh(refresh).await.unwrap().status, 401, "reuse");
    assert_eq!(server.me(access).await.unwrap().status, 401);
    // A15: client input cannot create a log line.
    server.get("/%0d%0a{\"level\":\"forged\"}").await.unwrap();
    let database = std::fs::read_to_string(top.path().join("data/postgres/password")).unwrap();
    let log = server.stop().await;
    let mut requests = 0;
    for line in log.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if value["message"] == "request" && value["level"] == "INFO" {
            requests += 1;
            for member in ["route", "method", "status", "latency_us", "request_id", "client"] {
                assert!(!value[member].is_null(), "no {member}: {line}");
            }
        }
        assert_ne!(value["level"], "forged");
    }
    assert_eq!(requests, 8, "{log}");
    let signature = |token: &str| token[token.len() - 20..].to_owned();
    for secret in [
        PASSWORD,
        database.trim(),
        "$2b$04$",
        &signature(refresh),
        &signature(&next),
        &signature(access),
    ] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn a_second_ctrl_c_exits_at_once() {
    let top = folder();
    let settings = [("STAUNCH_BCRYPT_COST", "14"), ("STAUNCH_HASH_THREADS", "1")];
    let mut server = Server::start(top.path(), &settings).await;
    let logins: Vec<_> = (0..20)
        .map(|_| {
            let address = server.address.clone();
            tokio::spawn(async move { login(&address, "nobody").await })
        })
        .collect();
    until("a login is being hashed", async || server.hashes().await).await;
    server.signal(Signal::INT);
    until("it drains", async || server.log().contains("draining")).await;
    server.signal(Signal::INT);
    let (code, _) = server.ended().await;
    assert_eq!(code, Some(130));
    for login in logins {
        login.await.unwrap();
    }
    until("PostgreSQL ends too", async || processes_on(top.path()).is_empty()).await;
}

// Reliability: D7.
#[tokio::test]
async fn serving_continues_with_a_full_log_disk_and_closed_standard_output() {
    let top = folder();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut server =
        Server::start_logging_to(top.path(), &[("STAUNCH_LOG_FORMAT", "text")], full).await;
    // The start lines are read; nothing after them is.
    server.close_output();
    for _ in 0..50 {
        assert_eq!(server.get("/nowhere").await.unwrap().status, 404, "each writes a log line");
    }
    server.ready().await;
    server.signal(rustix::process::Signal::TERM);
    let (code, _) = server.ended().await;
    assert_eq!(code, Some(0));
}
