//! An average over time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A moving average, weighted by time, in which older samples lose weight exponentially.
pub(super) struct MovingAverage {
    /// Bits of an `f64`.
    value: AtomicU64,
    over: Duration,
}

impl MovingAverage {
    /// `over`: a constant sample has two thirds of the weight after this time.
    pub(super) fn new(value: f64, over: Duration) -> Self {
        Self { value: AtomicU64::new(value.to_bits()), over }
    }

    pub(super) fn get(&self) -> f64 {
        f64::from_bits(self.value.load(Ordering::Relaxed))
    }

    /// Adds the mean of a measurement that took some time.
    pub(super) fn add(&self, sample: f64, took: Duration) {
        let kept = (-took.as_secs_f64() / self.over.as_secs_f64()).exp();
        let add = |bits| Some((sample + (f64::from_bits(bits) - sample) * kept).to_bits());
        // The function never refuses, so this never fails.
        self.value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_of_the_samples_counts_and_not_their_number() {
        let second = Duration::from_secs(1);
        let (few, many) = (MovingAverage::new(0.0, second), MovingAverage::new(0.0, second));
        few.add(1.0, second);
        (0..100).for_each(|_| many.add(1.0, second / 100));
        for average in [few, many] {
            assert!((average.get() - 0.632).abs() < 0.001, "{}", average.get());
        }
    }
}
