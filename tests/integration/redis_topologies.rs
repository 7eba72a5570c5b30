//! Stores of several servers: a Redis Cluster, and a master that Sentinel names.

use crate::redis_server::RedisServer;
use crate::support::{PASSWORD, SOON, TestApp, until};

const AWAY: &str = "staunch_redis_away";
const SUCCESS: &str = r#"staunch_redis_calls_total{result="success"}"#;
const ERROR: &str = r#"staunch_redis_calls_total{result="error"}"#;

/// A free port; a cluster also uses the one 10,000 above it.
fn free_port() -> u16 {
    loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 55_000 && std::net::TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// A node that counts in this store.
async fn node(url: String) -> TestApp {
    TestApp::builder()
        .set("STAUNCH_REDIS_URL", url)
        .set("STAUNCH_REDIS_DEADLINE", "10s")
        .set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1")
        .set("STAUNCH_LIMIT_LOGIN", "7/h")
        .start()
        .await
}

/// Checks that two nodes count together, from addresses and under names that are new for each `n`.
async fn assert_shared(first: &TestApp, second: &TestApp, n: usize) {
    let name = format!("victim{n}");
    let mut outcomes = Vec::new();
    for turn in 0..9 {
        let app = if turn % 2 == 0 { first } else { second };
        let client = app.anonymous().from(&format!("2001:db8:{n:x}::1"));
        outcomes.push(client.login(&name, "Wrong-Pass123").await.json()["type"].clone());
    }
    let expected = ["credentials-rejected"; 5]
        .into_iter()
        .chain(["login-locked"; 2])
        .chain(["rate-limited"; 2])
        .map(|code| format!("urn:staunch:problem:{code}"));
    assert!(outcomes.iter().map(|kind| kind.as_str().unwrap()).eq(expected), "{outcomes:?}");
}

#[tokio::test]
async fn a_cluster_counts_like_one_server() {
    let mut servers = Vec::new();
    for _ in 0..2 {
        let port = free_port().to_string();
        let settings = ["--port", &port, "--cluster-enabled", "yes", "--bind", "127.0.0.1"];
        let Some(server) = RedisServer::start(&settings).await else { return };
        servers.push((server, port));
    }
    let [(first, first_port), (second, second_port)] = &servers[..] else { panic!() };
    let () = first.run(&format!("CLUSTER MEET 127.0.0.1 {second_port}")).await;
    let () = first.run("CLUSTER ADDSLOTSRANGE 0 8191").await;
    let () = second.run("CLUSTER ADDSLOTSRANGE 8192 16383").await;
    for server in [first, second] {
        until("the cluster is complete", SOON, async || {
            let info: String = server.run("CLUSTER INFO").await;
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        })
        .await;
    }
    let url = format!("redis-cluster://127.0.0.1:{first_port},127.0.0.1:{second_port}");
    let app = node(url.clone()).await;
    assert_eq!(app.metric(AWAY).await, 0.0);
    let other = app
        .sibling()
        .set("STAUNCH_REDIS_URL", url)
        .set("STAUNCH_REDIS_DEADLINE", "10s")
        .set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1")
        .set("STAUNCH_LIMIT_LOGIN", "7/h")
        .start()
        .await;
    // Enough names and addresses that both servers have some of each.
    for n in 1..=8 {
        assert_shared(&app, &other, n).await;
    }
    app.register("ada").await;
    app.anonymous().from("192.0.2.1").log_in("ada").await;
    other.anonymous().from("192.0.2.1").log_in("ada").await;
    assert!(app.metric(SUCCESS).await > 0.0);
    assert_eq!(app.metric(ERROR).await, 0.0, "all keys of a script are on one server");
    for server in [first, second] {
        assert!(!server.keys().await.is_empty());
    }
}

#[tokio::test]
async fn sentinel_names_the_master_and_a_failover_is_followed() {
    let (first_port, second_port) = (free_port().to_string(), free_port().to_string());
    let settings = ["--port", &first_port, "--bind", "127.0.0.1"];
    let Some(mut first) = RedisServer::start(&settings).await else { return };
    let settings = ["--port", &second_port, "--bind", "127.0.0.1", "--replicaof"];
    let master = format!("127.0.0.1 {first_port}");
    let settings: Vec<&str> = settings.into_iter().chain([master.as_str()]).collect();
    let second = RedisServer::start(&settings).await.unwrap();
    until("the replica follows", SOON, async || {
        let info: String = second.run("INFO replication").await;
        info.contains("master_link_status:up")
    })
    .await;
    let sentinel_port = free_port().to_string();
    let text = format!(
        "sentinel monitor main 127.0.0.1 {first_port} 1\n\
         sentinel down-after-milliseconds main 500\n\
         sentinel failover-timeout main 5000\n"
    );
    let settings = ["--sentinel", "--port", &sentinel_port, "--bind", "127.0.0.1"];
    let sentinel = RedisServer::start_configured(&text, &settings).await.unwrap();
    let known = async |what: &str| {
        let info: String = sentinel.run("INFO sentinel").await;
        info.contains(what)
    };
    until("sentinel knows both", SOON, async || known("slaves=1").await).await;

    let url = format!("redis-sentinel://127.0.0.1:1,127.0.0.1:{sentinel_port}/main");
    let app = node(url).await;
    assert_eq!(app.metric(AWAY).await, 0.0, "the first sentinel is away, the second answers");
    app.register("ada").await;
    app.anonymous().from("192.0.2.1").log_in("ada").await;
    first.kill();
    let mut n = 0;
    until("the new master is in use", SOON, async || {
        n += 1;
        let client = app.anonymous().from(&format!("192.0.2.{}", n % 250));
        let status = client.login("ada", PASSWORD).await.status;
        assert!([200, 429].contains(&status), "{status}");
        let role: String = second.run("INFO replication").await;
        role.contains("role:master") && app.metric(AWAY).await == 0.0
    })
    .await;
}
