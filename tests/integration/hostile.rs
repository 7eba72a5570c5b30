//! Requests on the wire that no honest client sends: framing, hosts, media types, names.

use crate::support::{Client, PASSWORD, Raw, TestApp};
use hyper::Method;

const LOGOUT: &str = "/api/v1/auth/logout";
/// An answer to it (404) shows that the server parsed it as a request.
const SMUGGLED: &str = "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n";

/// Reads to the end of the connection: at most one answer, a 400, and then the close.
async fn assert_refused(raw: &mut Raw, what: &str) {
    let rest = raw.rest().await;
    let good =
        rest.is_empty() || rest.starts_with("HTTP/1.1 400 ") || rest.starts_with("HTTP/1.0 400 ");
    assert!(good && rest.matches("HTTP/1.").count() <= 1, "{what}: {rest}");
}

// Reliability: A6.
#[tokio::test]
async fn ambiguous_body_framing_is_rejected() {
    let app = TestApp::start().await;
    let start = format!("POST {LOGOUT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
    let chunked = format!("{start}Transfer-Encoding: chunked\r\n\r\n");
    let fields = |fields: &str| format!("{start}{fields}\r\n\r\n{SMUGGLED}");
    let chunks = |body: &str| format!("{chunked}{body}{SMUGGLED}");
    for (what, request) in [
        ("chunked twice", fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")),
        ("chunked twice in one field", fields("Transfer-Encoding: chunked, chunked")),
        ("no coding at all", fields("Transfer-Encoding: identity")),
        ("an empty coding", fields("Transfer-Encoding:")),
        ("a quoted coding", fields("Transfer-Encoding: \"chunked\"")),
        ("a coding after a control", fields("Transfer-Encoding: \u{b}chunked")),
        ("a coding with a space before the colon", fields("Transfer-Encoding : chunked")),
        ("a negative length", fields("Content-Length: -1")),
        ("a hexadecimal length", fields("Content-Length: 0x0")),
        ("a length with a fraction", fields("Content-Length: 0.0")),
        ("a length that overflows", fields("Content-Length: 18446744073709551616")),
        ("an empty length", fields("Content-Length:")),
        ("a field without a name", fields(": x\r\nContent-Length: 0")),
        ("a field without a colon", fields("Content-Length 0")),
        ("a bare LF in a chunk size", chunks("0\n\r\n")),
        ("a bare LF after a chunk", chunks("2\r\n{}\n0\r\n\r\n")),
        ("a bare CR after a chunk", chunks("2\r\n{}\r0\r\n\r\n")),
        ("a bare LF in an extension", chunks("0;a=b\nc\r\n\r\n")),
        ("a chunk longer than its size", chunks("2\r\n{}x\r\n0\r\n\r\n")),
        ("a prefixed chunk size", chunks("0x0\r\n\r\n")),
        ("an empty chunk size", chunks("\r\n\r\n")),
        ("chunks in HTTP/1.0", chunks("0\r\n\r\n").replace("HTTP/1.1\r\nHost", "HTTP/1.0\r\nHost")),
        (
            "a folded first line",
            format!("POST {LOGOUT} HTTP/1.1\r\n Host: x\r\nContent-Length: 0\r\n\r\n{SMUGGLED}"),
        ),
    ] {
        let mut raw = app.raw().await;
        raw.write(&request).await;
        assert_refused(&mut raw, what).await;
    }
}

// Reliability: A6.
#[tokio::test]
async fn an_unread_body_is_skipped_completely() {
    let app = TestApp::start().await;
    let length = SMUGGLED.len();
    for (what, request) in [
        (
            "of a GET",
            format!(
                "GET /health/liveness HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"
            ),
        ),
        (
            "of a 404",
            format!(
                "POST /other HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"
            ),
        ),
        (
            "of a 415",
            format!(
                "POST {LOGOUT} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"
            ),
        ),
        (
            "in chunks",
            format!(
                "GET /health/liveness HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"
            ),
        ),
        // hyper accepts a bare LF as a line end (RFC 9112 §2.2 allows it), also in this head.
        (
            "after bare LFs",
            format!("POST {LOGOUT} HTTP/1.1\nHost: x\nContent-Length: {length}\n\n{SMUGGLED}"),
        ),
    ] {
        let mut raw = app.raw().await;
        raw.write(&request).await;
        raw.write("GET /health/liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let rest = raw.rest().await;
        // If the connection was kept, the second answer belongs to the request after the body.
        let statuses: Vec<&str> =
            rest.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert!([1, 2].contains(&statuses.len()), "{what}: {rest}");
        assert!(statuses.get(1).is_none_or(|status| *status == "200"), "{what}: {rest}");
    }
}

// Case F21 of the field list: hyper accepts such a head, uses the coding and hides the length.
// Reliability: A6.
#[tokio::test]
async fn content_length_with_transfer_encoding_is_400_and_closes_the_connection() {
    let app = TestApp::start().await;
    let (length, coding) = ("Content-Length: 4\r\n", "transfer-encoding: chunked\r\n");
    for fields in [format!("{length}{coding}"), format!("{coding}{length}")] {
        for line in ["GET /health/liveness", &format!("POST {LOGOUT}")] {
            // In two pieces, on a connection that has already served a request with a length.
            let mut raw = app.raw().await;
            raw.write(format!("POST /nowhere HTTP/1.1\r\nHost: x\r\n{length}\r\n1234")).await;
            assert_eq!(raw.reply().await.unwrap().status, 404);
            let head = format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n0\r\n\r\n{SMUGGLED}");
            let (first, second) = head.split_at(line.len() + 35);
            raw.write(first).await;
            tokio::task::yield_now().await;
            raw.write(second).await;
            let reply = raw.reply().await.unwrap();
            assert_eq!(reply.status, 400, "{line}, {fields}: {}", reply.body);
            assert!(reply.body.contains("urn:staunch:problem:ambiguous"), "{}", reply.body);
            assert_eq!(raw.rest().await, "", "{fields}: closed");
        }
    }
}

// Reliability: A6.
#[tokio::test]
async fn a_chunked_request_after_requests_with_lengths_is_served() {
    let app = TestApp::start().await;
    let mut raw = app.raw().await;
    let chunked =
        "GET /health/liveness HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let with_length = "GET /health/liveness HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab";
    for request in [chunked, with_length, with_length, chunked, with_length, chunked] {
        raw.write(request).await;
        assert_eq!(raw.reply().await.unwrap().status, 200);
    }
    // Pipelined: the length arrives before the chunked head is read, and belongs to the other one.
    raw.write(format!("{with_length}{chunked}")).await;
    assert_eq!(raw.reply().await.unwrap().status, 200);
    assert_eq!(raw.reply().await.unwrap().status, 200);
}

// Reliability: A6.
#[tokio::test]
async fn exactly_one_valid_host_is_required() {
    let app = TestApp::start().await;
    for hosts in
        ["", "Host: x\r\nHost: x\r\n", "Host: x\r\nHost: y\r\n", "Host: a b\r\n", "Host: x/y\r\n"]
    {
        let mut raw = app.raw().await;
        raw.write(format!("GET /health/liveness HTTP/1.1\r\n{hosts}\r\n{SMUGGLED}")).await;
        let reply = raw.reply().await.unwrap();
        assert_eq!(reply.status, 400, "{hosts:?}");
        assert!(reply.body.contains("urn:staunch:problem:ambiguous"), "{hosts:?}: {}", reply.body);
        assert_eq!(raw.rest().await, "", "{hosts:?}: closed");
    }
}

// Reliability: A13.
#[tokio::test]
async fn deep_or_ambiguous_json_is_400_and_the_server_survives() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    // The deepest nesting that fits in a body of 16 KiB.
    let deep = "[".repeat(16_000);
    let many: Vec<String> = (0..1_000).map(|n| format!("\"{n}\":1")).collect();
    for path in ["/api/v1/auth/register", "/api/v1/auth/refresh", LOGOUT] {
        for body in [
            deep.as_str(),
            &format!(
                r#"{{"refresh_token":{}"#,
                deep.replace('[', r#"{"a":"#).get(..16_000).unwrap()
            ),
            r#"{"refresh_token":"x","refresh_token":"y"}"#,
            r#"{"refresh_token":1e999}"#,
            r#"{"refresh_token":"\ud800"}"#,
            "\u{feff}{}",
            r#"{"refresh_token":"x"} {}"#,
            &format!("{{{}}}", many.join(",")),
        ] {
            let json = Some("application/json");
            let reply = client.send(Method::POST, path, json, body.to_owned()).await;
            reply.assert_problem(400, "malformed");
        }
    }
    client.get("/health/liveness").await.assert_status(200);
}

// Reliability: A14.
#[tokio::test]
async fn each_endpoint_accepts_one_media_type() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    let send = async |client: &Client, media_type: Option<&str>| {
        client.send(Method::POST, LOGOUT, media_type, "{}").await
    };
    for good in ["application/json", "Application/JSON; charset=\"UTF-8\"", "application/json;x=y"]
    {
        send(&client, Some(good)).await.assert_problem(422, "invalid-fields");
    }
    for bad in [
        None,
        Some(""),
        Some("application"),
        Some("text/json"),
        Some("application/json, text/plain"),
        Some("application/json; charset=latin1"),
        Some("application/json; charset=utf-8; charset=utf-16"),
        Some("application/x-www-form-urlencoded"),
    ] {
        send(&client, bad).await.assert_problem(415, "unsupported-media-type");
    }
    for (name, value) in [("content-type", "text/plain"), ("content-encoding", "gzip")] {
        let reply = send(&client.with(name, value), Some("application/json")).await;
        reply.assert_problem(415, "unsupported-media-type");
    }
}

// Reliability: A15.
#[tokio::test]
async fn long_and_unprintable_ids_and_agents_are_harmless_in_both_protocols() {
    let app = TestApp::start().await;
    app.register("ada").await;
    let long = "a".repeat(5_000);
    for client in [app.anonymous(), Client::http2(app.address)] {
        let client = client.with("x-request-id", &long).with("user-agent", &long);
        let reply = client.login("ada", PASSWORD).await;
        assert_eq!(reply.header("x-request-id").unwrap().len(), 32, "replaced");
        let sessions = client.sessions(&reply.tokens().access).await.json();
        assert_eq!(sessions[0]["user_agent"], "a".repeat(256), "cut");
    }
    let alive = |field: &[u8]| {
        let mut request =
            b"GET /health/liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".to_vec();
        request.extend_from_slice(field);
        request.extend_from_slice(b"\r\n\r\n");
        request
    };
    // Bytes that are invalid in a field (RFC 9110 §5.5): the request is rejected.
    for field in
        [b"X-Request-Id: a\x1b[31mb".as_slice(), b"User-Agent: a\x1b]0;b\x07", b"User-Agent: a\0b"]
    {
        let mut raw = app.raw().await;
        raw.write(alive(field)).await;
        assert_refused(&mut raw, &String::from_utf8_lossy(field)).await;
    }
    // Valid in a field, but must not reach a log line unescaped.
    for field in
        [b"X-Request-Id: a\tb".as_slice(), b"X-Request-Id: \xc2\x9b31m", b"X-Request-Id: \"}"]
    {
        let mut raw = app.raw().await;
        raw.write(alive(field)).await;
        let reply = raw.reply().await.unwrap();
        assert_eq!(reply.status, 200);
        let head = reply.head.to_lowercase();
        let id = head.split("x-request-id: ").nth(1).and_then(|rest| rest.lines().next());
        assert!(id.is_some_and(|id| id.len() == 32), "{head}");
    }
}
