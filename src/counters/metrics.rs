//! The metrics of the store, resolved once at start.

use crate::telemetry::{Family, Metrics, definitions};
use metrics::{Gauge, Histogram};
use std::time::Duration;

/// The kinds of call, as metric labels and span details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    /// Counts a request against the limits.
    Limits,
    /// Counts a login against the limits and reads its lockout.
    Login,
    /// Counts a failed login.
    Failure,
    /// Counts a successful login.
    Success,
    /// Restores known blocks, or releases the claim to do so.
    Restore,
}

pub(super) struct CounterMetrics {
    calls: Family,
    limits: Histogram,
    login: Histogram,
    failure: Histogram,
    success: Histogram,
    restore: Histogram,
    away: Gauge,
}

impl CallKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::Login => "login",
            Self::Failure => "failure",
            Self::Success => "success",
            Self::Restore => "restore",
        }
    }
}

impl CounterMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let seconds = |kind: CallKind| {
            metrics.histogram(definitions::REDIS_CALL_SECONDS, &[("call", kind.as_str())])
        };
        Self {
            calls: metrics.family(definitions::REDIS_CALLS),
            limits: seconds(CallKind::Limits),
            login: seconds(CallKind::Login),
            failure: seconds(CallKind::Failure),
            success: seconds(CallKind::Success),
            restore: seconds(CallKind::Restore),
            away: metrics.gauge(definitions::REDIS_AWAY, &[]),
        }
    }

    /// Counts a call. `took` is `None` if nothing was sent.
    pub(super) fn record(&self, kind: CallKind, result: &str, took: Option<Duration>) {
        self.calls.increment(result);
        let Some(took) = took else { return };
        let seconds = match kind {
            CallKind::Limits => &self.limits,
            CallKind::Login => &self.login,
            CallKind::Failure => &self.failure,
            CallKind::Success => &self.success,
            CallKind::Restore => &self.restore,
        };
        seconds.record(took);
    }

    pub(super) fn set_away(&self, away: bool) {
        self.away.set(if away { 1.0 } else { 0.0 });
    }
}
