//! Tables of failure streaks and known address blocks: a fixed number of small sets.
//!
//! A key's hash selects its set. Only the keys of one set compete for its slots, and attackers
//! cannot know which keys those are. A set allocates memory when it is first used.

use super::failure_streak::{FailureStreak, Rule, Wait};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The number of sets in a table: a power of two. A set takes at most 40 bytes.
pub(super) const SETS: usize = 16_384;
/// The slots per set. 131,072 in all, of up to 32 bytes: with its sets, a full table takes 5 MiB.
pub(in crate::auth) const SLOTS: usize = 8;
/// How long an address block stays known after a login.
pub(in crate::auth) const KNOWN_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A keyed hash, so that no name or address is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LockoutKey(pub(super) u64);

/// The keys of a login: hashes of its name, and of its name and address block.
#[derive(Clone, Copy, Debug)]
pub(in crate::auth) struct LoginKey {
    pub(super) account: LockoutKey,
    pub(super) pair: LockoutKey,
}

/// Failure streaks by key.
///
/// In a full set, a new key replaces a streak that has ended, or else the lightest streak that
/// causes no wait yet. A streak that causes waits is never evicted. If a set has only such streaks,
/// all keys without a slot share one streak. A flood of other names therefore only resets streaks
/// below the threshold, at a cost of eight failed logins per set. New keys share only after five or
/// twenty failures for each of 131,072 slots within a day.
#[derive(Debug)]
pub(super) struct StreakTable {
    rule: Rule,
    sets: Box<[Mutex<StreakSet>]>,
    /// One bit per set: whether one of its keys may be waiting. Written under the set's lock.
    waiting: Box<[AtomicU64]>,
}

#[derive(Debug, Default)]
struct StreakSet {
    /// At most [`SLOTS`].
    streaks: Vec<Slot>,
    /// The streak of all keys without a slot.
    shared: Option<Box<FailureStreak>>,
}

type Slot = (LockoutKey, FailureStreak);

impl StreakTable {
    pub(super) fn new(rule: Rule, sets: usize) -> Self {
        let sets: Box<[_]> = (0..sets.next_power_of_two()).map(|_| Mutex::default()).collect();
        let waiting = (0..sets.len().div_ceil(64)).map(|_| AtomicU64::default()).collect();
        Self { rule, sets, waiting }
    }

    /// Returns the remaining wait of a key and records a refusal.
    pub(super) fn wait(&self, key: LockoutKey, now_ms: u64) -> Option<Wait> {
        self.set(key)?.find(key, self.rule, now_ms)?.wait(self.rule, now_ms)
    }

    /// Whether a key has to wait. Records no refusal.
    pub(super) fn is_waiting(&self, key: LockoutKey, now_ms: u64) -> bool {
        let Some(mut set) = self.set(key) else { return false };
        set.find(key, self.rule, now_ms)
            .is_some_and(|streak| streak.left(self.rule, now_ms).is_some())
    }

    /// See [`FailureStreak::claim_lookup`].
    pub(super) fn claim_lookup(&self, key: LockoutKey, now_ms: u64) -> bool {
        let Some(mut set) = self.set(key) else { return false };
        set.find(key, self.rule, now_ms)
            .is_some_and(|streak| streak.claim_lookup(self.rule, now_ms))
    }

    /// See [`FailureStreak::release_lookup`].
    pub(super) fn release_lookup(&self, key: LockoutKey, now_ms: u64) {
        if let Some(mut set) = self.set(key)
            && let Some(streak) = set.find(key, self.rule, now_ms)
        {
            streak.release_lookup();
        }
    }

    /// Removes and returns a key's own streak, never the shared one.
    pub(super) fn take(&self, key: LockoutKey) -> Option<FailureStreak> {
        let mut set = self.set(key)?;
        let slot = set.streaks.iter().position(|(other, _)| *other == key)?;
        Some(set.streaks.swap_remove(slot).1)
    }

    /// Counts a failure of a key, unless it has to wait.
    pub(super) fn fail(&self, key: LockoutKey, now_ms: u64) -> Option<Wait> {
        let mut set = self.set(key)?;
        let streak = set.streak(key, self.rule, now_ms);
        let wait = streak.fail(self.rule, now_ms);
        if streak.left(self.rule, now_ms).is_some() {
            let set = index(key, self.sets.len());
            if let Some(flags) = self.waiting.get(set / 64) {
                flags.fetch_or(1 << (set % 64), Relaxed);
            }
        }
        wait
    }

    /// Counts the keys that have to wait now. Locks only the sets that may have one.
    pub(super) fn waiting(&self, now_ms: u64) -> usize {
        let mut count = 0;
        for (sets, flags) in self.sets.chunks(64).zip(&self.waiting) {
            let flagged = flags.load(Relaxed);
            for (bit, set) in sets.iter().enumerate().filter(|(bit, _)| flagged >> bit & 1 == 1) {
                let set = lock(set);
                let waits = |(_, streak): &&Slot| streak.left(self.rule, now_ms).is_some();
                let waiting = set.streaks.iter().filter(waits).count();
                if waiting == 0 {
                    flags.fetch_and(!(1 << bit), Relaxed);
                }
                count += waiting;
            }
        }
        count
    }

    /// Frees the memory of ended streaks in a part of the sets. `turn` counts the calls.
    pub(super) fn sweep(&self, turn: usize, now_ms: u64) {
        for set in part(&self.sets, turn) {
            let mut set = lock(set);
            set.streaks.retain(|(_, streak)| !streak.is_over(now_ms));
            drop(set.shared.take_if(|streak| streak.is_over(now_ms)));
            set.streaks.shrink_to_fit();
        }
    }

    fn set(&self, key: LockoutKey) -> Option<MutexGuard<'_, StreakSet>> {
        self.sets.get(index(key, self.sets.len())).map(lock)
    }
}

impl StreakSet {
    /// Whether a new key would get a slot.
    fn has_room(&self, rule: Rule, now_ms: u64) -> bool {
        let may_go = |(_, streak): &Slot| streak.is_over(now_ms) || !streak.is_spent(rule);
        self.streaks.len() < SLOTS || self.streaks.iter().any(may_go)
    }

    /// Finds the streak that applies to a key.
    fn find(&mut self, key: LockoutKey, rule: Rule, now_ms: u64) -> Option<&mut FailureStreak> {
        let has_room = self.has_room(rule, now_ms);
        match self.streaks.iter_mut().find(|(other, _)| *other == key) {
            Some((_, streak)) => Some(streak),
            None if has_room => None,
            None => self.shared.as_deref_mut(),
        }
    }

    /// Returns the streak of a key. A new key gets a slot if there is one.
    fn streak(&mut self, key: LockoutKey, rule: Rule, now_ms: u64) -> &mut FailureStreak {
        let own = self.streaks.iter().position(|(other, _)| *other == key);
        let slot = own.or_else(|| {
            let new = (key, FailureStreak::default());
            if self.streaks.len() < SLOTS {
                self.streaks.push(new);
                return Some(self.streaks.len() - 1);
            }
            let lightest = self
                .streaks
                .iter_mut()
                .enumerate()
                .filter(|(_, (_, streak))| streak.is_over(now_ms) || !streak.is_spent(rule))
                .min_by_key(|(_, (_, streak))| (!streak.is_over(now_ms), streak.weight()));
            lightest.map(|(slot, evicted)| {
                *evicted = new;
                slot
            })
        });
        match slot.and_then(|slot| self.streaks.get_mut(slot)) {
            Some((_, streak)) => streak,
            None => self.shared.get_or_insert_default(),
        }
    }
}

/// Address blocks with a recent login to an account, each with its own failure streak.
///
/// All blocks of an account are in the account's set. Logins from many blocks evict only blocks of
/// the same account and of the few that share its set. The block unseen longest is evicted first.
#[derive(Debug)]
pub(super) struct KnownBlocks {
    rule: Rule,
    sets: Box<[Mutex<Vec<KnownBlock>>]>,
}

#[derive(Debug)]
struct KnownBlock {
    /// The hash of account and block.
    pair: LockoutKey,
    /// The time of the last login. Unit: ms since the start.
    seen_ms: u64,
    streak: FailureStreak,
}

impl KnownBlocks {
    pub(super) fn new(rule: Rule, sets: usize) -> Self {
        let sets = (0..sets.next_power_of_two()).map(|_| Mutex::default()).collect();
        Self { rule, sets }
    }

    /// Returns the remaining wait of a known block, or `None` if it is not known.
    pub(super) fn wait(&self, login: LoginKey, now_ms: u64) -> Option<Option<Wait>> {
        self.with(login, now_ms, |streak| streak.wait(self.rule, now_ms))
    }

    /// Counts a failure of a known block, unless it has to wait. `None` if it is not known.
    pub(super) fn fail(&self, login: LoginKey, now_ms: u64) -> Option<Option<Wait>> {
        self.with(login, now_ms, |streak| streak.fail(self.rule, now_ms))
    }

    /// Whether the block is known.
    pub(super) fn has(&self, login: LoginKey, now_ms: u64) -> bool {
        self.with(login, now_ms, |_| ()).is_some()
    }

    /// Records a login, which resets the block's failure streak.
    pub(super) fn succeed(&self, login: LoginKey, now_ms: u64) {
        let Some(set) = self.sets.get(index(login.account, self.sets.len())) else { return };
        let mut set = lock(set);
        set.retain(|block| block.pair != login.pair);
        make_room(&mut set, now_ms);
        let streak = FailureStreak::default();
        set.push(KnownBlock { pair: login.pair, seen_ms: now_ms, streak });
    }

    /// Records an earlier login at `seen_ms` with the block's failures since then.
    ///
    /// Keeps the streak of a known block. Does nothing if the set is full of blocks seen later.
    pub(super) fn restore(&self, login: LoginKey, seen_ms: u64, streak: FailureStreak) {
        let Some(set) = self.sets.get(index(login.account, self.sets.len())) else { return };
        let mut set = lock(set);
        if let Some(block) = set.iter_mut().find(|block| block.pair == login.pair) {
            block.seen_ms = block.seen_ms.max(seen_ms);
        } else if make_room(&mut set, seen_ms) {
            set.push(KnownBlock { pair: login.pair, seen_ms, streak });
        }
    }

    /// Frees the memory of expired blocks in a part of the sets. `turn` counts the calls.
    pub(super) fn sweep(&self, turn: usize, now_ms: u64) {
        for set in part(&self.sets, turn) {
            let mut set = lock(set);
            set.retain(|block| block.is_known(now_ms));
            set.shrink_to_fit();
        }
    }

    fn with<R>(
        &self,
        login: LoginKey,
        now_ms: u64,
        work: impl FnOnce(&mut FailureStreak) -> R,
    ) -> Option<R> {
        let mut set = lock(self.sets.get(index(login.account, self.sets.len()))?);
        let is_it = |block: &&mut KnownBlock| block.pair == login.pair && block.is_known(now_ms);
        let block = set.iter_mut().find(is_it)?;
        Some(work(&mut block.streak))
    }
}

/// Evicts the block unseen longest if the set is full. False if all were seen after `seen_ms`.
fn make_room(set: &mut Vec<KnownBlock>, seen_ms: u64) -> bool {
    if set.len() < SLOTS {
        return true;
    }
    let oldest = set.iter().enumerate().min_by_key(|(_, block)| block.seen_ms);
    let slot = oldest.filter(|(_, block)| block.seen_ms <= seen_ms).map(|(slot, _)| slot);
    slot.map(|slot| set.swap_remove(slot)).is_some()
}

impl KnownBlock {
    fn is_known(&self, now_ms: u64) -> bool {
        Duration::from_millis(now_ms.saturating_sub(self.seen_ms)) < KNOWN_TTL
    }
}

/// The number of parts in which the sets are swept, one per second.
const SWEEP_PARTS: usize = 64;

fn part<T>(sets: &[T], turn: usize) -> impl Iterator<Item = &T> {
    sets.iter().skip(turn % SWEEP_PARTS).step_by(SWEEP_PARTS)
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits of a hash")]
fn index(LockoutKey(hash): LockoutKey, sets: usize) -> usize {
    hash as usize & (sets - 1)
}

/// Locks a set. A panic cannot leave it half changed, so poisoning is ignored.
fn lock<T>(set: &Mutex<T>) -> MutexGuard<'_, T> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::{ACCOUNT, PAIR};
    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

    fn spend(streaks: &StreakTable, key: LockoutKey, failures: u8) {
        for _ in 0..failures {
            assert_eq!(streaks.fail(key, 0), None);
        }
    }

    #[test]
    fn a_flood_never_evicts_a_streak_that_causes_waits() {
        let streaks = StreakTable::new(PAIR, 4);
        let victims: Vec<LockoutKey> = (0..8).map(LockoutKey).collect();
        for victim in &victims {
            spend(&streaks, *victim, PAIR.first);
        }
        for key in 100..10_000 {
            streaks.fail(LockoutKey(key), 1);
        }
        for victim in &victims {
            assert!(streaks.wait(*victim, 2).is_some(), "{victim:?}");
        }
        let held: usize = streaks.sets.iter().map(|set| lock(set).streaks.len()).sum();
        assert_eq!(held, 4 * SLOTS);
    }

    #[test]
    fn counting_waiting_keys_locks_only_sets_that_may_have_one() {
        let streaks = StreakTable::new(ACCOUNT, 256);
        let flagged =
            || streaks.waiting.iter().map(|flags| flags.load(Relaxed).count_ones()).sum::<u32>();
        spend(&streaks, LockoutKey(3), ACCOUNT.first - 1);
        assert_eq!((flagged(), streaks.waiting(0)), (0, 0));
        for key in [3, 70, 255] {
            spend(&streaks, LockoutKey(key), if key == 3 { 1 } else { ACCOUNT.first });
        }
        assert_eq!((flagged(), streaks.waiting(59_999)), (3, 3));
        assert_eq!((streaks.waiting(60_000), flagged()), (0, 0));
        assert_eq!(streaks.fail(LockoutKey(70), 60_000), None);
        assert_eq!((flagged(), streaks.waiting(60_001)), (1, 1));
    }

    #[test]
    fn the_lightest_streak_is_evicted_first() {
        let streaks = StreakTable::new(ACCOUNT, 1);
        for key in 0..8 {
            spend(&streaks, LockoutKey(key), if key == 3 { 1 } else { 5 });
        }
        spend(&streaks, LockoutKey(50), 1);
        let keys: Vec<u64> = lock(&streaks.sets[0]).streaks.iter().map(|(key, _)| key.0).collect();
        assert_eq!(keys, [0, 1, 2, 50, 4, 5, 6, 7]);
    }

    #[test]
    fn new_keys_share_one_streak_if_every_slot_causes_waits() {
        let streaks = StreakTable::new(PAIR, 1);
        for key in 0..8 {
            spend(&streaks, LockoutKey(key), PAIR.first);
        }
        assert_eq!(streaks.wait(LockoutKey(99), 0), None);
        for key in 20..25 {
            assert_eq!(streaks.fail(LockoutKey(key), 0), None);
        }
        assert!(streaks.wait(LockoutKey(99), 0).is_some());
        assert!(streaks.fail(LockoutKey(25), 0).is_some());
        // A slot is free again as soon as its streak ends.
        assert_eq!(streaks.wait(LockoutKey(99), DAY_MS), None);
        streaks.sweep(0, DAY_MS);
        let set = lock(&streaks.sets[0]);
        assert!(set.streaks.is_empty() && set.shared.is_none());
    }

    #[test]
    fn an_account_evicts_only_its_own_blocks() {
        let login = |a, pair| LoginKey { account: LockoutKey(a), pair: LockoutKey(pair) };
        let known = KnownBlocks::new(PAIR, 2);
        known.succeed(login(0, 1_000), 0);
        for pair in 0..100 {
            known.succeed(login(1, pair), pair);
        }
        assert_eq!(known.wait(login(0, 1_000), 200), Some(None));
        assert_eq!(known.wait(login(1, 91), 200), None, "evicted");
        assert_eq!(known.wait(login(1, 92), 200), Some(None));
        let month_ms = 30 * DAY_MS;
        assert_eq!(known.wait(login(1, 92), 92 + month_ms), None);
        for turn in 0..SWEEP_PARTS {
            known.sweep(turn, 200 + month_ms);
        }
        assert!(known.sets.iter().all(|set| lock(set).is_empty()));
    }
}
