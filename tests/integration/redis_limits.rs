//! Limits that two nodes share in Redis are the limits of one.

use crate::redis_server::RedisServer;
use crate::support::{Builder, PASSWORD, Reply, TestApp};

const SUCCESS: &str = r#"staunch_redis_calls_total{result="success"}"#;
const VERIFIED: &str = r#"staunch_hash_seconds_count{op="verify"}"#;

/// A builder's server counts in this store. Its deadline is long, because the machine may be busy.
fn with(builder: Builder, redis: &RedisServer) -> Builder {
    builder
        .set("STAUNCH_REDIS_URL", redis.url())
        .set("STAUNCH_REDIS_DEADLINE", "10s")
        .set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1")
}

/// Two nodes with one database, one key folder and one store.
async fn nodes(redis: &RedisServer, settings: &[(&'static str, &'static str)]) -> [TestApp; 2] {
    let set = |mut builder: Builder| {
        for (variable, value) in settings {
            builder = builder.set(variable, *value);
        }
        with(builder, redis)
    };
    let first = set(TestApp::builder()).start().await;
    let second = set(first.sibling()).start().await;
    [first, second]
}

async fn guess(app: &TestApp, address: &str, name: &str) -> Reply {
    app.anonymous().from(address).login(name, "Wrong-Pass123").await
}

/// The value of `r` in the RateLimit header.
fn remaining(reply: &Reply) -> u32 {
    let header = reply.header("ratelimit").expect("a RateLimit header");
    let (_, rest) = header.split_once("r=").expect("r");
    rest.split(';').next().unwrap().parse().unwrap()
}

// Reliability: F2.
#[tokio::test]
async fn a_limit_over_two_nodes_is_one_limit() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let nodes = nodes(&redis, &[("STAUNCH_LIMIT_LOGIN", "10/h")]).await;
    for n in 0..10 {
        let reply = guess(&nodes[n % 2], "203.0.113.1", &format!("victim-{n}")).await;
        reply.assert_status(401);
        assert_eq!(
            remaining(&reply),
            9 - u32::try_from(n).unwrap(),
            "the header counts both nodes"
        );
    }
    for app in &nodes {
        let before = (app.all_queries().await, app.metric(VERIFIED).await);
        let refused = guess(app, "203.0.113.1", "victim-x").await;
        refused.assert_problem(429, "rate-limited");
        assert_eq!(remaining(&refused), 0);
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((300..=360).contains(&seconds), "{seconds}: one token takes 360 s");
        assert_eq!((app.all_queries().await, app.metric(VERIFIED).await), before);
        assert_eq!(app.metric(r#"staunch_rate_limited_total{policy="login"}"#).await, 1.0);
        guess(app, "203.0.113.2", "victim-x").await.assert_status(401);
    }
}

#[tokio::test]
async fn registrations_refreshes_and_password_changes_are_shared_too() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let nodes = nodes(
        &redis,
        &[
            ("STAUNCH_LIMIT_REGISTER", "3/h"),
            ("STAUNCH_LIMIT_REFRESH", "4/h"),
            ("STAUNCH_LIMIT_LOGIN", "3/h"),
        ],
    )
    .await;
    let client = |n: usize| nodes[n % 2].anonymous().from("203.0.113.1");
    let mut registered = Vec::new();
    for n in 0..6 {
        let name = format!("user{n}");
        let reply = client(n).register(&format!("{name}@example.com"), &name, PASSWORD).await;
        registered.push(reply.status);
    }
    assert_eq!(registered, [201, 201, 201, 429, 429, 429]);

    let mut tokens = client(0).log_in("user0").await;
    let mut refreshed = 0;
    for n in 0..8 {
        let reply = client(n).refresh(&tokens.refresh).await;
        if reply.status == 200 {
            tokens = reply.tokens();
            refreshed += 1;
        } else {
            reply.assert_problem(429, "rate-limited");
        }
    }
    assert_eq!(refreshed, 4);

    // The login above and two password changes.
    for n in 0..4 {
        let client = client(n);
        let reply = client.change_password(&tokens.access, "Wrong-Pass123", "Other-Pass123").await;
        assert_eq!(reply.status, if n < 2 { 401 } else { 429 }, "{n}");
    }
}

#[tokio::test]
async fn an_ipv6_network_has_one_quota_for_all_nodes_at_each_level() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let nodes = nodes(&redis, &[("STAUNCH_LIMIT_LOGIN", "2/h")]).await;
    let of_64 = |n: usize| format!("2001:db8:1:1::{n:x}");
    let of_56 = |n: usize| format!("2001:db8:2:{n:x}::1");
    let of_48 = |n: usize| format!("2001:db8:3:{:x}::1", n << 8);
    for (addresses, expected) in [
        ((0..6).map(of_64).collect::<Vec<_>>(), 2),
        ((0..12).map(of_56).collect(), 8),
        ((0..40).map(of_48).collect(), 32),
    ] {
        let mut granted = 0;
        for (n, address) in addresses.iter().enumerate() {
            let reply = guess(&nodes[n % 2], address, &format!("victim-{n}")).await;
            granted += usize::from(reply.status == 401);
        }
        assert_eq!(granted, expected, "{addresses:?}");
    }
}

/// The requests are those of the contract: a login makes one round trip, or two after a wrong password.
#[tokio::test]
async fn a_request_makes_one_call_and_reads_make_none() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let app = with(TestApp::builder(), &redis)
        .set("STAUNCH_LIMIT_LOGIN", "100/h")
        .set("STAUNCH_LIMIT_REGISTER", "100/h")
        .set("STAUNCH_LIMIT_REFRESH", "100/h")
        .start()
        .await;
    let home = app.anonymous().from("192.0.2.7");
    let mut before = 0.0;
    let mut calls = async || {
        let now = app.metric(SUCCESS).await;
        now - std::mem::replace(&mut before, now)
    };
    home.register("ada@example.com", "ada", PASSWORD).await.assert_status(201);
    assert_eq!(calls().await, 1.0, "registration");
    home.log_in("ada").await;
    assert_eq!(calls().await, 3.0, "a first login makes the address known under both names");
    for name in ["ada", "ada@example.com"] {
        home.log_in(name).await;
        assert_eq!(calls().await, 1.0, "a usual login as {name}");
    }
    let tokens = home.log_in("ada").await;
    guess(&app, "192.0.2.7", "ada").await.assert_status(401);
    assert_eq!(calls().await, 3.0, "a login and a wrong password");
    let tokens = home.refresh(&tokens.refresh).await.tokens();
    assert_eq!(calls().await, 1.0, "refresh");
    home.me(&tokens.access).await.assert_status(200);
    home.sessions(&tokens.access).await.assert_status(200);
    home.logout(&tokens.refresh).await.assert_status(204);
    assert_eq!(calls().await, 0.0, "reads and logouts");
    // Refused by this node alone.
    let strict = with(app.sibling(), &redis).set("STAUNCH_LIMIT_LOGIN", "1/h").start().await;
    guess(&strict, "203.0.113.5", "eve").await.assert_status(401);
    let before = strict.metric(SUCCESS).await;
    guess(&strict, "203.0.113.5", "eve").await.assert_status(429);
    assert_eq!(strict.metric(SUCCESS).await, before, "a flood costs no round trip");
}

#[tokio::test]
async fn services_with_different_prefixes_or_keys_share_nothing() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let builder = || with(TestApp::builder(), &redis).set("STAUNCH_LIMIT_LOGIN", "1/h");
    let first = builder().start().await;
    let prefixed = with(first.sibling(), &redis)
        .set("STAUNCH_LIMIT_LOGIN", "1/h")
        .set("STAUNCH_REDIS_PREFIX", "other/service:")
        .start()
        .await;
    let other_keys = builder().start().await;
    for app in [&first, &prefixed, &other_keys] {
        guess(app, "203.0.113.1", "eve").await.assert_status(401);
        guess(app, "203.0.113.1", "eve").await.assert_status(429);
    }
    let keys = redis.keys().await;
    let other = keys.iter().filter(|key| key.starts_with("other/service:")).count();
    assert!(other > 0 && keys.len() > other, "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("staunch:") || key.starts_with("other/")));
    // Each key expires, so that the store's memory follows the traffic.
    for key in keys {
        let left: i64 = redis.run(&format!("PTTL {key}")).await;
        assert!(left > 0, "{key}: {left}");
    }
}
