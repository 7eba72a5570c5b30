//! The log: text on a terminal, JSON lines elsewhere, always to standard error.
//!
//! Writing goes through a bounded queue to a thread of its own and drops lines rather than wait:
//! a full disk or a closed pipe must not stop a login. Standard output is left to the few lines
//! that the start prints.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::Arc;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// Log lines that may wait for the writer; more are dropped. At about 300 octets a line, 20 MB.
const LINES_WAITING_MAX: usize = 65_536;
/// Memory of those, when they are long. Unit: octets.
pub const OCTETS_MAX: u64 = LINES_WAITING_MAX as u64 * 512;

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
        let lines = tracing_subscriber::fmt::layer().with_writer(writer);
        let json =
            format == Format::Json || (format == Format::Auto && !std::io::stderr().is_terminal());
        let lines = if json {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        } else {
            lines.with_ansi(false).with_target(false).boxed()
        };
        let (filter, handle) = reload::Layer::new(filter.0.clone());
        // Fails only if a log is running already.
        tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().ok();
        (Self(Some(Arc::new(Inner { filter: handle, dropped }))), guard)
    }

    /// Changes which lines are written, from now on.
    pub fn set_filter(&self, filter: &Filter) {
        if let Some(inner) = &self.0 {
            // Fails only if the log is gone, and then there is nobody to tell.
            inner.filter.reload(filter.0.clone()).ok();
        }
    }

    /// Lines dropped since the start because standard error took them too slowly.
    pub fn lines_dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.dropped.dropped_lines() as u64)
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
