//! The threads that verify foreign hashes, one at a time each.
//!
//! Their crates compute a hash in one go, for up to a third of a second: within a worker, every lane
//! would stand still for that long. Threads of their own let the operating system share the cores
//! between both; there are half as many as hashing threads, so that bcrypt keeps half of the cores
//! whatever comes, and the memory of argon2 and scrypt is bounded by their number.

use super::ForeignHash;
use crate::hashing::engine::Shared;
use crate::hashing::job::{Begun, Done, Queued};
use crate::hashing::priority;
use crossbeam_channel::{Receiver, select};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// What takes less says nothing of the speed: only tests have such hashes.
const MEASURED_MIN: Duration = Duration::from_millis(1);

/// A password to verify.
pub(super) struct ForeignWork {
    pub(super) hash: ForeignHash,
    pub(super) password: Zeroizing<Vec<u8>>,
}

/// A password to verify, and who waits to hear whether it is the stored one.
pub(super) type ForeignJob = Queued<ForeignWork, bool>;

/// One of the threads.
pub(super) struct ForeignWorker {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) jobs: Receiver<ForeignJob>,
    /// Closed when the engine drains.
    pub(super) stop: Receiver<()>,
}

impl ForeignWorker {
    /// Runs until the engine drains and nothing waits.
    pub(super) fn run(self) {
        if let Err(error) = priority::lower() {
            self.shared.priority_not_lowered(&error);
        }
        while let Some(job) = self.next() {
            self.verify(job);
        }
    }

    /// Sleeps until there is a job. `None`: there will be none.
    fn next(&self) -> Option<ForeignJob> {
        select! {
            recv(self.jobs) -> job => job.ok(),
            recv(self.stop) -> _ => self.jobs.try_recv().ok(),
        }
    }

    /// Answers one job, unless it is too late for it. Once begun it is done to its end.
    fn verify(&self, job: ForeignJob) {
        let Shared { clock, meters, foreign, .. } = &*self.shared;
        #[cfg(test)]
        let injected = job.injected;
        let Some(job) = job.begin(&self.shared, foreign) else { return };
        let Begun { work, begun, reply, .. } = job;
        // A fault in one job is that job's end, not the thread's.
        let computed = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            if let Some(injected) = injected {
                injected.act(&self.shared.gate);
            }
            work.hash.matches(&work.password)
        }));
        match computed {
            Ok(Some(matches)) => {
                let took = clock.now().saturating_duration_since(begun);
                meters.foreign_seconds.record(took);
                if took >= MEASURED_MIN {
                    foreign.measured(self.index, work.hash.rounds(), took);
                }
                // Nobody listens any more: nothing to tell.
                reply.send(Ok(Done { answer: matches, begun })).ok();
            }
            Ok(None) => tracing::error!("no memory for a foreign hash"),
            Err(_) => {
                meters.panics.increment(1);
                tracing::error!("a foreign hash panicked");
            }
        }
    }
}
