//! Around every request: its id, its limits, a guard against panics, its numbers and log line.

use super::error::ApiError;
use super::rate_limit;
use super::request::{Call, check_framing};
use super::request_id::{RequestId, X_REQUEST_ID};
use super::router::{self, Route};
use super::{Edge, Surface};
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response};
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::time::Instant;

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
    let route = Route::find(request.uri().path(), surface);
    let client = edge.config.trusted_proxies.client(peer.ip(), request.headers());
    let mut record = Record {
        edge,
        begun: edge.clock.now(),
        id: RequestId::of(request.headers()),
        method: request.method().clone(),
        route: route.map_or("unmatched", |route| route.path),
        client,
        status: None,
    };
    let (standing, allowed) = rate_limit::check(edge, route, client);
    let result = match allowed.and_then(|()| check_framing(&request)) {
        Ok(()) => {
            let call = Call { edge, client, request };
            let endpoint = AssertUnwindSafe(router::dispatch(route, call)).catch_unwind();
            endpoint.await.unwrap_or_else(|_| {
                tracing::error!(route = record.route, "an endpoint panicked");
                Err(ApiError::Internal)
            })
        }
        Err(refused) => Err(refused),
    };
    let mut response = result.unwrap_or_else(ApiError::into_answer).into_response();
    let headers = response.headers_mut();
    if let Some(standing) = standing {
        rate_limit::write(&standing, headers);
    }
    headers.insert(HeaderName::from_static(X_REQUEST_ID), record.id.header());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if record.method == Method::HEAD {
        // The same head as GET's, and no body (RFC 9110 §9.3.2).
        let length = response.body().size_hint().exact().unwrap_or_default();
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        *response.body_mut() = Full::default();
    }
    record.status = Some(response.status().as_u16());
    response
}

/// A request's line in the log, written when it ends, however it ends.
struct Record<'a> {
    edge: &'a Edge,
    begun: Instant,
    id: RequestId,
    method: Method,
    route: &'static str,
    client: IpAddr,
    /// `None`: the client left before there was an answer.
    status: Option<u16>,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let took = self.edge.clock.now().saturating_duration_since(self.begun);
        let latency_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let (method, id, client) = (method_label(&self.method), self.id.as_str(), self.client);
        // 499 is what nginx calls a client that closed first; it never goes over the wire.
        self.edge.metrics.request(self.route, method, self.status.unwrap_or(499), took);
        match self.status {
            Some(status) => {
                tracing::info!(route = self.route, method, status, latency_us, request_id = id, %client, "request");
            }
            None => {
                tracing::warn!(route = self.route, method, latency_us, request_id = id, %client, "client left");
            }
        }
    }
}

/// A method as a metric label: clients can make up others.
fn method_label(method: &Method) -> &'static str {
    [Method::GET, Method::POST, Method::HEAD, Method::OPTIONS, Method::DELETE, Method::PUT]
        .iter()
        .position(|known| known == method)
        .and_then(|at| ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT"].get(at).copied())
        .unwrap_or("other")
}
