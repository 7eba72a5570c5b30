//! The rate limits at the edge: before the body is read, before anything else is done.

use super::Edge;
use super::error::{ApiError, whole_seconds};
use super::router::Route;
use crate::identity::address_block;
use crate::limiter::{Decision, Standing};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use std::net::IpAddr;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Counts a request to its route's limits.
///
/// # Errors
/// [`ApiError::RateLimited`], with the wait; nothing was counted then.
pub(super) fn check(
    edge: &Edge,
    route: Option<&Route>,
    client: IpAddr,
) -> (Option<Standing>, Result<(), ApiError>) {
    let policies = Route::policies(route);
    if policies.is_empty() {
        return (None, Ok(()));
    }
    match edge.limiter.check_all(policies, address_block(client), edge.clock.now()) {
        Decision::Unlimited => (None, Ok(())),
        Decision::Allowed(standing) => (Some(standing), Ok(())),
        Decision::Limited { standing, retry_after } => {
            let policy = standing.policy.as_str();
            edge.meters.rate_limited.increment(policy);
            (Some(standing), Err(ApiError::RateLimited { retry_after }))
        }
    }
}

/// Says where the client stands: the `RateLimit` and `RateLimit-Policy` fields of
/// draft-ietf-httpapi-ratelimit-headers-10, for the limit that binds.
pub(super) fn write(standing: &Standing, headers: &mut HeaderMap) {
    let name = standing.policy.as_str();
    let (quota, window) = (standing.quota.burst(), standing.quota.period().as_secs());
    let (remaining, reset) = (standing.remaining, whole_seconds(standing.reset));
    let mut insert = |field, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(field, value);
        }
    };
    insert(RATE_LIMIT, format!(r#""{name}";r={remaining};t={reset}"#));
    insert(RATE_LIMIT_POLICY, format!(r#""{name}";q={quota};w={window}"#));
}
