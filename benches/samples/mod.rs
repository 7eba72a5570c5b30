//! Times of repeated work.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Times of the same work, in seconds.
#[derive(Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn time<R>(&mut self, work: impl FnOnce() -> R) {
        let begun = Instant::now();
        black_box(work());
        self.push(begun.elapsed());
    }

    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64());
    }

    pub(crate) fn least(&mut self) -> f64 {
        self.0.iter().copied().fold(f64::MAX, f64::min)
    }

    pub(crate) fn median(&mut self) -> f64 {
        self.0.sort_unstable_by(f64::total_cmp);
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::MAX)
    }
}
