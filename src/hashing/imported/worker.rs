//! The threads that verify imported hashes, one hash at a time each.
//!
//! RustCrypto's crates compute a hash in one call of 10 to 300 ms, so it cannot be interleaved with
//! others: in a hashing worker, every lane would stall for that time. With separate threads, in the
//! same pool and with the same priority, the operating system shares the cores between both kinds.
//!
//! A thread that never yields gets nearly a whole core when it competes with workers that do. There
//! is one thread per two workers, so a flood of such logins takes half of the cores and no more. Each
//! thread computes one hash at a time, so their number also bounds the memory (128 MiB each). A job
//! that has begun runs to its end, even if its client has disconnected.

use super::ImportedHash;
use crate::hashing::job::{Done, Queued, StartedJob};
use crate::hashing::pacer::ThreadMeter;
use crate::hashing::priority;
use crate::hashing::shared::Shared;
use crate::hashing::speed::to_f64;
use crossbeam_channel::{Receiver, select};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// A shorter job does not count as a measurement of the speed. Only tests have such hashes.
const MEASURED_MIN: Duration = Duration::from_millis(1);

/// A password and the hash to check it against.
pub(super) struct ImportedHashWork {
    pub(super) hash: ImportedHash,
    pub(super) password: Zeroizing<Vec<u8>>,
}

/// A queued password. The answer is whether it matches.
pub(super) type ImportedHashJob = Queued<ImportedHashWork, bool>;

pub(super) struct ImportedHashWorker {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) jobs: Receiver<ImportedHashJob>,
    pub(super) stop: Receiver<()>,
}

impl ImportedHashWorker {
    /// Runs until the engine drains and no job waits.
    pub(super) fn run(self) {
        if let Err(error) = priority::lower() {
            self.shared.priority_not_lowered(&error);
        }
        let mut meter = ThreadMeter::start();
        while let Some(job) = self.next() {
            let paused = self.shared.pause(&mut meter);
            self.verify(job, paused);
            if let Some(pacer) = &self.shared.pacer {
                pacer.report(&mut meter);
            }
        }
    }

    /// Sleeps until there is a job. `None`: there will be no more.
    fn next(&self) -> Option<ImportedHashJob> {
        select! {
            recv(self.jobs) -> job => job.ok(),
            recv(self.stop) -> _ => self.jobs.try_recv().ok(),
        }
    }

    /// Answers one job, unless it is too late. A started job runs to the end.
    ///
    /// The pause before it counts as a part of the time that it takes of this thread.
    fn verify(&self, job: ImportedHashJob, paused: Duration) {
        let Shared { clock, metrics, imported, .. } = &*self.shared;
        #[cfg(test)]
        let injected = job.injected;
        let Some(job) = job.start(&self.shared, imported) else { return };
        let StartedJob { work, started, reply, .. } = job;
        let rounds = work.hash.rounds();
        imported.set_busy(self.index, 1, rounds);
        // A panic in one job fails that job only. The thread goes on.
        let computed = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            if let Some(injected) = injected {
                injected.act(&self.shared.gate);
            }
            work.hash.matches(&work.password)
        }));
        match computed {
            Ok(Some(matches)) => {
                let took = clock.now().saturating_duration_since(started);
                metrics.imported_seconds.record(took);
                if took >= MEASURED_MIN {
                    let speed = to_f64(rounds) / (paused + took).as_secs_f64();
                    imported.speed.add(self.index, speed, paused + took);
                }
                // Sending fails if the client has left, which is no error.
                reply.send(Ok(Done { answer: matches, started })).ok();
            }
            Ok(None) => tracing::error!("not enough memory to verify an imported hash"),
            Err(_) => {
                metrics.panics.increment(1);
                tracing::error!("verifying an imported hash panicked");
            }
        }
        imported.set_busy(self.index, 0, 0);
    }
}
