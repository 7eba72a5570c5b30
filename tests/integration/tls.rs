//! HTTPS: TLS versions, HTTP/2, clients that do not speak TLS, and certificate changes.

use crate::support::{Authority, Builder, Issued, SOON, TestApp, until};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ProtocolVersion;
use staunch::app::StartError;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const EXPIRY: &str = "staunch_tls_certificate_expiry_timestamp_seconds";

fn served(folder: &Path, issued: &Issued) -> Builder {
    let (chain, key) = issued.write(folder);
    TestApp::builder()
        .set("STAUNCH_TLS_CERT", chain.display().to_string())
        .set("STAUNCH_TLS_KEY", key.display().to_string())
        .set("STAUNCH_METRICS_LISTEN", "127.0.0.1:0")
}

/// Waits until `count` handshakes had this result. The client may see the end before it is counted.
async fn counted(app: &TestApp, result: &str, count: f64) {
    let series = format!("staunch_tls_handshakes_total{{result=\"{result}\"}}");
    until("it is counted", SOON, async || app.metric(&series).await == count).await;
}

/// The certificate that the server presents to a new connection.
async fn shown(app: &TestApp, authority: &Authority) -> Vec<u8> {
    let stream = authority.connect(app.address, |_| {}).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

// Reliability: A16.
#[tokio::test]
async fn http_1_1_works_over_tls_1_2_and_1_3() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let app = served(folder.path(), &authority.issue(&["localhost"], 2100)).start().await;
    for version in [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3] {
        for alpn in [vec![], vec![b"http/1.1".to_vec()]] {
            let connected = authority.connect_with(app.address, version, alpn.clone()).await;
            let mut stream = connected.unwrap();
            assert_eq!(stream.get_ref().1.protocol_version(), Some(version));
            assert_eq!(stream.get_ref().1.alpn_protocol(), alpn.first().map(Vec::as_slice));
            let request = "GET /health/liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
    counted(&app, "success", 4.0).await;
    // 2100-01-01.
    assert_eq!(app.metric(EXPIRY).await, 4_102_444_800.0);
}

// Reliability: A16.
#[tokio::test]
async fn alpn_selects_http_2_and_unknown_protocols_are_refused() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let app = served(folder.path(), &authority.issue(&["localhost"], 2100)).start().await;
    let both = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let connected = authority.connect(app.address, |config| config.alpn_protocols = both).await;
    let stream = connected.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let executor = TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://localhost/health/liveness").body(Empty::<Bytes>::new());
    let reply = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(
        (reply.status(), reply.version()),
        (200.try_into().unwrap(), hyper::Version::HTTP_2)
    );

    let other = vec![b"spdy/3".to_vec()];
    let refused = authority.connect(app.address, |config| config.alpn_protocols = other).await;
    assert!(refused.is_err());
    counted(&app, "error", 1.0).await;
}

/// A ClientHello of TLS 1.1 (RFC 4346) with two suites of its time.
fn old_hello() -> Vec<u8> {
    let hello = [
        [0x03, 0x02].as_slice(),      // version
        &[7; 32],                     // random
        &[0],                         // no session
        &[0, 4, 0xc0, 0x13, 0, 0x2f], // suites
        &[1, 0],                      // no compression
    ]
    .concat();
    let length = u8::try_from(hello.len()).unwrap();
    [[0x16, 0x03, 0x01, 0, length + 4, 1, 0, 0, length].as_slice(), &hello].concat()
}

// Reliability: A16.
#[tokio::test]
async fn old_tls_versions_and_plain_text_get_only_an_alert() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let app = served(folder.path(), &authority.issue(&["localhost"], 2100)).start().await;
    for bytes in [old_hello(), b"GET /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()] {
        let mut raw = app.raw().await;
        raw.write(bytes).await;
        let answer = raw.rest().await;
        assert!(answer.starts_with('\u{15}') && answer.len() < 16, "{answer:?}");
    }
    counted(&app, "error", 2.0).await;
}

// Reliability: A16.
#[tokio::test]
async fn an_unfinished_handshake_times_out() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let builder = served(folder.path(), &authority.issue(&["localhost"], 2100));
    let builder = builder.set("STAUNCH_HEADER_TIMEOUT", "300ms").system_clock();
    let app = builder.start().await;
    let (mut silent, mut slow) = (app.raw().await, app.raw().await);
    let hello = old_hello();
    slow.write(&hello[..20]).await;
    // The same timeout closes a connection without a request head.
    let mut idle = authority.connect(app.address, |_| {}).await.unwrap();
    silent.closed().await;
    slow.closed().await;
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.ok();
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    counted(&app, "timeout", 2.0).await;
}

// Reliability: A16.
#[tokio::test]
async fn a_pending_handshake_does_not_delay_the_shutdown() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let builder = served(folder.path(), &authority.issue(&["localhost"], 2100));
    // Longer than the test waits.
    let mut app = builder.set("STAUNCH_SHUTDOWN_GRACE", "2m").start().await;
    let mut silent = app.raw().await;
    // Once this later connection is accepted, the earlier one is too.
    shown(&app, &authority).await;
    app.begin_stop();
    silent.closed().await;
}

// Reliability: A16.
#[tokio::test]
async fn a_handshake_during_shutdown_completes_and_its_request_is_answered() {
    until("it is answered", SOON, async || finished_at_the_stop().await).await;
}

/// Returns false if a busy machine was too slow, and the handshake came after its one second.
async fn finished_at_the_stop() -> bool {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let mut app = served(folder.path(), &authority.issue(&["localhost"], 2100)).start().await;
    let begun = TcpStream::connect(app.address).await.unwrap();
    // Once this later connection is accepted, the earlier one is too.
    shown(&app, &authority).await;
    app.begin_stop();
    let stopped = Instant::now();
    until("it stops listening", SOON, async || TcpStream::connect(app.address).await.is_err())
        .await;
    let asking = async {
        let mut stream = authority.over(begun, |_| {}).await?;
        stream.write_all(b"GET /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    match asking.await {
        Ok(answer) if !answer.is_empty() => {
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(answer.contains("connection: close\r\n"), "{answer}");
            true
        }
        ended => {
            assert!(stopped.elapsed() > Duration::from_secs(1), "{ended:?}");
            false
        }
    }
}

// Reliability: A16.
#[tokio::test]
async fn a_changed_certificate_is_loaded_and_a_broken_one_is_not() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let first = authority.issue(&["localhost"], 2100);
    let app = served(folder.path(), &first).start().await;
    let tls = app.tls.clone().unwrap();
    assert_eq!(shown(&app, &authority).await, first.der);
    let second = authority.issue(&["localhost"], 2101);
    // An open connection survives the change.
    let mut open = authority.connect(app.address, |_| {}).await.unwrap();
    second.write(folder.path());
    // The server also checks by itself, and may have done so first.
    tls.reload_if_changed().ok();
    assert_eq!(shown(&app, &authority).await, second.der);
    assert_eq!(app.metric(EXPIRY).await, 4_133_980_800.0);
    open.write_all(b"GET /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(open.read_u8().await.is_ok());

    // The new certificate with the old key, then a truncated file, then a missing one.
    let third = authority.issue(&["localhost"], 2102);
    let next = authority.issue(&["localhost"], 2102);
    Issued { key: second.key.clone(), ..next }.write(folder.path());
    let error = tls.reload().unwrap_err().to_string();
    assert!(error.contains("STAUNCH_TLS_KEY") && error.contains("key.pem"), "{error}");
    let next = authority.issue(&["localhost"], 2102);
    Issued { chain: third.chain[..100].to_owned(), ..next }.write(folder.path());
    assert!(tls.reload().is_err());
    std::fs::remove_file(folder.path().join("key.pem")).unwrap();
    assert!(tls.reload().is_err());
    assert_eq!(shown(&app, &authority).await, second.der);
    assert_eq!(app.metric(EXPIRY).await, 4_133_980_800.0);
    assert!(app.metric("staunch_tls_reloads_total{result=\"error\"}").await >= 3.0);

    third.write(folder.path());
    tls.reload_if_changed().ok();
    assert_eq!(shown(&app, &authority).await, third.der);
    assert!(app.metric("staunch_tls_reloads_total{result=\"success\"}").await >= 2.0);
}

#[tokio::test]
async fn a_mismatched_certificate_and_key_prevent_the_start() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let other = authority.issue(&["localhost"], 2100);
    let mixed = Issued { key: other.key, ..authority.issue(&["localhost"], 2100) };
    match served(folder.path(), &mixed).try_start().await {
        Err(StartError::Tls(error)) => {
            assert!(error.to_string().contains("STAUNCH_TLS_KEY"), "{error}");
        }
        other => panic!("{:?}", other.err()),
    }
}
