//! The log: text on a terminal, JSON lines elsewhere, always to standard error.
//!
//! Writing goes through a bounded queue to a thread of its own and drops lines rather than wait:
//! a full disk or a closed pipe must not stop a login. Standard output is left to the few lines
//! that the start prints for people.

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

/// Log lines that may wait for the writer; more are dropped. At about 300 octets a line, 20 MB.
const LINES_WAITING_MAX: usize = 65_536;
/// Memory of those, when they are long. Unit: octets.
pub const OCTETS_MAX: u64 = LINES_WAITING_MAX as u64 * 512;

/// What a text log keeps back until the start lines are printed; more is written at once. Unit: octets.
const START_OCTETS_MAX: usize = 64 * 1024;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One object a line.
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

/// Which lines are written: a level, or levels by target (`info,staunch::http=debug`).
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Targets);

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The library takes a misspelt level for a target, and the log would fall silent.
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

/// The log of this process. Cheap to clone; the default is none.
#[derive(Clone, Default)]
pub struct Log(Option<Arc<Inner>>);

struct Inner {
    filter: reload::Handle<Targets, Registry>,
    /// `None`: its lines are JSON.
    text: Option<TextWriter>,
    dropped: ErrorCounter,
}

impl Log {
    /// Starts it. Keep the guard to the end: dropping it writes what is left. A second call in one
    /// process leaves the first log in place.
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

    /// Changes which lines are written, from now on.
    pub fn set_filter(&self, filter: &Filter) {
        if let Some(inner) = &self.0 {
            // Fails only if the log is gone, and then there is nobody to tell.
            inner.filter.reload(filter.0.clone()).ok();
        }
    }

    /// Whether its lines are JSON.
    pub fn is_json(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.text.is_none())
    }

    /// Keeps back the lines of a text log that are no warnings, until [`Log::release`].
    pub fn hold(&self) {
        if let Some(text) = self.0.as_ref().and_then(|inner| inner.text.as_ref()) {
            text.hold();
        }
    }

    /// Writes the lines that were kept back; from now on none is.
    pub fn release(&self) {
        if let Some(text) = self.0.as_ref().and_then(|inner| inner.text.as_ref()) {
            text.release();
        }
    }

    /// Lines dropped since the start because standard error took them too slowly.
    pub fn lines_dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.dropped.dropped_lines() as u64)
    }
}

/// Writes the lines of a text log. During the start those that are no warnings wait until the start
/// lines have been printed, so that a person finds these first.
#[derive(Clone)]
struct TextWriter {
    out: NonBlocking,
    /// `None`: none waits.
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

    /// Keeps a line, if lines still wait and there is room.
    fn keep(&self, line: &[u8]) -> bool {
        let Ok(mut waiting) = self.waiting.lock() else { return false };
        let Some(lines) = waiting.as_mut() else { return false };
        let fits = lines.len() + line.len() <= START_OCTETS_MAX;
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

/// One line on its way.
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
    fn a_filter_is_a_level_or_pairs_and_never_a_misspelt_level() {
        for good in ["info", "off", "WARN", "warn,staunch::http=debug", "staunch=trace"] {
            assert!(good.parse::<Filter>().is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,", "staunch=loud", "info,staunch"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }
}
