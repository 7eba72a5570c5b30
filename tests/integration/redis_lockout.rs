//! Lockouts that two nodes share in Redis.

use crate::redis_server::RedisServer;
use crate::support::{Builder, PASSWORD, Reply, SOON, TestApp, until};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

const VERIFIED: &str = r#"staunch_hash_seconds_count{op="verify"}"#;
const HOME: &str = "192.0.2.7";

fn with(builder: Builder, redis: &RedisServer) -> Builder {
    builder
        .set("STAUNCH_REDIS_URL", redis.url())
        .set("STAUNCH_REDIS_DEADLINE", "10s")
        .set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1")
}

/// Two nodes with one database, one key folder and one store.
async fn nodes(redis: &RedisServer) -> [TestApp; 2] {
    let first = with(TestApp::builder(), redis).start().await;
    let second = with(first.sibling(), redis).start().await;
    [first, second]
}

async fn guess(app: &TestApp, address: &str, name: &str) -> Reply {
    app.anonymous().from(address).login(name, "Wrong-Pass123").await
}

/// Sends guesses to the nodes in turn; returns how many were evaluated.
async fn evaluated(
    nodes: &[TestApp],
    addresses: impl Iterator<Item = String>,
    name: &str,
) -> usize {
    let mut count = 0;
    for (n, address) in addresses.enumerate() {
        let reply = guess(&nodes[n % nodes.len()], &address, name).await;
        if reply.status == 429 {
            reply.assert_problem(429, "login-locked");
        } else {
            reply.assert_status(401);
            count += 1;
        }
    }
    count
}

fn one(address: &str, guesses: usize) -> impl Iterator<Item = String> {
    std::iter::repeat_n(address.to_owned(), guesses)
}

// Reliability: F2.
#[tokio::test]
async fn five_guesses_are_five_on_whichever_node() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let nodes = nodes(&redis).await;
    nodes[0].register("ada").await;
    assert_eq!(evaluated(&nodes, one("203.0.113.1", 20), "ada").await, 5);
    for app in &nodes {
        let before = (app.all_queries().await, app.metric(VERIFIED).await);
        let right = app.anonymous().from("203.0.113.1").login("ADA", PASSWORD).await;
        right.assert_problem(429, "login-locked");
        let seconds: u64 = right.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=30).contains(&seconds), "{seconds}");
        assert_eq!((app.all_queries().await, app.metric(VERIFIED).await), before);
        app.anonymous().from("203.0.113.2").log_in("ada").await;
    }
    // Names without an account lock alike.
    assert_eq!(evaluated(&nodes, one("203.0.113.1", 9), "nobody").await, 5);
}

#[tokio::test]
async fn concurrent_guesses_on_two_nodes_are_five() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let nodes = nodes(&redis).await;
    nodes[0].register("ada").await;
    let guesses: Vec<_> = (0..60)
        .map(|n| {
            let client = nodes[n % 2].anonymous().from("203.0.113.1");
            tokio::spawn(async move { client.login("ada", "Wrong-Pass123").await.status })
        })
        .collect();
    let mut evaluated = 0;
    for guess in guesses {
        let status = guess.await.unwrap();
        assert!([401, 429].contains(&status), "{status}");
        evaluated += usize::from(status == 401);
    }
    assert_eq!(evaluated, 5);
}

// Reliability: F2.
#[tokio::test]
async fn the_owner_logs_in_from_home_on_any_node_while_strangers_fail() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let nodes = nodes(&redis).await;
    nodes[0].register("ada").await;
    nodes[0].anonymous().from(HOME).log_in("ada").await;
    let strangers = (1..=30).map(|n| format!("198.51.100.{n}"));
    assert_eq!(evaluated(&nodes, strangers, "ada").await, 20);
    for app in &nodes {
        for name in ["ada", "ada@example.com"] {
            app.anonymous().from(HOME).log_in(name).await;
        }
        let elsewhere = app.anonymous().from("203.0.113.9").login("ada", PASSWORD).await;
        elsewhere.assert_problem(429, "login-locked");
        assert_eq!(app.metric("staunch_lockout_names").await, 1.0, "each node has seen the wait");
    }
    let both = lookups(&nodes[0]).await + lookups(&nodes[1]).await;
    assert_eq!(both, 1.0, "the first stranger who had to wait caused the only look-up");
    // A node that starts now knows the address, too.
    let third = with(nodes[0].sibling(), &redis).start().await;
    third.anonymous().from(HOME).log_in("ada").await;
    assert_eq!(lookups(&third).await, 0.0);
}

#[tokio::test]
async fn a_login_on_one_node_resets_the_failures_on_the_other() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let nodes = nodes(&redis).await;
    nodes[0].register("ada").await;
    for round in 0..2 {
        assert_eq!(evaluated(&nodes, one(HOME, 4), "ada").await, 4, "{round}");
        nodes[round].anonymous().from(HOME).log_in("ada").await;
    }
    assert_eq!(evaluated(&nodes, one(HOME, 9), "ada").await, 5);
}

/// Number of session look-ups for known addresses.
async fn lookups(app: &TestApp) -> f64 {
    app.queries("session_blocks_by_username").await + app.queries("session_blocks_by_email").await
}

#[tokio::test]
async fn after_a_flush_known_addresses_come_from_live_sessions_once_for_all_nodes() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let nodes = nodes(&redis).await;
    nodes[0].register("ada").await;
    for home in [HOME, "2001:db8:0:7::1"] {
        nodes[0].anonymous().from(home).log_in("ada").await;
    }
    let () = redis.run("FLUSHALL").await;
    for name in ["ada", "nobody"] {
        let strangers = (1..=20).map(|n| format!("198.51.100.{n}"));
        assert_eq!(evaluated(&nodes, strangers, name).await, 20);
    }
    assert_eq!(lookups(&nodes[0]).await + lookups(&nodes[1]).await, 0.0);
    for app in nodes.iter().chain(nodes.iter().rev()) {
        app.anonymous().from(HOME).log_in("ada").await;
        app.anonymous().from("2001:db8:0:7:ffff::2").log_in("ada").await;
        for name in ["ada", "nobody"] {
            let stranger = app.anonymous().from("203.0.113.9").login(name, PASSWORD).await;
            stranger.assert_problem(429, "login-locked");
        }
    }
    assert_eq!(lookups(&nodes[0]).await + lookups(&nodes[1]).await, 2.0, "one for each name");
}

/// A login over its address's limit claims the look-up of a wait, and must give it back.
#[tokio::test]
async fn a_login_that_is_over_a_limit_leaves_the_look_up_to_the_owner() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let node = |builder| with(builder, &redis).set("STAUNCH_LIMIT_LOGIN", "2/h");
    let first = node(TestApp::builder()).start().await;
    let second = node(first.sibling()).start().await;
    first.register("ada").await;
    first.anonymous().from(HOME).log_in("ada").await;
    for name in ["eve", "mallory"] {
        guess(&first, "203.0.113.1", name).await.assert_status(401);
    }
    for key in redis.keys().await.iter().filter(|key| key.ends_with(":known")) {
        let () = redis.run(&format!("DEL {key}")).await;
    }
    for n in 1..=20 {
        guess(&first, &format!("198.51.100.{n}"), "ada").await.assert_status(401);
    }
    // The second node admits it, the store does not.
    guess(&second, "203.0.113.1", "ada").await.assert_problem(429, "rate-limited");
    until("the look-up is given back", SOON, async || {
        let names = redis.keys().await.into_iter().filter(|key| key.ends_with(":name"));
        let mut streaks = Vec::new();
        for name in names {
            streaks.push(redis.run::<String>(&format!("GET {name}")).await);
        }
        streaks.iter().any(|streak| streak.ends_with(" 20 0 0"))
    })
    .await;
    first.anonymous().from(HOME).log_in("ada").await;
    assert_eq!(lookups(&first).await + lookups(&second).await, 1.0);
}

#[tokio::test]
async fn the_store_sees_no_name_no_address_and_no_password() {
    let Some(redis) = RedisServer::start(&["--requirepass", "s3cret"]).await else { return };
    let mut monitor = BufReader::new(UnixStream::connect(redis.socket()).await.unwrap());
    monitor.write_all(b"AUTH s3cret\r\nMONITOR\r\n").await.unwrap();
    let mut line = String::new();
    for _ in 0..2 {
        monitor.read_line(&mut line).await.unwrap();
    }
    assert_eq!(line, "+OK\r\n+OK\r\n");
    let app = with(TestApp::builder(), &redis)
        .set("STAUNCH_REDIS_URL", format!("{}?pass=s3cret", redis.url()))
        .set("STAUNCH_LIMIT_LOGIN", "100/h")
        .set("STAUNCH_LIMIT_REFRESH", "100/h")
        .start()
        .await;
    app.register("grace").await;
    let tokens = app.anonymous().from(HOME).log_in("grace").await;
    guess(&app, "203.0.113.1", "grace@example.com").await.assert_status(401);
    app.anonymous().from("2001:db8:0:7::1").refresh(&tokens.refresh).await.assert_status(200);
    let mut marker = UnixStream::connect(redis.socket()).await.unwrap();
    marker.write_all(b"AUTH s3cret\r\nECHO the-end\r\n").await.unwrap();
    let mut seen = String::new();
    while !seen.contains("the-end") {
        assert!(monitor.read_line(&mut seen).await.unwrap() > 0, "{seen}");
    }
    assert!(seen.contains("staunch:login:{") && seen.contains("staunch:limit:{"), "{seen}");
    for secret in ["grace", "192.0.2", "203.0.113", "2001:db8", PASSWORD, "Wrong", "srt_"] {
        assert!(!seen.contains(secret), "{secret}: {seen}");
    }
}
