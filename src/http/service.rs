//! The wrapper around every request: id, rate limits, panic guard, common headers and trace.

use super::rate_limit;
use super::request::request_id::{RequestId, X_REQUEST_ID};
use super::request::{Call, check_framing};
use super::request_log::Record;
use super::response::error::ApiError;
use super::router::{self, Route};
use super::{AppState, RouteSet};
use crate::telemetry::trace::{self, Stage, Trace};
use crate::telemetry::trace_context::TraceContext;
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;

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
    let shared = app.auth.shares_limits().then(|| app.limiter.shared_check(policies, client));
    let shared = shared.flatten();
    let limits = shared.as_ref();
    let result = match counted.and_then(|_| check_framing(&request)) {
        Ok(()) => {
            let session = route.and_then(|route| route.session_in(request.uri().path()));
            let request_id = record.id.as_str();
            let call = Call { app, client, request_id, session, limits, request };
            catch_panic(router::dispatch(route, call)).await
        }
        Err(refused) => Err(refused),
    };
    if let Err(ApiError::RateLimited(refused)) = &result {
        app.http_metrics.rate_limited.increment(refused.policy.as_str());
        quota = Some(*refused);
    } else if let Some(limits) = limits {
        quota = limits.tighter(quota);
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

/// Reads the trace context from `traceparent` and `tracestate`.
fn trace_context(headers: &HeaderMap, trusted: bool) -> TraceContext {
    let one = |name| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())?.to_str().ok()
    };
    TraceContext::of(one(TRACEPARENT), one(TRACESTATE), trusted)
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
