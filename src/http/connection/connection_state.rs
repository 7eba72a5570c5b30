//! What a connection is doing, and which of its timeouts comes next.
//!
//! hyper's own header timeout starts when a connection falls idle, so it cannot distinguish a slow
//! head from a patient client. Here the socket and the requests record what happened last, and one
//! timer a connection (in `driver`) compares that with the limits: an unfinished head, an idle
//! connection, a client that does not read its response. The deadline of a body is in `request`.

use super::response_backlog::ResponseBacklog;
use crate::clock::Clock;
use crate::http::HttpConfig;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Version;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// Bytes that must pass through a full socket to restart the write timeout. A response is smaller,
/// so this matters for connections that carry many at once.
const WRITE_PROGRESS_BYTES: u64 = 64 * 1024;
/// Bytes received between two begins or ends of requests, at most: a base, and an allowance for
/// each request in progress (a head, a body, and the overhead of frames or chunks). More is a flood
/// of frames without requests (PING, SETTINGS, CONTINUATION, data of cancelled streams).
const BYTES_MAX: u64 = 128 * 1024;
const BYTES_PER_REQUEST_MAX: u64 = 32 * 1024;

/// Called when the connection falls idle, with the time at which it did.
type IdleListener = Arc<dyn Fn(Instant) + Send + Sync>;

/// The state of one connection, as its socket and its requests report it. Clones share it.
#[derive(Clone)]
pub(super) struct ConnectionState(Arc<Inner>);

struct Inner {
    clock: Clock,
    opened: Instant,
    header_timeout: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
    /// Requests in progress.
    requests: AtomicUsize,
    /// Bytes received since a request last began or ended.
    received: AtomicU64,
    /// HTTP/2: bytes between requests can be frames without a request, such as PING.
    multiplexed: AtomicBool,
    /// The client has sent nothing yet.
    silent: AtomicBool,
    /// When the connection fell idle, in ms since `opened`.
    idle_since_ms: AtomicU64,
    /// When the first byte of a head arrived; 0: none since the last response.
    head_since_ms: AtomicU64,
    /// When a write first found the socket full; 0: it is not full.
    stalled_since_ms: AtomicU64,
    /// Bytes written since then.
    written: AtomicU64,
    backlog: ResponseBacklog,
    /// New HTTP/2 requests are refused.
    refusing: AtomicBool,
    on_idle: Mutex<Option<IdleListener>>,
    /// `on_idle` is to be called once, when the connection next falls idle.
    notify_idle: AtomicBool,
    eviction: Notify,
}

/// A request in progress; dropping it can leave the connection idle.
pub(super) struct RequestGuard {
    state: ConnectionState,
    /// No other request or unwritten response existed when it began.
    pub(super) alone: bool,
}

impl ConnectionState {
    pub(super) fn new(clock: &Clock, config: &HttpConfig) -> Self {
        Self(Arc::new(Inner {
            clock: clock.clone(),
            opened: clock.now(),
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            write_timeout: config.write_timeout,
            requests: AtomicUsize::new(0),
            received: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
            silent: AtomicBool::new(true),
            idle_since_ms: AtomicU64::new(0),
            // The header timeout of a new connection starts at once.
            head_since_ms: AtomicU64::new(1),
            stalled_since_ms: AtomicU64::new(0),
            written: AtomicU64::new(0),
            backlog: ResponseBacklog::default(),
            refusing: AtomicBool::new(false),
            on_idle: Mutex::default(),
            notify_idle: AtomicBool::new(false),
            eviction: Notify::new(),
        }))
    }

    /// Records a new request. `None`: [`refuse_requests`](Self::refuse_requests) was called.
    pub(super) fn begin_request(&self, version: Version) -> Option<RequestGuard> {
        if version == Version::HTTP_2 && self.0.refusing.load(Ordering::Relaxed) {
            return None;
        }
        // Sequentially consistent: see `idle_since_or_notify`.
        let others = self.0.requests.fetch_add(1, Ordering::SeqCst);
        self.0.received.store(0, Ordering::Relaxed);
        self.0.multiplexed.store(version == Version::HTTP_2, Ordering::Relaxed);
        self.0.head_since_ms.store(0, Ordering::Relaxed);
        let alone = others == 0 && self.0.backlog.oldest_ms().is_none();
        Some(RequestGuard { state: self.clone(), alone })
    }

    /// Refuses new requests from now on, so that the connection falls idle. Affects HTTP/2 only:
    /// HTTP/1 can have only the request that is already arriving.
    pub(super) fn refuse_requests(&self) {
        self.0.refusing.store(true, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        let passed = self.0.clock.now().saturating_duration_since(self.0.opened);
        // 0 means "not", so time starts at 1. One millisecond more does no harm.
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Records bytes read from the socket.
    ///
    /// # Errors
    /// When they exceed what the requests can account for.
    pub(super) fn bytes_received(&self, count: usize) -> io::Result<()> {
        self.0.silent.store(false, Ordering::Relaxed);
        let requests = self.0.requests.load(Ordering::Relaxed);
        if requests == 0
            && self.0.head_since_ms.load(Ordering::Relaxed) == 0
            && !self.0.multiplexed.load(Ordering::Relaxed)
        {
            self.0.head_since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
        let received = self.0.received.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
        if received > BYTES_MAX + BYTES_PER_REQUEST_MAX * requests as u64 {
            return Err(io::Error::other("the client sent far more bytes than its requests need"));
        }
        Ok(())
    }

    /// Records bytes that the socket accepted.
    pub(super) fn bytes_written(&self, count: usize) {
        let count = count as u64;
        if self.0.stalled_since_ms.load(Ordering::Relaxed) != 0
            && self.0.written.fetch_add(count, Ordering::Relaxed) + count >= WRITE_PROGRESS_BYTES
        {
            self.clear_stall();
        }
    }

    /// Records that the socket is full.
    pub(super) fn write_stalled(&self) {
        if self.0.stalled_since_ms.load(Ordering::Relaxed) == 0 {
            self.0.written.store(0, Ordering::Relaxed);
            self.0.stalled_since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// Records that the socket accepted everything.
    pub(super) fn flushed(&self) {
        if self.0.stalled_since_ms.load(Ordering::Relaxed) != 0 {
            self.clear_stall();
        }
    }

    fn clear_stall(&self) {
        // Sequentially consistent: see `idle_since_or_notify`.
        self.0.stalled_since_ms.store(0, Ordering::SeqCst);
        self.notify_if_idle();
    }

    /// Time until the next limit if nothing happens. Zero: a limit is reached.
    pub(super) fn time_left(&self) -> Duration {
        let end_of =
            |since_ms: u64, limit: Duration| Duration::from_millis(since_ms).saturating_add(limit);
        let since = |since_ms: &AtomicU64| since_ms.load(Ordering::Relaxed);
        let mut end = Duration::MAX;
        let stalled = Some(since(&self.0.stalled_since_ms)).filter(|since_ms| *since_ms != 0);
        for since_ms in stalled.into_iter().chain(self.0.backlog.oldest_ms()) {
            end = end.min(end_of(since_ms, self.0.write_timeout));
        }
        if self.0.requests.load(Ordering::Relaxed) == 0 {
            end = end.min(match since(&self.0.head_since_ms) {
                0 => end_of(since(&self.0.idle_since_ms), self.0.idle_timeout),
                head => end_of(head, self.0.header_timeout),
            });
        } else {
            // A request has its own deadlines. Check again when the connection could be idle.
            end = end.min(Duration::from_millis(self.now_ms()) + self.0.header_timeout);
        }
        end.saturating_sub(Duration::from_millis(self.now_ms()))
    }

    /// Time until the next check of the limits. Nothing wakes the timer when a head begins or a
    /// write stalls, so this interval bounds the delay to half of a limit.
    pub(super) fn next_check(&self) -> Duration {
        self.time_left().min(self.0.header_timeout / 2).min(self.0.write_timeout / 2)
    }

    /// When the connection was opened.
    pub(super) fn opened(&self) -> Instant {
        self.0.opened
    }

    /// Whether the connection has no head, request or response in progress.
    ///
    /// A connection on which nothing has arrived is idle too.
    pub(super) fn is_idle(&self) -> bool {
        self.0.requests.load(Ordering::SeqCst) == 0
            && (self.0.silent.load(Ordering::Relaxed)
                || self.0.head_since_ms.load(Ordering::Relaxed) == 0)
            && self.0.stalled_since_ms.load(Ordering::SeqCst) == 0
            && self.0.backlog.oldest_ms().is_none()
    }

    /// Whether a first request, or the rest of a head, can be on its way.
    pub(super) fn awaits_head(&self) -> bool {
        self.0.requests.load(Ordering::Relaxed) == 0
            && self.0.head_since_ms.load(Ordering::Relaxed) != 0
    }

    /// Whether the connection uses HTTP/2.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.0.multiplexed.load(Ordering::Relaxed)
    }

    /// Sets the listener that [`idle_since_or_notify`](Self::idle_since_or_notify) calls.
    pub(super) fn on_idle(&self, listener: impl Fn(Instant) + Send + Sync + 'static) {
        *self.0.on_idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(listener));
    }

    /// When the connection fell idle. `None`: it is busy, and calls the idle listener later.
    pub(super) fn idle_since_or_notify(&self) -> Option<Instant> {
        // Sets the flag, then checks. A request that ends, or a write that continues, does both in
        // the opposite order. Whichever runs second sees what the first did.
        self.0.notify_idle.store(true, Ordering::SeqCst);
        if !self.is_idle() {
            return None;
        }
        self.0.notify_idle.store(false, Ordering::SeqCst);
        Some(self.idle_since())
    }

    fn idle_since(&self) -> Instant {
        self.0.opened + Duration::from_millis(self.0.idle_since_ms.load(Ordering::Relaxed))
    }

    fn notify_if_idle(&self) {
        if self.0.notify_idle.load(Ordering::SeqCst)
            && self.is_idle()
            && self.0.notify_idle.swap(false, Ordering::SeqCst)
        {
            // Called without the lock, because the listener takes the registry's.
            let listener = self.0.on_idle.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(listener) = listener {
                listener(self.idle_since());
            }
        }
    }

    /// Asks the connection's task to end the connection, if it is still idle.
    pub(super) fn request_eviction(&self) {
        self.0.eviction.notify_one();
    }

    /// Waits until [`request_eviction`](Self::request_eviction) is called. Cancel safe.
    pub(super) async fn eviction_requested(&self) {
        self.0.eviction.notified().await;
    }
}

impl RequestGuard {
    /// Tracks the response's body until it is written, and holds `permit` until then.
    pub(super) fn track_body(
        &self,
        body: Full<Bytes>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Full<Bytes> {
        let state = self.state.clone();
        self.state.0.backlog.track(body, self.state.now_ms(), move || {
            let _held = &permit;
            state.notify_if_idle();
        })
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let state = &self.state;
        state.0.idle_since_ms.store(state.now_ms(), Ordering::Relaxed);
        state.0.received.store(0, Ordering::Relaxed);
        state.0.requests.fetch_sub(1, Ordering::SeqCst);
        state.notify_if_idle();
    }
}

#[cfg(test)]
impl ConnectionState {
    /// A state for tests with one limit for everything; the idle timeout is ten times that.
    pub(super) fn with_limits(clock: &Clock, limit: Duration) -> Self {
        let config = HttpConfig {
            trusted_proxies: Default::default(),
            trace_callers: Default::default(),
            connections_max: 1,
            connections_per_address: 1,
            header_timeout: limit,
            body_timeout: limit,
            idle_timeout: 10 * limit,
            write_timeout: limit,
            linger: Duration::ZERO,
            slow: limit,
        };
        Self::new(clock, &config)
    }
}
