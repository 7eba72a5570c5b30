//! A database with several hosts: a silent one delays nothing for long, and a failover is followed.

use crate::support::{Link, PASSWORD, Proxy, SOON, TestApp, TestDatabase, Tokens, until};
use futures_util::future::join_all;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

/// Limit for a start, and for readiness and logins to return after a failover.
const LIMIT: Duration = Duration::from_secs(5);

/// A database with two addresses.
async fn two_hosts() -> (Arc<TestDatabase>, Proxy, Proxy) {
    let database = Arc::new(TestDatabase::create().await);
    let (first, second) =
        tokio::join!(Proxy::start(&database.config), Proxy::start(&database.config));
    (database, first, second)
}

async fn start(database: &Arc<TestDatabase>, hosts: &[SocketAddr]) -> TestApp {
    let url = database.url_at_each(hosts);
    let builder = TestApp::builder().on(database).set("STAUNCH_DATABASE_URL", url);
    builder.set("STAUNCH_DB_POOL_MIN", "4").start().await
}

/// Starts servers until one is ready in time.
async fn starts_in_time(database: &Arc<TestDatabase>, hosts: &[SocketAddr]) -> TestApp {
    let mut started = None;
    until("a start is in time", SOON, async || {
        let begun = Instant::now();
        let app = start(database, hosts).await;
        app.ready().await;
        println!("ready {:?} after the start", begun.elapsed());
        started = Some(app);
        begun.elapsed() < LIMIT
    })
    .await;
    started.unwrap()
}

/// Waits until readiness, several logins and the listener work; returns how long the first two took.
async fn whole(app: &TestApp, tokens: &Tokens) -> Duration {
    let begun = Instant::now();
    app.ready().await;
    let logins = (0..8).map(async |_| {
        let client = app.anonymous();
        until("logins work", SOON, async || client.login("ada", PASSWORD).await.status == 200).await
    });
    join_all(logins).await;
    let took = begun.elapsed();
    app.anonymous().me(&tokens.access).await.assert_status(200);
    app.listening().await;
    took
}

// Case N4 of the field list: the start ended with exit code 69 after 10 s.
// Reliability: C1.
#[tokio::test]
async fn a_start_does_not_wait_long_for_a_silent_first_host() {
    let (database, silent, alive) = two_hosts().await;
    silent.set(Link::Paused);
    let app = starts_in_time(&database, &[silent.address, alive.address]).await;
    let tokens = app.registered("ada").await;
    // Each start tries it once. The others connect to the host that answered.
    let tried = silent.accepted();
    whole(&app, &tokens).await;
    assert_eq!(silent.accepted(), tried);
}

// Case N4 of the field list, with a host that drops SYN packets.
// Reliability: C1.
#[tokio::test]
async fn a_start_does_not_wait_long_for_a_host_that_drops_packets() {
    let (database, _, alive) = two_hosts().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    // When its queue is full, Linux drops further SYN packets.
    let mut waiting = Vec::new();
    while let Ok(stream) = timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    let app = starts_in_time(&database, &[address, alive.address]).await;
    whole(&app, &app.registered("ada").await).await;
}

// Case N5 of the field list: logins and readiness were 503 for over a minute, or readiness for ever.
// Reliability: C1.
#[tokio::test]
async fn a_failover_is_followed_within_seconds_and_the_former_primary_is_left() {
    let (database, former, promoted) = two_hosts().await;
    // A standby that refuses connections.
    promoted.set(Link::Cut);
    let app = start(&database, &[former.address, promoted.address]).await;
    let tokens = app.registered("ada").await;
    assert!(former.accepted() > 0);
    let mut cycles = 0;
    until("a failover is in time", SOON, async || {
        cycles += 1;
        let (from, to) = if cycles % 2 == 1 { (&former, &promoted) } else { (&promoted, &former) };
        from.set(Link::Paused);
        until("the loss is reported", SOON, async || app.readiness().await.status == 503).await;
        to.set(Link::Open);
        let took = whole(&app, &tokens).await;
        println!("ready and logins back {took:?} after the promotion");
        // The former primary returns, and nothing uses it.
        from.set(Link::Open);
        let before = from.accepted();
        whole(&app, &tokens).await;
        assert_eq!(from.accepted(), before);
        from.set(Link::Cut);
        took < LIMIT
    })
    .await;
    // No pool slot is lost, and no connection stays open.
    app.backends(4).await;
}

#[tokio::test]
async fn the_error_of_a_start_names_every_host() {
    let (database, first, second) = two_hosts().await;
    first.set(Link::Cut);
    second.set(Link::Cut);
    let url = database.url_at_each(&[first.address, second.address]);
    let builder = TestApp::builder().on(&database).set("STAUNCH_DATABASE_URL", url);
    let error = builder.try_start().await.err().expect("no host answers").to_string();
    for proxy in [&first, &second] {
        assert!(error.contains(&format!("{}: ", proxy.address)), "{error}");
    }
}

/// After a failover to a standby that had not received everything, the database can be behind the
/// clients. A lost refresh must not count as theft.
#[tokio::test]
async fn a_token_whose_refreshes_the_database_lost_continues_the_session() {
    let app = TestApp::start().await;
    let first = app.registered("ada").await;
    let client = app.anonymous();
    let second = client.refresh(&first.refresh).await.tokens();
    let third = client.refresh(&second.refresh).await.tokens();
    let lost =
        "UPDATE refresh_tokens SET generation = 0, rotated_at = rotated_at - interval '1 hour'";
    app.db().await.execute(lost, &[]).await.unwrap();
    let next = client.refresh(&third.refresh).await.tokens();
    assert_eq!(client.refresh(&third.refresh).await.tokens().refresh, next.refresh, "a repeat");
    client.me(&next.access).await.assert_status(200);
    let reuse = r#"staunch_refreshes_total{result="reuse"}"#;
    assert_eq!(app.metric(reuse).await, 0.0);
    // Whoever presents an older token holds a copy.
    client.refresh(&first.refresh).await.assert_problem(401, "refresh-token-rejected");
    assert_eq!(app.metric(reuse).await, 1.0);
    client.refresh(&next.refresh).await.assert_problem(401, "refresh-token-rejected");
}
