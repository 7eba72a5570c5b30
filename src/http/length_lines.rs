//! Content-Length beside Transfer-Encoding, which hyper hides: it drops the length.
//!
//! RFC 9112 §6.1 lets a server refuse such a request, as it may be an attempt to smuggle another. So
//! the lines that begin with `Content-Length:` are counted as they come, each request accounts for the
//! lengths that hyper shows, and a chunked request that finds one left over is refused. Nothing is
//! parsed: such a line in a body, or in a pipelined request behind a chunked one, counts as well. Both
//! only make the connection's next chunked request a 400, and no client needs either.

use hyper::Request;
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const NAME: &[u8] = b"content-length:";

/// A request has a length that hyper does not show. One of its extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct HiddenLength;

/// Lines of an HTTP/1 connection that no request has accounted for. All clones are one.
#[derive(Clone, Default)]
pub(super) struct LengthLines(Arc<AtomicUsize>);

impl LengthLines {
    /// Accounts for the length that the request shows, and marks it with [`HiddenLength`] if it is
    /// chunked and there is another.
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

    /// What looks for them in the octets of the connection.
    pub(super) fn scanner(&self) -> Scanner {
        Scanner { lines: self.clone(), matched: None }
    }
}

/// Finds the lines as they come, in pieces of any size.
pub(super) struct Scanner {
    lines: LengthLines,
    /// How much of [`NAME`] the line has begun with; `None`: it is another.
    matched: Option<usize>,
}

impl Scanner {
    /// Looks at the next octets.
    pub(super) fn scan(&mut self, octets: &[u8]) {
        for (index, part) in octets.split(|octet| *octet == b'\n').enumerate() {
            // hyper ends a line at any LF.
            let matched = if index == 0 { self.matched } else { Some(0) };
            self.matched = matched.and_then(|matched| self.go_on(matched, part));
        }
    }

    fn go_on(&self, matched: usize, part: &[u8]) -> Option<usize> {
        let wanted = NAME.get(matched..).unwrap_or_default();
        let mut pairs = wanted.iter().zip(part);
        if !pairs.all(|(wanted, octet)| octet.eq_ignore_ascii_case(wanted)) {
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

    /// How many lines there are, whatever the pieces.
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
    fn lines_are_found_in_any_case_and_in_any_pieces() {
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
    fn a_request_accounts_for_the_length_that_it_shows() {
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
        // Two requests in one piece, of which hyper hides the second one's length.
        scanner.scan(b"\nContent-Length: 1\r\n\r\nx\r\nContent-Length: 1\r\n");
        assert!(!is_marked(&[length]));
        assert!(is_marked(&[chunked]));
    }
}
