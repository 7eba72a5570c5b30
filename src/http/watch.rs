//! What a connection is doing, and which of its limits comes next.
//!
//! hyper's own header time-out starts when a connection falls idle, so it cannot tell a slow head
//! from a patient client. Here the socket and the requests note what happened last, and one timer a
//! connection (in `connection`) compares that with the limits: a head that does not end, an idle
//! connection, a client that does not read its answer. Requests set no timers; the body's deadline
//! is in `request`.

use super::HttpConfig;
use super::room::Room;
use super::unsent::Unsent;
use crate::clock::Clock;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Version;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// A full socket has the whole write time-out again when so much went through it: an answer is
/// smaller, so this is for connections that carry many at once.
const WRITE_PROGRESS_OCTETS: u64 = 64 * 1024;
/// What may come from one begin or end of a request to the next, in all and for each request under
/// way: a head, a body, and what frames or chunks add. More is a flood of frames that ask nothing
/// (PING, SETTINGS, CONTINUATION, data of streams that were given up).
const OCTETS_MAX: u64 = 128 * 1024;
const OCTETS_A_REQUEST_MAX: u64 = 32 * 1024;

/// What a connection is doing, as its socket and its requests see it.
#[derive(Clone)]
pub(super) struct Watch(Arc<WatchInner>);

struct WatchInner {
    clock: Clock,
    opened: Instant,
    header_timeout: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
    requests: AtomicUsize,
    /// Octets since a request last began or ended.
    octets: AtomicU64,
    /// HTTP/2: octets between requests may be frames that ask nothing, such as PING.
    multiplexed: AtomicBool,
    /// Nothing has come at all.
    silent: AtomicBool,
    /// When the connection fell idle, in ms since `opened`.
    idle_since_ms: AtomicU64,
    /// When the first octet of a head came, or 0: none has come since the last answer.
    head_since_ms: AtomicU64,
    /// When a write first found the socket full, or 0.
    stalled_since_ms: AtomicU64,
    /// Octets written since then.
    written: AtomicU64,
    unsent: Unsent,
    /// The goodbye was said, and its time is over.
    closing: AtomicBool,
    seat: Mutex<Option<(Room, u64)>>,
    /// The room wants to hear when the connection is idle.
    says_so: AtomicBool,
    leave: Notify,
}

/// One request under way; dropping it may leave the connection idle.
pub(super) struct InRequest {
    watch: Watch,
    /// When it began no other was under way, and no answer of one.
    pub(super) alone: bool,
}

impl Watch {
    pub(super) fn new(clock: &Clock, config: &HttpConfig) -> Self {
        Self(Arc::new(WatchInner {
            clock: clock.clone(),
            opened: clock.now(),
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            write_timeout: config.write_timeout,
            requests: AtomicUsize::new(0),
            octets: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
            silent: AtomicBool::new(true),
            idle_since_ms: AtomicU64::new(0),
            // A new connection owes us a head at once.
            head_since_ms: AtomicU64::new(1),
            stalled_since_ms: AtomicU64::new(0),
            written: AtomicU64::new(0),
            unsent: Unsent::default(),
            closing: AtomicBool::new(false),
            seat: Mutex::default(),
            says_so: AtomicBool::new(false),
            leave: Notify::new(),
        }))
    }

    /// Notes a request. `None`: the connection [takes no more](Watch::takes_no_more).
    pub(super) fn request_begins(&self, version: Version) -> Option<InRequest> {
        if version == Version::HTTP_2 && self.0.closing.load(Ordering::Relaxed) {
            return None;
        }
        // Sequentially consistent: see `idle_since_or_says_so`.
        let others = self.0.requests.fetch_add(1, Ordering::SeqCst);
        self.0.octets.store(0, Ordering::Relaxed);
        self.0.multiplexed.store(version == Version::HTTP_2, Ordering::Relaxed);
        self.0.head_since_ms.store(0, Ordering::Relaxed);
        let alone = others == 0 && self.0.unsent.oldest_ms().is_none();
        Some(InRequest { watch: self.clone(), alone })
    }

    /// From now on new requests are refused, so that the connection falls idle. Only HTTP/2 can have
    /// more than the one that is on its way.
    pub(super) fn takes_no_more(&self) {
        self.0.closing.store(true, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        let passed = self.0.clock.now().saturating_duration_since(self.0.opened);
        // 0 means "not"; a millisecond more harms nothing.
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Notes what was read.
    ///
    /// # Errors
    /// When it is more than the requests account for.
    pub(super) fn octets_came(&self, count: usize) -> io::Result<()> {
        self.0.silent.store(false, Ordering::Relaxed);
        let requests = self.0.requests.load(Ordering::Relaxed);
        if requests == 0
            && self.0.head_since_ms.load(Ordering::Relaxed) == 0
            && !self.0.multiplexed.load(Ordering::Relaxed)
        {
            self.0.head_since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
        let came = self.0.octets.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
        if came > OCTETS_MAX + OCTETS_A_REQUEST_MAX * requests as u64 {
            return Err(io::Error::other("far more octets than the requests account for"));
        }
        Ok(())
    }

    /// The socket took so many octets; `None`: it is full.
    pub(super) fn wrote(&self, octets: Option<usize>) {
        match octets {
            Some(octets) => {
                let octets = octets as u64;
                if self.0.stalled_since_ms.load(Ordering::Relaxed) != 0
                    && self.0.written.fetch_add(octets, Ordering::Relaxed) + octets
                        >= WRITE_PROGRESS_OCTETS
                {
                    self.no_longer_stalled();
                }
            }
            None if self.0.stalled_since_ms.load(Ordering::Relaxed) == 0 => {
                self.0.written.store(0, Ordering::Relaxed);
                self.0.stalled_since_ms.store(self.now_ms(), Ordering::Relaxed);
            }
            None => {}
        }
    }

    /// The socket took all that there was.
    pub(super) fn flushed(&self) {
        if self.0.stalled_since_ms.load(Ordering::Relaxed) != 0 {
            self.no_longer_stalled();
        }
    }

    fn no_longer_stalled(&self) {
        // Sequentially consistent: see `idle_since_or_says_so`.
        self.0.stalled_since_ms.store(0, Ordering::SeqCst);
        self.says_so_if_idle();
    }

    /// Time left until some limit is reached, if nothing happens. Zero: one is.
    pub(super) fn time_left(&self) -> Duration {
        let left =
            |since_ms: u64, limit: Duration| Duration::from_millis(since_ms).saturating_add(limit);
        let since = |since_ms: &AtomicU64| since_ms.load(Ordering::Relaxed);
        let mut end = Duration::MAX;
        let stalled = Some(since(&self.0.stalled_since_ms)).filter(|since_ms| *since_ms != 0);
        for since_ms in stalled.into_iter().chain(self.0.unsent.oldest_ms()) {
            end = end.min(left(since_ms, self.0.write_timeout));
        }
        if self.0.requests.load(Ordering::Relaxed) == 0 {
            end = end.min(match since(&self.0.head_since_ms) {
                0 => left(since(&self.0.idle_since_ms), self.0.idle_timeout),
                head => left(head, self.0.header_timeout),
            });
        } else {
            // A request has its own deadlines; look again when it could have fallen idle.
            end = end.min(Duration::from_millis(self.now_ms()) + self.0.header_timeout);
        }
        end.saturating_sub(Duration::from_millis(self.now_ms()))
    }

    /// When to look again: nothing wakes the timer when a head begins or a write stalls, so it
    /// looks often enough to be late by no more than a limit's half.
    pub(super) fn next_look(&self) -> Duration {
        self.time_left().min(self.0.header_timeout / 2).min(self.0.write_timeout / 2)
    }

    /// When the connection was opened.
    pub(super) fn opened(&self) -> Instant {
        self.0.opened
    }

    /// Whether nothing is under way: no head, no request, no answer. A connection on which nothing
    /// has come at all is idle, too.
    pub(super) fn is_idle(&self) -> bool {
        self.0.requests.load(Ordering::SeqCst) == 0
            && (self.0.silent.load(Ordering::Relaxed)
                || self.0.head_since_ms.load(Ordering::Relaxed) == 0)
            && self.0.stalled_since_ms.load(Ordering::SeqCst) == 0
            && self.0.unsent.oldest_ms().is_none()
    }

    /// Whether a first request, or the rest of a head, may be on its way.
    pub(super) fn awaits_head(&self) -> bool {
        self.0.requests.load(Ordering::Relaxed) == 0
            && self.0.head_since_ms.load(Ordering::Relaxed) != 0
    }

    /// Whether it speaks HTTP/2.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.0.multiplexed.load(Ordering::Relaxed)
    }

    /// The connection's place in the room.
    pub(super) fn seated(&self, room: Room, id: u64) {
        *self.0.seat.lock().unwrap_or_else(PoisonError::into_inner) = Some((room, id));
    }

    /// Since when the connection is idle; `None`: it is not, and tells the room when it is.
    pub(super) fn idle_since_or_says_so(&self) -> Option<Instant> {
        // First the wish, then the look. A request that ends, or a write that goes on, does its
        // part the other way round: whichever comes later sees what the other did.
        self.0.says_so.store(true, Ordering::SeqCst);
        if !self.is_idle() {
            return None;
        }
        self.0.says_so.store(false, Ordering::SeqCst);
        Some(self.idle_since())
    }

    fn idle_since(&self) -> Instant {
        self.0.opened + Duration::from_millis(self.0.idle_since_ms.load(Ordering::Relaxed))
    }

    fn says_so_if_idle(&self) {
        if self.0.says_so.load(Ordering::SeqCst)
            && self.is_idle()
            && self.0.says_so.swap(false, Ordering::SeqCst)
        {
            let seat = self.0.seat.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some((room, id)) = seat {
                room.fell_idle(id, self.idle_since());
            }
        }
    }

    pub(super) fn tell_to_leave(&self) {
        self.0.leave.notify_one();
    }

    /// Waits until the room needs this place. Cancel safe.
    pub(super) async fn told_to_leave(&self) {
        self.0.leave.notified().await;
    }
}

impl InRequest {
    /// Its answer's body, watched until it is written; `place` is kept until then.
    pub(super) fn carry(
        &self,
        body: Full<Bytes>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Full<Bytes> {
        let watch = self.watch.clone();
        self.watch.0.unsent.note(body, self.watch.now_ms(), move || {
            let _kept = &place;
            watch.says_so_if_idle();
        })
    }
}

impl Drop for InRequest {
    fn drop(&mut self) {
        let watch = &self.watch;
        watch.0.idle_since_ms.store(watch.now_ms(), Ordering::Relaxed);
        watch.0.octets.store(0, Ordering::Relaxed);
        watch.0.requests.fetch_sub(1, Ordering::SeqCst);
        watch.says_so_if_idle();
    }
}

#[cfg(test)]
impl Watch {
    /// One for a test, with this limit on everything but idleness, which has ten times that.
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
