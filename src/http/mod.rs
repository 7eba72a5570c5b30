//! The edge: the only folder that knows HTTP.
//!
//! `connection` accepts connections, performs their handshakes and runs HTTP on them,
//! `service` wraps every request in its id, limits, panic guard and log line, `router` is the table
//! of routes, `api` has one file an endpoint, and `error` turns every failure into one problem
//! document.

mod api;
mod client_address;
mod client_credentials;
mod connection;
mod error;
mod health;
mod length_lines;
mod meters;
mod metrics;
pub mod parsers;
mod rate_limit;
mod refusals;
mod request;
mod request_id;
mod response;
mod router;
mod service;
mod well_known;

pub use client_address::TrustedProxies;
pub use connection::{
    CONNECTION_BYTES_MAX, CertificateFiles, HTTP2_BYTES_MAX, Listener, ListenerProtocol, Port,
    TLS_BYTES_MAX, Tls, TlsError, serve,
};
pub use meters::Meters;
pub use metrics::MetricsPage;
pub use rate_limit::PolicyFields;
pub use refusals::Refusals;
pub use request::{BODY_OCTETS_MAX, HEAD_OCTETS_MAX};
pub use router::ROUTES;

use crate::auth::Auth;
use crate::clock::Clock;
use crate::lifecycle::Lifecycle;
use crate::limiter::Limiter;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::log::Log;
use crate::telemetry::otlp::Traces;
use std::time::Duration;

/// The edge's own numbers.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Peers whose `X-Forwarded-For` and `Forwarded` are believed.
    pub trusted_proxies: TrustedProxies,
    /// Peers whose `traceparent` decides what is traced.
    pub trace_callers: TrustedProxies,
    /// Connections at most. Beyond that those that have been idle longest leave for new ones; where
    /// none is idle, new ones wait in the kernel's queue.
    pub connections_max: usize,
    /// Connections from one address at most, but for trusted proxies.
    pub connections_per_address: usize,
    /// Longest time from a request head's first octet to its last.
    pub header_timeout: Duration,
    /// Longest time to send a request's body.
    pub body_timeout: Duration,
    /// Longest time a connection may stay open between requests.
    pub idle_timeout: Duration,
    /// Longest time that an answer may wait for its client to read it.
    pub write_timeout: Duration,
    /// When the server stops, how long an idle HTTP/1 connection is kept for a next request, whose
    /// answer tells its client to connect anew.
    pub linger: Duration,
    /// Requests that take longer are logged with where the time went.
    pub slow: Duration,
}

/// What every request can reach. Cheap to clone behind an `Arc`.
pub struct Edge {
    /// Numbers.
    pub config: HttpConfig,
    /// The rules.
    pub auth: Auth,
    /// The rate limits.
    pub limiter: Limiter,
    /// The limits of each route, as answers state them.
    pub policy_fields: PolicyFields,
    /// Which refusals are logged.
    pub refusals: Refusals,
    /// Which connection errors are logged.
    pub connection_lines: Refusals,
    /// For readiness.
    pub store: Store,
    /// For counting, and for `/metrics`.
    pub metrics: Metrics,
    /// The edge's own metrics.
    pub meters: Meters,
    /// `/metrics` as it was rendered last.
    pub metrics_page: MetricsPage,
    /// Where traces go.
    pub traces: Traces,
    /// For how many lines it had to drop.
    pub log: Log,
    /// For readiness and draining.
    pub lifecycle: Lifecycle,
    /// Time.
    pub clock: Clock,
}

/// What a listener answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Everything, `/metrics` included.
    All,
    /// Everything but `/metrics`.
    Public,
    /// Everything but `/metrics` and health.
    Api,
    /// `/metrics` and health only.
    Metrics,
}
