//! The HTTP server. No other folder uses HTTP types.
//!
//! `connection` accepts connections, performs their handshakes and runs HTTP on them. `service`
//! gives every request its id, rate limits and panic guard, and `request_log` its log line.
//! `router` is the table of routes, and `api` has one file per endpoint. `request` reads what the
//! client sent, and `response` builds the response or the problem document.

mod api;
mod connection;
mod health;
mod length_lines;
mod log_throttle;
mod metrics;
mod metrics_page;
mod rate_limit;
mod request;
mod request_log;
mod response;
mod router;
mod service;
mod well_known;

pub use connection::{
    CONNECTION_BYTES_MAX, CertificateFiles, HTTP2_BYTES_MAX, Listener, ListenerProtocol, Port,
    TLS_BYTES_MAX, Tls, TlsError, serve,
};
pub use log_throttle::LogThrottle;
pub use metrics::HttpMetrics;
pub use metrics_page::MetricsPage;
pub use rate_limit::PolicyFields;
pub use request::client_address::TrustedProxies;
pub use request::{BODY_BYTES_MAX, HEAD_BYTES_MAX, parsers};
pub use router::{ROUTES, limit_sets};

use crate::auth::Auth;
use crate::clock::Clock;
use crate::lifecycle::Lifecycle;
use crate::limiter::Limiter;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::log::Log;
use crate::telemetry::otlp::Traces;
use std::time::Duration;

/// The configuration of the HTTP server.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The peers whose `X-Forwarded-For` and `Forwarded` headers are trusted.
    pub trusted_proxies: TrustedProxies,
    /// The peers whose `traceparent` decides whether a request is traced.
    pub trace_callers: TrustedProxies,
    /// The maximum number of connections.
    ///
    /// At the maximum, a new connection evicts the one that has been idle longest. If none is idle,
    /// new connections wait in the kernel's backlog.
    pub connections_max: usize,
    /// The maximum number of connections per address. Trusted proxies are exempt.
    pub connections_per_address: usize,
    /// The maximum time from the first byte of a request head to the last.
    pub header_timeout: Duration,
    /// The maximum time that a client may take to send a request body.
    pub body_timeout: Duration,
    /// The maximum time that a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// The maximum time that a response may wait for the client to read it.
    pub write_timeout: Duration,
    /// How long idle HTTP/1 connections stay open during a shutdown.
    ///
    /// A client may send one more request in that time. The response closes the connection, so
    /// that the client reconnects.
    pub linger: Duration,
    /// A slower request is logged with the duration of each stage.
    pub slow: Duration,
}

/// The state that all requests share, behind an `Arc`.
pub struct AppState {
    /// The configuration of the HTTP server.
    pub config: HttpConfig,
    /// Logins, sessions and accounts.
    pub auth: Auth,
    /// The rate limits.
    pub limiter: Limiter,
    /// The `RateLimit-Policy` header of each route.
    pub policy_fields: PolicyFields,
    /// Limits the log lines about requests refused with 429 or 503.
    pub refusal_throttle: LogThrottle,
    /// Limits the log lines about connection errors.
    pub connection_error_throttle: LogThrottle,
    /// The database, for readiness checks.
    pub store: Store,
    /// All metrics, for `/metrics`.
    pub metrics: Metrics,
    /// The metrics of the HTTP server.
    pub http_metrics: HttpMetrics,
    /// The `/metrics` page that was rendered last.
    pub metrics_page: MetricsPage,
    /// The exporter of traces.
    pub traces: Traces,
    /// The log, for the number of dropped lines.
    pub log: Log,
    /// The server's lifecycle, for readiness and draining.
    pub lifecycle: Lifecycle,
    /// The clock.
    pub clock: Clock,
}

/// The routes that a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteSet {
    /// All routes.
    All,
    /// All routes except `/metrics`.
    Public,
    /// All routes except `/metrics` and health.
    Api,
    /// Only `/metrics` and health.
    Metrics,
}
