//! Closed loop: so many clients, each with one call under way at a time.
//!
//! A slow server is sent fewer calls. That measures what it can do at most; what a caller waits who
//! does not know that the server is slow is measured by [`crate::open`].

use crate::client::{Call, Client, Target};
use crate::stats::Stats;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The time that counts.
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

    /// Marks begin and end on standard error.
    pub(crate) async fn mark(self) {
        tokio::time::sleep_until(self.from).await;
        eprintln!("load: measuring");
        tokio::time::sleep_until(self.until).await;
        eprintln!("load: measured");
    }
}

/// Runs a client for each of `calls`, which makes its next call, until the window ends. An answer
/// counts if it came inside the window.
pub(crate) async fn run<F>(target: &Arc<Target>, calls: Vec<F>, window: Window) -> Stats
where
    F: FnMut() -> Call + Send + 'static,
{
    let mut clients = JoinSet::new();
    for call in calls {
        clients.spawn(one(Client::new(target), call, window));
    }
    let mut all = Stats::default();
    while let Some(stats) = clients.join_next().await {
        // A client's task neither panics nor is it aborted.
        all.merge(&stats.unwrap_or_default());
    }
    all
}

async fn one(mut client: Client, mut call: impl FnMut() -> Call, window: Window) -> Stats {
    let mut stats = Stats::default();
    while Instant::now() < window.until {
        let request = call();
        let begun = Instant::now();
        let outcome = client.call(request).await;
        let ended = Instant::now();
        if (window.from..window.until).contains(&ended) {
            stats.add(&outcome, ended - begun);
        }
        // Who was refused does not come back at once: refusals are cheap, and would be most of the
        // calls.
        if !matches!(&outcome, Ok(answer) if answer.status == 200) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    stats
}
