//! The map under the table: from an address to its buckets, each entry one cache line.
//!
//! A look-up in a large table waits for memory and does little else. A general map keeps a few bits of
//! each hash apart from the entries, so a look-up waits twice, the second time for an address the
//! first one tells, and an entry of 80 bytes lies across two cache lines more often than not. Here the
//! hash is where the entry is: open addressing with linear probing in an array of 64-byte lines.
//!
//! An array is at most three quarters full, so a look-up sees 2.5 lines on average at worst, 1.2 at
//! best (Knuth, The Art of Computer Programming, vol. 3, §6.4), and those after the first are what the
//! processor fetches ahead. An entry removed lets later ones move up (his algorithm R): there are no
//! tombstones, so coming and going never makes the array grow.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::plan::Buckets;
use super::table::Key;

#[derive(Debug)]
pub(super) struct Lines {
    /// std's hasher, SipHash keyed anew in each process: a client picks its address, and with a known
    /// hash it could pick those of one shard or of one run of lines. Quicker keyed hashes do not
    /// claim to withstand who watches the answers' times (foldhash's own documentation says so).
    hasher: RandomState,
    shards: Box<[Padded; SHARDS]>,
}

/// On a cache line of its own, so that threads on neighbouring shards do not fight for it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Padded(Mutex<Shard>);

impl Lines {
    pub(super) fn new() -> Self {
        let shards = Box::new(std::array::from_fn(|_| Padded::default()));
        Self { hasher: RandomState::new(), shards }
    }

    /// Locks the shard of `key`.
    #[expect(clippy::indexing_slicing, reason = "an octet indexes 256 shards")]
    pub(super) fn spot(&self, key: Key) -> Spot<'_> {
        let hash = self.hasher.hash_one(key);
        // The high bits choose the shard, the low ones the line in it.
        let [high, ..] = hash.to_be_bytes();
        let shard = self.shards[usize::from(high)].lock();
        Spot { lines: self, shard, key, hash }
    }

    /// Shows the buckets of up to `most` keys, in the order of the hash. One shard is locked at a time.
    pub(super) fn show(&self, most: usize, mut to: impl FnMut(&Buckets)) {
        let mut left = most;
        for padded in self.shards.iter() {
            for line in padded.lock().lines.iter().filter(|line| line.is_taken()).take(left) {
                to(&line.buckets);
                left -= 1;
            }
        }
    }

    /// Lines there is memory for.
    pub(super) fn room(&self) -> usize {
        self.shards.iter().map(|padded| padded.lock().lines.len()).sum()
    }

    /// Gives back the memory that the keys do not need.
    pub(super) fn shrink(&self) {
        for padded in self.shards.iter() {
            let mut shard = padded.lock();
            let lines = lines_for(shard.keys);
            if lines < shard.lines.len() {
                shard.rebuild(lines, &self.hasher);
            }
        }
    }
}

impl Padded {
    /// A panic cannot leave a shard half changed, so poison means nothing.
    fn lock(&self) -> MutexGuard<'_, Shard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a key is or would be, its shard locked.
pub(super) struct Spot<'a> {
    lines: &'a Lines,
    shard: MutexGuard<'a, Shard>,
    key: Key,
    hash: u64,
}

impl Spot<'_> {
    /// The key's buckets, if it has an entry.
    pub(super) fn get(&mut self) -> Option<&mut Buckets> {
        let at = self.shard.find(self.key, self.hash)?;
        self.shard.lines.get_mut(at).map(|line| &mut line.buckets)
    }

    /// Makes the key's entry. It must have none.
    pub(super) fn insert(mut self, buckets: Buckets) {
        let needed = lines_for(self.shard.keys + 1);
        if needed > self.shard.lines.len() {
            self.shard.rebuild(needed, &self.lines.hasher);
        }
        self.shard.put(Line { key: self.key, buckets }, self.hash);
        self.shard.keys += 1;
    }

    /// Removes the key's entry, if there is one.
    pub(super) fn remove(mut self) {
        if let Some(at) = self.shard.find(self.key, self.hash) {
            self.shard.remove(at, &self.lines.hasher);
        }
    }
}

/// Some of the keys. Its array has a power of two of lines, or none.
#[derive(Debug, Default)]
struct Shard {
    lines: Vec<Line>,
    keys: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line {
    key: Key,
    buckets: Buckets,
}

const _: () = assert!(size_of::<Line>() == 64, "an entry is one cache line");

impl Line {
    fn is_taken(&self) -> bool {
        self.key != Key::NOBODY
    }
}

impl Shard {
    fn find(&self, key: Key, hash: u64) -> Option<usize> {
        let mut at = self.home(hash);
        loop {
            // Where there are no lines at all there is none here.
            let line = self.lines.get(at)?;
            if line.key == key {
                return Some(at);
            }
            if !line.is_taken() {
                return None;
            }
            at = self.after(at);
        }
    }

    /// Puts a line into the first free place from its home on. There must be one.
    fn put(&mut self, new: Line, hash: u64) {
        let mut at = self.home(hash);
        while self.lines.get(at).is_some_and(Line::is_taken) {
            at = self.after(at);
        }
        self.set(at, new);
    }

    /// Frees a line. Of those after it, up to the next free one, each that may lie where the hole is
    /// moves there and leaves a hole in its turn.
    fn remove(&mut self, at: usize, hasher: &RandomState) {
        let (mut hole, mut at) = (at, self.after(at));
        while let Some(line) = self.lines.get(at).copied().filter(Line::is_taken) {
            let from_home = self.distance(self.home(hasher.hash_one(line.key)), at);
            if from_home >= self.distance(hole, at) {
                self.set(hole, line);
                hole = at;
            }
            at = self.after(at);
        }
        self.set(hole, EMPTY);
        self.keys -= 1;
    }

    fn rebuild(&mut self, lines: usize, hasher: &RandomState) {
        let old = std::mem::replace(&mut self.lines, vec![EMPTY; lines]);
        for line in old.into_iter().filter(Line::is_taken) {
            self.put(line, hasher.hash_one(line.key));
        }
    }

    fn set(&mut self, at: usize, new: Line) {
        if let Some(line) = self.lines.get_mut(at) {
            *line = new;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
    fn home(&self, hash: u64) -> usize {
        hash as usize & self.mask()
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & self.mask()
    }

    /// Steps from one line on to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & self.mask()
    }

    fn mask(&self) -> usize {
        self.lines.len().saturating_sub(1)
    }
}

const EMPTY: Line = Line { key: Key::NOBODY, buckets: Buckets::FULL };

/// The least power of two of which `keys` are three quarters or fewer: up to 8/3 of them, but for
/// the first few.
const fn lines_for(keys: usize) -> usize {
    if keys == 0 { 0 } else { (keys * 4).div_ceil(3).next_power_of_two() }
}

/// Independent locks and arrays. Many more than cores, so that two threads seldom meet and a growing
/// shard, the longest time a lock is held, moves few keys (about 1,600 at the default cap, some 50 us).
const SHARDS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::{IpAddr, Ipv4Addr};

    /// Twelve keys a shard, whose arrays grow to 16 lines: runs of neighbours, and holes in them.
    const KEYS: u32 = 3_000;

    fn key(number: u32) -> Key {
        Key::new(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    /// Buckets that tell whose they are.
    fn buckets(number: u32) -> Buckets {
        Buckets::FULL.full_no_sooner_than(u64::from(number) + 1)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// It finds what a map that nobody can get wrong finds, whatever came and went before.
        #[test]
        fn it_is_a_map(
            steps in prop::collection::vec((0..KEYS, 0..3_u8), 4_000..8_000),
            shrinks in 0..3_usize,
        ) {
            let (lines, mut model) = (Lines::new(), HashMap::new());
            for (number, what) in steps {
                let mut spot = lines.spot(key(number));
                prop_assert_eq!(spot.get().copied(), model.get(&number).copied());
                match (what, spot.get()) {
                    (0, _) => {
                        spot.remove();
                        model.remove(&number);
                    }
                    (_, Some(_)) => {}
                    (_, None) => {
                        spot.insert(buckets(number));
                        model.insert(number, buckets(number));
                    }
                }
            }
            for _ in 0..shrinks {
                lines.shrink();
                prop_assert!(lines.room() >= model.len());
                // So that the next time there is something to give back.
                model.retain(|number, _| {
                    let stays = number % 4 == 0;
                    if !stays {
                        lines.spot(key(*number)).remove();
                    }
                    stays
                });
            }
            for number in 0..KEYS {
                let found = lines.spot(key(number)).get().copied();
                prop_assert_eq!(found, model.get(&number).copied());
            }
            let mut shown = Vec::new();
            lines.show(usize::MAX, |buckets| shown.push(buckets.full_at_ns()));
            shown.sort_unstable();
            let mut expected: Vec<u64> = model.values().map(Buckets::full_at_ns).collect();
            expected.sort_unstable();
            prop_assert_eq!(shown, expected);
        }
    }

    #[test]
    fn it_shows_no_more_than_asked_for() {
        let lines = Lines::new();
        (0..KEYS).for_each(|number| lines.spot(key(number)).insert(buckets(number)));
        let mut shown = 0;
        lines.show(100, |_| shown += 1);
        assert_eq!(shown, 100);
    }
}
