//! The wrapper around every request: id, rate limits, panic guard, metrics, log line and trace.

use super::rate_limit;
use super::request::request_id::{RequestId, X_REQUEST_ID};
use super::request::{Call, check_framing};
use super::response::error::ApiError;
use super::router::{self, Route};
use super::{AppState, RouteSet};
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

/// Answers one request. Every failure becomes a response.
///
/// # Cancel safety
/// hyper drops the future when the client disconnects. That drops the endpoint's future, and the
/// request is logged as `client left`.
pub(super) async fn answer(
    app: &AppState,
    routes: RouteSet,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let trusted = app.config.trace_callers.contains(peer.ip());
    let trace = Trace::new(trace_context(request.headers(), trusted));
    let route = Route::find(routes, request.method(), request.uri().path());
    let client = app.config.trusted_proxies.client(peer.ip(), request.headers());
    let label = route.map_or("unmatched", |route| route.path);
    let mut record = Record {
        app,
        begun: app.clock.now(),
        id: RequestId::of(request.headers(), trace.context().trace_id),
        method: request.method().clone(),
        route: label,
        is_probe: route.is_some_and(Route::is_probe),
        client,
        sampled: app.traces.sample(trace.context(), label),
        status: None,
        trace,
    };
    let mut response = record.trace.scope(pin!(respond(&record, route, request))).await;
    if let Some(value) = record.traceresponse() {
        response.headers_mut().insert(TRACERESPONSE, value);
    }
    record.status = Some(response.status().as_u16());
    response
}

/// Checks the limits, calls the endpoint, and adds the common headers.
async fn respond(
    record: &Record<'_>,
    route: Option<&'static Route>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let Record { app, client, .. } = *record;
    let policies = Route::limits(route);
    let counted = rate_limit::check(app, policies, client);
    trace::note(Stage::Limit, None, record.begun, app.clock.now());
    let mut quota = counted.as_ref().ok().copied().flatten();
    let result = match counted.and_then(|_| check_framing(&request)) {
        Ok(()) => {
            let session = route.and_then(|route| route.session_in(request.uri().path()));
            let call = Call { app, client, request_id: record.id.as_str(), session, request };
            catch_panic(router::dispatch(route, call)).await
        }
        Err(refused) => Err(refused),
    };
    if let Err(ApiError::RateLimited(refused)) = &result {
        quota = Some(*refused);
    }
    let mut response = result.unwrap_or_else(ApiError::into_answer).into_response();
    let headers = response.headers_mut();
    if let Some(quota) = quota {
        rate_limit::write(app, policies, &quota, headers);
    }
    headers.insert(HeaderName::from_static(X_REQUEST_ID), record.id.header());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if record.method == Method::HEAD && response.status() != StatusCode::NOT_MODIFIED {
        // HEAD has the same header as GET and no body (RFC 9110 §9.3.2).
        let length = response.body().size_hint().exact().unwrap_or_default();
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        *response.body_mut() = Full::default();
    }
    response
}

/// Turns a panic of the endpoint into a 500 for this request.
async fn catch_panic<T>(
    endpoint: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    AssertUnwindSafe(endpoint).catch_unwind().await.unwrap_or_else(|_| {
        trace::note_failure("the endpoint panicked");
        Err(ApiError::Internal)
    })
}

/// A request's log line, metrics and trace, written on drop.
///
/// A request whose client disconnects is recorded too.
struct Record<'a> {
    app: &'a AppState,
    begun: Instant,
    id: RequestId,
    method: Method,
    route: &'static str,
    is_probe: bool,
    client: IpAddr,
    trace: Trace,
    /// `None`: the trace is not exported.
    sampled: Option<Sampled>,
    /// `None`: the client disconnected before the response.
    status: Option<u16>,
}

impl Record<'_> {
    /// Returns the `traceresponse` header, if the caller sent a trace context.
    fn traceresponse(&self) -> Option<HeaderValue> {
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
        // A logged refusal has the number of refusals that were not logged.
        let unlogged =
            (status == Some(429) && !slow).then(|| app.refusal_throttle.note(client, ended));
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

/// Reads the trace context from `traceparent` and `tracestate`.
fn trace_context(headers: &HeaderMap, trusted: bool) -> TraceContext {
    let one = |name| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())?.to_str().ok()
    };
    TraceContext::of(one(TRACEPARENT), one(TRACESTATE), trusted)
}

/// Returns the method's metric label. Unknown methods share one label, which bounds their number.
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

    // Reliability: D4.
    #[tokio::test]
    async fn a_panic_in_an_endpoint_is_a_logged_500() {
        let trace = Trace::new(TraceContext::of(None, None, false));
        let endpoint = async {
            tokio::task::yield_now().await;
            panic!("injected");
        };
        let answer: Result<(), _> = trace.scope(pin!(catch_panic(endpoint))).await;
        assert!(matches!(answer, Err(ApiError::Internal)));
        assert_eq!(trace.take().failure.as_deref(), Some("the endpoint panicked"));
        assert_eq!(ApiError::Internal.into_answer().into_response().status(), 500);
        let well = catch_panic(async { Ok(1) }).await;
        assert!(matches!(well, Ok(1)));
    }
}
