//! How many addresses have buckets at most, and what happens at that cap.
//!
//! One entry an address, holding its bucket of every policy: the route's limit and the global one
//! are then one look-up and one lock, and deciding on both is atomic for free.
//!
//! **The cap.** Evicting a bucket that is not full gives its owner a full one, so a flood of
//! addresses would be a way to win tokens back. Only addresses whose buckets are all full are
//! evicted; for them it changes nothing. Addresses queue in order of arrival. A newcomer at the cap
//! looks at the first few of the queue: the first with full buckets gives up its place, the
//! others go to the back. If none gives way, the newcomer has no bucket of its own and shares one
//! with the others of its *network* (IPv4 /16, IPv6 /32), the network being hashed into a fixed
//! number of slots. So the memory is fixed, an attacker with a whole /32 gets one bucket more for
//! it, and addresses in the table notice nothing.
//!
//! **Fair shares.** That leaves newcomers from elsewhere: a table full of one attacker's addresses
//! would make them all share. So in a table that is more than half full a network that holds more
//! than a 64th of the places gets no further ones: its newcomers share, unless one of its own
//! addresses gives way. The other half is left to other networks, whatever one does; it takes 32 more
//! to fill that, too. Half of the default table is 200,000 addresses that asked within the time of a
//! token, which no crowd of real clients reaches, so a large provider's customers are not held
//! back. A slot's networks count as one: one chance in 4,096 to share its fate.
//!
//! **Exactness.** Two things would let a client be granted more than its quota, and are closed:
//! - A newcomer that used the shared bucket and then gets a place starts from the shared one's state,
//!   under the lock of its own key, so tokens spent while sharing stay spent.
//! - Times from several threads arrive slightly out of order. A bucket forgotten as full at one time
//!   may not be full at an earlier one, so a new bucket is full no sooner than the latest time at
//!   which a forgotten one became so.
//!
//! **Locks.** A table shard, then a shard of the shared slots; the queue only while no other is
//! held. Each is held for a look at one address (a growing shard: for moving its 1/256 of all keys).

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;

use super::lines::Lines;
use super::plan::Buckets;

/// What one client holds, in 64 bits: an IPv4 address or an IPv6 /64.
///
/// An IPv4 address is told from a /64 by a first half that begins no client's IPv6 address: ::/8 is
/// set aside (RFC 4291 §2.4), as is ff00::/8, multicast, for [`Key::NOBODY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u64);

impl Key {
    /// No address has this one.
    pub(super) const NOBODY: Self = Self(u64::MAX);

    pub(super) fn new(address: IpAddr) -> Self {
        let bits = match address.to_canonical() {
            IpAddr::V4(v4) => V4_HALF << 32 | u64::from(v4.to_bits()),
            IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or(u64::MAX),
        };
        Self(bits.min(Self::NOBODY.0 - 1))
    }

    /// The network it shares a bucket with when the table is full: what one customer of a
    /// registry typically holds. An IPv4 /16 as 48 bits, an IPv6 /32 as 32.
    const fn network(self) -> u64 {
        let first_half = self.0 >> 32;
        if first_half == V4_HALF { 1 << 32 | self.0 >> 16 } else { first_half }
    }
}

const V4_HALF: u64 = 0xffff;

#[derive(Debug)]
pub(super) struct Table {
    map: Lines,
    /// Keys of the map in order of arrival, those found in use moved to the back. Each once.
    arrivals: Mutex<VecDeque<Arrival>>,
    /// Places taken in the map: entries, and those about to be made. Never above `keys_max`.
    taken: AtomicUsize,
    keys_max: usize,
    /// Of those taken, how many by networks of that slot.
    held: Box<[AtomicU32]>,
    /// Buckets of those without a place, by hash of their network. At most [`SHARED_SLOTS`].
    shared: DashMap<u16, Buckets, RandomState>,
    /// No forgotten bucket became full later than this. Unit: ns since start. Relaxed is enough: it is
    /// raised under the lock of the key forgotten and read under the lock of the key made.
    forgotten_ns: AtomicU64,
}

impl Table {
    pub(super) fn new(keys_max: usize) -> Self {
        Self {
            map: Lines::new(),
            arrivals: Mutex::default(),
            taken: AtomicUsize::new(0),
            keys_max,
            held: (0..SHARED_SLOTS).map(|_| AtomicU32::new(0)).collect(),
            shared: DashMap::with_hasher(RandomState::new()),
            forgotten_ns: AtomicU64::new(0),
        }
    }

    /// Runs `work` on the buckets of `key`, alone. `work` must not call the table.
    pub(super) fn with<R>(&self, key: Key, now_ns: u64, work: impl FnOnce(&mut Buckets) -> R) -> R {
        if let Some(buckets) = self.map.spot(key).get() {
            return work(buckets);
        }
        self.with_newcomer(key, now_ns, work)
    }

    fn with_newcomer<R>(&self, key: Key, now_ns: u64, work: impl FnOnce(&mut Buckets) -> R) -> R {
        let slot = self.slot(key);
        let has_place = self.take_place(slot, now_ns);
        let mut spot = self.map.spot(key);
        if let Some(buckets) = spot.get() {
            // Another thread made it since the look-up.
            if has_place {
                self.give_back(slot);
            }
            return work(buckets);
        }
        // The shared bucket first, the floor after it: a sweep that drops the one raises the other.
        if !has_place {
            let mut buckets = self.shared.entry(slot).or_default();
            *buckets = self.no_fuller_than_forgotten(*buckets);
            return work(&mut buckets);
        }
        let inherited = self.shared.get(&slot).map(|buckets| *buckets);
        let mut buckets = self.no_fuller_than_forgotten(inherited.unwrap_or_default());
        let result = work(&mut buckets);
        spot.insert(buckets);
        let full_at_ns_min = buckets.full_at_ns();
        self.arrivals().push_back(Arrival { key, full_at_ns_min });
        result
    }

    /// Looks at the [`SWEEP_KEYS_MAX`] keys first in the queue, drops the full ones among them and
    /// returns how many.
    pub(super) fn sweep(&self, now_ns: u64) -> usize {
        let waiting = self.arrivals().len();
        let mut dropped = 0;
        for _ in 0..waiting.min(SWEEP_KEYS_MAX) {
            match self.recycle_first(now_ns) {
                Recycled::Dropped(slot) => {
                    self.give_back(slot);
                    dropped += 1;
                }
                Recycled::Kept => {}
                Recycled::NoneLeft => break,
            }
        }
        self.shared.retain(|_, buckets| !self.forget(buckets.full_at_ns(), now_ns));
        self.shrink();
        dropped
    }

    pub(super) fn keys(&self) -> usize {
        self.taken.load(Relaxed)
    }

    pub(super) fn keys_max(&self) -> usize {
        self.keys_max
    }

    /// How many keys have buckets of that kind, by the first [`SWEEP_KEYS_MAX`] in the map's order.
    pub(super) fn estimate(&self, kind: impl Fn(&Buckets) -> bool) -> usize {
        let (mut seen, mut found) = (0_usize, 0_usize);
        self.map.show(SWEEP_KEYS_MAX, |buckets| {
            seen += 1;
            found += usize::from(kind(buckets));
        });
        found * self.keys().max(seen) / seen.max(1)
    }

    /// Takes a free place for a network of that slot. Where there is none, those of the first
    /// [`PROBES_MAX`] in the queue that are idle are freed for it, or for others.
    fn take_place(&self, slot: u16, now_ns: u64) -> bool {
        if self.take_free(slot) {
            return true;
        }
        for _ in 0..PROBES_MAX {
            match self.recycle_first(now_ns) {
                // One of its own kind gives way: nobody has fewer places for it.
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

    fn take_free(&self, slot: u16) -> bool {
        let Some(held) = self.held.get(usize::from(slot)) else { return false };
        // Threads may pass this at once: a few places too many do no harm.
        let has_its_share = held.load(Relaxed) as usize > self.keys_max / NETWORK_PART;
        let most = if has_its_share { self.keys_max / 2 } else { self.keys_max };
        let one_more = |taken| (taken < most).then_some(taken + 1);
        let is_free = self.taken.fetch_update(Relaxed, Relaxed, one_more).is_ok();
        if is_free {
            held.fetch_add(1, Relaxed);
        }
        is_free
    }

    fn give_back(&self, slot: u16) {
        self.taken.fetch_sub(1, Relaxed);
        if let Some(held) = self.held.get(usize::from(slot)) {
            held.fetch_sub(1, Relaxed);
        }
    }

    /// Drops the first key of the queue if its buckets are full, else moves it to the back.
    /// The place of a dropped key stays taken: it is the caller's to give back.
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
        let mut spot = self.map.spot(first.key);
        let full_at_ns = spot.get().map_or(0, |buckets| buckets.full_at_ns());
        if self.forget(full_at_ns, now_ns) {
            spot.remove();
            return Recycled::Dropped(self.slot(first.key));
        }
        drop(spot);
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

    fn slot(&self, key: Key) -> u16 {
        let [low, high, ..] = self.shared.hasher().hash_one(key.network()).to_le_bytes();
        u16::from_le_bytes([low, high]) % SHARED_SLOTS
    }

    /// Gives memory back once it is 16 times what the keys need. The work is at most a sixteenth
    /// of the table, and the table has to grow 16-fold before it is done again.
    fn shrink(&self) {
        let room = self.map.room();
        if room > SHRINK_ABOVE && self.keys() < room / 16 {
            self.map.shrink();
            self.arrivals().shrink_to_fit();
        }
    }

    /// The queue. A panic cannot leave it half changed, so poison means nothing.
    fn arrivals(&self) -> MutexGuard<'_, VecDeque<Arrival>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key in the queue, with the time its buckets were all going to be full when last seen. Requests
/// only move that time on, so until then the key is in use for certain: most looks at the queue
/// need not touch the map, which costs a cache miss each.
#[derive(Debug)]
struct Arrival {
    key: Key,
    full_at_ns_min: u64,
}

enum Recycled {
    /// A key of a network of that slot.
    Dropped(u16),
    Kept,
    NoneLeft,
}

/// Keys a newcomer looks at when the table is full. Unit: keys. With one dropped an arrival, one key
/// in eight being idle is enough for every newcomer to get a place.
const PROBES_MAX: usize = 8;

/// Keys one sweep looks at: at worst, all in the map and cold, some 3 ms of work.
const SWEEP_KEYS_MAX: usize = 8_192;

/// What one network may hold of a table that is half full: one in so many of its places.
const NETWORK_PART: usize = 64;

/// Buckets for newcomers without a place: 64 bytes each with the slot's number.
const SHARED_SLOTS: u16 = 4_096;

/// Room, in keys, below which shrinking is not worth the trouble: under 1 MB.
const SHRINK_ABOVE: usize = 16_384;
