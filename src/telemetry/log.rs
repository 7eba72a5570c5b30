//! The log: text on a terminal, JSON lines elsewhere, always to standard error.
//!
//! A dedicated thread writes the lines from a bounded queue. A full queue drops lines instead of
//! blocking, because a full disk or a closed pipe must not stop a login. Standard output is reserved
//! for the start lines.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// Log lines that may wait for the writer; more are dropped. About 20 MB at 300 bytes per line.
const LINES_WAITING_MAX: usize = 65_536;
/// Memory of waiting lines, when they are long. Unit: bytes.
pub const BYTES_MAX: u64 = LINES_WAITING_MAX as u64 * 512;

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
    dropped: ErrorCounter,
}

impl Log {
    /// Starts the log. Keep the guard until the end, because dropping it writes the remaining lines.
    ///
    /// A second call in one process keeps the first log.
    pub fn start(format: Format, filter: &Filter) -> (Self, WorkerGuard) {
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(LINES_WAITING_MAX)
            .thread_name("staunch-log")
            .finish(std::io::stderr());
        let dropped = writer.error_counter();
        let lines = tracing_subscriber::fmt::layer();
        let json =
            format == Format::Json || (format == Format::Auto && !std::io::stderr().is_terminal());
        let text = (!json).then(|| TextWriter::new(writer.clone()));
        let lines = match &text {
            None => {
                let lines = lines.with_writer(writer).json().flatten_event(true);
                lines.with_current_span(false).with_span_list(false).boxed()
            }
            Some(text) => {
                lines.with_writer(text.clone()).with_ansi(false).with_target(false).boxed()
            }
        };
        let (filter, handle) = reload::Layer::new(filter.0.clone());
        // Fails only if a log is running already.
        tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().ok();
        (Self(Some(Arc::new(Inner { filter: handle, text, dropped }))), guard)
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
        self.0.as_ref().map_or(0, |inner| inner.dropped.dropped_lines() as u64)
    }
}

/// Writer of a text log.
///
/// During the start, lines below warning level wait until the start lines are printed, so that those
/// come first.
#[derive(Clone)]
struct TextWriter {
    out: NonBlocking,
    /// The held lines. `None`: lines are not held.
    waiting: Arc<Mutex<Option<Vec<u8>>>>,
}

impl TextWriter {
    fn new(out: NonBlocking) -> Self {
        Self { out, waiting: Arc::default() }
    }

    fn hold(&self) {
        if let Ok(mut waiting) = self.waiting.lock() {
            waiting.get_or_insert_default();
        }
    }

    fn release(&self) {
        let waiting = self.waiting.lock().ok().and_then(|mut waiting| waiting.take());
        if let Some(lines) = waiting.filter(|lines| !lines.is_empty()) {
            self.out.clone().write_all(&lines).ok();
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
    type Writer = TextLine;

    fn make_writer(&'a self) -> TextLine {
        TextLine { writer: self.clone(), may_wait: false }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> TextLine {
        TextLine { writer: self.clone(), may_wait: *meta.level() > Level::WARN }
    }
}

/// Writer of one line.
struct TextLine {
    writer: TextWriter,
    may_wait: bool,
}

impl io::Write for TextLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.may_wait && self.writer.keep(line) {
            return Ok(line.len());
        }
        self.writer.out.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.out.flush()
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
