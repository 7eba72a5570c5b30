//! The audit log of what went wrong: queued by the request, written behind it.
//!
//! What changes a row is logged by the statement that changes it. A rejected password changes
//! none, and shall not wait for one: its line goes into a bounded queue, and one task writes what is
//! queued once a second. A full queue drops lines, and counts them, rather than hold logins up.

use super::{Auth, Inner};
use crate::identity::{Origin, UserId};
use crate::store::{NewEvent, StoreError};
use crate::telemetry::{Metrics, definitions};
use metrics::Counter;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc};

/// Lines that may wait, of some 200 octets: what a machine of a hundred cores rejects in a second.
const LINES_MAX: usize = 16_384;
/// Their memory, when each has the longest name and user agent.
pub(super) const OCTETS_MAX: u64 = LINES_MAX as u64 * 2_048;
/// Lines a statement.
const BATCH_LINES: usize = 1_000;
/// How long a line waits at most, while the database takes them.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Audit {
    lines: mpsc::Sender<NewEvent>,
    /// Held by the task that writes.
    queue: Mutex<mpsc::Receiver<NewEvent>>,
    dropped: Counter,
}

impl Audit {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let (lines, queue) = mpsc::channel(LINES_MAX);
        let dropped = metrics.counter(definitions::AUDIT_EVENTS_DROPPED, &[]);
        Self { lines, queue: Mutex::new(queue), dropped }
    }

    pub(super) fn note(
        &self,
        (event, outcome): (&'static str, &'static str),
        user: Option<UserId>,
        origin: &Origin,
        at: Instant,
    ) {
        let (address, request_id) = (origin.address, origin.request_id.clone());
        let line = NewEvent { at, event, outcome, user, address, request_id };
        if self.lines.try_send(line).is_err() {
            self.dropped.increment(1);
        }
    }
}

impl Auth {
    /// Writes queued lines into the audit log once a second, and what is left when `ended`
    /// completes. While the database is away they wait in the queue.
    ///
    /// Dropping the future loses the lines of the batch under way.
    pub async fn write_audit_log(&self, ended: impl Future<Output = ()>) {
        let mut queue = self.0.audit.queue.lock().await;
        let mut ended = pin!(ended);
        let mut batch = Vec::with_capacity(BATCH_LINES);
        loop {
            let is_last = tokio::select! {
                () = &mut ended => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            while self.write_batch(&mut queue, &mut batch).await {}
            if is_last {
                let lost = batch.len() + queue.len();
                self.0.audit.dropped.increment(u64::try_from(lost).unwrap_or(u64::MAX));
                return;
            }
        }
    }

    /// Writes one batch, which keeps what could not be written yet; whether it was a whole one, and
    /// more may wait.
    async fn write_batch(
        &self,
        queue: &mut mpsc::Receiver<NewEvent>,
        batch: &mut Vec<NewEvent>,
    ) -> bool {
        let Inner { store, audit, clock, .. } = &*self.0;
        while batch.len() < BATCH_LINES
            && let Ok(line) = queue.try_recv()
        {
            batch.push(line);
        }
        if batch.is_empty() {
            return false;
        }
        match store.insert_events(batch, clock.now()).await {
            Ok(()) => {}
            Err(StoreError::Unavailable { .. }) => return false,
            Err(error @ (StoreError::Conflict { .. } | StoreError::Failed { .. })) => {
                // Tried again it would fail again, and hold up those behind it.
                tracing::error!(%error, lines = batch.len(), "lines of the audit log are lost");
                audit.dropped.increment(u64::try_from(batch.len()).unwrap_or(u64::MAX));
            }
        }
        let was_full = batch.len() >= BATCH_LINES;
        batch.clear();
        was_full
    }
}
