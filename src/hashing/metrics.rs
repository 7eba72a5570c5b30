//! The metric handles of the hash engine, looked up once.

use super::admission::HashPurpose;
use super::config::CpuShare;
use crate::cpu_limit::Throttling;
use crate::telemetry::{Metrics, definitions};
use metrics::{Counter, Gauge, Histogram};

pub(super) struct HashMetrics {
    verify_seconds: Histogram,
    hash_seconds: Histogram,
    pub(super) imported_seconds: Histogram,
    pub(super) wait: Histogram,
    pub(super) depth: Gauge,
    pub(super) predicted_wait: Gauge,
    pub(super) capacity: Gauge,
    pub(super) share_of_best: Gauge,
    pub(super) lanes_busy: Gauge,
    pub(super) queue_full: Counter,
    pub(super) predicted: Counter,
    pub(super) expired: Counter,
    pub(super) shutting_down: Counter,
    pub(super) cancelled: Counter,
    pub(super) panics: Counter,
    cpu_limit: Gauge,
    cpu_periods: Counter,
    cpu_throttled_periods: Counter,
    cpu_throttled_seconds: Counter,
}

impl HashMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let seconds = |op| metrics.histogram(definitions::HASH_SECONDS, &[("op", op)]);
        let rejected = |reason| metrics.counter(definitions::HASH_REJECTED, &[("reason", reason)]);
        Self {
            verify_seconds: seconds(HashPurpose::Verify.label()),
            hash_seconds: seconds(HashPurpose::Hash.label()),
            imported_seconds: seconds("foreign"),
            wait: metrics.histogram(definitions::HASH_WAIT_SECONDS, &[]),
            depth: metrics.gauge(definitions::HASH_QUEUE_DEPTH, &[]),
            predicted_wait: metrics.gauge(definitions::HASH_PREDICTED_WAIT_SECONDS, &[]),
            capacity: metrics.gauge(definitions::HASH_CAPACITY, &[]),
            share_of_best: metrics.gauge(definitions::HASH_SPEED_RATIO, &[]),
            lanes_busy: metrics.gauge(definitions::HASH_LANES_BUSY, &[]),
            queue_full: rejected("queue_full"),
            predicted: rejected("predicted_wait"),
            expired: rejected("expired"),
            shutting_down: rejected("shutting_down"),
            cancelled: metrics.counter(definitions::HASH_CANCELLED, &[]),
            panics: metrics.counter(definitions::HASH_PANICS, &[]),
            cpu_limit: metrics.gauge(definitions::CPU_LIMIT, &[]),
            cpu_periods: metrics.counter(definitions::CPU_PERIODS, &[]),
            cpu_throttled_periods: metrics.counter(definitions::CPU_THROTTLED_PERIODS, &[]),
            cpu_throttled_seconds: metrics.counter(definitions::CPU_THROTTLED_SECONDS, &[]),
        }
    }

    /// Updates the metrics of the CPU limit.
    pub(super) fn observe(&self, cpu: Option<&CpuShare>) {
        let Some(CpuShare { limit, .. }) = cpu else { return };
        let Throttling { periods, throttled, time } = limit.throttling();
        self.cpu_limit.set(limit.cores());
        self.cpu_periods.absolute(periods);
        self.cpu_throttled_periods.absolute(throttled);
        self.cpu_throttled_seconds.absolute(time.as_secs());
    }

    pub(super) fn seconds(&self, purpose: HashPurpose) -> &Histogram {
        match purpose {
            HashPurpose::Verify => &self.verify_seconds,
            HashPurpose::Hash => &self.hash_seconds,
        }
    }
}
