//! The loop of a hashing thread: fill the free lanes, step all lanes, answer, repeat.
//!
//! Lanes start and end independently (continuous batching). A slice is a few rounds of every busy
//! lane, about 0.3 ms. Between slices the worker answers finished lanes, drops lanes whose client
//! has left, starts waiting jobs, and yields the core to other threads.

use super::admission::HashPurpose;
use super::fair_share::FairShare;
use super::job::{Done, Job, Reply, StartedJob};
use super::kernel::{Batch, Digest};
use super::pacer::ThreadMeter;
use super::placement::CoreSharing;
use super::priority;
use super::shared::Shared;
use super::speed::SpeedWindow;
use super::worker_load::JobDeferral;
use crossbeam_channel::{Receiver, select};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Loop rounds per slice: 0.2 to 0.4 ms at 1 to 6 lanes.
///
/// The yield at the end of a slice bounds how long another thread waits for this core; see
/// [the folder's page](super). The work between two slices costs under 1 us.
pub(super) const SLICE_ROUNDS: u32 = 4;
/// Polls of the queues before an idle worker sleeps: about 30 us in all.
const POLLS: u32 = 400;

/// The queues that all workers take jobs from.
#[derive(Clone)]
pub(super) struct Queues {
    pub(super) verify: Receiver<Job>,
    pub(super) hash: Receiver<Job>,
    /// Work for lanes that no login and no new password needs.
    pub(super) spare: Receiver<Job>,
    pub(super) stop: Receiver<()>,
}

struct RunningJob {
    purpose: HashPurpose,
    spare: bool,
    started: Instant,
    /// The value of [`Worker::stepped`] at which the job is done.
    ends_at: u64,
    reply: Reply<Digest>,
}

pub(super) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    queues: Queues,
    batch: Batch<RunningJob>,
    deferral: JobDeferral,
    fair_share: FairShare,
    core_sharing: CoreSharing,
    spare_busy: bool,
    /// Rounds that the batch has been advanced, in total.
    stepped: u64,
    speed_window: SpeedWindow,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        lanes: usize,
        speed_window: SpeedWindow,
        shared: Arc<Shared>,
        queues: Queues,
    ) -> Self {
        Self {
            index,
            shared,
            queues,
            batch: Batch::new(lanes),
            deferral: JobDeferral::default(),
            fair_share: FairShare::default(),
            core_sharing: CoreSharing::default(),
            spare_busy: false,
            stepped: 0,
            speed_window,
        }
    }

    /// Runs until the engine drains and no job waits.
    pub(super) fn run(mut self) {
        if let Err(error) = priority::lower() {
            self.shared.priority_not_lowered(&error);
        }
        let mut meter = ThreadMeter::start();
        while !self.batch.is_empty() || self.wait() {
            let paused = self.shared.pause(&mut meter);
            self.fill();
            self.slice(paused);
        }
    }

    /// Sleeps until there is work. Returns false when there will be none.
    fn wait(&mut self) -> bool {
        self.shared.cores.leave(self.index);
        loop {
            if let Some(job) = self.poll_briefly() {
                self.start(job);
            } else {
                let queues = self.queues.clone();
                // A job that is present when the queue closes is found by the next poll.
                let job = select! {
                    recv(queues.verify) -> job => job,
                    recv(queues.hash) -> job => job,
                    recv(queues.spare) -> job => job,
                    recv(queues.stop) -> _ => match self.next() {
                        Some(job) => Ok(job),
                        None => return false,
                    },
                };
                let Ok(job) = job else { return false };
                self.start(job);
            }
            if !self.batch.is_empty() {
                return true;
            }
        }
    }

    /// Polls briefly for a job. Waking a thread takes longer than most pauses between logins.
    fn poll_briefly(&mut self) -> Option<Job> {
        for _ in 0..POLLS {
            if let Some(job) = self.next() {
                return Some(job);
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Starts waiting jobs in free lanes, unless a less busy worker should take them.
    fn fill(&mut self) {
        let waiting = !(self.queues.verify.is_empty() && self.queues.hash.is_empty());
        self.deferral.begin_slice(waiting);
        if waiting && self.batch.is_full() && self.spare_busy {
            // A login displaces spare work, which a later login of its account repeats.
            let dropped = self.batch.retain(|job| !job.spare);
            self.spare_busy = false;
            self.record_freed(dropped);
        }
        while !self.batch.is_full()
            && self.deferral.may_take(&self.shared.worker_load, self.index, self.batch.busy())
        {
            let Some(job) = self.next() else { break };
            self.deferral.took_job();
            self.start(job);
        }
        if !waiting
            && !self.batch.is_full()
            && !self.spare_busy
            && let Ok(job) = self.queues.spare.try_recv()
        {
            self.start(job);
        }
    }

    /// Takes a job of the purpose that has had less work, else of the other.
    fn next(&mut self) -> Option<Job> {
        let Queues { verify, hash, .. } = &self.queues;
        let (first, second) = match self.fair_share.next() {
            HashPurpose::Verify => (verify, hash),
            HashPurpose::Hash => (hash, verify),
        };
        let job = first.try_recv().or_else(|_| second.try_recv()).ok()?;
        let other = match job.purpose {
            HashPurpose::Verify => hash,
            HashPurpose::Hash => verify,
        };
        let (rounds, other_waits) = (job.work.cost.rounds(), !other.is_empty());
        self.fair_share.started(job.purpose, rounds, other_waits);
        self.shared.admission.started(job.purpose, rounds, other_waits);
        Some(job)
    }

    /// Puts a job into a lane, unless it is too late.
    fn start(&mut self, job: Job) {
        let (shared, metrics) = (&self.shared, &self.shared.metrics);
        #[cfg(test)]
        let injected = job.injected;
        let Some(job) = job.start(shared, &shared.admission) else { return };
        let StartedJob { work, purpose, spare, started, reply } = job;
        let ends_at = self.stepped + u64::from(work.cost.rounds());
        let job = RunningJob { purpose, spare, started, ends_at, reply };
        let batch = &mut self.batch;
        // A panic in one job fails that job only. The thread goes on.
        let inserted = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            if let Some(injected) = injected {
                injected.act(&shared.gate);
            }
            batch.insert(work, job)
        }));
        if let Ok(Ok(())) = inserted {
            self.spare_busy |= spare;
            metrics.lanes_busy.increment(1.0);
        } else {
            metrics.panics.increment(1);
            tracing::error!(purpose = purpose.label(), "a hash job panicked; only this job failed");
        }
        shared.worker_load.set(self.index, self.batch.busy());
    }

    /// Advances every busy lane and answers the finished ones.
    ///
    /// The pause before the slice is a part of the time that its rounds take.
    fn slice(&mut self, paused: Duration) {
        let busy = self.batch.busy();
        let started = self.shared.clock.now();
        let batch = &mut self.batch;
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            let rounds = batch.step(SLICE_ROUNDS);
            (rounds, std::iter::from_fn(|| batch.retire()).collect::<Vec<_>>())
        }));
        let Ok((rounds, done)) = stepped else {
            self.replace_batch();
            return;
        };
        self.stepped += u64::from(rounds);
        self.core_sharing.end_slice(&self.shared.cores, self.index);
        std::thread::yield_now();
        let took = paused + self.shared.clock.now().saturating_duration_since(started);
        if let Some((rounds_per_second, took)) = self.speed_window.add(busy, rounds, took) {
            self.shared.admission.speed.add(self.index, rounds_per_second, took);
        }
        let ended = done.len();
        for (job, digest) in done {
            let RunningJob { purpose, spare, started, reply, .. } = job;
            let took = self.shared.clock.now().saturating_duration_since(started);
            self.shared.metrics.seconds(purpose).record(took);
            self.spare_busy &= !spare;
            // Sending fails if the client has left, which is no error.
            reply.send(Ok(Done { answer: digest, started })).ok();
        }
        let aborted = self.shared.is_aborted();
        let mut spare_left = false;
        let (mut jobs, mut rounds_left) = (0, 0);
        let left = self.batch.retain(|job| {
            let stays = !aborted && !job.reply.is_closed();
            spare_left |= job.spare && !stays;
            if stays && !job.spare {
                jobs += 1;
                rounds_left += job.ends_at.saturating_sub(self.stepped);
            }
            stays
        });
        self.shared.admission.set_busy(self.index, jobs, rounds_left);
        self.spare_busy &= !spare_left;
        self.shared.metrics.cancelled.increment(left as u64);
        self.record_freed(ended + left);
    }

    fn record_freed(&mut self, lanes: usize) {
        if lanes == 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a lane count")]
        self.shared.metrics.lanes_busy.decrement(lanes as f64);
        self.shared.worker_load.set(self.index, self.batch.busy());
    }

    /// Replaces the batch after a panic in the kernel. No such panic is known.
    ///
    /// All its lanes are lost, because the panic does not tell which lane caused it.
    fn replace_batch(&mut self) {
        let lanes = self.batch.busy();
        self.batch = Batch::new(self.batch.lanes());
        self.spare_busy = false;
        self.shared.admission.set_busy(self.index, 0, 0);
        self.shared.metrics.panics.increment(1);
        tracing::error!("the hash kernel panicked; all jobs in its lanes failed");
        self.record_freed(lanes);
    }
}
