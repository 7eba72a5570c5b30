//! The metrics of the HTTP server, looked up once at the start.

use super::ROUTES;
use crate::telemetry::{Family, Metrics, declared};
use metrics::{Counter, Gauge};

/// The metrics of the HTTP server, except those of requests.
pub struct HttpMetrics {
    pub(super) connections: Gauge,
    pub(super) connections_refused: Family,
    pub(super) connections_evicted: Counter,
    pub(super) connection_errors: Family,
    pub(super) streams_refused: Counter,
    pub(super) proxy_headers: Family,
    pub(super) rate_limited: Family,
    pub(super) rate_limited_keys: Gauge,
    pub(super) rate_limit_keys: Gauge,
    pub(super) ready: Gauge,
}

impl HttpMetrics {
    /// Looks up the metrics of the HTTP server in the registry.
    pub fn new(metrics: &Metrics) -> Self {
        for route in ROUTES {
            // Registers the series, so that it is exported as zero from the start.
            drop(metrics.histogram(declared::HTTP_REQUEST_SECONDS, &[("route", route.path)]));
        }
        Self {
            connections: metrics.gauge(declared::HTTP_CONNECTIONS, &[]),
            connections_refused: metrics.family(declared::HTTP_CONNECTIONS_REFUSED),
            connections_evicted: metrics.counter(declared::HTTP_CONNECTIONS_EVICTED, &[]),
            connection_errors: metrics.family(declared::HTTP_CONNECTION_ERRORS),
            streams_refused: metrics.counter(declared::HTTP2_STREAMS_REFUSED, &[]),
            proxy_headers: metrics.family(declared::PROXY_HEADERS),
            rate_limited: metrics.family(declared::RATE_LIMITED),
            rate_limited_keys: metrics.gauge(declared::RATE_LIMITED_KEYS, &[]),
            rate_limit_keys: metrics.gauge(declared::RATE_LIMIT_KEYS, &[]),
            ready: metrics.gauge(declared::READY, &[]),
        }
    }
}
