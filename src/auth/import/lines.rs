//! Lines of bounded length out of a file of any length.

use std::io;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// The longest line, in octets without its line feed: four times what the longest fields take.
pub(super) const LINE_OCTETS_MAX: usize = 4_096;

/// U+FEFF, with which some programs begin a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads lines; holds one at a time.
pub(super) struct Lines<R> {
    input: R,
    number: u64,
    /// The line, as far as it fits: one octet more says that it is too long.
    octets: Vec<u8>,
}

/// One line that is not blank.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// From 1; blank lines count.
    pub(super) number: u64,
    /// Without blanks around it; `None` if it is longer than [`LINE_OCTETS_MAX`].
    pub(super) text: Option<&'a [u8]>,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, number: 0, octets: Vec::with_capacity(LINE_OCTETS_MAX + 1) }
    }

    /// The next line that is not blank; `None` at the end. What follows the bound in a line is read
    /// and dropped.
    ///
    /// Not cancel safe: a line that was half read is lost.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            if !self.read().await? {
                return Ok(None);
            }
            self.number += 1;
            if self.number == 1 && self.octets.starts_with(BYTE_ORDER_MARK) {
                self.octets.drain(..BYTE_ORDER_MARK.len());
            }
            if !self.octets.trim_ascii().is_empty() || self.is_too_long() {
                break;
            }
        }
        let text = (!self.is_too_long()).then(|| self.octets.trim_ascii());
        Ok(Some(Line { number: self.number, text }))
    }

    fn is_too_long(&self) -> bool {
        self.octets.len() > LINE_OCTETS_MAX
    }

    /// Reads up to the next line feed; false at the end.
    async fn read(&mut self) -> io::Result<bool> {
        self.octets.clear();
        let mut any = false;
        loop {
            let chunk = self.input.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(any);
            }
            any = true;
            let end = chunk.iter().position(|octet| *octet == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            let room = (LINE_OCTETS_MAX + 1).saturating_sub(self.octets.len());
            self.octets.extend_from_slice(part.get(..room).unwrap_or(part));
            let read = part.len() + usize::from(end.is_some());
            self.input.consume(read);
            if end.is_some() {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::BufReader;

    /// Every line, read through a buffer of `capacity` octets.
    async fn all(input: &[u8], capacity: usize) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut lines = Lines::new(BufReader::with_capacity(capacity, input));
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push((line.number, line.text.map(<[u8]>::to_vec)));
        }
        assert!(lines.octets.capacity() < 3 * LINE_OCTETS_MAX);
        found
    }

    #[tokio::test]
    async fn blank_lines_are_counted_and_left_out() {
        let text = b"\xef\xbb\xbfa\n\n \t\r\n  b c \r\n\xef\xbb\xbf\nlast";
        for capacity in [1, 3, 64] {
            let lines = all(text, capacity).await;
            let expected = [(1, "a"), (4, "b c"), (5, "\u{feff}"), (6, "last")];
            let expected = expected.map(|(number, text)| (number, Some(text.into())));
            assert_eq!(lines, expected);
        }
        assert_eq!(all(b"", 8).await, []);
        assert_eq!(all(b"\n\r\n", 8).await, []);
    }

    #[tokio::test]
    async fn a_line_over_the_bound_is_not_kept_and_the_next_one_is() {
        let longest = "x".repeat(LINE_OCTETS_MAX);
        for (extra, capacity) in [("y", 1), ("y", 8_192), (" ", 100), (&*longest, 7)] {
            let text = format!("{longest}\n{longest}{extra}\nafter\n");
            let lines = all(text.as_bytes(), capacity).await;
            let expected =
                [(1, Some(longest.clone().into())), (2, None), (3, Some("after".into()))];
            assert_eq!(lines, expected);
        }
        let huge = vec![b' '; 1_000_000];
        assert_eq!(all(&huge, 4_096).await, [(1, None)]);
    }
}
