//! Where a request's time goes: its stages, noted as they end, read once when it is answered.
//!
//! The log line of a slow request and the spans of an exported trace are two views of the same
//! notes, so that nothing is measured twice and nothing is measured for nobody. The notes belong to
//! the request's task: whoever does a part of its work notes it, with times that its own metrics
//! need anyway, and no layer between has to carry a handle for that.

use super::trace_context::TraceContext;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Stages kept of one request; a login has eight.
const SPANS_MAX: usize = 32;

tokio::task_local! {
    /// The notes of the request that this task serves.
    static CURRENT: Trace;
}

/// What a request may spend its time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The rate limits.
    Limit,
    /// Its body, as fast as the client sends it.
    Body,
    /// Waiting for a database connection.
    PoolWait,
    /// A database query, sent and answered.
    Query,
    /// Waiting for a hashing thread.
    HashWait,
    /// Hashing.
    Hash,
    /// Signing an access token.
    Sign,
}

impl Stage {
    /// Its name in spans: lower case, dotted.
    pub fn label(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Body => "body",
            Self::PoolWait => "pool_wait",
            Self::Query => "query",
            Self::HashWait => "hash_wait",
            Self::Hash => "hash",
            Self::Sign => "sign",
        }
    }
}

/// One stage that a request went through.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Which.
    pub stage: Stage,
    /// Which of its kind: a query's name.
    pub detail: Option<&'static str>,
    /// When it began.
    pub begun: Instant,
    /// When it ended.
    pub ended: Instant,
}

/// The notes of one request. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    context: TraceContext,
    notes: Mutex<Notes>,
}

/// What was noted of a request.
#[derive(Debug, Default)]
pub struct Notes {
    /// The session it turned out to belong to.
    pub session: Option<u128>,
    /// What went wrong, for the log alone: an error with its causes.
    pub failure: Option<String>,
    /// In the order in which they ended.
    pub spans: Vec<Span>,
}

impl Notes {
    /// The time spent in a stage, in microseconds; `None` if it was not gone through.
    pub fn micros(&self, stage: Stage) -> Option<u64> {
        let mut spans = self.spans.iter().filter(|span| span.stage == stage).peekable();
        spans.peek()?;
        let time: Duration =
            spans.map(|span| span.ended.saturating_duration_since(span.begun)).sum();
        Some(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }
}

impl Trace {
    /// Nothing noted yet.
    pub fn new(context: TraceContext) -> Self {
        Self(Arc::new(Inner { context, notes: Mutex::default() }))
    }

    /// Which distributed trace the request is part of.
    pub fn context(&self) -> &TraceContext {
        &self.0.context
    }

    /// Runs the request's future; what it awaits in its own task can add notes.
    ///
    /// Takes the future pinned: it is some kilobytes large, and moving it costs more than all the
    /// notes.
    ///
    /// # Cancel safety
    /// As the future.
    pub async fn scope<F: Future>(&self, request: Pin<&mut F>) -> F::Output {
        CURRENT.scope(self.clone(), request).await
    }

    /// Takes the notes out, at the end of the request.
    pub fn take(&self) -> Notes {
        self.0.notes.lock().map(|mut notes| std::mem::take(&mut *notes)).unwrap_or_default()
    }
}

/// Notes a stage. Without a request around it, as in background work, nothing happens.
pub fn note(stage: Stage, detail: Option<&'static str>, begun: Instant, ended: Instant) {
    update(|notes| {
        if notes.spans.len() < SPANS_MAX {
            notes.spans.push(Span { stage, detail, begun, ended });
        }
    });
}

/// Notes whose session it is.
pub fn note_session(session: u128) {
    update(|notes| notes.session = Some(session));
}

/// Notes why the request fails; the first reason stays. Its log line tells it.
pub fn note_failure(reason: impl Into<String>) {
    update(|notes| {
        notes.failure.get_or_insert_with(|| reason.into());
    });
}

/// The id by which other log lines of this request are found, or "none".
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
    async fn notes_are_those_of_the_request_around_them() {
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
