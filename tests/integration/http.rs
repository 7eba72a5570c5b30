//! HTTP on the wire: routes, methods, sizes, timeouts, and bytes that no honest client sends.

use crate::support::{
    ALIVE, Builder, Client, PASSWORD, Raw, RawReply, Reply, SOON, TestApp, contract, form, until,
};
use hyper::{Method, Version};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Timeouts short enough for a test, in real time.
fn quick() -> Builder {
    TestApp::builder()
        .system_clock()
        .set("STAUNCH_HEADER_TIMEOUT", "300ms")
        .set("STAUNCH_BODY_TIMEOUT", "300ms")
        .set("STAUNCH_IDLE_TIMEOUT", "600ms")
}

fn post(path: &str, media_type: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn login(name: &str) -> String {
    post(
        "/api/v1/auth/token",
        "application/x-www-form-urlencoded",
        &form(&[("username", name), ("password", PASSWORD)]),
    )
}

// Reliability: A14.
#[tokio::test]
async fn only_exact_paths_are_routes_and_others_are_404() {
    let app = TestApp::start().await;
    for path in [
        "/",
        "/nowhere",
        "/health",
        "/health/liveness/",
        "/health//liveness",
        "//health/liveness",
        "/health/%6civeness",
        "/health/liveness%2F",
        "/health/../metrics",
        "/HEALTH/liveness",
        "/api/v1/auth/token;x=1",
        "/api/v1/auth",
    ] {
        let reply = app.anonymous().get(path).await;
        reply.assert_problem(404, "not-found");
    }
    let query = app.anonymous().get("/health/liveness?x=1").await;
    query.assert_status(200);
}

// Reliability: A14.
#[tokio::test]
async fn other_methods_are_405_with_allow() {
    let app = TestApp::start().await;
    let mut documented = BTreeMap::<_, BTreeSet<String>>::new();
    for (method, path) in contract::operations() {
        let methods = documented.entry(path).or_insert_with(|| ["OPTIONS".to_owned()].into());
        methods.extend((method == "GET").then(|| "HEAD".to_owned()));
        methods.insert(method);
    }
    for (path, methods) in documented {
        let allow = |reply: &Reply| -> BTreeSet<String> {
            reply.header("allow").unwrap().split(", ").map(str::to_owned).collect()
        };
        let path = &path.replace("{id}", "3f2b8c1e-7a4d-4e9b-9c55-0123456789ab");
        for method in ["GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "TRACE", "BREW"] {
            if methods.contains(method) {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let reply = app.anonymous().send(method.clone(), path, None, "").await;
            if method == Method::HEAD {
                reply.assert_status(405);
            } else {
                reply.assert_problem(405, "method-not-allowed");
            }
            assert_eq!(allow(&reply), methods, "{path}");
        }
        let options = app.anonymous();
        let options = options.send(Method::OPTIONS, path, None, "").await;
        options.assert_status(204);
        assert_eq!(allow(&options), methods, "{path}");
    }
    let lost = app.anonymous();
    let lost = lost.send(Method::OPTIONS, "/nowhere", None, "").await;
    lost.assert_status(404);
}

// Reliability: A14.
#[tokio::test]
async fn head_is_get_without_the_body() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    for path in ["/health/liveness", "/health/readiness", "/nowhere"] {
        let get = client.get(path).await;
        let head = client.send(Method::HEAD, path, None, "").await;
        assert_eq!(head.status, get.status);
        assert_eq!(head.text(), "");
        for name in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
    }
    let post = client.send(Method::HEAD, "/api/v1/auth/token", None, "").await;
    post.assert_status(405);
    // No bytes of a body remain on the connection.
    let mut raw = app.raw().await;
    let last = "GET /health/liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    raw.write(format!("HEAD /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n{last}")).await;
    let all = raw.rest().await;
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 2, "{all}");
    assert_eq!(all.matches(r#"{"status":"alive"}"#).count(), 1, "{all}");
}

// Reliability: A14.
#[tokio::test]
async fn options_asterisk_lists_all_methods() {
    let app = TestApp::start().await;
    let mut raw = app.raw().await;
    raw.write("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let reply = raw.reply().await.unwrap();
    assert_eq!(reply.status, 204);
    let head = reply.head.to_lowercase();
    assert!(head.contains("allow: post, get, head, delete, options"), "{head}");
}

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
    let all = [login("ada").as_str(), nowhere, ALIVE, &login("nobody"), ALIVE].concat();
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

/// Checks that the connection is closed, with at most an error response before.
async fn cut(raw: &mut Raw, what: &str) {
    let rest = raw.rest().await;
    let status = rest.split(' ').nth(1).unwrap_or_default();
    assert!(["", "400", "408", "431"].contains(&status), "{what}: {rest}");
    assert_eq!(rest.matches("HTTP/1.1").count(), usize::from(!status.is_empty()), "{rest}");
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

// Reliability: A6.
#[tokio::test]
async fn a_body_is_never_parsed_as_a_second_request() {
    let app = TestApp::start().await;
    let smuggled = "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = smuggled.len();
    let json = "Host: x\r\nContent-Type: application/json\r\n";
    let start = format!("POST /api/v1/auth/logout HTTP/1.1\r\n{json}");
    for (what, request) in [
        (
            "length and chunked",
            format!(
                "{start}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        (
            "chunked and length",
            format!(
                "{start}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        (
            "two lengths",
            format!("{start}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{smuggled}"),
        ),
        ("two lengths in one", format!("{start}Content-Length: 0, {length}\r\n\r\n{smuggled}")),
        ("a signed length", format!("{start}Content-Length: +0\r\n\r\n{smuggled}")),
        (
            "an unknown coding last",
            format!("{start}Transfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a coding that is almost chunked",
            format!("{start}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        ("a space before the colon", format!("{start}Content-Length : 0\r\n\r\n{smuggled}")),
        ("a folded field", format!("{start}X: a\r\n Content-Length: 0\r\n\r\n{smuggled}")),
        ("a bare CR in a field", format!("{start}X: a\rContent-Length: 0\r\n\r\n{smuggled}")),
        ("a NUL in a field", format!("{start}X: a\0b\r\nContent-Length: 0\r\n\r\n{smuggled}")),
        (
            "a chunk size that overflows",
            format!("{start}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n{smuggled}"),
        ),
        (
            "a signed chunk size",
            format!("{start}Transfer-Encoding: chunked\r\n\r\n-0\r\n\r\n{smuggled}"),
        ),
    ] {
        let mut raw = app.raw().await;
        raw.write(&request).await;
        let rest = raw.rest().await;
        assert!(!rest.contains("HTTP/1.1 404"), "{what}: {rest}");
        assert!(!rest.contains("HTTP/1.1 2"), "{what}: {rest}");
    }
}

// Reliability: A6.
#[tokio::test]
async fn an_absolute_target_or_another_form_reaches_no_extra_route() {
    let app = TestApp::start().await;
    // The server has no virtual hosts, so Host cannot select another route.
    for head in [
        "GET http://other/health/liveness HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://other/metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut raw = app.raw().await;
        raw.write(head).await;
        assert_eq!(raw.reply().await.unwrap().status, 200, "{head}");
    }
    for head in [
        "GET health/liveness HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut raw = app.raw().await;
        raw.write(head).await;
        let status = raw.reply().await.map(|reply| reply.status);
        assert!(status.is_none_or(|status| status >= 400), "{head}: {status:?}");
    }
}

#[tokio::test]
async fn garbage_closes_only_its_own_connection() {
    let app = TestApp::start().await;
    let mut kept = app.raw().await;
    kept.write(ALIVE).await;
    assert_eq!(kept.reply().await.unwrap().status, 200);
    for garbage in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".as_slice(),
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot frames at all, not even a little",
    ] {
        let mut raw = app.raw().await;
        raw.write(garbage).await;
        // Bytes that look like the start of a request could still become one, so end them.
        if garbage.starts_with(b"\x16") || garbage.starts_with(b"\0") {
            raw.write("\r\n\r\n").await;
        }
        let rest = raw.rest().await;
        assert!(!rest.contains("HTTP/1.1 2"), "{rest}");
    }
    let mut raw = app.raw().await;
    raw.write("GET /nowhere\r\n\r\n").await;
    cut(&mut raw, "HTTP/0.9").await;
    kept.write(ALIVE).await;
    assert_eq!(kept.reply().await.unwrap().status, 200);
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

// Reliability: F11.
#[tokio::test]
async fn metrics_can_have_a_separate_listener() {
    let app = TestApp::builder().set("STAUNCH_METRICS_LISTEN", "127.0.0.1:0").start().await;
    let mut raw = app.raw().await;
    raw.write("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(raw.reply().await.unwrap().status, 404);
    let apart = Client::new(app.metrics_address.unwrap());
    let page = apart.get("/metrics").await;
    page.assert_status(200);
    assert!(page.text().contains("staunch_build_info"));
    apart.get("/health/readiness").await.assert_status(200);
    // Not with `Client`, which checks that this path is a route.
    let mut raw = Raw::connect(app.metrics_address.unwrap()).await;
    raw.write(login("ada")).await;
    assert_eq!(raw.reply().await.unwrap().status, 404);
}

// Reliability: F11.
#[tokio::test]
async fn health_can_be_removed_from_the_main_listener() {
    let app = TestApp::builder()
        .set("STAUNCH_METRICS_LISTEN", "127.0.0.1:0")
        .set("STAUNCH_PUBLIC_HEALTH", "off")
        .start()
        .await;
    for path in ["/health/liveness", "/health/readiness", "/metrics"] {
        // Not with `Client`, which checks that these paths are routes.
        let mut raw = app.raw().await;
        raw.write(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!(raw.reply().await.unwrap().status, 404, "{path}");
        Client::new(app.metrics_address.unwrap()).get(path).await.assert_status(200);
    }
    app.anonymous().get("/openapi.json").await.assert_status(200);
}

// Reliability: D2.
#[tokio::test]
async fn requests_in_progress_are_answered_during_shutdown() {
    let mut app = TestApp::builder()
        .set("STAUNCH_SHUTDOWN_GRACE", "30s")
        // One connection per login, so that no login waits for a connection.
        .set("STAUNCH_DB_POOL_MIN", "4")
        .start()
        .await;
    app.register("ada").await;
    let mut idle = app.raw().await;
    idle.write(ALIVE).await;
    idle.reply().await.unwrap();
    // The logins have a place in the engine and wait for the database.
    let db = app.db().await;
    db.batch_execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let client = app.anonymous();
    let under_way: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.login("ada", PASSWORD).await.status })
        })
        .collect();
    app.database.until_blocked(3).await;
    app.begin_stop();
    until("the port is closed", SOON, async || {
        tokio::net::TcpStream::connect(app.address).await.is_err()
    })
    .await;
    db.batch_execute("COMMIT").await.unwrap();
    for login in under_way {
        assert_eq!(login.await.unwrap(), 200);
    }
    assert_eq!(idle.rest().await, "", "an idle connection is closed");
}

// Reliability: D2.
#[tokio::test]
async fn requests_that_outlast_the_grace_period_get_503() {
    let mut app = TestApp::builder()
        // Far more than the server can hash within the grace period.
        .set("STAUNCH_BCRYPT_COST", "14")
        .set("STAUNCH_SHUTDOWN_GRACE", "2s")
        .start()
        .await;
    let logins: Vec<_> = (0..40)
        .map(|n| {
            let client = app.anonymous();
            tokio::spawn(async move { client.login(&format!("nobody-{n}"), PASSWORD).await })
        })
        .collect();
    until("all have read their account", SOON, async || {
        app.queries("credentials_by_username").await == 40.0
    })
    .await;
    app.begin_stop();
    let mut refused = 0;
    for login in logins {
        let reply = login.await.expect("an answer");
        if reply.status != 401 {
            reply.assert_status(503);
            refused += 1;
        }
    }
    assert!(refused > 0, "{refused}");
}
