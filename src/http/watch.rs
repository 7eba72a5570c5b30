//! What a connection is doing, and which of its limits comes next.
//!
//! hyper's own header time-out starts when a connection falls idle, so it cannot tell a slow head
//! from a patient client. Here the socket and the requests note what happened last, and one timer a
//! connection (in `connection`) compares that with the limits: a head that does not end, an idle
//! connection, a client that does not read its answer. Requests set no timers; the body's deadline
//! is in `request`.

use super::Edge;
use crate::clock::Clock;
use hyper::Version;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// An answer that its client does not read is given up after this.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

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

    pub(super) fn octets_came(&self) {
        if self.0.requests.load(Ordering::Relaxed) == 0
            && self.0.head_since_ms.load(Ordering::Relaxed) == 0
            && !self.0.multiplexed.load(Ordering::Relaxed)
        {
            self.0.head_since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    pub(super) fn wrote(&self, done: bool) {
        if done {
            self.0.stalled_since_ms.store(0, Ordering::Relaxed);
        } else if self.0.stalled_since_ms.load(Ordering::Relaxed) == 0 {
            self.0.stalled_since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// Time left until some limit is reached, if nothing happens. Zero: one is.
    pub(super) fn time_left(&self) -> Duration {
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
    pub(super) fn next_look(&self) -> Duration {
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
