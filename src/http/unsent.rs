//! Answers that HTTP/2 holds back because the client gives it no window.
//!
//! The socket tells nothing of them: it is not full. But an answer's octets are dropped when they
//! have been written, so they carry a note, and the oldest note says for how long some answer has
//! been held back.

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A connection's answers that are not written yet: since when, in ms of the connection's own time.
/// As many as it may have streams.
#[derive(Clone, Default)]
pub(super) struct Unsent(Arc<Mutex<Vec<u64>>>);

/// An answer's octets. Dropping them runs `written`.
struct Noted<F: FnMut()> {
    octets: Bytes,
    unsent: Unsent,
    since_ms: u64,
    written: F,
}

impl Unsent {
    /// The same body, noted until it is written or given up; `written` is called then.
    pub(super) fn note(
        &self,
        body: Full<Bytes>,
        since_ms: u64,
        written: impl FnMut() + Send + 'static,
    ) -> Full<Bytes> {
        let octets = match body.collect().now_or_never() {
            Some(Ok(collected)) => collected.to_bytes(),
            Some(Err(never)) => match never {},
            None => Bytes::new(),
        };
        if octets.is_empty() {
            return Full::new(octets);
        }
        self.list().push(since_ms);
        Full::new(Bytes::from_owner(Noted { octets, unsent: self.clone(), since_ms, written }))
    }

    /// Since when the oldest has been held back.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.list().iter().min().copied()
    }

    fn list(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: FnMut()> AsRef<[u8]> for Noted<F> {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

impl<F: FnMut()> Drop for Noted<F> {
    fn drop(&mut self) {
        let mut list = self.unsent.list();
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
    fn an_answer_is_noted_until_the_last_of_its_octets_is_dropped() {
        let unsent = Unsent::default();
        let body = unsent.note(Full::new(Bytes::from_static(b"answer")), 7, || {});
        let later = unsent.note(Full::new(Bytes::from_static(b"later")), 9, || {});
        // One without octets has nothing to be held back.
        drop(unsent.note(Full::default(), 1, || {}));
        let mut octets = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        let rest = octets.split_off(3);
        drop(octets);
        assert_eq!(unsent.oldest_ms(), Some(7));
        drop(rest);
        assert_eq!(unsent.oldest_ms(), Some(9));
        drop(later);
        assert_eq!(unsent.oldest_ms(), None);
    }
}
