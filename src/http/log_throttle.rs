//! A throttle for log lines about refused requests (429 and 503) and connection errors.
//!
//! In a flood, the server refuses tens of thousands of requests a second, and a log line costs more
//! than the rest of a refusal. Each client gets one line a second, with the number of refusals since
//! its last line that were not logged. The metrics count all of them. The number of cells bounds the
//! lines per second for any number of clients. If two clients share a cell, a line counts both.

use crate::cells::Cells;
use crate::identity::address_block;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The number of cells, of 32 bytes each, and the maximum of lines per second.
const CELLS: usize = 1_024;
/// The time between two lines of a cell.
const PAUSE: Duration = Duration::from_secs(1);

/// The time of the last log line and the number of unlogged events, per client.
///
/// A keyed hash assigns clients to cells, so a client cannot choose which cell it shares.
#[derive(Debug)]
pub struct LogThrottle {
    hasher: RandomState,
    cells: Cells<Cell>,
}

#[derive(Debug, Default)]
struct Cell {
    /// When the last line was logged.
    logged: Option<Instant>,
    /// The events since.
    unlogged: u32,
}

impl Default for LogThrottle {
    fn default() -> Self {
        Self { hasher: RandomState::new(), cells: Cells::new(CELLS) }
    }
}

impl LogThrottle {
    /// Counts an event at `now`.
    ///
    /// If the event is to be logged, returns how many were not logged since the last line.
    pub(super) fn note(&self, client: IpAddr, now: Instant) -> Option<u32> {
        let mut cell = self.cells.lock(self.hasher.hash_one(address_block(client)));
        if cell.logged.is_some_and(|logged| now.saturating_duration_since(logged) < PAUSE) {
            cell.unlogged = cell.unlogged.saturating_add(1);
            return None;
        }
        cell.logged = Some(now);
        Some(std::mem::take(&mut cell.unlogged))
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
        let throttle = LogThrottle::default();
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
        let throttle = LogThrottle::default();
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
