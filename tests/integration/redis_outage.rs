//! A store of shared counters that is away, slow, full or damaged: logins go on, and no limit is open.

use crate::redis_server::RedisServer;
use crate::support::{Builder, Link, PASSWORD, Proxy, SOON, TestApp, until};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

const AWAY: &str = "staunch_redis_away";
const SUCCESS: &str = r#"staunch_redis_calls_total{result="success"}"#;
const TIMEOUT: &str = r#"staunch_redis_calls_total{result="timeout"}"#;
const ERROR: &str = r#"staunch_redis_calls_total{result="error"}"#;
const UNAVAILABLE: &str = r#"staunch_redis_calls_total{result="unavailable"}"#;
const LIMIT: usize = 12;

fn builder(url: String, deadline: &str) -> Builder {
    TestApp::builder()
        .set("STAUNCH_REDIS_URL", url)
        .set("STAUNCH_REDIS_DEADLINE", deadline)
        .set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1")
        .set("STAUNCH_LIMIT_LOGIN", "12/h")
}

/// A node whose calls have the longest deadline, with an account.
async fn node(redis: &RedisServer) -> TestApp {
    let app = builder(redis.url(), "10s").start().await;
    app.register("ada").await;
    app
}

/// Sends more logins than the limits allow, and checks that this node refuses the rest on its own.
///
/// `n` makes the addresses and names new.
async fn assert_served_and_limited(app: &TestApp, n: usize) {
    let home = app.anonymous().from(&format!("192.0.2.{n}"));
    let mut served = 0;
    for _ in 0..LIMIT + 5 {
        let reply = home.login("ada", PASSWORD).await;
        served += usize::from(reply.status == 200);
        if reply.status != 200 {
            reply.assert_problem(429, "rate-limited");
        }
    }
    assert_eq!(served, LIMIT, "logins go on, within the limit");
    let mut evaluated = 0;
    for _ in 0..9 {
        let guesser = app.anonymous().from(&format!("203.0.113.{n}"));
        let reply = guesser.login(&format!("eve{n}"), "Wrong-Pass123").await;
        evaluated += usize::from(reply.status == 401);
    }
    assert_eq!(evaluated, 5, "five guesses");
    assert_eq!(app.readiness().await.status, 200, "readiness does not depend on the store");
}

/// Sends logins, from other addresses and under other names each time, until the store is in use or not.
async fn until_away(app: &TestApp, away: bool) {
    static LOGINS: AtomicU32 = AtomicU32::new(0);
    until("the breaker has noticed", SOON, async || {
        let n = LOGINS.fetch_add(1, Relaxed);
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string();
        let client = app.anonymous().from(&address);
        client.login(&format!("nobody{n}"), "Wrong-Pass123").await.assert_status(401);
        app.metric(AWAY).await == f64::from(u8::from(away))
    })
    .await;
}

#[tokio::test]
async fn a_killed_store_is_replaced_by_local_counters_and_used_again_after_its_restart() {
    let Some(mut redis) = RedisServer::start(&[]).await else { return };
    let app = node(&redis).await;
    assert_served_and_limited(&app, 1).await;
    redis.kill();
    assert_served_and_limited(&app, 2).await;
    assert_eq!(app.metric(AWAY).await, 1.0);
    let errors = app.metric(ERROR).await;
    assert!(
        (1.0..5.0).contains(&errors),
        "{errors}: a broken connection opens the breaker at once"
    );
    assert!(app.metric(UNAVAILABLE).await > 10.0, "no other login waits");
    redis.restart().await;
    until("it is in use", SOON, async || app.metric(AWAY).await == 0.0).await;
    assert_served_and_limited(&app, 3).await;
    assert!(!redis.keys().await.is_empty());
}

#[tokio::test]
async fn a_paused_store_costs_five_deadlines_and_then_none() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let app = builder(redis.url(), "300ms").start().await;
    app.register("ada").await;
    until_away(&app, false).await;
    let before = app.metric(TIMEOUT).await;
    redis.pause();
    assert_served_and_limited(&app, 1).await;
    let timeouts = app.metric(TIMEOUT).await - before;
    // Fewer, if calls were late before on a busy machine.
    assert!((1.0..=5.0).contains(&timeouts), "{timeouts}");
    assert_eq!(app.metric(AWAY).await, 1.0);
    redis.resume();
    until("it is in use", SOON, async || app.metric(AWAY).await == 0.0).await;
    let success = app.metric(SUCCESS).await;
    until("calls succeed", SOON, async || {
        app.anonymous().from("198.51.100.2").login("nobody", "Wrong-Pass123").await;
        app.metric(SUCCESS).await > success
    })
    .await;
}

#[tokio::test]
async fn a_slow_store_is_left_alone_until_it_answers_in_time() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let proxy = Proxy::to_socket(redis.socket()).await;
    let app = builder(format!("redis://{}", proxy.address), "2s").start().await;
    app.register("ada").await;
    until_away(&app, false).await;
    proxy.set(Link::Slow(Duration::from_secs(3)));
    until_away(&app, true).await;
    assert_served_and_limited(&app, 1).await;
    proxy.set(Link::Open);
    until("it is in use", SOON, async || app.metric(AWAY).await == 0.0).await;
    proxy.set(Link::Cut);
    until_away(&app, true).await;
    assert_served_and_limited(&app, 2).await;
}

#[tokio::test]
async fn a_full_store_and_a_replica_are_errors_and_local_counters_replace_them() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let app = node(&redis).await;
    for (n, (damage, repair)) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    ]
    .into_iter()
    .enumerate()
    {
        let () = redis.run(damage).await;
        until_away(&app, true).await;
        assert_served_and_limited(&app, n + 1).await;
        let () = redis.run(repair).await;
        until("it is in use", SOON, async || app.metric(AWAY).await == 0.0).await;
    }
    let errors = app.metric(ERROR).await;
    assert!((3.0..40.0).contains(&errors), "{errors}");
}

#[tokio::test]
async fn values_of_another_type_affect_only_their_keys() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let app = node(&redis).await;
    app.anonymous().from("192.0.2.1").log_in("ada").await;
    let guesser = || app.anonymous().from("203.0.113.1");
    guesser().login("eve1", "Wrong-Pass123").await.assert_status(401);
    let keys = redis.keys().await;
    assert!(keys.len() >= 6, "{keys:?}");
    for value in ["LPUSH", "SET"] {
        for key in &keys {
            let () = redis.run(&format!("DEL {key}")).await;
            // A list, or a text that is not one of ours.
            let _: redis::Value = redis.run(&format!("{value} {key} 1e400")).await;
        }
        let before = app.metric(ERROR).await;
        let home = app.anonymous().from("192.0.2.1");
        home.log_in("ada").await;
        assert!(app.metric(ERROR).await > before, "{value}");
        assert_eq!(app.metric(AWAY).await, 0.0, "other keys are still counted");
    }
    let evaluated = {
        let mut evaluated = 0;
        for _ in 0..20 {
            evaluated += usize::from(guesser().login("eve1", "Wrong-Pass123").await.status == 401);
        }
        evaluated
    };
    assert!(evaluated <= 5, "{evaluated}: this node's own counters");
    let () = redis.run("FLUSHALL").await;
    assert_served_and_limited(&app, 3).await;
}

#[tokio::test]
async fn a_flushed_or_evicting_store_and_forgotten_scripts_open_no_limit() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let app = node(&redis).await;
    let home = app.anonymous().from("192.0.2.1");
    let mut served = 0;
    for _ in 0..LIMIT + 5 {
        let () = redis.run("FLUSHALL").await;
        let () = redis.run("SCRIPT FLUSH").await;
        served += usize::from(home.login("ada", PASSWORD).await.status == 200);
    }
    assert_eq!(served, LIMIT);
    assert_eq!(app.metric(ERROR).await, 0.0, "a script is sent again where it is not known");
    let () = redis.run("CONFIG SET maxmemory-policy allkeys-random").await;
    let used: String = redis.run("INFO memory").await;
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let () = redis.run(&format!("CONFIG SET maxmemory {used}")).await;
    assert_served_and_limited(&app, 3).await;
}

#[tokio::test]
async fn a_node_starts_without_its_store_and_uses_it_when_it_comes() {
    let Some(mut redis) = RedisServer::start(&[]).await else { return };
    redis.kill();
    let app = node(&redis).await;
    assert_eq!(app.metric(AWAY).await, 1.0);
    assert_served_and_limited(&app, 1).await;
    redis.restart().await;
    until("it is in use", SOON, async || app.metric(AWAY).await == 0.0).await;
    assert_served_and_limited(&app, 2).await;
    assert!(!redis.keys().await.is_empty());
}
