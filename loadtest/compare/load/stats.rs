//! Counts and times of calls, by status.

use crate::client::Outcome;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// Microseconds with three digits, up to ten minutes.
pub(crate) type Times = Histogram<u64>;

const LONGEST_US: u64 = 600_000_000;

#[derive(Default)]
pub(crate) struct Stats {
    /// By status, or by the name of the failure.
    by_outcome: BTreeMap<String, Recorded>,
    /// In an open loop, the time from when a call was due to when it was sent. It is part of its time.
    lag: Recorded,
}

impl Stats {
    pub(crate) fn add(&mut self, outcome: &Outcome, took: Duration) {
        let name = match outcome {
            Ok(answer) => answer.status.to_string(),
            Err(failure) => failure.name().to_owned(),
        };
        self.by_outcome.entry(name).or_default().add(took);
    }

    pub(crate) fn add_lag(&mut self, lag: Duration) {
        self.lag.add(lag);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, times) in &other.by_outcome {
            self.by_outcome.entry(name.clone()).or_default().merge(times);
        }
        self.lag.merge(&other.lag);
    }

    /// Times of the calls that were answered 200.
    pub(crate) fn ok(&self) -> Option<&Times> {
        self.by_outcome.get("200").map(|recorded| &recorded.0)
    }

    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (&str, &Times)> {
        self.by_outcome.iter().map(|(name, recorded)| (name.as_str(), &recorded.0))
    }

    /// `None` in a closed loop.
    pub(crate) fn lag(&self) -> Option<&Times> {
        (!self.lag.0.is_empty()).then_some(&self.lag.0)
    }
}

struct Recorded(Times);

impl Default for Recorded {
    #[expect(clippy::expect_used, reason = "the bounds are constants that the library accepts")]
    fn default() -> Self {
        Self(Times::new_with_bounds(1, LONGEST_US, 3).expect("valid bounds"))
    }
}

impl Recorded {
    fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US));
    }

    #[expect(clippy::expect_used, reason = "both have the same bounds")]
    fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("same bounds");
    }
}
