//! The queue in front of the threads that verify imported hashes.
//!
//! It has its own `Admission`, which counts work in bcrypt rounds (a hash's parameters relative to
//! the measured speed). The speed is updated while the threads run. A flood of imported hashes
//! therefore fills only its own queue.

use super::ImportedHash;
use super::worker::{ImportedHashJob, ImportedHashWork, ImportedHashWorker};
use crate::hashing::HashError;
use crate::hashing::admission::{HashPurpose, Permit, places};
use crate::hashing::config::HashConfig;
use crate::hashing::job::AnswerReceiver;
use crate::hashing::shared::Shared;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

/// Hashing threads for each thread that verifies imported hashes.
///
/// Such a thread uses up to 128 MiB of memory while it verifies a hash.
const HASHING_THREADS_PER_THREAD: usize = 2;

/// The queue of imported hashes. It has as many places as bcrypt's queue has for logins.
pub(in crate::hashing) struct ImportedHashQueue {
    jobs: Sender<ImportedHashJob>,
    deadline: Duration,
}

impl ImportedHashQueue {
    /// The number of threads for imported hashes, given the number of hashing threads.
    pub(in crate::hashing) fn threads(hashing: usize) -> usize {
        hashing.div_ceil(HASHING_THREADS_PER_THREAD)
    }

    /// Starts the threads in `pool`, which must have room for them.
    ///
    /// They hold `alive`, and end when `stop` is closed and no job waits.
    pub(in crate::hashing) fn start(
        threads: usize,
        config: &HashConfig,
        pool: &rayon::ThreadPool,
        shared: &Arc<Shared>,
        stop: &Receiver<()>,
        alive: &mpsc::Sender<()>,
    ) -> Self {
        let (jobs, waiting) = bounded(places(config.queue));
        for index in 0..threads {
            let shared = Arc::clone(shared);
            let worker =
                ImportedHashWorker { index, shared, jobs: waiting.clone(), stop: stop.clone() };
            let alive = alive.clone();
            pool.spawn(move || {
                worker.run();
                drop(alive);
            });
        }
        Self { jobs, deadline: config.deadline }
    }

    /// Queues a password on a reserved place, at the time `now`.
    ///
    /// # Errors
    /// [`HashError::ShuttingDown`]: the threads have ended.
    pub(in crate::hashing) fn send(
        &self,
        now: Instant,
        place: Permit,
        password: &[u8],
        hash: ImportedHash,
    ) -> Result<AnswerReceiver<bool>, HashError> {
        let (reply, answer) = oneshot::channel();
        let job = ImportedHashJob {
            work: ImportedHashWork { hash, password: Zeroizing::new(password.to_vec()) },
            purpose: HashPurpose::Verify,
            queued_at: now,
            deadline: now + self.deadline,
            reply,
            permit: Some(place),
            #[cfg(test)]
            injected: crate::hashing::tests::Injected::of(password),
        };
        self.jobs.try_send(job).map_err(|_| HashError::ShuttingDown)?;
        Ok(answer)
    }
}
