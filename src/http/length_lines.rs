//! Detects requests with both Content-Length and Transfer-Encoding. hyper hides that length.
//!
//! RFC 9112 §6.1 lets a server refuse such a request, because it may be an attempt at request
//! smuggling. So this counts the received lines that begin with `Content-Length:`. Each request
//! subtracts the lengths that hyper shows, and a chunked request with a line left over is refused.
//! Such a line in a body, or in a pipelined request after a chunked one, counts too. The only effect
//! is a 400 for the connection's next chunked request, and no client needs either case.

use hyper::Request;
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const NAME: &[u8] = b"content-length:";

/// Request extension: the request has a Content-Length that hyper does not show.
#[derive(Clone, Copy, Debug)]
pub(super) struct HiddenLength;

/// Content-Length lines of an HTTP/1 connection that no request explains yet. Clones share it.
#[derive(Clone, Default)]
pub(super) struct LengthLines(Arc<AtomicUsize>);

impl LengthLines {
    /// Subtracts the lengths that the request shows, and marks a chunked request that has another.
    ///
    /// The mark is [`HiddenLength`].
    pub(super) fn account<B>(&self, request: &mut Request<B>) {
        let lines = self.0.load(Relaxed);
        if lines == 0 {
            return;
        }
        let shown = request.headers().get_all(CONTENT_LENGTH).iter().count();
        let left = lines.saturating_sub(shown);
        self.0.store(left, Relaxed);
        if left > 0 && request.headers().contains_key(TRANSFER_ENCODING) {
            request.extensions_mut().insert(HiddenLength);
        }
    }

    /// A scanner for the connection's bytes.
    pub(super) fn scanner(&self) -> Scanner {
        Scanner { lines: self.clone(), matched: None }
    }
}

/// Finds the lines in received bytes, which can arrive in pieces of any size.
pub(super) struct Scanner {
    lines: LengthLines,
    /// The length of the prefix of [`NAME`] matched so far; `None`: a different line.
    matched: Option<usize>,
}

impl Scanner {
    /// Scans the next bytes.
    pub(super) fn scan(&mut self, bytes: &[u8]) {
        for (index, part) in bytes.split(|byte| *byte == b'\n').enumerate() {
            // hyper ends a line at any LF.
            let matched = if index == 0 { self.matched } else { Some(0) };
            self.matched = matched.and_then(|matched| self.advance(matched, part));
        }
    }

    fn advance(&self, matched: usize, part: &[u8]) -> Option<usize> {
        let wanted = NAME.get(matched..).unwrap_or_default();
        let mut pairs = wanted.iter().zip(part);
        if !pairs.all(|(wanted, byte)| byte.eq_ignore_ascii_case(wanted)) {
            return None;
        }
        if part.len() < wanted.len() {
            return Some(matched + part.len());
        }
        self.lines.0.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the lines, with pieces of every size.
    fn count(text: &str) -> usize {
        let counts = (1..=text.len()).map(|size| {
            let lines = LengthLines::default();
            let mut scanner = lines.scanner();
            text.as_bytes().chunks(size).for_each(|piece| scanner.scan(piece));
            lines.0.load(Relaxed)
        });
        let counts: Vec<usize> = counts.collect();
        assert!(counts.iter().all(|count| *count == counts[0]), "{text:?}: {counts:?}");
        counts[0]
    }

    #[test]
    fn lines_are_found_in_any_case_and_in_pieces_of_any_size() {
        for (text, lines) in [
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", 1),
            ("GET / HTTP/1.1\ncontent-LENGTH:1\nX: y\nContent-Length: 1\n\n", 2),
            ("GET / HTTP/1.1\r\nX-Content-Length: 1\r\nContent-Lengths: 1\r\n\r\n", 0),
            ("Content-Length: 1\r\n\r\n", 0),
            ("\n\ncontent-content-length:\ncontent-\nlength:\n", 0),
        ] {
            assert_eq!(count(text), lines, "{text:?}");
        }
    }

    #[test]
    fn a_chunked_request_with_a_hidden_length_is_marked() {
        let lines = LengthLines::default();
        let mut scanner = lines.scanner();
        let is_marked = |fields: &[(&str, &str)]| {
            let mut builder = Request::builder();
            for (name, value) in fields {
                builder = builder.header(*name, *value);
            }
            let mut request = builder.body(()).unwrap();
            lines.account(&mut request);
            request.extensions().get::<HiddenLength>().is_some()
        };
        let (length, chunked) = (("content-length", "1"), ("transfer-encoding", "chunked"));
        assert!(!is_marked(&[chunked]));
        // Two requests in one piece; hyper hides the length of the second.
        scanner.scan(b"\nContent-Length: 1\r\n\r\nx\r\nContent-Length: 1\r\n");
        assert!(!is_marked(&[length]));
        assert!(is_marked(&[chunked]));
    }
}
