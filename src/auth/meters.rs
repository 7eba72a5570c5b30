//! The rules' counters, looked up once.

use crate::telemetry::{Family, Metrics, definitions};
use metrics::Gauge;

pub(super) struct Meters {
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

impl Meters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            logins: metrics.family(definitions::LOGINS),
            registrations: metrics.family(definitions::REGISTRATIONS),
            refreshes: metrics.family(definitions::REFRESHES),
            logouts: metrics.family(definitions::LOGOUTS),
            bearer_checks: metrics.family(definitions::BEARER_CHECKS),
            introspections: metrics.family(definitions::INTROSPECTIONS),
            signing_key_created: metrics.gauge(definitions::SIGNING_KEY_CREATED, &[]),
            lockout_names: metrics.gauge(definitions::LOCKOUT_NAMES, &[]),
            session_lookups: metrics.family(definitions::SESSION_LOOKUPS),
            rehashes: metrics.family(definitions::REHASHES),
            cleanup_runs: metrics.family(definitions::CLEANUP_RUNS),
        }
    }
}
