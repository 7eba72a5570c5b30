//! One connection: HTTP/1.1 or HTTP/2, watched by one timer.
//!
//! hyper's own header time-out starts when a connection falls idle, so it cannot tell a slow head
//! from a patient client. Here the socket notes what happened last (`Watch`), and one timer a
//! connection compares that with the limits: a head that does not end, an idle connection, a
//! client that does not read its answer. Requests set no timers; the body's deadline is in
//! `request`.

use super::service;
use super::{Edge, HEAD_OCTETS_MAX, Surface};
use crate::clock::Clock;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// An answer that its client does not read is given up after this.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// Requests that one HTTP/2 connection may have under way.
const STREAMS_MAX: u32 = 64;
/// Streams that a client may reset before they were looked at (CVE-2023-44487, rapid reset).
const RESET_STREAMS_MAX: usize = 20;
/// Header fields of a request at most.
const HEADER_FIELDS_MAX: usize = 64;

/// What a connection is doing, as its socket and its requests see it.
#[derive(Clone)]
pub(super) struct Watch(Arc<WatchInner>);

struct WatchInner {
    clock: Clock,
    opened: Instant,
    header_timeout: Duration,
    idle_timeout: Duration,
    requests: AtomicUsize,
    /// HTTP/2: octets between requests may be frames that ask nothing, such as PING.
    multiplexed: AtomicBool,
    /// When the connection fell idle, in ms since `opened`.
    idle_since_ms: AtomicU64,
    /// When the first octet of a head came, or 0: none has come since the last answer.
    head_since_ms: AtomicU64,
    /// When a write first found the socket full, or 0.
    stalled_since_ms: AtomicU64,
}

/// One request under way; dropping it may leave the connection idle.
pub(super) struct InRequest(Watch);

impl Watch {
    pub(super) fn new(edge: &Edge) -> Self {
        Self(Arc::new(WatchInner {
            clock: edge.clock.clone(),
            opened: edge.clock.now(),
            header_timeout: edge.config.header_timeout,
            idle_timeout: edge.config.idle_timeout,
            requests: AtomicUsize::new(0),
            multiplexed: AtomicBool::new(false),
            idle_since_ms: AtomicU64::new(0),
            // A new connection owes us a head at once.
            head_since_ms: AtomicU64::new(1),
            stalled_since_ms: AtomicU64::new(0),
        }))
    }

    pub(super) fn request_begins(&self, version: Version) -> InRequest {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        self.0.multiplexed.store(version == Version::HTTP_2, Ordering::Relaxed);
        self.0.head_since_ms.store(0, Ordering::Relaxed);
        InRequest(self.clone())
    }

    fn now_ms(&self) -> u64 {
        let passed = self.0.clock.now().saturating_duration_since(self.0.opened);
        // 0 means "not"; a millisecond more harms nothing.
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn octets_came(&self) {
        if self.0.requests.load(Ordering::Relaxed) == 0
            && self.0.head_since_ms.load(Ordering::Relaxed) == 0
            && !self.0.multiplexed.load(Ordering::Relaxed)
        {
            self.0.head_since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    fn wrote(&self, done: bool) {
        if done {
            self.0.stalled_since_ms.store(0, Ordering::Relaxed);
        } else if self.0.stalled_since_ms.load(Ordering::Relaxed) == 0 {
            self.0.stalled_since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// Time left until some limit is reached, if nothing happens. Zero: one is.
    fn time_left(&self) -> Duration {
        let left = |since_ms: &AtomicU64, limit: Duration| {
            let since = since_ms.load(Ordering::Relaxed);
            (since, Duration::from_millis(since).saturating_add(limit))
        };
        let mut end = Duration::MAX;
        let (stalled, stalled_end) = left(&self.0.stalled_since_ms, WRITE_STALL_MAX);
        if stalled != 0 {
            end = end.min(stalled_end);
        }
        if self.0.requests.load(Ordering::Relaxed) == 0 {
            let (head, head_end) = left(&self.0.head_since_ms, self.0.header_timeout);
            let (_, idle_end) = left(&self.0.idle_since_ms, self.0.idle_timeout);
            end = end.min(if head == 0 { idle_end } else { head_end });
        } else {
            // A request has its own deadlines; look again when it could have fallen idle.
            end = end.min(Duration::from_millis(self.now_ms()) + self.0.header_timeout);
        }
        end.saturating_sub(Duration::from_millis(self.now_ms()))
    }

    /// When to look again: nothing wakes the timer when a head begins or a write stalls, so it
    /// looks often enough to be late by no more than a limit's half.
    fn next_look(&self) -> Duration {
        self.time_left().min(self.0.header_timeout / 2).min(WRITE_STALL_MAX / 2)
    }
}

impl Drop for InRequest {
    fn drop(&mut self) {
        let watch = &self.0;
        watch.0.idle_since_ms.store(watch.now_ms(), Ordering::Relaxed);
        watch.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one connection to its end: closed by the client, idle, over a limit, or drained.
pub(super) async fn serve(
    edge: Arc<Edge>,
    surface: Surface,
    stream: TcpStream,
    peer: SocketAddr,
    watch: Watch,
) {
    let lifecycle = edge.lifecycle.clone();
    let io = Watched { io: TokioIo::new(stream), watch: watch.clone() };
    let requests = watch.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let under_way = requests.request_begins(request.version());
        let edge = Arc::clone(&edge);
        async move {
            let answer = service::answer(&edge, surface, peer, request).await;
            drop(under_way);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut draining = pin!(lifecycle.draining());
    let mut drained = false;
    let mut timer = pin!(tokio::time::sleep(watch.next_look()));
    loop {
        tokio::select! {
            // The connection first: a request that is here when draining begins is served.
            biased;
            // Errors here are the client's: a broken head, a connection cut off.
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, error, "connection ended");
                }
                return;
            }
            () = draining.as_mut(), if !drained => {
                drained = true;
                connection.as_mut().graceful_shutdown();
            }
            () = timer.as_mut() => {
                if watch.time_left().is_zero() {
                    tracing::debug!(%peer, "connection timed out");
                    return;
                }
                timer.set(tokio::time::sleep(watch.next_look()));
            }
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(false)
        .max_buf_size(HEAD_OCTETS_MAX as usize)
        .max_headers(HEADER_FIELDS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(RESET_STREAMS_MAX)
        .max_header_list_size(HEAD_OCTETS_MAX)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// A socket that tells its [`Watch`] what happens.
struct Watched {
    io: TokioIo<TcpStream>,
    watch: Watch,
}

impl Read for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if polled.is_ready() {
            self.watch.octets_came();
        }
        polled
    }
}

impl Write for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(context, octets);
        self.watch.wrote(polled.is_ready());
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(context, buffers);
        self.watch.wrote(polled.is_ready());
        polled
    }
}
