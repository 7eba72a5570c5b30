//! The log of the real program: the fields of a line, and changing the level at run time.

use crate::support::{SOON, Server, folder, login, until};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The log lines with that message.
fn lines(server: &Server, message: &str) -> Vec<Value> {
    let log = server.log();
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let objects = whole.lines().map(|line| serde_json::from_str(line).unwrap());
    objects.filter(|line: &Value| line["message"] == message).collect()
}

/// Waits until the log has that many lines with the message. Lines may follow their answers.
async fn wait_for(server: &Server, message: &str, count: usize) -> Vec<Value> {
    until(message, async || lines(server, message).len() >= count).await;
    lines(server, message)
}

#[tokio::test]
async fn request_lines_name_client_and_session_and_slow_ones_the_time_per_stage() {
    let top = folder();
    let server = Server::start(top.path(), &[("STAUNCH_LOG_SLOW", "0s")]).await;
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    let tokens = server.login("ada").await.unwrap().json();
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(server.me(access).await.unwrap().status, 200);

    let slow = wait_for(&server, "slow request", 3).await;
    let of = |route: &str| slow.iter().find(|line| line["route"] == route).unwrap();
    let login = of("/api/v1/auth/token");
    assert_eq!((&login["level"], &login["method"]), (&"WARN".into(), &"POST".into()));
    assert_eq!((login["status"].as_u64(), &login["client"]), (Some(200), &"127.0.0.1".into()));
    assert!(login["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(login["request_id"], login["trace_id"], "the client sent neither");
    let total = login["latency_us"].as_u64().unwrap();
    let stages = ["limit", "body", "pool_wait", "query", "hash_wait", "hash", "sign"];
    let parts: Vec<u64> =
        stages.iter().map(|stage| login[format!("{stage}_us")].as_u64().unwrap()).collect();
    let sum: u64 = parts.iter().sum();
    assert!(sum <= total, "{login}");
    assert!(login["hash_us"].as_u64().unwrap() > 100, "{login}");
    // The session is known at login, and /me logs the same one.
    let me = of("/api/v1/auth/me");
    assert_eq!(me["session"], login["session"]);
    assert!(me["hash_us"].is_null() && me["query_us"].as_u64().is_some(), "{me}");
    server.stop().await;
}

#[tokio::test]
async fn fast_requests_log_no_stages_and_failed_ones_the_cause() {
    let top = folder();
    let server = Server::start(top.path(), &[("STAUNCH_LOG_SLOW", "300s")]).await;
    // Case F2 of the field list: 7,000 lines a second about probes.
    for probe in ["/health/liveness", "/health/readiness", "/metrics"] {
        assert_eq!(server.get(probe).await.unwrap().status, 200);
    }
    assert_eq!(server.get("/openapi.json").await.unwrap().status, 200);
    let line = wait_for(&server, "request", 1).await.remove(0);
    assert_eq!((&line["level"], &line["route"]), (&"INFO".into(), &"/openapi.json".into()));
    assert!(line["limit_us"].is_null(), "{line}");

    assert_eq!(server.register("ada").await.unwrap().status, 201);
    let database = top.path().join("data/postgres");
    let (client, connection) = tokio_postgres::Config::new()
        .host_path(database.join("run"))
        .user("staunch")
        .password(fs::read_to_string(database.join("password")).unwrap().trim())
        .dbname("staunch")
        .connect(tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client.batch_execute("DROP TABLE refresh_tokens").await.unwrap();
    assert_eq!(server.login("ada").await.unwrap().status, 500);
    let line = wait_for(&server, "request failed", 1).await.remove(0);
    assert_eq!((&line["level"], line["status"].as_u64()), (&"ERROR".into(), Some(500)));
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("insert_session") && error.contains("refresh_tokens"), "{error}");

    // PostgreSQL's error for a rejected row contains the whole row, with its hash.
    let rule = "ALTER TABLE users ADD CONSTRAINT not_eve CHECK (username <> 'eve')";
    client.batch_execute(rule).await.unwrap();
    assert_eq!(server.register("eve").await.unwrap().status, 500);
    let line = wait_for(&server, "request failed", 2).await.remove(1);
    assert!(line["error"].as_str().unwrap().contains("not_eve"), "{line}");
    assert!(!server.log().contains("$2b$"), "{}", server.log());
    server.stop().await;
}

// Case F22 of the field list: a head rejected by hyper had no log line.
#[tokio::test]
async fn malformed_heads_of_an_address_are_logged_once_a_second() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    for _ in 0..20 {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(b"garbage\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.expect("an end").unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    // A line in a later second counts those without a line.
    let counted = || {
        let lines = lines(&server, "connection error");
        assert!(lines.iter().all(|line| line["kind"] == "bad_head" && line["status"] == 400));
        let unlogged = lines.iter().filter_map(|line| line["unlogged"].as_u64()).sum::<u64>();
        (lines.len() as u64, unlogged)
    };
    until("the others are counted", async || {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(b"garbage\r\n\r\n").await.unwrap();
        let (lines, unlogged) = counted();
        lines + unlogged >= 20
    })
    .await;
    assert!(counted().0 < 20, "{}", server.log());
    server.stop().await;
}

#[tokio::test]
async fn sighup_applies_the_log_level_in_the_env_file() {
    let top = folder();
    let server = Server::start(top.path(), &[("STAUNCH_LOG", "info")]).await;
    let env = top.path().join(".env");

    fs::write(&env, "STAUNCH_LOG=warn\n").unwrap();
    server.signal(Signal::HUP);
    wait_for(&server, "log level set", 1).await;
    let before = lines(&server, "request").len();
    assert_eq!(server.get("/openapi.json").await.unwrap().status, 200);

    fs::write(&env, "STAUNCH_LOG=lowd\n").unwrap();
    server.signal(Signal::HUP);
    let line =
        wait_for(&server, "cannot read the log level, keeping the one in use", 1).await.remove(0);
    assert!(line["error"].as_str().unwrap().contains("STAUNCH_LOG"), "{line}");
    assert_eq!(lines(&server, "request").len(), before, "quiet");

    // Back to the level of the start.
    fs::remove_file(&env).unwrap();
    server.signal(Signal::HUP);
    wait_for(&server, "log level set", 2).await;
    assert_eq!(server.get("/openapi.json").await.unwrap().status, 200);
    wait_for(&server, "request", before + 1).await;
    server.stop().await;
}

#[tokio::test]
async fn logins_refused_at_capacity_are_logged_once_a_second_and_all_counted() {
    let top = folder();
    let settings = [
        ("STAUNCH_BCRYPT_COST", "14"),
        ("STAUNCH_HASH_THREADS", "1"),
        ("STAUNCH_HASH_LANES", "1"),
        ("STAUNCH_HASH_QUEUE", "1"),
        ("STAUNCH_HASH_DEADLINE", "5m"),
    ];
    let server = Server::start(top.path(), &settings).await;
    // One is hashed and one waits. The others are refused and try again.
    let waiting: Vec<_> = (0..4)
        .map(|n| {
            let address = server.address.clone();
            tokio::spawn(async move {
                loop {
                    login(&address, &format!("nobody-{n}")).await;
                }
            })
        })
        .collect();
    let lines_and_unlogged = || {
        let mut refused = lines(&server, "request");
        refused.retain(|line| line["status"] == 503);
        let unlogged = refused.iter().filter_map(|line| line["unlogged"].as_u64()).sum::<u64>();
        (refused.len() as u64, unlogged)
    };
    until("the refusals without a line are counted", async || {
        let (lines, unlogged) = lines_and_unlogged();
        lines + unlogged >= 40
    })
    .await;
    let (lines, unlogged) = lines_and_unlogged();
    assert!(lines < unlogged, "{lines} lines, {unlogged} without");
    let refused =
        r#"staunch_http_requests_total{route="/api/v1/auth/token",method="POST",status="503"}"#;
    let page = server.get("/metrics").await.unwrap().body;
    let counted = page.lines().find_map(|line| line.strip_prefix(refused)?.trim().parse().ok());
    assert!(counted.is_some_and(|count: u64| count >= lines + unlogged), "{counted:?}");
    waiting.iter().for_each(|client| client.abort());
    server.stop().await;
}
