//! The queue in front of the threads that verify foreign hashes.

use super::ForeignHash;
use super::worker::{ForeignJob, ForeignWork, ForeignWorker};
use crate::hashing::HashError;
use crate::hashing::admission::{Permit, Purpose, places};
use crate::hashing::engine::{Answer, HashConfig, Shared};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

/// For so many hashing threads there is one that verifies foreign hashes, each with up to 128 MiB of
/// memory while it does.
const HASHING_THREADS_PER_THREAD: usize = 2;

/// The queue. As many may wait in it as logins in that of bcrypt.
pub(in crate::hashing) struct ForeignQueue {
    jobs: Sender<ForeignJob>,
    /// Longest time a job may wait.
    deadline: Duration,
}

impl ForeignQueue {
    /// How many threads there are beside so many that hash.
    pub(in crate::hashing) fn threads(hashing: usize) -> usize {
        hashing.div_ceil(HASHING_THREADS_PER_THREAD)
    }

    /// Starts so many in `pool`, which has room for them. They hold `alive`, and end when `stop` is
    /// closed and nothing waits.
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
            let worker = ForeignWorker { index, shared, jobs: waiting.clone(), stop: stop.clone() };
            let alive = alive.clone();
            pool.spawn(move || {
                worker.run();
                drop(alive);
            });
        }
        Self { jobs, deadline: config.deadline }
    }

    /// Queues a password on a place that was taken for it, at the time `now`.
    ///
    /// # Errors
    /// [`HashError::ShuttingDown`]: the threads have ended.
    pub(in crate::hashing) fn send(
        &self,
        now: Instant,
        place: Permit,
        password: &[u8],
        hash: ForeignHash,
    ) -> Result<Answer<bool>, HashError> {
        let (reply, answer) = oneshot::channel();
        let job = ForeignJob {
            work: ForeignWork { hash, password: Zeroizing::new(password.to_vec()) },
            purpose: Purpose::Verify,
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
