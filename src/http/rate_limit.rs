//! Rate limits, checked before the request body is read.
//!
//! The limits on logins, registrations and refreshes may be shared by all nodes. This check admits a
//! request to them; `auth` counts it in the store once the body is read.

use super::AppState;
use super::response::error::{ApiError, whole_seconds};
use crate::limiter::{Decision, Limiter, Policy, QuotaStatus};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use std::net::IpAddr;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The limits of registrations.
pub(super) const REGISTER: &[Policy] = &[Policy::Register, Policy::Global];
/// The limits of logins and password changes.
pub(super) const LOGIN: &[Policy] = &[Policy::Login, Policy::Global];
/// The limits of refreshes.
pub(super) const REFRESH: &[Policy] = &[Policy::Refresh, Policy::Global];
/// The limits of requests by OAuth clients.
pub(super) const CLIENTS: &[Policy] = &[Policy::Clients];
/// The limits of all other requests, unknown paths included.
pub(super) const GLOBAL: &[Policy] = &[Policy::Global];
/// No limits, for health and metrics.
pub(super) const EXEMPT: &[Policy] = &[];

/// Counts a request against the given limits, and returns the quota status.
///
/// `None` means that no limit applies.
///
/// # Errors
/// [`ApiError::RateLimited`]: a limit is reached, and the request was not counted.
pub(super) fn check(
    app: &AppState,
    policies: &[Policy],
    client: IpAddr,
) -> Result<Option<QuotaStatus>, ApiError> {
    if policies.is_empty() {
        return Ok(None);
    }
    match app.limiter.check_all(policies, client, app.clock.now()) {
        Decision::Unlimited => Ok(None),
        Decision::Allowed(status) => Ok(Some(status)),
        Decision::Limited { status, .. } => Err(ApiError::RateLimited(status)),
    }
}

/// Writes the `RateLimit` and `RateLimit-Policy` headers.
///
/// They follow draft-ietf-httpapi-ratelimit-headers-11. `RateLimit-Policy` lists all quotas of the
/// route and is constant (§3), except that a refusal by another quota lists that one too. `RateLimit`
/// has the quota closest to its limit. Its `t` is the time within which the client can use at most
/// `r` (§4.1.2). For a refusal, `Retry-After` equals `t`: §6 forbids an earlier time. If the /56 or
/// the /48 of an IPv6 client is closest to its limit, `r` and `t` are those of that prefix, under the
/// same name: a client need not know how its provider assigns addresses.
pub(super) fn write(
    app: &AppState,
    policies: &[Policy],
    status: &QuotaStatus,
    headers: &mut HeaderMap,
) {
    let QuotaStatus { name, remaining, more_after, .. } = status;
    let text = format!(r#""{name}";r={remaining};t={}"#, whole_seconds(*more_after));
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(RATE_LIMIT, value);
    }
    let field = if policies.contains(&status.policy) {
        app.policy_fields.of(policies).cloned()
    } else {
        policy_field(&app.limiter, &[policies, &[status.policy]].concat())
    };
    if let Some(value) = field {
        headers.insert(RATE_LIMIT_POLICY, value);
    }
}

/// The `RateLimit-Policy` header of each set of limits, formatted once.
#[derive(Debug)]
pub struct PolicyFields(Vec<(&'static [Policy], HeaderValue)>);

impl PolicyFields {
    /// Formats the quotas of a limiter, for each of the given sets of limits.
    pub fn new(limiter: &Limiter, sets: impl Iterator<Item = &'static [Policy]>) -> Self {
        let mut fields = Self(Vec::new());
        for policies in sets {
            if fields.of(policies).is_none()
                && let Some(value) = policy_field(limiter, policies)
            {
                fields.0.push((policies, value));
            }
        }
        fields
    }

    fn of(&self, policies: &[Policy]) -> Option<&HeaderValue> {
        self.0.iter().find(|(listed, _)| *listed == policies).map(|(_, value)| value)
    }
}

/// Formats the `RateLimit-Policy` header.
fn policy_field(limiter: &Limiter, policies: &[Policy]) -> Option<HeaderValue> {
    let items = limiter.quotas(policies).map(|(name, quota)| {
        format!(r#""{name}";q={};w={}"#, quota.burst(), quota.period().as_secs())
    });
    HeaderValue::try_from(items.collect::<Vec<_>>().join(", ")).ok()
}
