//! Rate limits, checked before the request body is read.

use super::Edge;
use super::response::error::{ApiError, whole_seconds};
use super::router::{ROUTES, Route};
use crate::limiter::{Decision, Limiter, Policy, QuotaStatus};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use std::net::IpAddr;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Counts a request against the limits of its route, and returns the quota status.
///
/// `None` means that the route has no limits.
///
/// # Errors
/// [`ApiError::RateLimited`]: a limit is reached, and the request was not counted.
pub(super) fn check(
    edge: &Edge,
    route: Option<&Route>,
    client: IpAddr,
) -> Result<Option<QuotaStatus>, ApiError> {
    match Route::policies(route) {
        [] => Ok(None),
        policies => count(edge, policies, client),
    }
}

/// Counts a request against the given limits.
///
/// # Errors
/// As [`check`].
pub(super) fn count(
    edge: &Edge,
    policies: &[Policy],
    client: IpAddr,
) -> Result<Option<QuotaStatus>, ApiError> {
    match edge.limiter.check_all(policies, client, edge.clock.now()) {
        Decision::Unlimited => Ok(None),
        Decision::Allowed(status) => Ok(Some(status)),
        Decision::Limited { status, .. } => {
            edge.meters.rate_limited.increment(status.policy.as_str());
            Err(ApiError::RateLimited(status))
        }
    }
}

/// Writes the `RateLimit` and `RateLimit-Policy` headers.
///
/// They follow draft-ietf-httpapi-ratelimit-headers-11. `RateLimit-Policy` lists all quotas of the
/// route and is constant (§3). `RateLimit` has the quota closest to its limit. Its `t` is the time
/// within which the client can use at most `r` (§4.1.2). For a refusal, `t` equals `Retry-After`,
/// which §6 forbids to be earlier. If the /56 or the /48 of an IPv6 client is closest to its limit,
/// `r` and `t` are those of that prefix, under the same name: a client need not know how its
/// provider assigns addresses.
pub(super) fn write(
    edge: &Edge,
    route: Option<&Route>,
    status: &QuotaStatus,
    headers: &mut HeaderMap,
) {
    let QuotaStatus { name, remaining, more_after, .. } = status;
    let text = format!(r#""{name}";r={remaining};t={}"#, whole_seconds(*more_after));
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(RATE_LIMIT, value);
    }
    if let Some(value) = edge.policy_fields.of(Route::policies(route)) {
        headers.insert(RATE_LIMIT_POLICY, value.clone());
    }
}

/// The `RateLimit-Policy` header of each route, formatted once.
#[derive(Debug)]
pub struct PolicyFields(Vec<(&'static [Policy], HeaderValue)>);

impl PolicyFields {
    /// Formats the quotas of a limiter.
    pub fn new(limiter: &Limiter) -> Self {
        let mut fields = Self(Vec::new());
        for policies in ROUTES.iter().map(|route| Route::policies(Some(route))) {
            let items = limiter.quotas(policies).map(|(name, quota)| {
                format!(r#""{name}";q={};w={}"#, quota.burst(), quota.period().as_secs())
            });
            let text = items.collect::<Vec<_>>().join(", ");
            if let (None, Ok(value)) = (fields.of(policies), HeaderValue::try_from(text)) {
                fields.0.push((policies, value));
            }
        }
        fields
    }

    fn of(&self, policies: &[Policy]) -> Option<&HeaderValue> {
        self.0.iter().find(|(listed, _)| *listed == policies).map(|(_, value)| value)
    }
}
