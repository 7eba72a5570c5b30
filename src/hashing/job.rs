//! A password's way through a queue: who waits for it, since when, until when.

use super::HashError;
use super::admission::{Admission, Permit, Purpose};
use super::engine::Shared;
use super::kernel::{self, Digest};
use std::time::Instant;
use tokio::sync::oneshot;

/// Work that waits in a queue, and what is answered once it is done.
pub(super) struct Queued<W, A> {
    pub(super) work: W,
    pub(super) purpose: Purpose,
    pub(super) queued_at: Instant,
    pub(super) deadline: Instant,
    pub(super) reply: Reply<A>,
    /// The place in the queue, given back when hashing begins; spare work has none.
    pub(super) permit: Option<Permit>,
    /// Makes the job fail or wait in its worker.
    #[cfg(test)]
    pub(super) injected: Option<super::tests::Injected>,
}

/// One password for the bcrypt kernel.
pub(super) type Job = Queued<kernel::Job, Digest>;

pub(super) type Reply<A> = oneshot::Sender<Result<Done<A>, HashError>>;

/// A password hashed.
pub(super) struct Done<A> {
    pub(super) answer: A,
    /// When its hashing began.
    pub(super) begun: Instant,
}

/// Work whose hashing begins.
pub(super) struct Begun<W, A> {
    pub(super) work: W,
    pub(super) purpose: Purpose,
    pub(super) spare: bool,
    pub(super) begun: Instant,
    /// Dropped unanswered only by a panic or the engine's end.
    pub(super) reply: Reply<A>,
}

impl<W, A> Queued<W, A> {
    /// Gives the place back and begins. `None`: it is too late for it, and who waited has been told;
    /// `admission` is that of its queue.
    pub(super) fn begin(self, shared: &Shared, admission: &Admission) -> Option<Begun<W, A>> {
        let Self { work, purpose, queued_at, deadline, reply, permit, .. } = self;
        let spare = permit.is_none();
        drop(permit);
        let meters = &shared.meters;
        let begun = shared.clock.now();
        if reply.is_closed() {
            meters.cancelled.increment(1);
            return None;
        }
        if shared.is_aborted() {
            meters.shutting_down.increment(u64::from(!spare));
            reply.send(Err(HashError::ShuttingDown)).ok();
            return None;
        }
        if begun >= deadline {
            meters.expired.increment(u64::from(!spare));
            let retry_after = admission.predicted_wait(purpose);
            reply.send(Err(HashError::Expired { retry_after })).ok();
            return None;
        }
        meters.wait.record(begun.saturating_duration_since(queued_at));
        Some(Begun { work, purpose, spare, begun, reply })
    }
}
