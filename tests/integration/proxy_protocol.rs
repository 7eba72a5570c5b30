//! The PROXY protocol before HTTP and before TLS.

use crate::support::{Authority, Builder, Raw, SOON, TestApp, form, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn behind(proxies: &str) -> Builder {
    TestApp::builder()
        .set("STAUNCH_PROXY_PROTOCOL", "on")
        .set("STAUNCH_TRUSTED_PROXIES", proxies)
        .set("STAUNCH_METRICS_LISTEN", "127.0.0.1:0")
}

fn headers(result: &str) -> String {
    format!("staunch_proxy_headers_total{{result=\"{result}\"}}")
}

fn login() -> String {
    let body = form(&[("username", "nobody"), ("password", "x")]);
    format!(
        "POST /api/v1/auth/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         X-Forwarded-For: 198.51.100.{}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        // The server ignores addresses that the client writes itself.
        uuid::Uuid::new_v4().as_bytes()[0],
        body.len()
    )
}

fn line(source: &str) -> Vec<u8> {
    let family = if source.contains(':') { "TCP6" } else { "TCP4" };
    let target = if source.contains(':') { "2001:db8::80" } else { "192.0.2.80" };
    format!("PROXY {family} {source} {target} 4711 443\r\n").into()
}

/// A version 2 header with an unknown TLV.
fn binary(source: [u8; 4]) -> Vec<u8> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let tlv = [0xe0, 0, 2, 1, 2];
    [signature, [0x21, 0x11, 0, 17].as_slice(), &source, &[192, 0, 2, 80, 18, 103, 1, 187], &tlv]
        .concat()
}

/// The status of a login on a connection that begins with `header`; 0 if the server closed it.
async fn status(app: &TestApp, header: &[u8]) -> u16 {
    let mut raw = app.raw().await;
    raw.write([header, login().as_bytes()].concat()).await;
    raw.reply().await.map_or(0, |reply| reply.status)
}

// Reliability: F3.
#[tokio::test]
async fn limits_use_the_address_in_the_header() {
    let app = behind("127.0.0.1").set("STAUNCH_LIMIT_LOGIN", "2/min").start().await;
    for header in [line("203.0.113.1"), binary([203, 0, 113, 2]), line("2001:db8::1")] {
        assert_eq!(status(&app, &header).await, 401);
        assert_eq!(status(&app, &header).await, 401);
        assert_eq!(status(&app, &header).await, 429);
    }
    assert_eq!(status(&app, &binary([203, 0, 113, 1])).await, 429, "the same address");
    assert_eq!(status(&app, &line("::ffff:203.0.113.2")).await, 429, "the same address");
    assert_eq!(status(&app, &line("203.0.113.3")).await, 401, "another");
    // The proxy's own connection. Its X-Forwarded-For counts as usual.
    assert_eq!(status(&app, b"PROXY UNKNOWN\r\n").await, 401);
    assert_eq!(app.metric(&headers("success")).await, 13.0);
}

// Reliability: F3.
#[tokio::test]
async fn connections_without_a_header_or_from_untrusted_peers_are_closed() {
    let app = behind("127.0.0.1").start().await;
    assert_eq!(status(&app, b"").await, 0, "no header");
    assert_eq!(status(&app, b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n").await, 0);
    assert_eq!(app.metric(&headers("error")).await, 2.0);
    let strangers = behind("10.0.0.0/8").start().await;
    assert_eq!(status(&strangers, &line("10.0.0.1")).await, 0);
    assert_eq!(strangers.metric(&headers("untrusted")).await, 1.0);
}

// Reliability: A1.
#[tokio::test]
async fn a_header_may_arrive_in_pieces_but_must_arrive_in_time() {
    let builder = behind("127.0.0.1").system_clock().set("STAUNCH_HEADER_TIMEOUT", "400ms");
    let app = builder.start().await;
    let mut slow = app.raw().await;
    slow.write(b"PROXY TCP4 203").await;
    slow.closed().await;
    let mut slow = app.raw().await;
    slow.write(&binary([1, 2, 3, 4])[..30]).await;
    slow.closed().await;
    assert_eq!(app.metric(&headers("timeout")).await, 2.0);

    let patient = behind("127.0.0.1").start().await;
    for header in [line("203.0.113.1"), binary([203, 0, 113, 2])] {
        let mut stream = TcpStream::connect(patient.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in header {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream.write_all(login().as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
}

// Reliability: A9.
#[tokio::test]
async fn connections_are_capped_by_the_address_in_the_header() {
    let app = behind("127.0.0.1").set("STAUNCH_CONNECTIONS_PER_ADDRESS", "1").start().await;
    let open = async |source: &str| {
        let mut raw: Raw = app.raw().await;
        let request = b"GET /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n";
        raw.write([line(source).as_slice(), request].concat()).await;
        let served = raw.reply().await.is_some();
        (raw, served)
    };
    let (first, served) = open("203.0.113.1").await;
    assert!(served);
    assert!(!open("203.0.113.1").await.1, "one too many");
    assert!(open("203.0.113.2").await.1, "another");
    drop(first);
    until("its slot is free", SOON, async || open("203.0.113.1").await.1).await;
}

// Reliability: A16.
#[tokio::test]
async fn the_header_precedes_the_tls_handshake() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (chain, key) = authority.issue(&["localhost"], 2100).write(folder.path());
    let app = behind("127.0.0.1")
        .set("STAUNCH_TLS_CERT", chain.display().to_string())
        .set("STAUNCH_TLS_KEY", key.display().to_string())
        .set("STAUNCH_LIMIT_LOGIN", "1/min")
        .start()
        .await;
    let login = async |source: &str| {
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(&line(source)).await.unwrap();
        let mut stream = authority.over(stream, |_| {}).await.unwrap();
        stream.write_all(login().as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer[9..12].to_owned()
    };
    assert_eq!(login("203.0.113.1").await, "401");
    assert_eq!(login("203.0.113.1").await, "429");
    assert_eq!(login("203.0.113.2").await, "401");
}
