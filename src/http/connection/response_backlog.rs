//! Responses that HTTP/2 cannot send because the client grants no flow-control window.
//!
//! The socket does not show them, because it is not full. hyper drops a response's bytes when it
//! has written them, so the bytes carry an entry in this list. The oldest entry tells how long a
//! response has been waiting.

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Start times of a connection's unwritten responses, in ms since the connection opened.
///
/// It has at most as many entries as the connection may have streams.
#[derive(Clone, Default)]
pub(super) struct ResponseBacklog(Arc<Mutex<Vec<u64>>>);

/// The bytes of a response. Dropping them removes its entry and calls `written`.
struct Tracked<F: FnMut()> {
    bytes: Bytes,
    backlog: ResponseBacklog,
    since_ms: u64,
    written: F,
}

impl ResponseBacklog {
    /// Returns the same body, listed until it is written or dropped; then `written` is called.
    pub(super) fn track(
        &self,
        body: Full<Bytes>,
        since_ms: u64,
        written: impl FnMut() + Send + 'static,
    ) -> Full<Bytes> {
        let bytes = match body.collect().now_or_never() {
            Some(Ok(collected)) => collected.to_bytes(),
            Some(Err(never)) => match never {},
            None => Bytes::new(),
        };
        if bytes.is_empty() {
            return Full::new(bytes);
        }
        self.list().push(since_ms);
        Full::new(Bytes::from_owner(Tracked { bytes, backlog: self.clone(), since_ms, written }))
    }

    /// When the oldest unwritten response was added, in ms.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.list().iter().min().copied()
    }

    fn list(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: FnMut()> AsRef<[u8]> for Tracked<F> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<F: FnMut()> Drop for Tracked<F> {
    fn drop(&mut self) {
        let mut list = self.backlog.list();
        if let Some(index) = list.iter().position(|since_ms| *since_ms == self.since_ms) {
            list.swap_remove(index);
        }
        drop(list);
        (self.written)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_listed_until_its_last_bytes_are_dropped() {
        let backlog = ResponseBacklog::default();
        let body = backlog.track(Full::new(Bytes::from_static(b"answer")), 7, || {});
        let later = backlog.track(Full::new(Bytes::from_static(b"later")), 9, || {});
        // An empty body is never listed.
        drop(backlog.track(Full::default(), 1, || {}));
        let mut bytes = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        let rest = bytes.split_off(3);
        drop(bytes);
        assert_eq!(backlog.oldest_ms(), Some(7));
        drop(rest);
        assert_eq!(backlog.oldest_ms(), Some(9));
        drop(later);
        assert_eq!(backlog.oldest_ms(), None);
    }
}
