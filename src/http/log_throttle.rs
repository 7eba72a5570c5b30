//! A throttle for log lines about refused requests (429) and connection errors.
//!
//! In a flood, the server refuses tens of thousands of requests a second, and a log line costs more
//! than the rest of a refusal. Each client gets one line a second, with the number of refusals since
//! its last line that were not logged. The metrics count all of them. The number of cells bounds the
//! lines per second for any number of clients. If two clients share a cell, a line counts both.

use crate::identity::address_block;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// The number of cells, of 8 bytes each, and the maximum of lines per second.
const CELLS: usize = 1_024;

/// The time of the last log line and the number of unlogged events, per client.
///
/// A keyed hash assigns clients to cells, so a client cannot choose which cell it shares.
#[derive(Debug)]
pub struct LogThrottle {
    start: Instant,
    hasher: RandomState,
    /// The last line's second, counted from 1 (upper half), and the events since (lower half).
    cells: Box<[AtomicU64]>,
}

impl LogThrottle {
    /// Creates an empty throttle. `start` is the earliest time that callers will pass.
    pub fn new(start: Instant) -> Self {
        let cells = (0..CELLS).map(|_| AtomicU64::new(0)).collect();
        Self { start, hasher: RandomState::new(), cells }
    }

    /// Counts an event at `now`.
    ///
    /// If the event is to be logged, returns how many were not logged since the last line.
    pub(super) fn note(&self, client: IpAddr, now: Instant) -> Option<u32> {
        let hash = self.hasher.hash_one(address_block(client));
        let index = usize::try_from(hash % CELLS as u64).unwrap_or_default();
        let cell = self.cells.get(index)?;
        // Wraps after 136 years.
        let second = (now.saturating_duration_since(self.start).as_secs() + 1) & 0xffff_ffff;
        let seen = cell.load(Relaxed);
        let is_due = seen >> 32 < second;
        // If several threads find a line due, one logs. The others count towards the next line.
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
    fn a_client_gets_one_line_a_second_with_the_number_of_unlogged_refusals() {
        let clock = Clock::manual();
        let throttle = LogThrottle::new(clock.now());
        let note = |last: u8| throttle.note(IpAddr::from([192, 0, 2, last]), clock.now());
        assert_eq!(note(1), Some(0));
        for _ in 0..41 {
            assert_eq!(note(1), None);
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(note(1), Some(41));
        assert_eq!(note(1), None);
        clock.advance(Duration::from_secs(3_600));
        assert_eq!(note(1), Some(1));
        // Each of 200 other clients gets a line, unless it shares a cell.
        let lines = (2..202).filter(|last| note(*last).is_some()).count();
        assert!(lines > 150, "{lines}");
        assert!((2..202).all(|last| note(last).is_none()));
    }

    #[test]
    fn lines_are_bounded_and_each_event_is_counted_once() {
        let clock = Clock::manual();
        let throttle = LogThrottle::new(clock.now());
        let (threads, each) = (4, 20_000_u32);
        let run = || {
            let note = |n: u32| throttle.note(IpAddr::from(n.to_be_bytes()), clock.now());
            (0..each).filter_map(note).collect::<Vec<u32>>()
        };
        let mut unlogged = 0;
        for _ in 0..3 {
            let lines: Vec<u32> = std::thread::scope(|scope| {
                let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
                running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(lines.len(), CELLS);
            assert_eq!(lines.iter().sum::<u32>(), unlogged, "unlogged since the last line");
            unlogged = threads * each - 1_024;
            clock.advance(Duration::from_secs(1));
        }
    }
}
