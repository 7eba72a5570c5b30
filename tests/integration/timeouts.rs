//! Timeouts of heads, bodies and idle connections.

use crate::support::{ALIVE, Builder, Raw, SOON, TestApp, until};
use std::time::Duration;

/// Timeouts short enough for a test, in real time.
fn quick() -> Builder {
    TestApp::builder()
        .system_clock()
        .set("STAUNCH_HEADER_TIMEOUT", "300ms")
        .set("STAUNCH_BODY_TIMEOUT", "300ms")
        .set("STAUNCH_IDLE_TIMEOUT", "600ms")
}

/// Opens a connection and has one request served. A busy machine may miss the header timeout, so it
/// retries.
async fn used(app: &TestApp) -> Raw {
    let mut used = None;
    until("one is served", SOON, async || {
        let mut raw = app.raw().await;
        raw.write(ALIVE).await;
        let reply = raw.reply().await;
        used = reply.map(|reply| assert_eq!(reply.status, 200)).map(|()| raw);
        used.is_some()
    })
    .await;
    used.unwrap()
}

// Reliability: A1.
#[tokio::test]
async fn an_unfinished_head_closes_the_connection_after_the_header_timeout() {
    let app = quick().set("STAUNCH_IDLE_TIMEOUT", "1h").start().await;
    for start in ["", "G", "GET /health/liveness HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nS"] {
        let begun = tokio::time::Instant::now();
        let mut raw = app.raw().await;
        raw.write(start).await;
        raw.closed().await;
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(250), "{start:?} was cut too early: {took:?}");
    }
    // Neither single bytes nor an earlier good request extend the timeout.
    let mut raw = used(&app).await;
    let mut written = 0;
    raw.write("GET /health/liveness HTTP/1.1\r\nX: ").await;
    let dripping = async {
        while raw.try_write("a").await && written < 2_000 {
            written += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, dripping).await.expect("it is cut");
    assert!(written < 200, "{written}");
}

// Reliability: A1.
#[tokio::test]
async fn the_header_timeout_applies_despite_a_longer_idle_timeout() {
    let app = quick().set("STAUNCH_IDLE_TIMEOUT", "1h").start().await;
    let mut raw = used(&app).await;
    // Idle for longer than the header timeout, so that the connection's timer has been reset.
    tokio::time::sleep(Duration::from_millis(400)).await;
    raw.write("GET /health/liveness HTTP/1.1\r\nX: ").await;
    raw.closed().await;
}

// Reliability: A2.
#[tokio::test]
async fn a_missing_body_is_408() {
    let app = quick().start().await;
    let mut raw = app.raw().await;
    raw.write(
        "POST /api/v1/auth/token HTTP/1.1\r\nHost: x\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 50\r\n\r\nusername=",
    )
    .await;
    let reply = raw.reply().await.unwrap();
    assert_eq!(reply.status, 408);
    assert!(reply.body.contains("body-timeout"), "{}", reply.body);
    assert_eq!(raw.rest().await, "");
}

#[tokio::test]
async fn idle_connections_are_closed_and_active_ones_kept() {
    // The connection checks the clock twice per header timeout.
    let app = TestApp::builder()
        .set("STAUNCH_HEADER_TIMEOUT", "2s")
        .set("STAUNCH_IDLE_TIMEOUT", "60s")
        .start()
        .await;
    let mut raw = used(&app).await;
    for _ in 0..4 {
        app.clock.advance(Duration::from_secs(59));
        raw.write(ALIVE).await;
        assert_eq!(raw.reply().await.unwrap().status, 200);
    }
    app.clock.advance(Duration::from_secs(60));
    assert_eq!(raw.rest().await, "");
}
