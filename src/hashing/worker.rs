//! What a hashing thread does: take a job, hash, answer.

use super::engine::Shared;
use super::password::Password;
use super::phc::{DIGEST_OCTETS, SALT_OCTETS};
use super::{HashError, Permit};
use crossbeam_channel::{Receiver, select_biased};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use tokio::sync::oneshot;

/// One password to hash.
pub(super) struct Job {
    pub(super) op: Op,
    pub(super) password: Password,
    pub(super) salt: [u8; SALT_OCTETS],
    pub(super) cost: u32,
    pub(super) queued_at: Instant,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<[u8; DIGEST_OCTETS], HashError>>,
    /// The place in the queue; given back when hashing begins.
    pub(super) permit: Permit,
}

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A login.
    Verify,
    /// A new password.
    Hash,
}

impl Op {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Hash => "hash",
        }
    }
}

/// Runs until `stop` is closed and the queue is empty.
pub(super) fn run(shared: &Shared, jobs: &Receiver<Job>, stop: &Receiver<()>) {
    if let Err(error) = lower_priority() {
        shared.priority_not_lowered(&error);
    }
    loop {
        select_biased! {
            recv(jobs) -> job => match job {
                Ok(job) => work(shared, job),
                Err(_) => return,
            },
            recv(stop) -> _ => return,
        }
    }
}

fn work(shared: &Shared, job: Job) {
    let Job { op, password, salt, cost, queued_at, deadline, reply, permit } = job;
    drop(permit);
    let begun = shared.clock.now();
    let metrics = &shared.metrics;
    if reply.is_closed() {
        metrics.cancelled.increment(1);
        return;
    }
    let refusal = if shared.is_aborted() {
        Some(HashError::ShuttingDown)
    } else if begun >= deadline {
        metrics.expired.increment(1);
        Some(HashError::Expired { retry_after: shared.retry_after() })
    } else {
        None
    };
    if let Some(refusal) = refusal {
        // Nobody listens any more: nothing to tell.
        reply.send(Err(refusal)).ok();
        return;
    }
    metrics.wait.record(begun.saturating_duration_since(queued_at));
    metrics.lanes_busy.increment(1.0);
    // A fault in one computation is that job's answer, not the thread's end.
    let answer = catch_unwind(AssertUnwindSafe(|| digest(cost, salt, &password)));
    let took = shared.clock.now().saturating_duration_since(begun);
    metrics.lanes_busy.decrement(1.0);
    metrics.seconds(op).record(took);
    let answer = answer.map_err(|_| {
        metrics.panics.increment(1);
        tracing::error!(op = op.label(), "a hash job panicked");
        HashError::Panicked
    });
    reply.send(answer).ok();
}

/// bcrypt of a password.
pub(super) fn digest(
    cost: u32,
    salt: [u8; SALT_OCTETS],
    password: &Password,
) -> [u8; DIGEST_OCTETS] {
    let mut input = zeroize::Zeroizing::new(password.octets().to_vec());
    if input.len() < super::PASSWORD_OCTETS_MAX {
        // The C string's NUL is part of the key, where there is room for it.
        input.push(0);
    }
    let output = bcrypt::bcrypt(cost, salt, &input);
    let mut digest = [0; DIGEST_OCTETS];
    digest.copy_from_slice(output.split_at(DIGEST_OCTETS).0);
    digest
}

/// Hashing fills every core it gets; everything else here needs little and needs it at once.
///
/// SCHED_IDLE, not a weak nice value: Linux lets a woken thread preempt an idle-class one at once,
/// but lets any other finish its slice first (3 ms and more since the EEVDF scheduler of 6.6).
/// Measured at cost 10, both cores hashing, 100 calls a second each (p50, ms): refresh at nice 19
/// NICE_FIGURE, at SCHED_IDLE IDLE_FIGURE.
fn lower_priority() -> Result<(), thread_priority::Error> {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
        thread_priority::set_thread_priority_and_policy(
            thread_priority::thread_native_id(),
            ThreadPriority::Min,
            ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle),
        )
    }
    #[cfg(not(target_os = "linux"))]
    thread_priority::set_current_thread_priority(thread_priority::ThreadPriority::Min)
}
