//! Closed loop: a number of clients, each with one call in flight.
//!
//! A slow server gets fewer calls, so this measures the most that it can do. [`crate::open`] measures
//! how long callers wait who do not slow down with the server.

use crate::client::{Answer, Call, Client, Target};
use crate::stats::Stats;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The measured time.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

impl Window {
    pub(crate) fn after(wait: Duration, seconds: u64) -> Self {
        let from = Instant::now() + wait;
        Self { from, until: from + Duration::from_secs(seconds) }
    }

    pub(crate) fn seconds(&self) -> f64 {
        (self.until - self.from).as_secs_f64()
    }

    /// Marks its begin and end on standard error.
    pub(crate) async fn mark(self) {
        tokio::time::sleep_until(self.from).await;
        eprintln!("load: measuring");
        tokio::time::sleep_until(self.until).await;
        eprintln!("load: measured");
    }
}

/// Runs a client for each of `calls` until the window ends.
///
/// Each of `calls` makes its client's next call from the answer to the last one, if there was one. An
/// answer counts if it came inside the window.
pub(crate) async fn run<F>(target: &Arc<Target>, calls: Vec<F>, window: Window) -> Stats
where
    F: FnMut(Option<&Answer>) -> Call + Send + 'static,
{
    let mut clients = JoinSet::new();
    for call in calls {
        clients.spawn(one(Client::new(target), call, window));
    }
    let mut all = Stats::default();
    while let Some(stats) = clients.join_next().await {
        // A client's task neither panics nor is aborted.
        all.merge(&stats.unwrap_or_default());
    }
    all
}

async fn one(
    mut client: Client,
    mut call: impl FnMut(Option<&Answer>) -> Call,
    window: Window,
) -> Stats {
    let mut stats = Stats::default();
    let mut last = None;
    while Instant::now() < window.until {
        let request = call(last.as_ref());
        let begun = Instant::now();
        let outcome = client.call(request).await;
        let ended = Instant::now();
        if (window.from..window.until).contains(&ended) {
            stats.add(&outcome, ended - begun);
        }
        // A refused client pauses: refusals are cheap, and would otherwise be most of the calls.
        if !matches!(&outcome, Ok(answer) if answer.status == 200) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        last = outcome.ok();
    }
    stats
}
