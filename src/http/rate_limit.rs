//! The rate limits at the edge: before the body is read, before anything else is done.

use super::Edge;
use super::error::{ApiError, whole_seconds};
use super::router::{ROUTES, Route};
use crate::limiter::{Decision, Limiter, Policy, QuotaStatus};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use std::net::IpAddr;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Counts a request to its route's limits; where the client stands then, if there are any.
///
/// # Errors
/// [`ApiError::RateLimited`]; nothing was counted then.
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

/// Counts a request to those limits.
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

/// Says where the client stands: the `RateLimit` and `RateLimit-Policy` fields of
/// draft-ietf-httpapi-ratelimit-headers-11.
///
/// `RateLimit-Policy` has every quota of the route and is always the same for it (§3). `RateLimit` has
/// the one that binds. Its `t` is the time within which no more than `r` can be used (§4.1.2), so for
/// a refusal it is what `Retry-After` says; §6 asks that this is no sooner. Where the /56 or the /48 of
/// an IPv6 client binds, `r` and `t` are those of that prefix, under the same name: a client need not
/// know how its provider assigns addresses to know what it may send.
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

/// `RateLimit-Policy` of each route, written once.
#[derive(Debug)]
pub struct PolicyFields(Vec<(&'static [Policy], HeaderValue)>);

impl PolicyFields {
    /// The quotas of that limiter.
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
