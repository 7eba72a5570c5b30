//! The log: text on a terminal, JSON lines elsewhere, always to standard error.
//!
//! A dedicated thread writes the lines from a bounded queue (`log_queue`). A full queue drops
//! lines instead of blocking, because a full disk or a closed pipe must not stop a login. Standard
//! output is reserved for the start lines.

use super::json_lines::JsonLines;
use super::log_queue::LogQueue;
use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

pub use super::log_queue::{BYTES_MAX, LogGuard};

/// Lines that a text log holds until the start lines are printed; more are written. Unit: bytes.
const START_BYTES_MAX: usize = 64 * 1024;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be auto, text or json".into()),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// The log filter: a level, or levels by target (`info,staunch::http=debug`).
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Targets);

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The library would read a misspelt level as a target, and log nothing.
        let known = text.split(',').all(|part| {
            part.contains('=') || !part.is_empty() && part.parse::<LevelFilter>().is_ok()
        });
        text.parse().ok().filter(|_| known).map(Self).ok_or_else(|| {
            "must be a level (error, warn, info, debug, trace, off) or target=level pairs".into()
        })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The log of this process. Cheap to clone; the default logs nothing.
#[derive(Clone, Default)]
pub struct Log(Option<Arc<Inner>>);

struct Inner {
    filter: reload::Handle<Targets, Registry>,
    /// `None`: the format is JSON.
    text: Option<TextWriter>,
    queue: LogQueue,
}

impl Log {
    /// Starts the log. Keep the guard until the end, because dropping it writes the remaining lines.
    ///
    /// A second call in one process keeps the first log.
    pub fn start(format: Format, filter: &Filter) -> (Self, LogGuard) {
        let (queue, guard) = LogQueue::start(std::io::stderr());
        let lines = tracing_subscriber::fmt::layer();
        let json =
            format == Format::Json || (format == Format::Auto && !std::io::stderr().is_terminal());
        let text = (!json).then(|| TextWriter::new(queue.clone()));
        let lines = match &text {
            None => lines.with_writer(queue.clone()).event_format(JsonLines).boxed(),
            Some(text) => {
                lines.with_writer(text.clone()).with_ansi(false).with_target(false).boxed()
            }
        };
        let (filter, handle) = reload::Layer::new(filter.0.clone());
        // Fails only if a log is running already.
        tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().ok();
        (Self(Some(Arc::new(Inner { filter: handle, text, queue }))), guard)
    }

    /// Replaces the filter.
    pub fn set_filter(&self, filter: &Filter) {
        if let Some(inner) = &self.0 {
            // Fails only if the log has ended, and then the error cannot be logged.
            inner.filter.reload(filter.0.clone()).ok();
        }
    }

    /// Whether the format is JSON.
    pub fn is_json(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.text.is_none())
    }

    /// Holds the lines of a text log below warning level until [`Log::release`].
    pub fn hold(&self) {
        if let Some(text) = self.0.as_ref().and_then(|inner| inner.text.as_ref()) {
            text.hold();
        }
    }

    /// Writes the held lines, and stops holding.
    pub fn release(&self) {
        if let Some(text) = self.0.as_ref().and_then(|inner| inner.text.as_ref()) {
            text.release();
        }
    }

    /// Lines dropped since the start because standard error was too slow.
    pub fn lines_dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.queue.dropped())
    }
}

/// Writer of a text log.
///
/// During the start, lines below warning level wait until the start lines are printed, so that those
/// come first.
#[derive(Clone)]
struct TextWriter {
    queue: LogQueue,
    /// The held lines. `None`: lines are not held.
    waiting: Arc<Mutex<Option<Vec<u8>>>>,
}

impl TextWriter {
    fn new(queue: LogQueue) -> Self {
        Self { queue, waiting: Arc::default() }
    }

    fn hold(&self) {
        if let Ok(mut waiting) = self.waiting.lock() {
            waiting.get_or_insert_default();
        }
    }

    fn release(&self) {
        let waiting = self.waiting.lock().ok().and_then(|mut waiting| waiting.take());
        if let Some(lines) = waiting.filter(|lines| !lines.is_empty()) {
            self.queue.push(&lines);
        }
    }

    /// Holds a line, if lines are held and it fits.
    fn keep(&self, line: &[u8]) -> bool {
        let Ok(mut waiting) = self.waiting.lock() else { return false };
        let Some(lines) = waiting.as_mut() else { return false };
        let fits = lines.len() + line.len() <= START_BYTES_MAX;
        if fits {
            lines.extend_from_slice(line);
        }
        fits
    }
}

impl<'a> MakeWriter<'a> for TextWriter {
    type Writer = TextLine<'a>;

    fn make_writer(&'a self) -> TextLine<'a> {
        TextLine { writer: self, may_wait: false }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> TextLine<'a> {
        TextLine { writer: self, may_wait: *meta.level() > Level::WARN }
    }
}

/// Writer of one line. One call of `write` is one line.
struct TextLine<'a> {
    writer: &'a TextWriter,
    may_wait: bool,
}

impl io::Write for TextLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !(self.may_wait && self.writer.keep(line)) {
            self.writer.queue.push(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_with_a_misspelt_level_is_refused() {
        for good in ["info", "off", "WARN", "warn,staunch::http=debug", "staunch=trace"] {
            assert!(good.parse::<Filter>().is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,", "staunch=loud", "info,staunch"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }
}
