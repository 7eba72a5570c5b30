//! Runs hyper on one connection, HTTP/1.1 or HTTP/2, and ends it at its limits.
//!
//! **Eviction.** At the maximum number of connections the server still accepts the next one, which
//! waits for a place. The evicted connection's task looks at its socket first: if a request is
//! there, it is served, and another connection is evicted instead. HTTP/2 connections get a GOAWAY.
//! A client that still sends requests one second later is refused: its connection closes after the
//! requests in progress, and meanwhile others may be evicted.
//!
//! An HTTP/2 request that is concurrent with others of its connection needs a place too. Without
//! one it is refused before any of it is stored (REFUSED_STREAM: nothing was processed, so the
//! client may retry).

use super::connection_errors::ConnectionError;
use super::connection_registry::Registration;
use super::connection_state::ConnectionState;
use super::monitored_stream::MonitoredStream;
use super::request_guard::RequestGuard;
use super::{AppState, RouteSet};
use crate::http::length_lines::LengthLines;
use crate::http::service;
use crate::http::{BODY_BYTES_MAX, HEAD_BYTES_MAX};
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::future::ready;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// Concurrent requests of one HTTP/2 connection, at most.
const STREAMS_MAX: u32 = 64;
/// Streams that a client can reset before the server accepts them (CVE-2023-44487, rapid reset).
const RESET_STREAMS_MAX: usize = 20;
/// Body bytes that a client can send before the server reads them: on one stream, more than the
/// largest body, and on the connection (RFC 9113 §6.9.2: at least 65,535).
const STREAM_WINDOW: u32 = 32 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024;
/// Header fields of a request, at most.
const HEADER_FIELDS_MAX: usize = 64;
/// Memory of a request's head, body, response and bookkeeping.
///
/// A response can be longer if an account may have very many sessions. `/metrics` is longer too,
/// and should not be public.
const REQUEST_BYTES_MAX: u64 = HEAD_BYTES_MAX as u64 + BODY_BYTES_MAX as u64 + 16 * 1024;
/// Memory of a connection with one request, at most, without the kernel's buffers.
pub const CONNECTION_BYTES_MAX: u64 = REQUEST_BYTES_MAX + 8 * 1024;
/// Memory that HTTP/2 adds to a connection: its window, an incomplete frame and one more request.
///
/// All connections together can have as many concurrent requests as there may be connections.
pub const HTTP2_BYTES_MAX: u64 = CONNECTION_WINDOW as u64 + 16 * 1024 + REQUEST_BYTES_MAX;
/// Time for a request on its way to a closing connection, and again after GOAWAY: one round trip
/// and a margin.
pub(super) const LEAVE_TIME: Duration = Duration::from_secs(1);
/// Delay before an idle connection is evicted. A request that has arrived but is not read yet is
/// then served.
pub(super) const LAST_LOOK: Duration = Duration::from_millis(10);

/// The HTTP version of a connection, if it is known before hyper reads.
///
/// To detect the version itself, hyper reads in two steps, and HTTP/1 then keeps a buffer of twice
/// the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpVersion {
    Http1,
    Http2,
    Unknown,
}

/// Serves one connection until it ends: closed, idle, over a limit, evicted or drained.
pub(super) async fn serve<S>(
    app: Arc<AppState>,
    route_set: RouteSet,
    stream: S,
    peer: SocketAddr,
    version: HttpVersion,
    state: ConnectionState,
    registration: Registration,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let lengths = LengthLines::default();
    let scanner = (version != HttpVersion::Http2).then(|| lengths.scanner());
    let io = TokioIo::new(MonitoredStream { stream, state: state.clone(), scanner });
    let shared = (Arc::clone(&app), state.clone());
    let service = service_fn(|mut request| {
        lengths.account(&mut request);
        let (app, state) = shared.clone();
        // Boxed: hyper reserves memory for the future even while the connection is idle.
        match begin(&app, &state, &registration, &request) {
            Ok(guard) => answer(app, route_set, peer, guard, request).boxed(),
            Err(refused) => ready(Err(refused)).boxed(),
        }
    });
    let builder = builder(version);
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut draining = pin!(app.lifecycle.draining());
    let mut drained = false;
    let mut close = GracefulClose::default();
    let mut eviction_due: Option<Instant> = None;
    let mut timer = pin!(tokio::time::sleep(state.next_check()));
    loop {
        tokio::select! {
            // The connection first, so that a request that has already arrived is served.
            biased;
            // Errors here are the client's: a malformed head, or a lost connection.
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, error, "connection ended");
                    ConnectionError::of(error.as_ref()).record(&app, peer.ip());
                }
                return;
            }
            () = draining.as_mut(), if !drained => {
                drained = true;
                close.start_in(drain_delay(&state, app.config.linger));
            }
            () = state.eviction_requested() => {
                let wait = if state.is_idle() { LAST_LOOK } else { Duration::ZERO };
                eviction_due = Some(Instant::now() + wait);
            }
            () = timer.as_mut() => {}
        }
        if eviction_due.is_some_and(|due| due <= Instant::now()) {
            eviction_due = None;
            if state.is_idle() {
                app.http_metrics.connections_evicted.increment(1);
                close.start_in(Duration::ZERO);
            } else {
                registration.cancel_eviction();
            }
        }
        let (timed_out, idle) = (state.time_left().is_zero(), state.is_idle());
        if timed_out && idle {
            // A request can cross the close: GOAWAY tells an HTTP/2 client whether it was begun.
            close.start_in(Duration::ZERO);
        }
        if close.is_due() {
            connection.as_mut().graceful_shutdown();
            close.started();
        }
        if timed_out && !idle {
            ConnectionError::Timeout.record(&app, peer.ip());
            return;
        }
        if close.is_over() && idle {
            return;
        }
        if close.is_over() {
            // The client keeps sending requests. They are refused, so that the connection falls
            // idle and ends. Until then, others can be evicted.
            state.refuse_requests();
            registration.cancel_eviction();
        }
        let eviction_in =
            eviction_due.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()));
        let next_check = close.next_check(state.next_check());
        timer.set(tokio::time::sleep(next_check.min(eviction_in)));
    }
}

/// How long draining leaves a connection open before it closes it gracefully.
///
/// HTTP/2, and HTTP/1 with a request in progress, can announce the close and still serve what is on
/// its way. A connection that awaits a head gets [`LEAVE_TIME`]. An idle HTTP/1 connection gets
/// `linger` for a next request, whose response tells the client to reconnect; `linger` is zero
/// unless another process can listen on the port.
fn drain_delay(state: &ConnectionState, linger: Duration) -> Duration {
    if state.awaits_head() {
        LEAVE_TIME
    } else if state.is_idle() && !state.is_multiplexed() {
        linger
    } else {
        Duration::ZERO
    }
}

/// Registers a request, or refuses it.
///
/// Not part of the request's future: HTTP/2 polls that on another task, possibly after the
/// connection's timer, and a refused request must be gone before the connection reads on.
///
/// # Errors
/// `REFUSED_STREAM` when too many requests are concurrent, or when the client ignored GOAWAY. The
/// client knows that nothing was done, and can send the request again (RFC 9113 §8.7).
fn begin(
    app: &AppState,
    state: &ConnectionState,
    registration: &Registration,
    request: &Request<Incoming>,
) -> Result<RequestGuard, h2::Error> {
    let refused = h2::Reason::REFUSED_STREAM;
    let mut guard = RequestGuard::begin(state, request.version()).ok_or(refused)?;
    if !guard.is_alone() {
        guard.hold(registration.concurrent_request().ok_or_else(|| {
            app.http_metrics.streams_refused.increment(1);
            refused
        })?);
    }
    Ok(guard)
}

async fn answer(
    app: Arc<AppState>,
    route_set: RouteSet,
    peer: SocketAddr,
    guard: RequestGuard,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, h2::Error> {
    let version = request.version();
    let mut response = service::answer(&app, route_set, peer, request).await;
    if version == Version::HTTP_2 {
        response = response.map(|body| guard.until_written(body));
    } else if app.lifecycle.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// The server's close of a connection: when it is due, and when it was started.
#[derive(Default)]
struct GracefulClose {
    due: Option<Instant>,
    started: Option<Instant>,
}

impl GracefulClose {
    fn start_in(&mut self, wait: Duration) {
        let due = Instant::now() + wait;
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    fn is_due(&self) -> bool {
        self.started.is_none() && self.due.is_some_and(|due| due <= Instant::now())
    }

    fn started(&mut self) {
        self.started = Some(Instant::now());
    }

    /// Whether the client has had [`LEAVE_TIME`] to finish.
    fn is_over(&self) -> bool {
        self.started.is_some_and(|started| started.elapsed() >= LEAVE_TIME)
    }

    /// Time until the next check; `otherwise` if no close is due by then.
    fn next_check(&self, otherwise: Duration) -> Duration {
        match (self.due, self.started) {
            (_, Some(_)) => LEAVE_TIME / 2,
            (Some(due), None) => due.saturating_duration_since(Instant::now()).min(otherwise),
            (None, None) => otherwise,
        }
    }
}

fn builder(version: HttpVersion) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = match version {
        HttpVersion::Http1 => builder.http1_only(),
        HttpVersion::Http2 => builder.http2_only(),
        HttpVersion::Unknown => builder,
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(false)
        .max_buf_size(HEAD_BYTES_MAX as usize)
        .max_headers(HEADER_FIELDS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(RESET_STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
