//! State that the engine and its worker threads share.

use super::admission::Admission;
use super::config::HashConfig;
use super::metrics::HashMetrics;
use super::pacer::{Pacer, ThreadMeter};
use super::placement::Cores;
use super::worker_load::WorkerLoad;
use crate::clock::Clock;
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) metrics: HashMetrics,
    pub(super) admission: Arc<Admission>,
    /// Admission to the queue of imported hashes. All its jobs verify a password.
    pub(super) imported: Arc<Admission>,
    pub(super) worker_load: WorkerLoad,
    pub(super) cores: Cores,
    /// Behind a CPU limit only.
    pub(super) pacer: Option<Pacer>,
    stopping: AtomicBool,
    aborted: AtomicBool,
    usual_priority: AtomicBool,
    /// Where tests hold a job.
    #[cfg(test)]
    pub(super) gate: super::tests::Gate,
}

impl Shared {
    pub(super) fn new(
        clock: Clock,
        metrics: &Metrics,
        admission: Admission,
        imported: Admission,
        worker_load: WorkerLoad,
        config: &HashConfig,
    ) -> Self {
        Self {
            pacer: Pacer::new(config, &clock),
            clock,
            metrics: HashMetrics::new(metrics),
            admission: Arc::new(admission),
            imported: Arc::new(imported),
            worker_load,
            cores: Cores::new(config.threads),
            stopping: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            usual_priority: AtomicBool::new(false),
            #[cfg(test)]
            gate: super::tests::Gate::default(),
        }
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Pauses the calling thread as a CPU limit requires, and returns for how long it paused.
    pub(super) fn pause(&self, meter: &mut ThreadMeter) -> Duration {
        self.pacer.as_ref().map_or(Duration::ZERO, |pacer| pacer.pause(meter))
    }

    /// Makes the workers refuse waiting jobs and drop the running ones.
    pub(super) fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        if let Some(pacer) = &self.pacer {
            pacer.end();
        }
    }

    /// Warns, once for all threads, that the operating system did not lower their priority.
    pub(super) fn priority_not_lowered(&self, error: &dyn std::fmt::Debug) {
        if !self.usual_priority.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                ?error,
                "the priority of hashing threads was not lowered: other requests may be slower"
            );
        }
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }
}
