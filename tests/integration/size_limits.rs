//! Limits on the size of heads and bodies.

use crate::support::{ALIVE, PASSWORD, SOON, TestApp, until};
use hyper::Method;
use serde_json::json;

// Reliability: A5.
#[tokio::test]
async fn a_content_length_over_16_kib_is_refused_before_the_body_is_read() {
    let app = TestApp::start().await;
    let mut raw = app.raw().await;
    raw.write(
        "POST /api/v1/auth/register HTTP/1.1\r\nHost: x\r\n\
         Content-Type: application/json\r\nContent-Length: 16385\r\n\r\n{",
    )
    .await;
    let reply = raw.reply().await.unwrap();
    assert_eq!(reply.status, 413);
    assert!(reply.body.contains("body-too-large"), "{}", reply.body);
    assert_eq!(raw.rest().await, "", "the connection is closed");

    let register = "/api/v1/auth/register";
    let json = Some("application/json");
    let body = format!("{{}}{}", " ".repeat(16 * 1024 - 2));
    let fits = app.anonymous();
    let fits = fits.send(Method::POST, register, json, body.clone()).await;
    fits.assert_status(422);
    let over = app.anonymous();
    let over = over.send(Method::POST, register, json, body + " ").await;
    over.assert_problem(413, "body-too-large");
}

// Reliability: A5.
#[tokio::test]
async fn an_endless_chunked_body_is_refused_at_the_limit() {
    let app = TestApp::start().await;
    let mut raw = app.raw().await;
    raw.write(
        "POST /api/v1/auth/register HTTP/1.1\r\nHost: x\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    let chunk = format!("400\r\n{}\r\n", " ".repeat(1024));
    for _ in 0..17 {
        raw.write(&chunk).await;
    }
    assert_eq!(raw.reply().await.unwrap().status, 413);

    let mut raw = app.raw().await;
    let body = json!({"email": "a@example.com", "username": "ada", "password": PASSWORD});
    let body = body.to_string();
    let (one, two) = body.split_at(10);
    raw.write(format!(
        "POST /api/v1/auth/register HTTP/1.1\r\nHost: x\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{one}\r\n{:x};ext=1\r\n{two}\r\n0\r\nTrailer: x\r\n\r\n{ALIVE}",
        one.len(),
        two.len()
    ))
    .await;
    assert_eq!(raw.reply().await.unwrap().status, 201, "in pieces");
    assert_eq!(raw.reply().await.unwrap().status, 200, "the next request");
}

// Reliability: A4.
#[tokio::test]
async fn large_heads_are_431() {
    let app = TestApp::start().await;
    let fields: String = (0..1_000).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "a".repeat(300_000));
    let path = format!("/{}", "p".repeat(70_000));
    for head in [
        format!("GET /health/liveness HTTP/1.1\r\nHost: x\r\n{fields}\r\n"),
        format!("GET /health/liveness HTTP/1.1\r\nHost: x\r\n{long}\r\n"),
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ] {
        let mut raw = app.raw().await;
        raw.write(head).await;
        let rest = raw.rest().await;
        let status = rest.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(["", "414", "431"].contains(&status.as_str()), "{rest}");
    }
    app.anonymous().get("/health/liveness").await.assert_status(200);
}

// Case F22 of the field list: neither the metrics nor the log showed them.
// Reliability: A4.
#[tokio::test]
async fn responses_sent_by_hyper_itself_are_counted_by_kind() {
    let app = TestApp::builder().system_clock().set("STAUNCH_HEADER_TIMEOUT", "3s").start().await;
    let many = "x: 1\r\n".repeat(100);
    for (kind, written, status) in [
        ("bad_head", "garbage\r\n\r\n".to_owned(), Some(400)),
        ("head_too_large", format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"), Some(431)),
        ("timeout", "GET / HTTP/1.1\r\nHost:".to_owned(), None),
    ] {
        let mut raw = app.raw().await;
        raw.write(written).await;
        assert_eq!(raw.reply().await.map(|reply| reply.status), status, "{kind}");
        let series = format!("staunch_http_connection_errors_total{{kind=\"{kind}\"}}");
        until(kind, SOON, async || app.metric(&series).await == 1.0).await;
    }
}
