//! Limits on connections, eviction, and clients that do not read.

use crate::support::{ALIVE, Authority, Client, PASSWORD, Raw, SOON, TestApp, form, until};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

async fn served(raw: &mut Raw) {
    raw.write(ALIVE).await;
    assert_eq!(raw.reply().await.expect("an answer").status, 200);
}

/// A server with that many places for connections.
async fn places(count: usize) -> TestApp {
    TestApp::builder()
        .set("STAUNCH_CONNECTIONS_MAX", count.to_string())
        .set("STAUNCH_METRICS_LISTEN", "127.0.0.1:0")
        .start()
        .await
}

async fn evicted(app: &TestApp, count: usize) {
    let apart = Client::new(app.metrics_address.unwrap());
    let line = format!("\nstaunch_http_connections_evicted_total {count}\n");
    until("it is counted", SOON, async || apart.get("/metrics").await.text().contains(&line)).await;
}

// Reliability: A9.
#[tokio::test]
async fn the_connection_idle_longest_is_evicted_first() {
    let app = places(4).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut raw = app.raw().await;
        served(&mut raw).await;
        held.push(raw);
        app.clock.advance(Duration::from_millis(10));
    }
    // The first one was opened first, and the second one has been idle longest.
    served(&mut held[0]).await;
    app.clock.advance(Duration::from_millis(10));
    for oldest in [1, 2] {
        let mut newcomer = app.raw().await;
        served(&mut newcomer).await;
        assert_eq!(held[oldest].rest().await, "", "{oldest} left");
        app.clock.advance(Duration::from_millis(10));
        held.push(newcomer);
    }
    evicted(&app, 2).await;
    for kept in [0, 3, 4, 5] {
        served(&mut held[kept]).await;
    }
}

// Reliability: A9.
#[tokio::test]
async fn idle_http2_and_silent_connections_are_evicted() {
    let app = places(2).await;
    let multiplexed = Client::http2(app.address);
    multiplexed.get("/health/liveness").await.assert_status(200);
    app.clock.advance(Duration::from_millis(10));
    let mut silent = app.raw().await;
    let mut first = app.raw().await;
    served(&mut first).await;
    evicted(&app, 1).await;
    app.clock.advance(Duration::from_millis(10));
    let mut second = app.raw().await;
    served(&mut second).await;
    assert_eq!(silent.rest().await, "");
    evicted(&app, 2).await;
    // The client received GOAWAY, and reconnects.
    multiplexed.get("/health/liveness").await.assert_status(200);
    assert_eq!(first.rest().await, "");
}

// Reliability: A9.
#[tokio::test]
async fn a_connection_with_an_unfinished_request_is_not_evicted() {
    let app = places(2).await;
    app.register("ada").await;
    let body = form(&[("username", "ada"), ("password", PASSWORD)]);
    let head = format!(
        "POST /api/v1/auth/token HTTP/1.1\r\nHost: x\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut sends_a_head = app.raw().await;
    served(&mut sends_a_head).await;
    sends_a_head.write("GET /health/").await;
    let mut sends_a_body = app.raw().await;
    sends_a_body.write(&head).await;
    let mut newcomer = app.raw().await;
    newcomer.write(ALIVE).await;
    // Both connections are older, and neither is evicted.
    let waited = timeout(Duration::from_millis(300), newcomer.reply()).await;
    assert!(waited.is_err(), "{waited:?}");
    sends_a_body.write(&body).await;
    assert_eq!(sends_a_body.reply().await.expect("an answer").status, 200);
    // This connection is idle now.
    assert_eq!(newcomer.reply().await.expect("an answer").status, 200);
    assert_eq!(sends_a_body.rest().await, "");
    sends_a_head.write("liveness HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(sends_a_head.reply().await.expect("an answer").status, 200);
}

// Reliability: A9.
#[tokio::test]
async fn a_request_during_eviction_is_answered_or_never_started() {
    let app = places(1).await;
    let mut held = app.raw().await;
    served(&mut held).await;
    let mut answered = 0;
    for _ in 0..200 {
        let address = app.address;
        let newcomer = tokio::spawn(async move {
            let mut newcomer = Raw::connect(address).await;
            served(&mut newcomer).await;
            newcomer
        });
        held.write(ALIVE).await;
        match held.reply().await {
            Some(reply) => {
                assert_eq!(reply.status, 200);
                answered += 1;
            }
            // A client may send the request again (RFC 9110 §9.2.2).
            None => assert_eq!(held.rest().await, "", "a partial response"),
        }
        held = newcomer.await.expect("the newcomer is served");
    }
    assert!(answered > 0, "no request arrived in time");
}

// Reliability: A9.
#[tokio::test]
async fn an_http2_request_during_eviction_is_answered() {
    let app = places(1).await;
    for round in 0..100 {
        let client = Client::http2(app.address);
        client.get("/health/liveness").await.assert_status(200);
        let mut newcomer = app.raw().await;
        newcomer.write(ALIVE).await;
        // From before the eviction check until after GOAWAY, when the client has received it and
        // reconnects.
        tokio::time::sleep(Duration::from_micros(200 * round)).await;
        let reply = client.get("/health/liveness");
        let (reply, newcomer) = tokio::join!(reply, newcomer.reply());
        reply.assert_status(200);
        assert_eq!(newcomer.expect("an answer").status, 200);
    }
}

/// A connection whose client has a small receive buffer.
async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(address).await.unwrap()
}

/// Pipelines requests and reads a byte each `pause`, or nothing. Returns when the server closes the
/// connection.
async fn reads_slowly<S>(stream: S, pause: Option<Duration>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let reading = tokio::spawn(async move {
        let Some(pause) = pause else {
            return std::future::pending().await;
        };
        loop {
            reader.read_u8().await.ok();
            tokio::time::sleep(pause).await;
        }
    });
    let requests = "GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let writing = async {
        while writer.write_all(requests.as_bytes()).await.is_ok() && writer.flush().await.is_ok() {}
    };
    timeout(SOON, writing).await.expect("it is cut");
    reading.abort();
}

const SLOWLY: Option<Duration> = Some(Duration::from_millis(20));

// Reliability: A3.
#[tokio::test]
async fn a_response_read_byte_by_byte_or_not_at_all_is_abandoned() {
    let app = TestApp::builder().system_clock().set("STAUNCH_WRITE_TIMEOUT", "500ms").start().await;
    let other = app.anonymous();
    tokio::join!(
        reads_slowly(narrow(app.address).await, None),
        reads_slowly(narrow(app.address).await, SLOWLY),
        async {
            other.get("/health/liveness").await.assert_status(200);
        },
    );
    other.get("/health/liveness").await.assert_status(200);
    until("the connections close", SOON, async || {
        app.metric("staunch_http_connections").await <= 2.0
    })
    .await;
}

// Reliability: A3.
#[tokio::test]
async fn an_unread_response_over_tls_is_abandoned() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (chain, key) = authority.issue(&["localhost"], 2100).write(folder.path());
    let app = TestApp::builder()
        .system_clock()
        .set("STAUNCH_WRITE_TIMEOUT", "500ms")
        .set("STAUNCH_METRICS_LISTEN", "127.0.0.1:0")
        .set("STAUNCH_TLS_CERT", chain.display().to_string())
        .set("STAUNCH_TLS_KEY", key.display().to_string())
        .start()
        .await;
    let connect = async || authority.over(narrow(app.address).await, |_| {}).await.unwrap();
    tokio::join!(reads_slowly(connect().await, None), reads_slowly(connect().await, SLOWLY));
    // The connection of the metrics listener.
    until("the connections close", SOON, async || {
        app.metric("staunch_http_connections").await <= 1.0
    })
    .await;
}

// Reliability: A9.
#[tokio::test]
async fn connections_are_capped_per_address() {
    let app = TestApp::builder().set("STAUNCH_CONNECTIONS_PER_ADDRESS", "3").start().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut raw = app.raw().await;
        raw.write(ALIVE).await;
        assert_eq!(raw.reply().await.unwrap().status, 200);
        held.push(raw);
    }
    let mut over = app.raw().await;
    over.write(ALIVE).await;
    assert_eq!(over.rest().await, "", "closed unanswered");
    held.pop();
    until("a connection is free again", SOON, async || {
        let mut raw = app.raw().await;
        raw.write(ALIVE).await;
        raw.reply().await.is_some()
    })
    .await;
}
