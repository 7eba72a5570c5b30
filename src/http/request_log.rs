//! The log line of a request, answered or refused, with its metrics and its trace.
//!
//! Every request has one line. In a flood of refusals (429, or 503 at capacity), the lines of a client
//! are limited by the [`LogThrottle`](super::LogThrottle).

use super::AppState;
use super::request::request_id::RequestId;
use crate::telemetry::otlp::{Sampled, Served};
use crate::telemetry::trace::{Stage, Trace};
use hyper::Method;
use hyper::header::HeaderValue;
use std::net::IpAddr;
use std::time::Instant;

/// A request's log line, metrics and trace, written on drop.
///
/// A request whose client disconnects is recorded too.
pub(super) struct Record<'a> {
    pub(super) app: &'a AppState,
    pub(super) begun: Instant,
    pub(super) id: RequestId,
    pub(super) method: Method,
    pub(super) route: &'static str,
    pub(super) is_probe: bool,
    pub(super) client: IpAddr,
    pub(super) trace: Trace,
    /// `None`: the trace is not exported.
    pub(super) sampled: Option<Sampled>,
    /// `None`: the client disconnected before the response.
    pub(super) status: Option<u16>,
}

impl Record<'_> {
    /// Returns the `traceresponse` header, if the caller sent a trace context.
    pub(super) fn traceresponse(&self) -> Option<HeaderValue> {
        let context = self.trace.context();
        let sampled = self.sampled.filter(|_| context.has_caller())?;
        HeaderValue::try_from(sampled.traceresponse(context)).ok()
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let (context, notes) = (self.trace.context(), self.trace.take());
        let Self { app, begun, route, client, status, .. } = *self;
        let ended = app.clock.now();
        let took = ended.saturating_duration_since(begun);
        let (method, request_id) = (method_label(&self.method), self.id.as_str());
        // 499 is nginx's status for a client that disconnected. It is never sent.
        app.metrics.request(route, method, status.unwrap_or(499), took);
        let latency_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let slow = took > app.config.slow;
        let stage = |stage| slow.then(|| notes.micros(stage)).flatten();
        // A 503 with a failure is not a refusal: the database did not answer.
        let is_refusal = matches!(status, Some(429 | 503)) && notes.failure.is_none();
        // A logged refusal has the number of refusals that were not logged.
        let unlogged = (is_refusal && !slow && !self.is_probe)
            .then(|| app.refusal_throttle.note(client, ended));
        let linked = context.link().map(|caller| tracing::field::display(caller.trace_id));
        let session = notes.session.map(|id| tracing::field::display(uuid::Uuid::from_u128(id)));
        macro_rules! line {
            ($level:ident, $what:literal) => {
                tracing::$level!(
                    route,
                    method,
                    status,
                    latency_us,
                    request_id,
                    trace_id = %context.trace_id,
                    caller_trace_id = linked,
                    session,
                    %client,
                    unlogged = unlogged.flatten().filter(|others| *others > 0),
                    error = notes.failure.as_deref(),
                    limit_us = stage(Stage::Limit),
                    body_us = stage(Stage::Body),
                    redis_us = stage(Stage::Redis),
                    pool_wait_us = stage(Stage::PoolWait),
                    query_us = stage(Stage::Query),
                    hash_wait_us = stage(Stage::HashWait),
                    hash_us = stage(Stage::Hash),
                    sign_us = stage(Stage::Sign),
                    $what
                )
            };
        }
        match status {
            // Probes are frequent, and the metrics show the same.
            _ if self.is_probe && status != Some(500) => line!(debug, "request"),
            None => line!(warn, "client left"),
            Some(500) => line!(error, "request failed"),
            Some(_) if notes.failure.is_some() => line!(warn, "request failed"),
            Some(_) if slow => line!(warn, "slow request"),
            Some(_) if unlogged == Some(None) => line!(debug, "request"),
            Some(_) => line!(info, "request"),
        }
        if let Some(sampled) = self.sampled {
            let ended_at = app.clock.wall();
            let served =
                Served { method, route, status, request_id, client, begun, ended, ended_at };
            app.traces.export(sampled, context, &notes, &served);
        }
    }
}

/// Returns the method's metric label. Unknown methods share one label, which bounds their number.
fn method_label(method: &Method) -> &'static str {
    [Method::GET, Method::POST, Method::HEAD, Method::OPTIONS, Method::DELETE, Method::PUT]
        .iter()
        .position(|known| known == method)
        .and_then(|at| ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT"].get(at).copied())
        .unwrap_or("other")
}
