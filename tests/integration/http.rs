//! HTTP on the wire: versions, pipelining, keep-alive, `Expect` and request ids.

use crate::support::{ALIVE, Client, PASSWORD, RawReply, TestApp, form, raw_login};
use hyper::{Method, Version};
use serde_json::json;

#[tokio::test]
async fn http2_with_prior_knowledge_serves_the_same_api() {
    let app = TestApp::start().await;
    app.register("ada").await;
    let client = Client::http2(app.address);
    let reply = client.get("/health/liveness").await;
    assert_eq!(reply.version, Version::HTTP_2);
    assert_eq!(reply.json(), json!({"status": "alive"}));
    let tokens = client.log_in("ada").await;
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (client, access) = (client.clone(), tokens.access.clone());
            tokio::spawn(async move { client.me(&access).await.status })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    let next = client.refresh(&tokens.refresh).await.tokens();
    client.logout(&next.refresh).await.assert_status(204);
    client.get("/nowhere").await.assert_problem(404, "not-found");
    let large = " ".repeat(20_000);
    let json = Some("application/json");
    let reply = client.send(Method::POST, "/api/v1/auth/logout", json, large).await;
    reply.assert_problem(413, "body-too-large");
}

// Reliability: A7.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = TestApp::start().await;
    app.register("ada").await;
    let mut raw = app.raw().await;
    let nowhere = "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n";
    let all = [raw_login("ada").as_str(), nowhere, ALIVE, &raw_login("nobody"), ALIVE].concat();
    raw.write(all).await;
    for status in [200, 404, 200, 401, 200] {
        assert_eq!(raw.reply().await.unwrap().status, status);
    }
}

// Reliability: A7.
#[tokio::test]
async fn a_client_that_expects_100_continue_receives_it() {
    let app = TestApp::start().await;
    app.register("ada").await;
    let mut raw = app.raw().await;
    let body = form(&[("username", "ada"), ("password", PASSWORD)]);
    let head = |expect: &str, length: usize| {
        format!(
            "POST /api/v1/auth/token HTTP/1.1\r\nHost: x\r\n{expect}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    raw.write(head("Expect: 100-continue\r\n", body.len())).await;
    let go: RawReply = raw.reply().await.unwrap();
    assert_eq!(go.status, 100);
    raw.write(&body).await;
    assert_eq!(raw.reply().await.unwrap().status, 200);
    // Refused because of its length: the server does not ask for the body.
    raw.write(head("Expect: 100-continue\r\n", 100_000)).await;
    assert_eq!(raw.reply().await.unwrap().status, 413);
}

#[tokio::test]
async fn connections_stay_open_or_close_as_the_client_asks() {
    let app = TestApp::start().await;
    let mut raw = app.raw().await;
    raw.write("GET /health/liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(raw.reply().await.unwrap().status, 200);
    assert_eq!(raw.rest().await, "");
    let mut raw = app.raw().await;
    raw.write("GET /health/liveness HTTP/1.0\r\n\r\n").await;
    assert!(raw.rest().await.starts_with("HTTP/1.0 200 OK"));
}

// Reliability: A15.
#[tokio::test]
async fn a_harmless_request_id_is_kept() {
    let app = TestApp::start().await;
    let id = async |sent: &str| {
        let client = app.anonymous().with("x-request-id", sent);
        let reply = client.get("/health/liveness").await;
        reply.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(id("Trace-1.2_x").await, "Trace-1.2_x");
    assert_eq!(id(&"a".repeat(128)).await, "a".repeat(128));
    for bad in ["a b", "<script>", "a\tb", "\"", &"a".repeat(129), &"a".repeat(5_000)] {
        let new = id(bad).await;
        assert!(new != bad && new.len() == 32, "{new}");
    }
    let one = app.anonymous().get("/nowhere").await;
    let other = app.anonymous().get("/nowhere").await;
    assert_ne!(one.header("x-request-id"), other.header("x-request-id"));
}
