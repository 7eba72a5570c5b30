//! Reads lines of bounded length from a file of any length.

use std::io;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// The longest line without its line feed: four times the longest fields. Unit: bytes.
pub(super) const LINE_BYTES_MAX: usize = 4_096;

/// U+FEFF, which some programs write at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A reader of lines. Holds one line at a time.
pub(super) struct Lines<R> {
    input: R,
    number: u64,
    /// The start of the line. One byte over the maximum marks a line that is too long.
    bytes: Vec<u8>,
}

/// One line that is not blank.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The line number, from 1. Blank lines count.
    pub(super) number: u64,
    /// The trimmed line. `None` if it is longer than [`LINE_BYTES_MAX`].
    pub(super) text: Option<&'a [u8]>,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, number: 0, bytes: Vec::with_capacity(LINE_BYTES_MAX + 1) }
    }

    /// Returns the next line that is not blank, or `None` at the end.
    ///
    /// The part of a line beyond the maximum is read and discarded.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping the future loses a partly read line.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            if !self.read().await? {
                return Ok(None);
            }
            self.number += 1;
            if self.number == 1 && self.bytes.starts_with(BYTE_ORDER_MARK) {
                self.bytes.drain(..BYTE_ORDER_MARK.len());
            }
            if !self.bytes.trim_ascii().is_empty() || self.is_too_long() {
                break;
            }
        }
        let text = (!self.is_too_long()).then(|| self.bytes.trim_ascii());
        Ok(Some(Line { number: self.number, text }))
    }

    fn is_too_long(&self) -> bool {
        self.bytes.len() > LINE_BYTES_MAX
    }

    /// Reads up to the next line feed. Returns false at the end of the file.
    async fn read(&mut self) -> io::Result<bool> {
        self.bytes.clear();
        let mut any = false;
        loop {
            let chunk = self.input.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(any);
            }
            any = true;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            let room = (LINE_BYTES_MAX + 1).saturating_sub(self.bytes.len());
            self.bytes.extend_from_slice(part.get(..room).unwrap_or(part));
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

    /// Reads every line through a buffer of `capacity` bytes.
    async fn all(input: &[u8], capacity: usize) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut lines = Lines::new(BufReader::with_capacity(capacity, input));
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push((line.number, line.text.map(<[u8]>::to_vec)));
        }
        assert!(lines.bytes.capacity() < 3 * LINE_BYTES_MAX);
        found
    }

    #[tokio::test]
    async fn blank_lines_are_counted_and_skipped() {
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
    async fn a_line_that_is_too_long_is_skipped_and_the_next_one_is_read() {
        let longest = "x".repeat(LINE_BYTES_MAX);
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
