//! A fixed number of cells, each under its own lock, that keys share by their hash.
//!
//! This is one of three ways to bound memory. Which one fits depends on what may be lost when there is
//! no room:
//! - Keys may share a state: cells. The log throttle, the lockout's sets of slots and the limiter's
//!   networks use them.
//! - Any entry may be lost: a cache of `quick_cache` (accepted tokens and OAuth clients).
//! - No entry may be lost before its time: a `DashMap` with its own rule. The limiter's table evicts
//!   only full buckets, in order of arrival. The session cache remembers every revocation, or else
//!   discards all of its answers.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Cells selected by hash. Their number never changes, so neither does the memory of the array.
///
/// The hash must be keyed, so that a client cannot choose whose cell it shares.
#[derive(Debug)]
pub(crate) struct Cells<T>(Box<[Mutex<T>]>);

impl<T: Default> Cells<T> {
    /// Makes `count` cells, rounded up to a power of two.
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count.next_power_of_two()).map(|_| Mutex::default()).collect())
    }
}

impl<T> Cells<T> {
    /// Returns the index of a hash: its low bits.
    #[expect(clippy::cast_possible_truncation, reason = "the low bits of a hash")]
    pub(crate) fn index(&self, hash: u64) -> usize {
        hash as usize & (self.0.len() - 1)
    }

    /// Locks the cell of a hash.
    ///
    /// A panic during an earlier change is ignored: the next change overwrites its part.
    #[expect(clippy::indexing_slicing, reason = "the index is masked to the number of cells")]
    pub(crate) fn lock(&self, hash: u64) -> MutexGuard<'_, T> {
        self.0[self.index(hash)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks one cell after the other in the part of `turn`: every `parts`th cell.
    ///
    /// After `parts` consecutive turns, each cell has been in one part.
    pub(crate) fn part(
        &self,
        turn: usize,
        parts: usize,
    ) -> impl Iterator<Item = MutexGuard<'_, T>> {
        let cells = self.0.iter().skip(turn % parts).step_by(parts);
        cells.map(|cell| cell.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn a_hash_always_selects_the_same_cell(count in 0..70_usize, hashes: Vec<u64>) {
            let cells: Cells<HashSet<u64>> = Cells::new(count);
            for hash in &hashes {
                cells.lock(*hash).insert(*hash);
            }
            prop_assert!(hashes.iter().all(|hash| cells.lock(*hash).contains(hash)));
            prop_assert!(hashes.iter().all(|hash| cells.index(*hash) < cells.0.len()));
            let stored: usize = cells.part(0, 1).map(|cell| cell.len()).sum();
            prop_assert_eq!(stored, hashes.iter().collect::<HashSet<_>>().len());
        }

        #[test]
        fn consecutive_parts_visit_each_cell_once(count in 1..70_usize, parts in 1..20, first in 0..50) {
            let (parts, first) = (parts as usize, first as usize);
            let cells: Cells<u32> = Cells::new(count);
            for turn in first..first + parts {
                cells.part(turn, parts).for_each(|mut visits| *visits += 1);
            }
            prop_assert!(cells.part(0, 1).all(|visits| *visits == 1));
            prop_assert_eq!(cells.part(0, 1).count(), count.next_power_of_two());
        }
    }
}
