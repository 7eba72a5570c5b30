//! Requests that another server could parse differently, and bytes that are no request.

use crate::support::{ALIVE, Raw, TestApp};

/// Checks that the connection is closed, with at most an error response before.
async fn cut(raw: &mut Raw, what: &str) {
    let rest = raw.rest().await;
    let status = rest.split(' ').nth(1).unwrap_or_default();
    assert!(["", "400", "408", "431"].contains(&status), "{what}: {rest}");
    assert_eq!(rest.matches("HTTP/1.1").count(), usize::from(!status.is_empty()), "{rest}");
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
