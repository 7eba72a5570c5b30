//! The log: text on a terminal, JSON lines elsewhere, always to standard error.
//!
//! Writing goes through a bounded queue to a thread of its own and drops lines rather than wait:
//! a full disk or a closed pipe must not stop a login. Standard output is left to the few lines
//! that the start prints.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Log lines that may wait for the writer; more are dropped. At about 300 octets a line, 20 MB.
const LINES_WAITING_MAX: usize = 65_536;

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
        text.parse().map(Self).map_err(|_| {
            "must be a level (error, warn, info, debug, trace, off) or target=level pairs".into()
        })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Starts the log of this process. Keep the guard to the end: dropping it writes what is left.
/// A second call in one process leaves the first log in place.
pub fn start(format: Format, filter: &Filter) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_WAITING_MAX)
        .thread_name("staunch-log")
        .finish(std::io::stderr());
    let terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(terminal);
    let json = format == Format::Json || (format == Format::Auto && !terminal);
    let lines = if json {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        lines.with_target(false).boxed()
    };
    // Fails only if a log is running already.
    tracing_subscriber::registry().with(lines.with_filter(filter.0.clone())).try_init().ok();
    guard
}
