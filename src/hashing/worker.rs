//! What a hashing thread does: fill the free lanes, step them all a little, look around, repeat.
//!
//! Lanes begin and end independently (continuous batching). A slice is a few rounds of every busy
//! lane, about 0.3 ms; between slices finished lanes are answered, those whose client has left are
//! dropped, newcomers are let in, and the core is offered to whoever else wants it.

use super::admission::Purpose;
use super::board::Turn;
use super::engine::Shared;
use super::job::{Begun, Done, Job, Reply};
use super::kernel::{Batch, Digest};
use super::priority;
use crossbeam_channel::{Receiver, select};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Loop rounds between two looks around: 0.2 to 0.4 ms at 1 to 6 lanes. The yield at its end is
/// how soon a thread that wants this core gets it: without it Linux (EEVDF, since 6.6) may let a
/// thread run on to the next tick, 4 ms at 250 Hz, though one of a stronger class waits. A look
/// costs under 1 us.
const SLICE_ROUNDS: u32 = 4;
/// The speed of a full batch is averaged over at least this long before it counts.
const SPEED_WINDOW: Duration = Duration::from_millis(50);

/// Looks at the queues before an idle worker goes to sleep: some 30 us in all.
const LOOKS: u32 = 400;

/// Where jobs come from. Workers share them.
#[derive(Clone)]
pub(super) struct Queues {
    pub(super) verify: Receiver<Job>,
    pub(super) hash: Receiver<Job>,
    /// Work for lanes that nobody else wants.
    pub(super) spare: Receiver<Job>,
    /// Closed when the engine drains.
    pub(super) stop: Receiver<()>,
}

/// A job in a lane.
struct Ticket {
    purpose: Purpose,
    spare: bool,
    begun: Instant,
    /// Dropped unanswered only by a panic or the engine's end.
    reply: Reply<Digest>,
}

pub(super) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    queues: Queues,
    batch: Batch<Ticket>,
    turn: Turn,
    /// Rounds begun for logins beyond those for new passwords; the one behind is served next.
    verify_ahead: i64,
    spare_busy: bool,
    /// Lane rounds done with all lanes busy, and the time they took, not yet counted.
    full_rounds: u64,
    full_time: Duration,
}

impl Worker {
    pub(super) fn new(index: usize, lanes: usize, shared: Arc<Shared>, queues: Queues) -> Self {
        Self {
            index,
            shared,
            queues,
            batch: Batch::new(lanes),
            turn: Turn::default(),
            verify_ahead: 0,
            spare_busy: false,
            full_rounds: 0,
            full_time: Duration::ZERO,
        }
    }

    /// Runs until the engine drains and nothing waits.
    pub(super) fn run(mut self) {
        if let Err(error) = priority::lower() {
            self.shared.priority_not_lowered(&error);
        }
        while !self.batch.is_empty() || self.wait() {
            self.fill();
            self.slice();
        }
    }

    /// Sleeps until there is work. False: there will be none.
    fn wait(&mut self) -> bool {
        loop {
            if let Some(job) = self.look_out() {
                self.begin(job);
            } else {
                let queues = self.queues.clone();
                // A job that is there when the queue closes is seen by the next look.
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
                self.begin(job);
            }
            if !self.batch.is_empty() {
                return true;
            }
        }
    }

    /// Looks for a job for a moment: waking a sleeping thread takes longer than most pauses between
    /// two logins of a busy server.
    fn look_out(&mut self) -> Option<Job> {
        for _ in 0..LOOKS {
            if let Some(job) = self.next() {
                return Some(job);
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Lets newcomers into free lanes, as far as it is this worker's turn.
    fn fill(&mut self) {
        let waiting = !(self.queues.verify.is_empty() && self.queues.hash.is_empty());
        self.turn.slice(waiting);
        if waiting && self.batch.is_full() && self.spare_busy {
            // Spare work gives way; it is done after a later login.
            let dropped = self.batch.retain(|ticket| !ticket.spare);
            self.spare_busy = false;
            self.freed(dropped);
        }
        while !self.batch.is_full()
            && self.turn.is_mine(&self.shared.board, self.index, self.batch.busy())
        {
            let Some(job) = self.next() else { break };
            self.turn.took();
            self.begin(job);
        }
        if !waiting
            && !self.batch.is_full()
            && !self.spare_busy
            && let Ok(job) = self.queues.spare.try_recv()
        {
            self.begin(job);
        }
    }

    /// The next job of the purpose that has had less; of the other, if that has none.
    fn next(&mut self) -> Option<Job> {
        let Queues { verify, hash, .. } = &self.queues;
        let (first, second) = if self.verify_ahead > 0 { (hash, verify) } else { (verify, hash) };
        let job = first.try_recv().or_else(|_| second.try_recv()).ok()?;
        let rounds = i64::from(job.work.cost.rounds());
        let (rival, ahead) = match job.purpose {
            Purpose::Verify => (hash, self.verify_ahead + rounds),
            Purpose::Hash => (verify, self.verify_ahead - rounds),
        };
        // Nobody saves up turns, or uses them up, while the other has nothing to do.
        self.verify_ahead = if rival.is_empty() { 0 } else { ahead };
        Some(job)
    }

    /// Puts a job into a lane, unless it is too late for it.
    fn begin(&mut self, job: Job) {
        let (shared, meters) = (&self.shared, &self.shared.meters);
        #[cfg(test)]
        let injected = job.injected;
        let Some(job) = job.begin(shared, &shared.admission) else { return };
        let Begun { work, purpose, spare, begun, reply } = job;
        let ticket = Ticket { purpose, spare, begun, reply };
        let batch = &mut self.batch;
        // A fault in one job is that job's end, not the thread's.
        let inserted = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            if let Some(injected) = injected {
                injected.act(&shared.gate);
            }
            batch.insert(work, ticket)
        }));
        if let Ok(Ok(())) = inserted {
            self.spare_busy |= spare;
            meters.lanes_busy.increment(1.0);
        } else {
            meters.panics.increment(1);
            tracing::error!(purpose = purpose.label(), "a hash job panicked");
        }
        shared.board.set(self.index, self.batch.busy());
    }

    /// Advances every busy lane, then answers those that are done.
    fn slice(&mut self) {
        let busy = self.batch.busy();
        let begun = self.shared.clock.now();
        let batch = &mut self.batch;
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            let rounds = batch.step(SLICE_ROUNDS);
            (rounds, std::iter::from_fn(|| batch.retire()).collect::<Vec<_>>())
        }));
        let Ok((rounds, done)) = stepped else {
            self.start_over();
            return;
        };
        std::thread::yield_now();
        if busy == self.batch.lanes() {
            let took = self.shared.clock.now().saturating_duration_since(begun);
            self.count_speed(u64::from(rounds) * busy as u64, took);
        }
        let ended = done.len();
        for (ticket, digest) in done {
            let Ticket { purpose, spare, begun, reply } = ticket;
            let took = self.shared.clock.now().saturating_duration_since(begun);
            self.shared.meters.seconds(purpose).record(took);
            self.spare_busy &= !spare;
            // Nobody listens any more: nothing to tell.
            reply.send(Ok(Done { answer: digest, begun })).ok();
        }
        let aborted = self.shared.is_aborted();
        let mut spare_left = false;
        let left = self.batch.retain(|ticket| {
            let stays = !aborted && !ticket.reply.is_closed();
            spare_left |= ticket.spare && !stays;
            stays
        });
        self.spare_busy &= !spare_left;
        self.shared.meters.cancelled.increment(left as u64);
        self.freed(ended + left);
    }

    fn count_speed(&mut self, rounds: u64, took: Duration) {
        self.full_rounds += rounds;
        self.full_time += took;
        if self.full_time >= SPEED_WINDOW {
            self.shared.admission.measured(self.index, self.full_rounds, self.full_time);
            (self.full_rounds, self.full_time) = (0, Duration::ZERO);
        }
    }

    /// Lanes have become free.
    fn freed(&mut self, lanes: usize) {
        if lanes == 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a lane count")]
        self.shared.meters.lanes_busy.decrement(lanes as f64);
        self.shared.board.set(self.index, self.batch.busy());
    }

    /// After a panic in the kernel, which has no line that can: nobody knows which lane it was.
    fn start_over(&mut self) {
        let lanes = self.batch.busy();
        self.batch = Batch::new(self.batch.lanes());
        self.spare_busy = false;
        self.shared.meters.panics.increment(1);
        tracing::error!("the hash kernel panicked: its lanes are lost");
        self.freed(lanes);
    }
}
