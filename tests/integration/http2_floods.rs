//! Frames that no honest HTTP/2 client sends, written by hand (RFC 9113).

use crate::support::{ALIVE, SOON, TestApp, until};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `SETTINGS_INITIAL_WINDOW_SIZE` of 0.
const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];

struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A connection on which a test writes frames. It reads everything that arrives, so that the server
/// can always write its answers.
struct Frames {
    writer: OwnedWriteHalf,
    reading: JoinHandle<Vec<Frame>>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A head in HPACK literals (RFC 7541 §6.2.2): GET if `get`, otherwise POST with JSON.
fn head(get: bool, path: &str) -> Vec<u8> {
    let mut block = vec![if get { 0x82 } else { 0x83 }, 0x86, 0x04];
    block.push(u8::try_from(path.len()).unwrap());
    block.extend(path.as_bytes());
    block.extend([0x01, 1, b'x']);
    if !get {
        // Without a media type, the server would not wait for the body.
        block.extend([0x0f, 0x10, 16]);
        block.extend(b"application/json");
    }
    block
}

/// A request whose body has not been sent.
fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head(false, "/api/v1/auth/logout"))
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head(true, "/health/liveness"))
}

impl Frames {
    async fn connect(app: &TestApp, settings: &[u8]) -> Self {
        let stream = TcpStream::connect(app.address).await.unwrap();
        let (mut reader, writer) = stream.into_split();
        let reading = tokio::spawn(async move {
            let mut frames = Vec::new();
            let mut start = [0; 9];
            while reader.read_exact(&mut start).await.is_ok() {
                let [a, b, c, kind, _, d, e, f, g] = start;
                let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
                if reader.read_exact(&mut payload).await.is_err() {
                    break;
                }
                frames.push(Frame { kind, stream: u32::from_be_bytes([d, e, f, g]), payload });
            }
            frames
        });
        let mut frames = Self { writer, reading };
        let preface =
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, settings)];
        frames.write(&preface.concat()).await;
        frames
    }

    /// Writes frames; false if the server has closed the connection.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        let written = timeout(SOON, self.writer.write_all(bytes)).await;
        written.expect("it reads or closes").is_ok()
    }

    /// Everything that the server sent until it closed the connection.
    async fn ended(self) -> Vec<Frame> {
        let frames = timeout(SOON, self.reading).await;
        frames.expect("the server closes").unwrap()
    }

    /// Ends the writing side, and returns everything that the server sent until it closed.
    async fn left(self) -> Vec<Frame> {
        drop(self.writer);
        timeout(SOON, self.reading).await.expect("it closes").unwrap()
    }
}

/// Writes `round` until the server closes, and sends requests on another connection meanwhile.
async fn flood(
    app: &TestApp,
    mut frames: Frames,
    mut round: impl FnMut(u32) -> Vec<u8>,
) -> Vec<Frame> {
    let other = app.anonymous();
    let mut ended = false;
    for number in 0..200_000 {
        if !frames.write(&round(number)).await {
            ended = true;
            break;
        }
        if number % 5_000 == 100 {
            other.get("/health/liveness").await.assert_status(200);
        }
    }
    assert!(ended, "the server does not close the connection");
    other.get("/health/liveness").await.assert_status(200);
    frames.ended().await
}

fn goaway_code(frames: &[Frame]) -> Option<u32> {
    let last = frames.iter().rfind(|frame| frame.kind == GOAWAY)?;
    Some(u32::from_be_bytes(last.payload[4..8].try_into().unwrap()))
}

// Reliability: A8.
#[tokio::test]
async fn handwritten_frames_are_valid() {
    let app = TestApp::start().await;
    let mut frames = Frames::connect(&app, &[]).await;
    assert!(frames.write(&[get(1), frame(PING, 0, 0, &[7; 8])].concat()).await);
    let bye = frame(GOAWAY, 0, 0, &[0; 8]);
    assert!(frames.write(&bye).await);
    let came = frames.ended().await;
    let answer = came.iter().find(|frame| frame.kind == DATA && frame.stream == 1);
    assert_eq!(answer.unwrap().payload, br#"{"status":"alive"}"#);
    assert!(came.iter().any(|frame| frame.kind == PING && frame.payload == [7; 8]));
}

// Reliability: A8.
#[tokio::test]
async fn rapid_reset_closes_only_its_own_connection() {
    let app = TestApp::start().await;
    let frames = Frames::connect(&app, &[]).await;
    let came = flood(&app, frames, |number| {
        let stream = 1 + 2 * number;
        // 0x8: CANCEL.
        [get(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    })
    .await;
    if let Some(code) = goaway_code(&came) {
        assert_eq!(code, 0xb, "ENHANCE_YOUR_CALM");
    }
}

// Reliability: A8.
#[tokio::test]
async fn a_continuation_flood_closes_only_its_own_connection() {
    let app = TestApp::start().await;
    let mut frames = Frames::connect(&app, &[]).await;
    frames.write(&frame(HEADERS, END_STREAM, 1, &head(true, "/health/liveness"))).await;
    // A field of 1,000 bytes each, without end.
    let mut field = vec![0x00, 1, b'x', 0x7f, 0xe9, 0x06];
    field.extend([b'a'; 1_000]);
    let continuation = frame(CONTINUATION, 0, 1, &field);
    flood(&app, frames, |_| continuation.clone()).await;
    // Empty frames, without end.
    let mut frames = Frames::connect(&app, &[]).await;
    frames.write(&frame(HEADERS, END_STREAM, 1, &head(true, "/health/liveness"))).await;
    flood(&app, frames, |_| frame(CONTINUATION, 0, 1, &[])).await;
}

// Reliability: A8.
#[tokio::test]
async fn a_flood_of_control_frames_closes_only_its_own_connection() {
    let app = TestApp::start().await;
    for flooding in [
        frame(SETTINGS, 0, 0, &[]),
        frame(PING, 0, 0, &[0; 8]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        // RFC 9113 §4.1 requires unknown frame types to be ignored; the server limits their number.
        frame(0xaa, 0, 0, &[0; 100]),
    ] {
        let mut frames = Frames::connect(&app, &[]).await;
        assert!(frames.write(&get(1)).await);
        flood(&app, frames, |_| flooding.repeat(10)).await;
    }
}

// Reliability: A8.
#[tokio::test]
async fn ten_thousand_streams_share_64_slots_and_do_not_block_others() {
    let app = TestApp::start().await;
    let mut frames = Frames::connect(&app, &[]).await;
    let other = app.anonymous();
    for number in 0..10_000 {
        if !frames.write(&post(1 + 2 * number)).await {
            break;
        }
        if number % 1_000 == 0 {
            other.get("/health/liveness").await.assert_status(200);
        }
    }
    other.get("/health/liveness").await.assert_status(200);
    let came = frames.left().await;
    let answered = came.iter().filter(|frame| frame.kind == HEADERS).count();
    assert!(answered <= 64, "{answered}");
}

// Reliability: A11.
#[tokio::test]
async fn an_idle_connection_receives_goaway_before_it_is_closed() {
    let app = TestApp::builder().system_clock().set("STAUNCH_IDLE_TIMEOUT", "1s").start().await;
    let mut frames = Frames::connect(&app, &[]).await;
    assert!(frames.write(&get(1)).await);
    let came = frames.ended().await;
    assert!(came.iter().any(|frame| frame.kind == DATA && frame.stream == 1));
    assert_eq!(goaway_code(&came), Some(0), "NO_ERROR");
}

// Reliability: B6.
#[tokio::test]
async fn concurrent_requests_are_bounded_across_all_connections() {
    // As many slots again, plus one for each connection.
    let app = TestApp::builder().set("STAUNCH_CONNECTIONS_MAX", "6").start().await;
    let counted = async |series: &str, count: u32| {
        until("it is counted", SOON, async || app.metric(series).await >= count.into()).await;
        assert!(app.metric(series).await <= count.into(), "{series} above {count}");
    };
    let refused = "staunch_http2_streams_refused_total";
    let posts =
        |streams: &[u32]| streams.iter().flat_map(|stream| post(*stream)).collect::<Vec<_>>();
    let mut one = Frames::connect(&app, &[]).await;
    assert!(one.write(&posts(&[1, 3, 5, 7, 9, 11, 13, 15])).await);
    counted(refused, 1).await;
    let mut other = Frames::connect(&app, &[]).await;
    assert!(other.write(&posts(&[1, 3])).await);
    counted(refused, 2).await;
    // An answered request frees its slot for the next one, on any connection.
    assert!(one.write(&frame(DATA, END_STREAM, 3, b"{}")).await);
    let labels = r#"{route="/api/v1/auth/logout",method="POST",status="422"}"#;
    counted(&format!("staunch_http_requests_total{labels}"), 1).await;
    let served =
        r#"staunch_http_requests_total{route="/health/liveness",method="GET",status="200"}"#;
    let mut stream = 3;
    until("another request has the slot", SOON, async || {
        let decided = async || app.metric(refused).await + app.metric(served).await;
        let before = decided().await;
        stream += 2;
        assert!(other.write(&get(stream)).await);
        until("it is counted", SOON, async || decided().await > before).await;
        app.metric(served).await >= 1.0
    })
    .await;
    let streams = |frames: &[Frame], kind| {
        let of_kind = frames.iter().filter(|frame| frame.kind == kind);
        of_kind.map(|frame| frame.stream).collect::<Vec<_>>()
    };
    let (one, other) = (one.left().await, other.left().await);
    assert_eq!(streams(&one, RST_STREAM), [15]);
    assert_eq!(streams(&one, DATA), [3]);
    assert_eq!(streams(&other, RST_STREAM).first(), Some(&3));
    assert_eq!(streams(&other, DATA), [stream]);
    // 0x7: REFUSED_STREAM.
    let mut both = one.iter().chain(&other).filter(|frame| frame.kind == RST_STREAM);
    assert!(both.all(|frame| frame.payload == [0, 0, 0, 7]));
}

// Reliability: A8.
#[tokio::test]
async fn a_zero_window_holds_a_response_no_longer_than_a_full_socket() {
    let app = TestApp::builder().system_clock().set("STAUNCH_WRITE_TIMEOUT", "500ms").start().await;
    until("another request is answered before the end", SOON, async || {
        let mut frames = Frames::connect(&app, &NO_WINDOW).await;
        frames.write(&get(1)).await;
        let begun = Instant::now();
        // Other requests do not extend the limit, and neither does a WINDOW_UPDATE for them.
        let mut stream = 3;
        while begun.elapsed() < SOON {
            let open = frame(WINDOW_UPDATE, 0, stream, &[0, 0, 1, 0]);
            if !frames.write(&[get(stream), open].concat()).await {
                break;
            }
            stream += 2;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let came = frames.ended().await;
        let data = |stream| came.iter().any(|frame| frame.kind == DATA && frame.stream == stream);
        assert!(!data(1));
        data(3)
    })
    .await;
    app.anonymous().get("/health/liveness").await.assert_status(200);
}

// Reliability: A9.
#[tokio::test]
async fn a_client_that_ignores_goaway_delays_no_other_and_is_disconnected() {
    let app = TestApp::builder()
        .set("STAUNCH_CONNECTIONS_MAX", "2")
        .set("STAUNCH_BODY_TIMEOUT", "1s")
        .set("STAUNCH_METRICS_LISTEN", "127.0.0.1:0")
        .start()
        .await;
    let answered =
        "staunch_http_requests_total{route=\"/health/liveness\",method=\"GET\",status=\"200\"}";
    let mut frames = Frames::connect(&app, &[]).await;
    assert!(frames.write(&get(1)).await);
    until("it is answered", SOON, async || app.metric(answered).await == 1.0).await;
    app.clock.advance(Duration::from_millis(10));
    let mut idle = app.raw().await;
    idle.write(ALIVE).await;
    assert_eq!(idle.reply().await.expect("an answer").status, 200);
    let mut newcomer = app.raw().await;
    newcomer.write(ALIVE).await;
    let evicted = "staunch_http_connections_evicted_total";
    until("the older one gets GOAWAY", SOON, async || app.metric(evicted).await == 1.0).await;
    // Its client does not answer the PING after GOAWAY, and always has a request in progress.
    let stays = async {
        for number in 1.. {
            if !frames.write(&post(1 + 2 * number)).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let others = async {
        assert_eq!(newcomer.reply().await.expect("an answer").status, 200);
        assert_eq!(idle.rest().await, "", "the idle connection is evicted");
    };
    let (_, stayed) = tokio::join!(others, timeout(SOON, stays));
    stayed.expect("the connection is closed");
}
