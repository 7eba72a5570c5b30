//! Open loop: calls at a fixed rate, however long the answers take.
//!
//! A call's time runs from when it was due and not from when it was sent, so that a stall shows in
//! every call that it delays (no "coordinated omission").

use crate::client::{Call, Client, Outcome, Target};
use crate::stats::Stats;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// When calls are due.
#[derive(Clone, Copy)]
pub(crate) struct Schedule {
    pub(crate) from: Instant,
    /// Calls per second.
    pub(crate) rate: f64,
    pub(crate) count: u32,
}

impl Schedule {
    pub(crate) fn new(from: Instant, rate: f64, seconds: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let count = (rate * seconds as f64).round() as u32;
        Self { from, rate, count }
    }

    /// Yields each call's due time when it has come.
    ///
    /// It uses a separate thread, because the runtime's timer has a resolution of a millisecond.
    fn start(self) -> UnboundedReceiver<Instant> {
        let (sender, receiver) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for index in 0..self.count {
                let due = self.from + Duration::from_secs_f64(f64::from(index) / self.rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if sender.send(due).is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

/// One call and the time when it was sent.
pub(crate) struct Sent {
    begun: Instant,
    ended: Instant,
    outcome: Outcome,
}

impl Sent {
    /// Sets the time when the call could have been sent without waiting for the server.
    pub(crate) fn since(self, begun: Instant) -> Self {
        Self { begun, ..self }
    }
}

/// Makes the scheduled calls and waits for the last answer.
pub(crate) async fn run<F, Sending>(schedule: Schedule, mut call: F) -> Stats
where
    F: FnMut() -> Sending,
    Sending: Future<Output = Sent> + Send + 'static,
{
    let mut stats = Stats::default();
    let mut under_way = JoinSet::new();
    let mut moments = schedule.start();
    let mut add = |due: Instant, sent: Sent| {
        stats.add(&sent.outcome, sent.ended - due);
        stats.add_lag(sent.begun - due);
    };
    while let Some(due) = moments.recv().await {
        let sending = call();
        under_way.spawn(async move { (due, sending.await) });
        while let Some(Ok((due, sent))) = under_way.try_join_next() {
            add(due, sent);
        }
    }
    while let Some(Ok((due, sent))) = under_way.join_next().await {
        add(due, sent);
    }
    stats
}

/// Connections for calls that must not wait for each other: one per call in flight.
pub(crate) struct Connections {
    target: Arc<Target>,
    idle: Mutex<Vec<Client>>,
}

impl Connections {
    /// Opens `ready` connections in advance.
    pub(crate) async fn new(target: &Arc<Target>, ready: usize) -> Arc<Self> {
        let mut idle = Vec::with_capacity(ready);
        for _ in 0..ready {
            idle.push(Client::new(target).connected().await);
        }
        Arc::new(Self { target: Arc::clone(target), idle: Mutex::new(idle) })
    }

    pub(crate) async fn send(&self, call: Call) -> Sent {
        let (sent, _) = self.send_and(call, |_| ()).await;
        sent
    }

    /// Also takes something from the outcome.
    pub(crate) async fn send_and<T>(&self, call: Call, take: impl Fn(&Outcome) -> T) -> (Sent, T) {
        let mut client = self.idle().pop().unwrap_or_else(|| Client::new(&self.target));
        let begun = Instant::now();
        let outcome = client.call(call).await;
        let ended = Instant::now();
        self.idle().push(client);
        let taken = take(&outcome);
        (Sent { begun, ended, outcome }, taken)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
