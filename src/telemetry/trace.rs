//! The stages of a request, noted as they end and read when it is answered.
//!
//! The log line of a slow request and the spans of an exported trace come from the same notes, so
//! nothing is measured twice. The notes are a task-local of the request's task: the code that runs a
//! stage adds a note, with times that its metrics need anyway, and no layer has to pass a handle.

use super::trace_context::TraceContext;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Most stages noted of one request; a login has eight, and with shared counters nine.
const SPANS_MAX: usize = 32;

tokio::task_local! {
    /// The notes of the request that this task serves.
    static CURRENT: Trace;
}

/// A stage of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Checking the rate limits.
    Limit,
    /// Reading the body, at the client's speed.
    Body,
    /// Waiting for a database connection.
    PoolWait,
    /// Running a database query.
    Query,
    /// Waiting for a hashing thread.
    HashWait,
    /// Hashing.
    Hash,
    /// A call of the shared counters.
    Redis,
    /// Signing an access token.
    Sign,
}

impl Stage {
    /// The system that the stage asks, by its name in OpenTelemetry; `None` for work of this process.
    pub fn database_system(self) -> Option<&'static str> {
        match self {
            Self::Query => Some("postgresql"),
            Self::Redis => Some("redis"),
            Self::Limit
            | Self::Body
            | Self::PoolWait
            | Self::HashWait
            | Self::Hash
            | Self::Sign => None,
        }
    }

    /// The stage's name in spans.
    pub fn label(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Body => "body",
            Self::PoolWait => "pool_wait",
            Self::Query => "query",
            Self::HashWait => "hash_wait",
            Self::Hash => "hash",
            Self::Redis => "redis",
            Self::Sign => "sign",
        }
    }
}

/// One stage of one request.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The kind of stage.
    pub stage: Stage,
    /// The name of a query, or the kind of a call.
    pub detail: Option<&'static str>,
    /// When the stage began.
    pub begun: Instant,
    /// When the stage ended.
    pub ended: Instant,
}

/// The notes of one request. Cheap to clone; all clones share them.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    context: TraceContext,
    notes: Mutex<Notes>,
}

/// The data noted about a request.
#[derive(Debug, Default)]
pub struct Notes {
    /// The request's session, once known.
    pub session: Option<u128>,
    /// The error with its causes, if the request failed. Only for the log.
    pub failure: Option<String>,
    /// The stages, in the order in which they ended.
    pub spans: Vec<Span>,
}

impl Notes {
    /// Total time of a stage, in microseconds; `None` if the request did not reach it.
    pub fn micros(&self, stage: Stage) -> Option<u64> {
        let mut spans = self.spans.iter().filter(|span| span.stage == stage).peekable();
        spans.peek()?;
        let time: Duration =
            spans.map(|span| span.ended.saturating_duration_since(span.begun)).sum();
        Some(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }
}

impl Trace {
    /// Creates empty notes.
    pub fn new(context: TraceContext) -> Self {
        Self(Arc::new(Inner { context, notes: Mutex::default() }))
    }

    /// The distributed trace of the request.
    pub fn context(&self) -> &TraceContext {
        &self.0.context
    }

    /// Runs the request's future, which can then add notes from its own task.
    ///
    /// Takes the future pinned, because it is several kilobytes large and moving it would cost more
    /// than all notes.
    ///
    /// # Cancel safety
    /// That of the future.
    pub async fn scope<F: Future>(&self, request: Pin<&mut F>) -> F::Output {
        CURRENT.scope(self.clone(), request).await
    }

    /// Takes the notes, at the end of the request.
    pub fn take(&self) -> Notes {
        self.0.notes.lock().map(|mut notes| std::mem::take(&mut *notes)).unwrap_or_default()
    }
}

/// Notes a stage. Does nothing outside a request, as in background work.
pub fn note(stage: Stage, detail: Option<&'static str>, begun: Instant, ended: Instant) {
    update(|notes| {
        if notes.spans.len() < SPANS_MAX {
            notes.spans.push(Span { stage, detail, begun, ended });
        }
    });
}

/// Notes the request's session.
pub fn note_session(session: u128) {
    update(|notes| notes.session = Some(session));
}

/// Notes why the request fails, for its log line. The first reason is kept.
pub fn note_failure(reason: impl Into<String>) {
    update(|notes| {
        notes.failure.get_or_insert_with(|| reason.into());
    });
}

/// The id shared by the log lines of the current request, or "none".
pub fn current_id() -> impl fmt::Display {
    let id = CURRENT.try_with(|trace| trace.context().trace_id);
    id.map_or_else(|_| "none".to_owned(), |id| id.to_string())
}

fn update(change: impl FnOnce(&mut Notes)) {
    CURRENT
        .try_with(|trace| {
            if let Ok(mut notes) = trace.0.notes.lock() {
                change(&mut notes);
            }
        })
        .ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::pin::pin;

    #[tokio::test]
    async fn notes_belong_to_the_request_of_their_task() {
        let clock = Clock::manual();
        let begun = clock.now();
        clock.advance(Duration::from_millis(2));
        let ended = clock.now();
        note(Stage::Query, Some("outside"), begun, ended);
        let trace = Trace::new(TraceContext::of(None, None, false));
        let request = async {
            note(Stage::Query, Some("one"), begun, ended);
            tokio::task::yield_now().await;
            note(Stage::Query, Some("two"), begun, ended);
            note_failure("first");
            note_failure("second");
            note_session(7);
            current_id().to_string()
        };
        let id = trace.scope(pin!(request)).await;
        note(Stage::Query, Some("outside"), begun, ended);
        let notes = trace.take();
        assert_eq!(notes.spans.len(), 2);
        assert_eq!(notes.micros(Stage::Query), Some(4_000));
        assert_eq!(notes.micros(Stage::Hash), None);
        assert_eq!((notes.failure.as_deref(), notes.session), (Some("first"), Some(7)));
        assert_eq!(id, trace.context().trace_id.to_string());
        assert_eq!(current_id().to_string(), "none");
    }

    #[tokio::test]
    async fn notes_are_bounded() {
        let now = Clock::manual().now();
        let trace = Trace::new(TraceContext::of(None, None, false));
        let request = async {
            for _ in 0..SPANS_MAX * 2 {
                note(Stage::Query, None, now, now);
            }
        };
        trace.scope(pin!(request)).await;
        assert_eq!(trace.take().spans.len(), SPANS_MAX);
    }
}
