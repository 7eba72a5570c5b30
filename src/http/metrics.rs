//! `/metrics`: rendered when it is asked for.

use super::Edge;
use super::response::Answer;
use crate::telemetry::declared;
use hyper::StatusCode;

/// The Prometheus text exposition format, version 0.0.4.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn answer(edge: &Edge) -> Answer {
    edge.auth.observe();
    #[expect(clippy::cast_precision_loss, reason = "the key cap is far below 2^52")]
    edge.metrics.gauge(declared::RATE_LIMIT_KEYS, &[]).set(edge.limiter.keys() as f64);
    Answer::body(StatusCode::OK, MEDIA_TYPE, edge.metrics.render().into())
}
