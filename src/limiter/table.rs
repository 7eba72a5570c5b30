//! The buckets of one level, the cap on their number, and what happens at that cap.
//!
//! A DashMap with one entry for each key, which holds the buckets of every policy. A check of the
//! route's limit and the global one is one look-up under one lock, so both are decided together. An
//! entry is 64 bytes: the key and seven buckets.
//!
//! **The cap.** A new entry has full buckets. Evicting a bucket that is not full would therefore
//! give tokens back to its owner, and a flood of addresses could be used to win tokens. Only keys
//! whose buckets are all full are evicted. Keys wait in a queue in order of arrival. A newcomer at the
//! cap looks at the first few of the queue: the first one with full buckets is evicted, the others
//! move to the back. If none can be evicted, the newcomer shares a bucket with the other newcomers of
//! its *network* (IPv4 /16, IPv6 /32). Networks are hashed to a fixed number of shared buckets, so the
//! memory is bounded. An attacker with a whole /32 gets one more bucket for it, and keys in the table
//! are not affected. A newcomer whose request is refused is not stored.
//!
//! **Fair shares.** If one attacker could fill the table, all newcomers would have to share. So in a
//! table that is more than half full, a network that has more than a 64th of the entries gets no more:
//! its newcomers share a bucket, unless one of its keys can be evicted. One network can fill half
//! of the table, and it takes 32 more to fill the other half. Half of the default table is 200,000
//! addresses that sent a request within the time of a token. No crowd of real clients reaches that, so
//! the customers of a large provider are not held back. Networks with the same hash count as one:
//! one chance in 4,096 for two networks.
//!
//! **Exactness.** Two cases could grant a client more than its quota:
//! - A newcomer uses the shared bucket and gets an entry later. The entry starts from the state of the
//!   shared bucket, under the lock of its key, so the tokens it spent stay spent.
//! - Times from several threads arrive slightly out of order. A bucket evicted as full at one time
//!   may not be full at an earlier one. So a new bucket is full no sooner than the latest time at
//!   which an evicted one became full.
//!
//! **Locks.** A shard of the map first, then a network or the queue. The closure
//! passed to [`Table::with`] runs under a shard's lock and may lock another table. No method calls the
//! map while it holds a guard of the map. A lock is held while one key is handled, or while a shard
//! grows and moves a few thousand keys.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dashmap::{DashMap, Entry};

use super::key::ClientKey;
use super::quota_layout::Buckets;
use crate::cells::Cells;

#[derive(Debug)]
pub(super) struct Table {
    /// std's hasher is SipHash with a random key for each process. A client picks its address, and
    /// with a known hash it could pick those of one shard or one probe sequence. Faster keyed hashes
    /// do not claim to withstand an attacker who measures the time of answers.
    map: DashMap<ClientKey, Buckets, RandomState>,
    /// Keys of the map in order of arrival, those found in use moved to the back. Each once.
    arrivals: Mutex<VecDeque<Arrival>>,
    /// Entries of the map, and those about to be made. Never above `keys_max`.
    taken: AtomicUsize,
    keys_max: usize,
    /// Networks by hash. Those with the same hash count as one.
    networks: Cells<Network>,
    /// The latest time at which an evicted bucket became full. Unit: ns since start. Relaxed is enough:
    /// it is raised under the lock of the evicted key and read under the lock of the new key.
    forgotten_ns: AtomicU64,
}

impl Table {
    pub(super) fn new(keys_max: usize) -> Self {
        Self {
            map: DashMap::with_hasher_and_shard_amount(RandomState::new(), shards(keys_max)),
            arrivals: Mutex::default(),
            taken: AtomicUsize::new(0),
            keys_max,
            networks: Cells::new(NETWORK_CELLS),
            forgotten_ns: AtomicU64::new(0),
        }
    }

    /// Runs `work` once on the buckets of `key`, under a lock. `work` must not call this table.
    ///
    /// Buckets that `work` leaves unchanged are not stored.
    pub(super) fn with<R>(
        &self,
        key: ClientKey,
        now_ns: u64,
        work: impl FnOnce(&mut Buckets) -> R,
    ) -> R {
        if let Some(mut buckets) = self.map.get_mut(&key) {
            return work(&mut buckets);
        }
        self.with_newcomer(key, now_ns, work)
    }

    fn with_newcomer<R>(
        &self,
        key: ClientKey,
        now_ns: u64,
        work: impl FnOnce(&mut Buckets) -> R,
    ) -> R {
        let slot = self.slot(key);
        let has_place = self.take_place(slot, now_ns);
        let entry = match self.map.entry(key) {
            // Another thread has made it since the look-up.
            Entry::Occupied(mut entry) => {
                if has_place {
                    self.give_back(slot);
                }
                return work(entry.get_mut());
            }
            Entry::Vacant(entry) => entry,
        };
        if !has_place {
            let Network { shared, .. } = &mut *self.networks.lock(slot);
            *shared = self.no_fuller_than_forgotten(*shared);
            return work(shared);
        }
        let before = self.no_fuller_than_forgotten(self.networks.lock(slot).shared);
        let mut buckets = before;
        let result = work(&mut buckets);
        if buckets == before {
            self.give_back(slot);
            return result;
        }
        drop(entry.insert(buckets));
        self.arrivals().push_back(Arrival { key, full_at_ns_min: buckets.full_at_ns() });
        result
    }

    /// Looks at the first `most` keys of the queue, drops the full ones among them and returns how
    /// many.
    pub(super) fn sweep(&self, most: usize, now_ns: u64) -> usize {
        let waiting = self.arrivals().len();
        let mut dropped = 0;
        for _ in 0..waiting.min(most) {
            match self.recycle_first(now_ns) {
                Recycled::Dropped(slot) => {
                    self.give_back(slot);
                    dropped += 1;
                }
                Recycled::Kept => {}
                Recycled::NoneLeft => break,
            }
        }
        self.shrink();
        dropped
    }

    pub(super) fn keys(&self) -> usize {
        self.taken.load(Relaxed)
    }

    pub(super) fn keys_max(&self) -> usize {
        self.keys_max
    }

    /// Estimates how many keys have buckets of that kind, from the first [`SAMPLE_MAX`] of the map.
    pub(super) fn estimate(&self, kind: impl Fn(&Buckets) -> bool) -> usize {
        let (mut seen, mut found) = (0_usize, 0_usize);
        for entry in self.map.iter().take(SAMPLE_MAX) {
            seen += 1;
            found += usize::from(kind(&entry));
        }
        found * self.keys().max(seen) / seen.max(1)
    }

    /// Panics unless map, queue and counts agree. For when no other thread is at work.
    #[cfg(test)]
    pub(super) fn assert_consistent(&self) {
        let queued: std::collections::HashSet<ClientKey> =
            self.arrivals().iter().map(|arrival| arrival.key).collect();
        assert_eq!(queued.len(), self.arrivals().len(), "a key is queued twice");
        assert!(self.map.iter().all(|entry| queued.contains(entry.key())), "a key is not queued");
        assert_eq!((queued.len(), self.keys()), (self.map.len(), self.map.len()));
        let held = self.networks.part(0, 1).map(|network| network.held).sum::<usize>();
        assert_eq!(held, self.keys());
    }

    /// Takes a free place for a network of that slot. If there is none, evicts the idle keys among the
    /// first [`PROBES_MAX`] of the queue.
    fn take_place(&self, slot: u64, now_ns: u64) -> bool {
        if self.take_free(slot) {
            return true;
        }
        for _ in 0..PROBES_MAX {
            match self.recycle_first(now_ns) {
                // A key of the same slot: its place is handed over.
                Recycled::Dropped(other) if other == slot => return true,
                Recycled::Dropped(other) => {
                    self.give_back(other);
                    if self.take_free(slot) {
                        return true;
                    }
                }
                Recycled::Kept => {}
                Recycled::NoneLeft => return false,
            }
        }
        false
    }

    fn take_free(&self, slot: u64) -> bool {
        let mut network = self.networks.lock(slot);
        let has_its_share = network.held > self.keys_max / NETWORK_PART;
        let most = if has_its_share { self.keys_max / 2 } else { self.keys_max };
        let one_more = |taken| (taken < most).then_some(taken + 1);
        let is_free = self.taken.fetch_update(Relaxed, Relaxed, one_more).is_ok();
        network.held += usize::from(is_free);
        is_free
    }

    fn give_back(&self, slot: u64) {
        self.taken.fetch_sub(1, Relaxed);
        self.networks.lock(slot).held -= 1;
    }

    /// Evicts the first key of the queue if its buckets are full, else moves it to the back. The
    /// caller gives back the place of an evicted key.
    fn recycle_first(&self, now_ns: u64) -> Recycled {
        let mut arrivals = self.arrivals();
        let Some(first) = arrivals.pop_front() else {
            return Recycled::NoneLeft;
        };
        if first.full_at_ns_min > now_ns {
            arrivals.push_back(first);
            return Recycled::Kept;
        }
        drop(arrivals);
        let mut full_at_ns = 0;
        let removed = self.map.remove_if(&first.key, |_, buckets| {
            full_at_ns = buckets.full_at_ns();
            self.forget(full_at_ns, now_ns)
        });
        if removed.is_some() {
            return Recycled::Dropped(self.slot(first.key));
        }
        self.arrivals().push_back(Arrival { key: first.key, full_at_ns_min: full_at_ns });
        Recycled::Kept
    }

    /// Whether buckets all full at `full_at_ns` may be dropped; if so, later new ones will be no
    /// fuller than those.
    fn forget(&self, full_at_ns: u64, now_ns: u64) -> bool {
        let is_full = full_at_ns <= now_ns;
        if is_full {
            self.forgotten_ns.fetch_max(full_at_ns, Relaxed);
        }
        is_full
    }

    fn no_fuller_than_forgotten(&self, buckets: Buckets) -> Buckets {
        let floor_ns = self.forgotten_ns.load(Relaxed);
        buckets.full_no_sooner_than(floor_ns)
    }

    fn slot(&self, key: ClientKey) -> u64 {
        self.map.hasher().hash_one(key.network()) % NETWORK_CELLS as u64
    }

    /// Gives memory back once it is 16 times what the keys need. At most a sixteenth of the table is
    /// moved, and the table has to grow 16-fold before this happens again.
    fn shrink(&self) {
        let room = self.map.capacity();
        if room > SHRINK_ABOVE && self.keys() < room / 16 {
            self.map.shrink_to_fit();
            self.arrivals().shrink_to_fit();
        }
    }

    /// The queue. A panic cannot leave it half changed, so poisoning is ignored.
    fn arrivals(&self) -> MutexGuard<'_, VecDeque<Arrival>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a table knows of the keys of a network.
#[derive(Debug, Default)]
struct Network {
    /// Entries of the map, and those about to be made.
    held: usize,
    /// The buckets of newcomers without an entry.
    shared: Buckets,
}

/// A key in the queue, with the time at which its buckets were going to be full when last seen.
///
/// Requests only move that time on, so the key cannot be evicted before it. Most looks at the queue
/// therefore do not touch the map, which costs a cache miss each.
#[derive(Debug)]
struct Arrival {
    key: ClientKey,
    full_at_ns_min: u64,
}

enum Recycled {
    /// A key of a network of that slot.
    Dropped(u64),
    Kept,
    NoneLeft,
}

/// Independent locks and arrays of the map, for about 3,000 keys each. A growing shard, the longest
/// time that a lock is held, then moves no more keys in a large table than in a small one. In a
/// small table there are still many more shards than cores, so two threads seldom meet.
const fn shards(keys_max: usize) -> usize {
    let shards = (keys_max / 4_096).next_power_of_two();
    if shards < SHARDS_MIN { SHARDS_MIN } else { shards }
}

const SHARDS_MIN: usize = 32;

/// Memory that a table can come to hold, at most. Unit: bytes.
///
/// The array of a shard doubles when its entries and the marks of removed ones fill 7/8 of its slots.
/// When the entries alone are no more than half of that, it is cleaned up in place instead (hashbrown
/// 0.14, `reserve_rehash`). So a shard that held n keys at some time has at most the first power of two
/// from 16/7 n on. Keys fall into shards at random: the fullest that a shard ever was is taken to be six
/// standard deviations above the average.
///
/// A shard that grows holds its old array too, so one part in [`SHARDS_MIN`] is added. The queue when it grows
/// does the same, so half of its size is added.
pub(super) const fn bytes_max(keys_max: usize) -> usize {
    let shards = shards(keys_max);
    let average = keys_max.div_ceil(shards);
    let fullest = average + 6 * (average.isqrt() + 1);
    let map = (shards + shards / SHARDS_MIN) * (slots_max(fullest) * SLOT_BYTES + SHARD_BYTES);
    let queue = keys_max.next_power_of_two() * size_of::<Arrival>() * 3 / 2;
    map + queue + NETWORK_CELLS * size_of::<Mutex<Network>>()
}

/// The slots that an array has at most after it held that number of keys.
const fn slots_max(keys: usize) -> usize {
    (keys * 16).div_ceil(7).next_power_of_two()
}

/// An entry and its control byte.
const SLOT_BYTES: usize = size_of::<(ClientKey, Buckets)>() + 1;

const _: () = assert!(SLOT_BYTES == 65, "an entry is 64 bytes");

/// A shard without its slots: lock and table header on two cache lines, and what is added to the array.
const SHARD_BYTES: usize = 128 + 32;

/// Keys that a newcomer looks at when the table is full. If one key in eight is idle, every newcomer
/// gets a place.
const PROBES_MAX: usize = 8;

/// Entries that an estimate looks at. They lie in sequence, so that is some 300 KiB of memory to read.
const SAMPLE_MAX: usize = 4_096;

/// The part of a table that is half full which one network may have: a 64th.
const NETWORK_PART: usize = 64;

/// Networks that the table distinguishes: 72 bytes each with the lock.
const NETWORK_CELLS: usize = 4_096;

/// Capacity below which a table is not shrunk. Unit: keys. Less than 2 MB.
const SHRINK_ABOVE: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    /// The bound on memory depends on when the map's arrays double. Here as many keys come as go.
    #[test]
    fn a_map_whose_keys_come_and_go_grows_no_further_than_is_computed() {
        for keys in [3, 20, 100, 450, 900] {
            let map: DashMap<u64, u64> = DashMap::with_shard_amount(2);
            for n in 0..200 * keys as u64 {
                map.insert(n, n);
                if let Some(old) = n.checked_sub(keys as u64) {
                    map.remove(&old);
                }
            }
            // Seven eighths of the slots are capacity. A shard had all of the keys at most.
            assert!(map.capacity() <= 2 * slots_max(keys + 1) * 7 / 8, "{}", map.capacity());
        }
    }

    #[test]
    fn the_bound_follows_the_cap() {
        let bounds = [64, 1_000, 10_000, 100_000, 400_000, 16_777_216].map(bytes_max);
        assert!(bounds.is_sorted());
        // More than an entry for each key, and at most the 32/7 that doubling allows, and what is fixed.
        assert!(bounds[4] > 400_000 * SLOT_BYTES);
        assert!(bounds[4] < 400_000 * SLOT_BYTES * 32 / 7 + (16 << 20));
    }
}
