//! The lanes of one thread: filled, stepped together, and emptied one by one.

use std::fmt;

use zeroize::Zeroize;

use super::blowfish::{State, Words};
use super::lane::{Digest, LaneJob};
use super::select::Kernel;

/// The most lanes of a batch. More than eight run in two halves.
pub const LANES_MAX: usize = 12;

/// Up to [`LANES_MAX`] bcrypt computations that one thread steps together.
///
/// Each lane carries a tag of the caller. Jobs of different cost share a batch and can be added and
/// removed at any step.
///
/// Busy lanes stay packed at the front, so `k` of them always run the kernel for `k` and a free
/// lane costs nothing. A lane's password words and state are zeroed before they are reused or
/// freed, however the lane ends: retired, cancelled, with the batch, or while a panic unwinds.
pub struct Batch<T> {
    kernel: Kernel,
    slots: Slots,
    /// One entry for each busy lane, in the order of the slots.
    lanes: Vec<Lane<T>>,
}

struct Lane<T> {
    rounds_left: u32,
    tag: T,
}

/// A job that found every lane busy, returned with its tag.
pub struct Full<T> {
    /// The job, unchanged.
    pub job: LaneJob,
    /// Its tag.
    pub tag: T,
}

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(..)")
    }
}

impl<T> Batch<T> {
    /// Creates a batch of `lanes` free lanes, clamped to 1 to [`LANES_MAX`].
    ///
    /// All memory is allocated here: 4.3 KiB per lane.
    pub fn new(lanes: usize) -> Self {
        Self::with_kernel(lanes, Kernel::best())
    }

    /// The same, with a given kernel.
    pub fn with_kernel(lanes: usize, kernel: Kernel) -> Self {
        let lanes = lanes.clamp(1, LANES_MAX);
        Self { kernel, slots: Slots::new(lanes), lanes: Vec::with_capacity(lanes) }
    }

    /// The number of lanes, busy or free.
    pub fn lanes(&self) -> usize {
        self.slots.states.len()
    }

    /// Lanes in use, including those that are finished and not yet retired.
    pub fn busy(&self) -> usize {
        self.lanes.len()
    }

    /// Whether no lane is in use.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether [`insert`](Self::insert) would return the job.
    pub fn is_full(&self) -> bool {
        self.busy() == self.lanes()
    }

    /// Starts a job in a free lane. Runs bcrypt's prologue, about half a loop round of one lane.
    ///
    /// # Errors
    /// [`Full`]: every lane is busy; it returns the job.
    pub fn insert(&mut self, job: LaneJob, tag: T) -> Result<(), Full<T>> {
        if self.is_full() {
            return Err(Full { job, tag });
        }
        let rounds_left = job.cost.rounds();
        self.slots.fill(self.lanes.len(), job);
        self.lanes.push(Lane { rounds_left, tag });
        Ok(())
    }

    /// Advances every busy lane by the same number of loop rounds, and returns that number.
    ///
    /// It is `rounds`, or less if a lane finishes earlier, so that the caller can retire that lane
    /// and fill it again. It is 0, and nothing is done, if no lane is busy or a finished one was
    /// not retired.
    pub fn step(&mut self, rounds: u32) -> u32 {
        let rounds = self
            .lanes
            .iter()
            .map(|lane| lane.rounds_left)
            .min()
            .map_or(0, |least| least.min(rounds));
        self.slots.run(self.kernel, self.lanes.len(), rounds);
        for lane in &mut self.lanes {
            lane.rounds_left -= rounds;
        }
        rounds
    }

    /// Takes out one finished computation and frees its lane. `None` if no lane is finished.
    pub fn retire(&mut self) -> Option<(T, Digest)> {
        let index = self.lanes.iter().position(|lane| lane.rounds_left == 0)?;
        let digest = self.slots.digest(index)?;
        Some((self.free(index), digest))
    }

    /// Cancels every lane whose tag is refused, and returns their number.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) -> usize {
        let before = self.lanes.len();
        let mut index = 0;
        while let Some(lane) = self.lanes.get(index) {
            if keep(&lane.tag) {
                index += 1;
            } else {
                drop(self.free(index));
            }
        }
        before - self.lanes.len()
    }

    /// The loop rounds that all busy lanes together still need.
    #[cfg(test)]
    fn rounds_left(&self) -> u64 {
        self.lanes.iter().map(|lane| u64::from(lane.rounds_left)).sum()
    }

    /// Frees a lane and moves the last busy lane into its place.
    fn free(&mut self, index: usize) -> T {
        self.slots.vacate(index, self.lanes.len() - 1);
        self.lanes.swap_remove(index).tag
    }
}

/// The memory that holds secrets. Separate from the tags, so that zeroing it needs no tag.
struct Slots {
    states: Box<[State]>,
    words: Box<[Words]>,
}

impl Slots {
    fn new(lanes: usize) -> Self {
        Self {
            states: (0..lanes).map(|_| State::BLANK).collect(),
            words: (0..lanes).map(|_| Words::BLANK).collect(),
        }
    }

    fn fill(&mut self, index: usize, job: LaneJob) {
        if let (Some(state), Some(words)) = (self.states.get_mut(index), self.words.get_mut(index))
        {
            job.load_into(words);
            state.begin(words);
        }
    }

    fn digest(&self, index: usize) -> Option<Digest> {
        Some(Digest::new(self.states.get(index)?.finish()))
    }

    /// Runs the first `busy` lanes.
    fn run(&mut self, kernel: Kernel, busy: usize, rounds: u32) {
        if let (Some(states), Some(words)) = (self.states.get_mut(..busy), self.words.get(..busy)) {
            kernel.run(states, words, rounds);
        }
    }

    /// Zeroes a slot, or moves the content of another slot `last` there.
    fn vacate(&mut self, index: usize, last: usize) {
        if let (Ok([to, from]), Ok([to_words, from_words])) = (
            self.states.get_disjoint_mut([index, last]),
            self.words.get_disjoint_mut([index, last]),
        ) {
            to.take_from(from);
            to_words.take_from(from_words);
        } else if let (Some(state), Some(words)) =
            (self.states.get_mut(index), self.words.get_mut(index))
        {
            state.zeroize();
            words.zeroize();
        }
    }

    fn wipe(&mut self) {
        self.states.zeroize();
        self.words.zeroize();
    }

    #[cfg(test)]
    fn blank_from(&self, index: usize) -> bool {
        self.states[index..].iter().all(State::is_blank)
            && self.words[index..].iter().all(Words::is_blank)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.wipe();
        #[cfg(test)]
        tests::DROPPED_BLANK.with_borrow_mut(|seen| seen.push(self.blank_from(0)));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::hashing::kernel::{Cost, PasswordKey};

    thread_local! {
        /// For each batch dropped by this thread, whether its memory was blank when it was freed.
        pub(super) static DROPPED_BLANK: RefCell<Vec<bool>> = const { RefCell::new(Vec::new()) };
    }

    fn job(password: &[u8], cost: u32) -> LaneJob {
        LaneJob {
            key: PasswordKey::new(password).unwrap(),
            salt: [9; 16],
            cost: Cost::new(cost).unwrap(),
        }
    }

    #[test]
    fn a_full_batch_returns_the_job() {
        let mut batch = Batch::new(1);
        batch.insert(job(b"a", 4), 'a').unwrap();
        let full = batch.insert(job(b"b", 5), 'b').unwrap_err();
        assert_eq!((full.tag, full.job.cost.get()), ('b', 5));
        assert_eq!(batch.busy(), 1);
    }

    #[test]
    fn lane_counts_are_clamped() {
        assert_eq!(Batch::<()>::new(0).lanes(), 1);
        assert_eq!(Batch::<()>::new(99).lanes(), LANES_MAX);
    }

    #[test]
    fn a_step_ends_when_the_first_lane_is_done() {
        let mut batch = Batch::new(3);
        assert_eq!(batch.step(10), 0);
        batch.insert(job(b"a", 4), 'a').unwrap();
        assert_eq!(batch.step(6), 6);
        batch.insert(job(b"b", 5), 'b').unwrap();
        assert_eq!(batch.rounds_left(), 10 + 32);
        assert_eq!(batch.step(100), 10);
        assert_eq!(batch.step(100), 0, "a finished lane must be retired first");
        assert_eq!(batch.retire().map(|(tag, _)| tag), Some('a'));
        assert!(batch.retire().is_none());
        assert_eq!(batch.step(100), 22);
        assert_eq!(batch.retire().map(|(tag, _)| tag), Some('b'));
        assert!(batch.is_empty());
    }

    #[test]
    fn every_way_to_end_a_lane_zeroes_it() {
        for lanes in 1..=LANES_MAX {
            let mut batch = Batch::new(lanes);
            for tag in 0..lanes {
                batch.insert(job(&[b'p'; 20], if tag % 2 == 0 { 4 } else { 6 }), tag).unwrap();
                assert!(batch.slots.blank_from(tag + 1));
                assert!(!batch.slots.blank_from(tag));
            }
            batch.step(u32::MAX);
            while batch.retire().is_some() {
                assert!(batch.slots.blank_from(batch.busy()), "retired");
            }
            batch.retain(|tag| tag % 4 == 3);
            assert!(batch.slots.blank_from(batch.busy()), "cancelled");
            batch.insert(job(b"last", 4), 0).unwrap();
            batch.step(3);
            assert!(batch.slots.states.iter().all(|state| state.parked == [0; 2]), "stepped");
            DROPPED_BLANK.take();
            drop(batch);
            assert_eq!(DROPPED_BLANK.take(), [true], "dropped");
        }
    }

    #[test]
    fn a_panic_zeroes_the_lanes() {
        DROPPED_BLANK.take();
        let unwound = std::panic::catch_unwind(|| {
            let mut batch = Batch::new(2);
            batch.insert(job(b"secret", 4), ()).unwrap();
            batch.retain(|()| panic!("injected"));
        });
        assert!(unwound.is_err());
        assert_eq!(DROPPED_BLANK.take(), [true]);
    }
}
