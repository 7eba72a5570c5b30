//! The edge's own metrics, looked up once.

use super::ROUTES;
use crate::telemetry::{Family, Metrics, definitions};
use metrics::{Counter, Gauge};

/// What the edge counts beside its requests.
pub struct Meters {
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

impl Meters {
    /// The edge's metrics of that set.
    pub fn new(metrics: &Metrics) -> Self {
        for route in ROUTES {
            // Shown from the start, as zeros.
            drop(metrics.histogram(definitions::HTTP_REQUEST_SECONDS, &[("route", route.path)]));
        }
        Self {
            connections: metrics.gauge(definitions::HTTP_CONNECTIONS, &[]),
            connections_refused: metrics.family(definitions::HTTP_CONNECTIONS_REFUSED),
            connections_evicted: metrics.counter(definitions::HTTP_CONNECTIONS_EVICTED, &[]),
            connection_errors: metrics.family(definitions::HTTP_CONNECTION_ERRORS),
            streams_refused: metrics.counter(definitions::HTTP2_STREAMS_REFUSED, &[]),
            proxy_headers: metrics.family(definitions::PROXY_HEADERS),
            rate_limited: metrics.family(definitions::RATE_LIMITED),
            rate_limited_keys: metrics.gauge(definitions::RATE_LIMITED_KEYS, &[]),
            rate_limit_keys: metrics.gauge(definitions::RATE_LIMIT_KEYS, &[]),
            ready: metrics.gauge(definitions::READY, &[]),
        }
    }
}
