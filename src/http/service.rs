//! Around every request: its id, its limits, a guard against panics, its numbers, log line and trace.

use super::error::ApiError;
use super::rate_limit;
use super::request::{Call, check_framing};
use super::request_id::{RequestId, X_REQUEST_ID};
use super::router::{self, Route};
use super::{Edge, Surface};
use crate::telemetry::otlp::{Sampled, Served};
use crate::telemetry::trace::{self, Stage, Trace};
use crate::telemetry::trace_context::TraceContext;
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Instant;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// Answers one request. Never fails: every failure is an answer.
///
/// # Cancel safety
/// Dropped when the client leaves; the endpoint's future is dropped with it, and the log says so.
pub(super) async fn answer(
    edge: &Edge,
    surface: Surface,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let trusted = edge.config.trace_callers.contains(peer.ip());
    let trace = Trace::new(trace_context(request.headers(), trusted));
    let route = Route::find(request.uri().path(), surface);
    let client = edge.config.trusted_proxies.client(peer.ip(), request.headers());
    let label = route.map_or("unmatched", |route| route.path);
    let mut record = Record {
        edge,
        begun: edge.clock.now(),
        id: RequestId::of(request.headers(), trace.context().trace_id),
        method: request.method().clone(),
        route: label,
        is_probe: route.is_some_and(Route::is_probe),
        client,
        sampled: edge.traces.sample(trace.context(), label),
        status: None,
        trace,
    };
    let mut response = record.trace.scope(pin!(within(&record, route, request))).await;
    if let Some(value) = record.traceresponse() {
        response.headers_mut().insert(TRACERESPONSE, value);
    }
    record.status = Some(response.status().as_u16());
    response
}

/// Limits, endpoint, headers.
async fn within(
    record: &Record<'_>,
    route: Option<&'static Route>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let Record { edge, client, .. } = *record;
    let counted = rate_limit::check(edge, route, client);
    trace::note(Stage::Limit, None, record.begun, edge.clock.now());
    let mut quota = counted.as_ref().ok().copied().flatten();
    let result = match counted.and_then(|_| check_framing(&request)) {
        Ok(()) => {
            let call = Call { edge, client, request_id: record.id.as_str(), request };
            guarded(router::dispatch(route, call)).await
        }
        Err(refused) => Err(refused),
    };
    if let Err(ApiError::RateLimited(refused)) = &result {
        quota = Some(*refused);
    }
    let mut response = result.unwrap_or_else(ApiError::into_answer).into_response();
    let headers = response.headers_mut();
    if let Some(quota) = quota {
        rate_limit::write(edge, route, &quota, headers);
    }
    headers.insert(HeaderName::from_static(X_REQUEST_ID), record.id.header());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if record.method == Method::HEAD && response.status() != StatusCode::NOT_MODIFIED {
        // The same head as GET's, and no body (RFC 9110 §9.3.2).
        let length = response.body().size_hint().exact().unwrap_or_default();
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        *response.body_mut() = Full::default();
    }
    response
}

/// A panic is the end of its request and of nothing else.
async fn guarded<T>(endpoint: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    AssertUnwindSafe(endpoint).catch_unwind().await.unwrap_or_else(|_| {
        trace::note_failure("the endpoint panicked");
        Err(ApiError::Internal)
    })
}

/// A request's line in the log, its numbers and its trace, written when it ends, however it ends.
struct Record<'a> {
    edge: &'a Edge,
    begun: Instant,
    id: RequestId,
    method: Method,
    route: &'static str,
    is_probe: bool,
    client: IpAddr,
    trace: Trace,
    /// `None`: its trace is not exported.
    sampled: Option<Sampled>,
    /// `None`: the client left before there was an answer.
    status: Option<u16>,
}

impl Record<'_> {
    /// Tells a caller that traces where its request is found; others did not ask.
    fn traceresponse(&self) -> Option<HeaderValue> {
        let context = self.trace.context();
        let sampled = self.sampled.filter(|_| context.has_caller())?;
        HeaderValue::try_from(sampled.traceresponse(context)).ok()
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let (context, notes) = (self.trace.context(), self.trace.take());
        let Self { edge, begun, route, client, status, .. } = *self;
        let ended = edge.clock.now();
        let took = ended.saturating_duration_since(begun);
        let (method, request_id) = (method_label(&self.method), self.id.as_str());
        // 499 is what nginx calls a client that closed first; it never goes over the wire.
        edge.metrics.request(route, method, status.unwrap_or(499), took);
        let latency_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let slow = took > edge.config.slow;
        let stage = |stage| slow.then(|| notes.micros(stage)).flatten();
        // Of a client's refusals, the one that is logged tells of the others.
        let unlogged = (status == Some(429) && !slow).then(|| edge.refusals.note(client, ended));
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
            // Asked all the time, by anybody: what they show is in the metrics.
            _ if self.is_probe && status != Some(500) => line!(debug, "request"),
            None => line!(warn, "client left"),
            Some(500) => line!(error, "request failed"),
            Some(_) if notes.failure.is_some() => line!(warn, "request failed"),
            Some(_) if slow => line!(warn, "slow request"),
            Some(_) if unlogged == Some(None) => line!(debug, "request"),
            Some(_) => line!(info, "request"),
        }
        if let Some(sampled) = self.sampled {
            let ended_at = edge.clock.wall();
            let served =
                Served { method, route, status, request_id, client, begun, ended, ended_at };
            edge.traces.export(sampled, context, &notes, &served);
        }
    }
}

/// The trace of a request whose client may have sent one `traceparent`.
fn trace_context(headers: &HeaderMap, trusted: bool) -> TraceContext {
    let one = |name| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())?.to_str().ok()
    };
    TraceContext::of(one(TRACEPARENT), one(TRACESTATE), trusted)
}

/// A method as a metric label: clients can make up others.
fn method_label(method: &Method) -> &'static str {
    [Method::GET, Method::POST, Method::HEAD, Method::OPTIONS, Method::DELETE, Method::PUT]
        .iter()
        .position(|known| known == method)
        .and_then(|at| ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT"].get(at).copied())
        .unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn d4_a_panic_in_an_endpoint_is_a_500_that_its_log_line_explains() {
        let trace = Trace::new(TraceContext::of(None, None, false));
        let endpoint = async {
            tokio::task::yield_now().await;
            panic!("injected");
        };
        let answer: Result<(), _> = trace.scope(pin!(guarded(endpoint))).await;
        assert!(matches!(answer, Err(ApiError::Internal)));
        assert_eq!(trace.take().failure.as_deref(), Some("the endpoint panicked"));
        assert_eq!(ApiError::Internal.into_answer().into_response().status(), 500);
        let well = guarded(async { Ok(1) }).await;
        assert!(matches!(well, Ok(1)));
    }
}
