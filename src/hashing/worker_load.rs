//! The load of each worker, so that the least busy worker takes the next job.
//!
//! Workers take jobs from shared queues. A worker with busy lanes leaves a job to a worker with
//! fewer. That worker polls the queue within a slice, or sleeps on the queue and is woken by the
//! job. If the job still waits after a few slices, because the other worker gets no core, the
//! busier worker takes it.

use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) struct WorkerLoad {
    busy: Vec<AtomicUsize>,
    /// Slices for which a worker leaves a job to a less busy one.
    deferral_slices: u32,
}

impl WorkerLoad {
    pub(super) fn new(workers: usize, deferral_slices: u32) -> Self {
        Self { busy: (0..workers).map(|_| AtomicUsize::new(0)).collect(), deferral_slices }
    }

    pub(super) fn set(&self, worker: usize, busy: usize) {
        if let Some(lanes) = self.busy.get(worker) {
            lanes.store(busy, Ordering::Release);
        }
    }

    #[cfg(test)]
    pub(super) fn busy(&self) -> Vec<usize> {
        self.busy.iter().map(|lanes| lanes.load(Ordering::Acquire)).collect()
    }

    /// Whether no other worker has fewer busy lanes than this one, which has `busy`.
    fn is_least(&self, worker: usize, busy: usize) -> bool {
        let others = self.busy.iter().enumerate().filter(|(other, _)| *other != worker);
        others.map(|(_, lanes)| lanes.load(Ordering::Acquire)).all(|other| busy <= other)
    }
}

/// Counts the slices for which one worker has left a waiting job to others.
#[derive(Default)]
pub(super) struct JobDeferral {
    slices_left_to_others: u32,
}

impl JobDeferral {
    /// Records the start of a slice. `waiting`: whether a job waits.
    pub(super) fn begin_slice(&mut self, waiting: bool) {
        self.slices_left_to_others =
            if waiting { self.slices_left_to_others.saturating_add(1) } else { 0 };
    }

    /// Whether this worker should take a job now.
    pub(super) fn may_take(&self, worker_load: &WorkerLoad, worker: usize, busy: usize) -> bool {
        self.slices_left_to_others > worker_load.deferral_slices
            || worker_load.is_least(worker, busy)
    }

    pub(super) fn took_job(&mut self) {
        self.slices_left_to_others = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_busy_worker_takes_the_job() {
        let worker_load = WorkerLoad::new(2, 3);
        let deferral = JobDeferral::default();
        assert!(deferral.may_take(&worker_load, 0, 0) && deferral.may_take(&worker_load, 1, 0));
        worker_load.set(0, 1);
        assert!(!deferral.may_take(&worker_load, 0, 1), "the other worker is idle");
        assert!(deferral.may_take(&worker_load, 1, 0));
        worker_load.set(1, 1);
        assert!(deferral.may_take(&worker_load, 0, 1));
        assert_eq!(worker_load.busy(), [1, 1]);
    }

    #[test]
    fn a_busy_worker_takes_a_job_that_waited_for_a_few_slices() {
        let worker_load = WorkerLoad::new(2, 3);
        worker_load.set(0, 1);
        let mut deferral = JobDeferral::default();
        for _ in 0..3 {
            deferral.begin_slice(true);
            assert!(!deferral.may_take(&worker_load, 0, 1));
        }
        deferral.begin_slice(true);
        assert!(deferral.may_take(&worker_load, 0, 1));
        deferral.took_job();
        assert!(!deferral.may_take(&worker_load, 0, 1));
        deferral.begin_slice(false);
        assert!(!deferral.may_take(&worker_load, 0, 1));
    }
}
