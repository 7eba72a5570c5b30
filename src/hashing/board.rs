//! Which worker is how busy, so that a job goes to the least busy one.
//!
//! Workers take jobs from shared queues at their own pace; nobody hands them out. A worker with
//! busy lanes leaves a job for a worker with fewer: that one looks within a slice, or sleeps on the
//! queue and is woken by the job. If the job still waits after a few slices, because that worker
//! does not get a core, it is taken after all.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Busy lanes by worker.
pub(super) struct Board {
    busy: Vec<AtomicUsize>,
    /// Slices for which a job is left to a less busy worker.
    patience: u32,
}

impl Board {
    pub(super) fn new(workers: usize, patience: u32) -> Self {
        Self { busy: (0..workers).map(|_| AtomicUsize::new(0)).collect(), patience }
    }

    pub(super) fn set(&self, worker: usize, busy: usize) {
        if let Some(lanes) = self.busy.get(worker) {
            lanes.store(busy, Ordering::Release);
        }
    }

    /// Busy lanes of each worker.
    #[cfg(test)]
    pub(super) fn busy(&self) -> Vec<usize> {
        self.busy.iter().map(|lanes| lanes.load(Ordering::Acquire)).collect()
    }

    /// Whether no other worker is less busy than this one, which has `busy` lanes in use.
    fn is_least(&self, worker: usize, busy: usize) -> bool {
        let others = self.busy.iter().enumerate().filter(|(other, _)| *other != worker);
        others.map(|(_, lanes)| lanes.load(Ordering::Acquire)).all(|other| busy <= other)
    }
}

/// One worker's patience with a queue that is not empty.
#[derive(Default)]
pub(super) struct Turn {
    slices_left_to_others: u32,
}

impl Turn {
    /// A slice begins; `waiting` says whether a job does.
    pub(super) fn slice(&mut self, waiting: bool) {
        self.slices_left_to_others =
            if waiting { self.slices_left_to_others.saturating_add(1) } else { 0 };
    }

    /// Whether this worker is to take a job now.
    pub(super) fn is_mine(&self, board: &Board, worker: usize, busy: usize) -> bool {
        self.slices_left_to_others > board.patience || board.is_least(worker, busy)
    }

    /// It took one.
    pub(super) fn took(&mut self) {
        self.slices_left_to_others = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_busy_worker_takes_the_job() {
        let board = Board::new(2, 3);
        let turn = Turn::default();
        assert!(turn.is_mine(&board, 0, 0) && turn.is_mine(&board, 1, 0));
        board.set(0, 1);
        assert!(!turn.is_mine(&board, 0, 1), "the other one is idle");
        assert!(turn.is_mine(&board, 1, 0));
        board.set(1, 1);
        assert!(turn.is_mine(&board, 0, 1));
        assert_eq!(board.busy(), [1, 1]);
    }

    #[test]
    fn a_job_that_nobody_takes_is_taken_after_a_few_slices() {
        let board = Board::new(2, 3);
        board.set(0, 1);
        let mut turn = Turn::default();
        for _ in 0..3 {
            turn.slice(true);
            assert!(!turn.is_mine(&board, 0, 1));
        }
        turn.slice(true);
        assert!(turn.is_mine(&board, 0, 1));
        turn.took();
        assert!(!turn.is_mine(&board, 0, 1));
        turn.slice(false);
        assert!(!turn.is_mine(&board, 0, 1));
    }
}
