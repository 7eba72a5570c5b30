//! The queue of audit log lines about events that change no row.
//!
//! A statement that changes a row also writes its audit log line. A rejected password changes no
//! row and must not wait for a statement. Its line goes into a bounded queue, and one task writes
//! the queued lines once a second. A full queue drops and counts lines instead of delaying logins.
//!
//! The task ends after the last request, when the queue is empty.

use super::{Auth, Inner};
use crate::identity::{Origin, UserId};
use crate::store::{NewEvent, StoreError};
use crate::telemetry::{Metrics, definitions};
use metrics::Counter;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc};

/// The maximum number of queued lines, about 200 bytes each.
///
/// A 100-core machine rejects as many logins in a second.
const LINES_MAX: usize = 16_384;
/// The memory of the queue if each line has the longest name and user agent. Unit: bytes.
pub(super) const BYTES_MAX: u64 = LINES_MAX as u64 * 2_048;
/// Lines per statement.
const BATCH_LINES: usize = 1_000;
/// The longest wait of a line, while the database is available.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Audit {
    lines: mpsc::Sender<NewEvent>,
    /// Locked by the task that writes.
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
    /// Writes the queued lines once a second, and the remaining ones when `ended` completes.
    ///
    /// Lines wait in the queue while the database is unavailable.
    ///
    /// # Cancel safety
    /// Dropping the future loses the lines of the current batch.
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

    /// Writes one batch. Returns true if the batch was full, because more lines may be queued.
    ///
    /// `batch` keeps its lines if the database is unavailable.
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
                // A retry would fail again and block the lines behind it.
                tracing::error!(%error, lines = batch.len(), "lines of the audit log are lost");
                audit.dropped.increment(u64::try_from(batch.len()).unwrap_or(u64::MAX));
            }
        }
        let was_full = batch.len() >= BATCH_LINES;
        batch.clear();
        was_full
    }
}
