//! Jobs in a queue: the work, its deadline, and the caller that waits for the answer.

use super::HashError;
use super::admission::{Admission, HashPurpose, Permit};
use super::kernel::{self, Digest};
use super::shared::Shared;
use std::time::Instant;
use tokio::sync::oneshot;

/// Work that waits in a queue, with the channel for its answer.
pub(super) struct Queued<W, A> {
    pub(super) work: W,
    pub(super) purpose: HashPurpose,
    pub(super) queued_at: Instant,
    pub(super) deadline: Instant,
    pub(super) reply: Reply<A>,
    /// The place in the queue, released when hashing starts. Spare work has none.
    pub(super) permit: Option<Permit>,
    /// Makes the job fail or wait in its worker.
    #[cfg(test)]
    pub(super) injected: Option<super::tests::Injected>,
}

/// One password for the bcrypt kernel.
pub(super) type Job = Queued<kernel::LaneJob, Digest>;

pub(super) type Reply<A> = oneshot::Sender<Result<Done<A>, HashError>>;
pub(super) type AnswerReceiver<A> = oneshot::Receiver<Result<Done<A>, HashError>>;

pub(super) struct Done<A> {
    pub(super) answer: A,
    pub(super) started: Instant,
}

/// Work whose hashing starts now.
pub(super) struct StartedJob<W, A> {
    pub(super) work: W,
    pub(super) purpose: HashPurpose,
    pub(super) spare: bool,
    pub(super) started: Instant,
    /// Dropped without an answer only by a panic or when the engine ends.
    pub(super) reply: Reply<A>,
}

impl<W, A> Queued<W, A> {
    /// Releases the place in the queue and starts the job.
    ///
    /// `admission` is that of the job's queue. `None`: the job is too late or its client has left;
    /// a client that still waits has been sent the error.
    pub(super) fn start(self, shared: &Shared, admission: &Admission) -> Option<StartedJob<W, A>> {
        let Self { work, purpose, queued_at, deadline, reply, permit, .. } = self;
        let spare = permit.is_none();
        drop(permit);
        let metrics = &shared.metrics;
        let started = shared.clock.now();
        if reply.is_closed() {
            metrics.cancelled.increment(1);
            return None;
        }
        if shared.is_aborted() {
            metrics.shutting_down.increment(u64::from(!spare));
            reply.send(Err(HashError::ShuttingDown)).ok();
            return None;
        }
        if started >= deadline {
            metrics.expired.increment(u64::from(!spare));
            let retry_after = admission.predicted_wait(purpose);
            reply.send(Err(HashError::Expired { retry_after })).ok();
            return None;
        }
        metrics.wait.record(started.saturating_duration_since(queued_at));
        Some(StartedJob { work, purpose, spare, started, reply })
    }
}
