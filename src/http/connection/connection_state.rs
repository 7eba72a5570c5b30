//! What a connection is doing, and which of its timeouts comes next.
//!
//! hyper's own header timeout starts when a connection falls idle, so it cannot distinguish a slow
//! head from a patient client. Here the stream and the requests record what happened last, and one
//! timer a connection (in `driver`) compares that with the limits: an unfinished head, an idle
//! connection, a client that does not read its response. The deadline of a body is in `request`.
//!
//! One mutex protects the whole state. Only the connection's own tasks and a search for idle
//! connections lock it, each for a few instructions, so it is almost never contended.

use crate::clock::Clock;
use crate::http::HttpConfig;
use hyper::Version;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes that must pass through a full socket to restart the write timeout. A response is smaller,
/// so this matters for connections that carry many at once.
const WRITE_PROGRESS_BYTES: usize = 64 * 1024;
/// Bytes received between two begins or ends of requests, at most: a base, and an allowance for
/// each request in progress (a head, a body, and the overhead of frames or chunks). More is a flood
/// of frames without requests (PING, SETTINGS, CONTINUATION, data of cancelled streams).
const BYTES_MAX: usize = 128 * 1024;
const BYTES_PER_REQUEST_MAX: usize = 32 * 1024;

/// The state of one connection, as its stream and its requests report it. Clones share it.
#[derive(Clone)]
pub(super) struct ConnectionState(Arc<Inner>);

struct Inner {
    clock: Clock,
    header_timeout: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
    activity: Mutex<Activity>,
    eviction: Notify,
}

struct Activity {
    phase: Phase,
    /// Set while the socket is full.
    stall: Option<Stall>,
    /// When each response that HTTP/2 has not completely written was ready.
    unwritten: Vec<Instant>,
    /// Bytes received since a request last began or ended.
    received: usize,
    /// HTTP/2: bytes between requests can be frames without a request, such as PING.
    multiplexed: bool,
    /// New HTTP/2 requests are refused.
    refusing: bool,
}

/// The progress of a connection's requests.
enum Phase {
    /// Nothing has arrived since the connection was opened.
    Silent { since: Instant },
    /// A head is arriving. The first head of a connection counts from its opening.
    Head { since: Instant },
    /// Requests are in progress, one or more.
    Requests { count: usize },
    /// The last request has ended, and no head has begun to arrive.
    Idle { since: Instant },
}

/// A full socket.
struct Stall {
    since: Instant,
    /// Bytes that it accepted since then.
    written: usize,
}

impl ConnectionState {
    pub(super) fn new(clock: &Clock, config: &HttpConfig) -> Self {
        Self(Arc::new(Inner {
            clock: clock.clone(),
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            write_timeout: config.write_timeout,
            activity: Mutex::new(Activity {
                phase: Phase::Silent { since: clock.now() },
                stall: None,
                unwritten: Vec::new(),
                received: 0,
                multiplexed: false,
                refusing: false,
            }),
            eviction: Notify::new(),
        }))
    }

    /// Records bytes read from the socket.
    ///
    /// # Errors
    /// When they exceed what the requests can account for.
    pub(super) fn bytes_received(&self, count: usize) -> io::Result<()> {
        let mut activity = self.activity();
        match activity.phase {
            Phase::Silent { since } => activity.phase = Phase::Head { since },
            Phase::Idle { .. } if !activity.multiplexed => {
                activity.phase = Phase::Head { since: self.now() };
            }
            Phase::Head { .. } | Phase::Requests { .. } | Phase::Idle { .. } => {}
        }
        activity.received += count;
        if activity.received > BYTES_MAX + BYTES_PER_REQUEST_MAX * activity.requests() {
            return Err(io::Error::other("the client sent far more bytes than its requests need"));
        }
        Ok(())
    }

    /// Records that the socket is full.
    pub(super) fn write_stalled(&self) {
        let mut activity = self.activity();
        if activity.stall.is_none() {
            activity.stall = Some(Stall { since: self.now(), written: 0 });
        }
    }

    /// Records bytes that the socket accepted.
    pub(super) fn bytes_written(&self, count: usize) {
        let mut activity = self.activity();
        if let Some(stall) = &mut activity.stall {
            stall.written += count;
            if stall.written >= WRITE_PROGRESS_BYTES {
                activity.stall = None;
            }
        }
    }

    /// Records that the socket accepted everything.
    pub(super) fn flushed(&self) {
        self.activity().stall = None;
    }

    /// Records a new request, and returns how many others are in progress.
    ///
    /// `None`: [`refuse_requests`](Self::refuse_requests) was called.
    pub(super) fn begin_request(&self, version: Version) -> Option<usize> {
        let mut activity = self.activity();
        activity.multiplexed = version == Version::HTTP_2;
        if activity.multiplexed && activity.refusing {
            return None;
        }
        let others = activity.requests();
        activity.phase = Phase::Requests { count: others + 1 };
        activity.received = 0;
        Some(others)
    }

    /// Records that a request's response is ready, but not written. Returns the present time.
    pub(super) fn response_ready(&self) -> Instant {
        let now = self.now();
        self.activity().unwritten.push(now);
        now
    }

    /// Records the end of a request, whose response was ready at `unwritten_since` if at all.
    pub(super) fn end_request(&self, unwritten_since: Option<Instant>) {
        let mut activity = self.activity();
        let of_response =
            activity.unwritten.iter().position(|since| Some(*since) == unwritten_since);
        if let Some(index) = of_response {
            activity.unwritten.swap_remove(index);
        }
        activity.received = 0;
        activity.phase = match activity.requests() {
            0 | 1 => Phase::Idle { since: self.now() },
            count => Phase::Requests { count: count - 1 },
        };
    }

    /// Refuses new requests from now on, so that the connection falls idle. Affects HTTP/2 only:
    /// HTTP/1 can have only the request that is already arriving.
    pub(super) fn refuse_requests(&self) {
        self.activity().refusing = true;
    }

    /// Time until the next limit if nothing happens. Zero: a limit is reached.
    pub(super) fn time_left(&self) -> Duration {
        let now = self.now();
        let left = |since: Instant, limit: Duration| {
            limit.saturating_sub(now.saturating_duration_since(since))
        };
        let activity = self.activity();
        let of_phase = match activity.phase {
            Phase::Silent { since } | Phase::Head { since } => left(since, self.0.header_timeout),
            // A request has its own deadlines. Check again when the connection could be idle.
            Phase::Requests { .. } => self.0.header_timeout,
            Phase::Idle { since } => left(since, self.0.idle_timeout),
        };
        let stalled_since = activity.stall.as_ref().map(|stall| stall.since);
        let unwritten_since = activity.unwritten.iter().min().copied();
        [stalled_since, unwritten_since]
            .into_iter()
            .flatten()
            .map(|since| left(since, self.0.write_timeout))
            .fold(of_phase, Duration::min)
    }

    /// Time until the next check of the limits. Nothing wakes the timer when a head begins or a
    /// write stalls, so this interval bounds the delay to half of a limit.
    pub(super) fn next_check(&self) -> Duration {
        self.time_left().min(self.0.header_timeout / 2).min(self.0.write_timeout / 2)
    }

    /// When the connection fell idle. `None`: a head, request or response is in progress.
    ///
    /// A connection on which nothing has arrived is idle too.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let activity = self.activity();
        match activity.phase {
            Phase::Silent { since } | Phase::Idle { since } => {
                activity.stall.is_none().then_some(since)
            }
            Phase::Head { .. } | Phase::Requests { .. } => None,
        }
    }

    /// Whether the connection has no head, request or response in progress.
    pub(super) fn is_idle(&self) -> bool {
        self.idle_since().is_some()
    }

    /// Whether a first request, or the rest of a head, can be on its way.
    pub(super) fn awaits_head(&self) -> bool {
        matches!(self.activity().phase, Phase::Silent { .. } | Phase::Head { .. })
    }

    /// Whether the connection uses HTTP/2.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.activity().multiplexed
    }

    /// Asks the connection's task to end the connection, if it is still idle.
    pub(super) fn request_eviction(&self) {
        self.0.eviction.notify_one();
    }

    /// Waits until [`request_eviction`](Self::request_eviction) is called. Cancel safe.
    pub(super) async fn eviction_requested(&self) {
        self.0.eviction.notified().await;
    }

    fn now(&self) -> Instant {
        self.0.clock.now()
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.0.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    /// Requests in progress.
    fn requests(&self) -> usize {
        match self.phase {
            Phase::Requests { count } => count,
            Phase::Silent { .. } | Phase::Head { .. } | Phase::Idle { .. } => 0,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    fn opened() -> (Clock, ConnectionState) {
        let clock = Clock::manual();
        let state = ConnectionState::with_limits(&clock, LIMIT);
        (clock, state)
    }

    // Reliability: A1.
    #[test]
    fn the_first_head_counts_from_the_opening_and_others_from_their_first_byte() {
        let (clock, state) = opened();
        let start = clock.now();
        clock.advance(SECOND);
        assert!(state.awaits_head());
        assert_eq!(state.idle_since(), Some(start), "nothing has arrived");
        state.bytes_received(1).unwrap();
        assert_eq!((state.idle_since(), state.time_left()), (None, LIMIT - SECOND));
        state.begin_request(Version::HTTP_11);
        assert_eq!((state.idle_since(), state.awaits_head()), (None, false));
        clock.advance(2 * LIMIT);
        assert!(!state.time_left().is_zero(), "a request has its own deadlines");
        state.end_request(None);
        assert_eq!(state.idle_since(), Some(clock.now()));
        clock.advance(SECOND);
        assert_eq!(state.time_left(), 10 * LIMIT - SECOND);
        state.bytes_received(1).unwrap();
        clock.advance(SECOND);
        state.bytes_received(1).unwrap();
        assert_eq!(state.time_left(), LIMIT - SECOND);
        assert!(state.awaits_head() && !state.is_idle());
        clock.advance(LIMIT);
        assert!(state.time_left().is_zero());
    }

    #[test]
    fn an_http2_connection_is_idle_after_its_last_request_even_if_frames_arrive() {
        let (clock, state) = opened();
        assert_eq!(state.begin_request(Version::HTTP_2), Some(0));
        assert_eq!(state.begin_request(Version::HTTP_2), Some(1));
        assert!(state.is_multiplexed());
        state.end_request(None);
        assert!(!state.is_idle());
        state.end_request(None);
        let ended = clock.now();
        clock.advance(SECOND);
        state.bytes_received(100).unwrap();
        assert_eq!(state.idle_since(), Some(ended));
        assert_eq!(state.begin_request(Version::HTTP_2), Some(0));
    }

    // Reliability: A3.
    #[test]
    fn a_full_socket_has_the_write_timeout_until_it_accepts_64_kib() {
        let (clock, state) = opened();
        state.begin_request(Version::HTTP_11);
        state.end_request(None);
        state.bytes_written(WRITE_PROGRESS_BYTES);
        state.write_stalled();
        clock.advance(SECOND);
        state.bytes_written(WRITE_PROGRESS_BYTES - 1);
        state.write_stalled();
        assert_eq!((state.is_idle(), state.time_left()), (false, LIMIT - SECOND));
        state.bytes_written(1);
        assert_eq!((state.is_idle(), state.time_left()), (true, 10 * LIMIT - SECOND));
        state.write_stalled();
        assert_eq!(state.time_left(), LIMIT, "the timeout starts again");
        state.flushed();
        assert!(state.is_idle());
    }

    // Reliability: A8.
    #[test]
    fn bytes_beyond_what_the_requests_need_are_an_error() {
        let (_, state) = opened();
        state.begin_request(Version::HTTP_2);
        state.begin_request(Version::HTTP_2);
        assert!(state.bytes_received(BYTES_MAX + 2 * BYTES_PER_REQUEST_MAX).is_ok());
        assert!(state.bytes_received(1).is_err());
        state.end_request(None);
        assert!(state.bytes_received(BYTES_MAX + BYTES_PER_REQUEST_MAX).is_ok(), "counted again");
        assert!(state.bytes_received(1).is_err());
    }

    // Reliability: A9.
    #[test]
    fn a_connection_that_refuses_requests_falls_idle() {
        let (_, state) = opened();
        state.begin_request(Version::HTTP_2);
        state.refuse_requests();
        assert!(state.begin_request(Version::HTTP_2).is_none());
        assert!(!state.is_idle());
        state.end_request(None);
        assert!(state.is_idle());
        assert!(state.begin_request(Version::HTTP_11).is_some(), "it is arriving already");
    }
}
