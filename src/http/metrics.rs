//! `/metrics`: rendered when it is asked for.

use super::Edge;
use super::response::Answer;
use crate::telemetry::declared;
use hyper::StatusCode;

/// The Prometheus text exposition format, version 0.0.4.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[expect(clippy::cast_precision_loss, reason = "key caps are far below 2^52")]
pub(super) fn answer(edge: &Edge) -> Answer {
    let Edge { auth, limiter, meters, metrics, clock, log, .. } = edge;
    auth.observe();
    meters.rate_limited_keys.set(limiter.limited(clock.now()) as f64);
    meters.rate_limit_keys.set(limiter.keys() as f64);
    metrics.counter(declared::LOG_LINES_DROPPED, &[]).absolute(log.lines_dropped());
    Answer::body(StatusCode::OK, MEDIA_TYPE, metrics.render().into())
}
