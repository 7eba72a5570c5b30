//! The metrics of the rules, resolved once at start.

use crate::telemetry::{Family, Metrics, declared};
use metrics::Gauge;

pub(super) struct AuthMetrics {
    pub(super) logins: Family,
    pub(super) registrations: Family,
    pub(super) refreshes: Family,
    pub(super) logouts: Family,
    pub(super) bearer_checks: Family,
    pub(super) session_lookups: Family,
    pub(super) introspections: Family,
    pub(super) signing_key_created: Gauge,
    pub(super) lockout_names: Gauge,
    pub(super) rehashes: Family,
    pub(super) cleanup_runs: Family,
}

impl AuthMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            logins: metrics.family(declared::LOGINS),
            registrations: metrics.family(declared::REGISTRATIONS),
            refreshes: metrics.family(declared::REFRESHES),
            logouts: metrics.family(declared::LOGOUTS),
            bearer_checks: metrics.family(declared::BEARER_CHECKS),
            introspections: metrics.family(declared::INTROSPECTIONS),
            signing_key_created: metrics.gauge(declared::SIGNING_KEY_CREATED, &[]),
            lockout_names: metrics.gauge(declared::LOCKOUT_NAMES, &[]),
            session_lookups: metrics.family(declared::SESSION_LOOKUPS),
            rehashes: metrics.family(declared::REHASHES),
            cleanup_runs: metrics.family(declared::CLEANUP_RUNS),
        }
    }
}
