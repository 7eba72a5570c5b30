//! Which of the requests answered 429 get a line in the log, and which connection errors.
//!
//! A flood is refused tens of thousands of times a second, and a line costs more than the rest of
//! such an answer. So of a client's refusals one a second is logged, and says how many were not
//! since the line before; metrics count them all. However many clients there are, no more lines a
//! second are written than there are cells: where two clients share one, a line tells of both.

use crate::identity::address_block;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Clients told apart, and lines a second at most. 8 bytes each.
const CELLS: usize = 1_024;

/// What is remembered of refusals. Clients are told apart by a keyed hash: none can choose with
/// whom it shares a cell.
#[derive(Debug)]
pub struct Refusals {
    start: Instant,
    hasher: RandomState,
    /// The second of the last line, counted from 1, in the upper half; in the lower one how many
    /// were not logged since.
    cells: Box<[AtomicU64]>,
}

impl Refusals {
    /// None yet. `start` is the earliest time that will be handed in.
    pub fn new(start: Instant) -> Self {
        let cells = (0..CELLS).map(|_| AtomicU64::new(0)).collect();
        Self { start, hasher: RandomState::new(), cells }
    }

    /// Notes a refusal at `now`. Returns, if it is to be logged, how many were not since the line
    /// before.
    pub(super) fn note(&self, client: IpAddr, now: Instant) -> Option<u32> {
        let hash = self.hasher.hash_one(address_block(client));
        let index = usize::try_from(hash % CELLS as u64).unwrap_or_default();
        let cell = self.cells.get(index)?;
        // Wraps after 136 years.
        let second = (now.saturating_duration_since(self.start).as_secs() + 1) & 0xffff_ffff;
        let seen = cell.load(Relaxed);
        let is_due = seen >> 32 < second;
        // Of threads that find it due at once one logs; the others count to the next line.
        if is_due && cell.compare_exchange(seen, second << 32, Relaxed, Relaxed).is_ok() {
            return u32::try_from(seen & 0xffff_ffff).ok();
        }
        cell.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::time::Duration;

    #[test]
    fn a_client_has_a_line_a_second_that_counts_the_others() {
        let clock = Clock::manual();
        let refusals = Refusals::new(clock.now());
        let note = |last: u8| refusals.note(IpAddr::from([192, 0, 2, last]), clock.now());
        assert_eq!(note(1), Some(0));
        for _ in 0..41 {
            assert_eq!(note(1), None);
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(note(1), Some(41));
        assert_eq!(note(1), None);
        clock.advance(Duration::from_secs(3_600));
        assert_eq!(note(1), Some(1));
        // Of 200 others all but those that share a cell have lines of their own.
        let lines = (2..202).filter(|last| note(*last).is_some()).count();
        assert!(lines > 150, "{lines}");
        assert!((2..202).all(|last| note(last).is_none()));
    }

    #[test]
    fn there_is_a_bound_on_lines_and_nothing_is_counted_twice_or_not_at_all() {
        let clock = Clock::manual();
        let refusals = Refusals::new(clock.now());
        let (threads, each) = (4, 20_000_u32);
        let run = || {
            let note = |n: u32| refusals.note(IpAddr::from(n.to_be_bytes()), clock.now());
            (0..each).filter_map(note).collect::<Vec<u32>>()
        };
        let mut unlogged = 0;
        for _ in 0..3 {
            let lines: Vec<u32> = std::thread::scope(|scope| {
                let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
                running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(lines.len(), CELLS);
            assert_eq!(lines.iter().sum::<u32>(), unlogged, "those of the second before");
            unlogged = threads * each - 1_024;
            clock.advance(Duration::from_secs(1));
        }
    }
}
