//! A request in progress. It ends when its guard is dropped.
//!
//! Over HTTP/2 this is when the response is written. The socket does not show a response that the
//! client's flow-control window holds back, because it is not full. hyper drops a response's bytes
//! when it has written them, so the bytes own the guard.

use super::connection_state::ConnectionState;
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::Version;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

/// A request in progress; dropping it can leave the connection idle.
pub(super) struct RequestGuard {
    state: ConnectionState,
    /// No other request was in progress when it began.
    alone: bool,
    /// When its response was ready, if it waits to be written.
    unwritten_since: Option<Instant>,
    /// For a request that is concurrent with others of its connection.
    permit: Option<OwnedSemaphorePermit>,
}

/// The bytes of a response, and the request that ends with them.
struct GuardedBytes {
    bytes: Bytes,
    _guard: RequestGuard,
}

impl RequestGuard {
    /// Records a new request. `None`: the connection refuses requests.
    pub(super) fn begin(state: &ConnectionState, version: Version) -> Option<Self> {
        let alone = state.begin_request(version)? == 0;
        Some(Self { state: state.clone(), alone, unwritten_since: None, permit: None })
    }

    /// Whether no other request was in progress when it began.
    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Holds a permit until the request ends.
    pub(super) fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self.permit = Some(permit);
    }

    /// Keeps the request in progress until the response's body is written or dropped.
    pub(super) fn until_written(mut self, body: Full<Bytes>) -> Full<Bytes> {
        let bytes = match body.collect().now_or_never() {
            Some(Ok(collected)) => collected.to_bytes(),
            Some(Err(never)) => match never {},
            None => Bytes::new(),
        };
        if bytes.is_empty() {
            return Full::new(bytes);
        }
        self.unwritten_since = Some(self.state.response_ready());
        Full::new(Bytes::from_owner(GuardedBytes { bytes, _guard: self }))
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.state.end_request(self.unwritten_since);
    }
}

impl AsRef<[u8]> for GuardedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(10);

    // Reliability: A3.
    #[test]
    fn an_http2_request_ends_when_the_last_bytes_of_its_response_are_dropped() {
        let clock = Clock::manual();
        let state = ConnectionState::with_limits(&clock, LIMIT);
        let respond = |text: &'static str| {
            let guard = RequestGuard::begin(&state, Version::HTTP_2).unwrap();
            guard.until_written(Full::new(Bytes::from_static(text.as_bytes())))
        };
        let first = respond("first");
        clock.advance(Duration::from_secs(1));
        let second = respond("second");
        // An empty body has nothing to write.
        drop(respond(""));
        clock.advance(Duration::from_secs(1));
        let mut bytes = first.collect().now_or_never().unwrap().unwrap().to_bytes();
        let rest = bytes.split_off(3);
        drop(bytes);
        assert_eq!(state.time_left(), LIMIT - Duration::from_secs(2), "from the older response");
        drop(rest);
        assert_eq!(state.time_left(), LIMIT - Duration::from_secs(1), "from the other response");
        assert!(!state.is_idle());
        drop(second);
        assert_eq!(state.idle_since(), Some(clock.now()));
    }
}
