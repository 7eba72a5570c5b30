//! Tables of failure streaks and known address blocks: a fixed number of small sets.
//!
//! A key's hash selects its set. Only the keys of one set compete for its slots, and attackers
//! cannot know which keys those are. A set allocates memory when it is first used.

use super::failure_streak::{FailureStreak, Rule, Wait};
use super::slots;
use crate::cells::Cells;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The number of sets in a table: a power of two. A set takes at most 40 bytes.
pub(super) const SETS: usize = 16_384;
/// The slots per set. 131,072 in all, of up to 32 bytes: with its sets, a full table takes 5 MiB.
pub(in crate::auth) const SLOTS: usize = 8;
/// How long an address block stays known after a login.
pub(in crate::auth) const KNOWN_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The number of parts in which the sets are swept, one per second.
const SWEEP_PARTS: usize = 64;

/// A keyed hash, so that no name or address is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LockoutKey(pub(super) u64);

/// The keys of a login: hashes of its name, and of its name and address block.
#[derive(Clone, Copy, Debug)]
pub(in crate::auth) struct LoginKey {
    pub(super) account: LockoutKey,
    pub(super) pair: LockoutKey,
}

type Slots<V> = slots::Slots<LockoutKey, V, SLOTS>;

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
    sets: Cells<StreakSet>,
    /// One bit per set: whether one of its keys may be waiting. Written under the set's lock.
    waiting: Box<[AtomicU64]>,
}

#[derive(Debug, Default)]
struct StreakSet {
    own: Slots<FailureStreak>,
    /// The streak of all keys without a slot.
    shared: Option<Box<FailureStreak>>,
}

impl StreakTable {
    pub(super) fn new(rule: Rule, sets: usize) -> Self {
        let waiting =
            (0..sets.next_power_of_two().div_ceil(64)).map(|_| AtomicU64::default()).collect();
        Self { rule, sets: Cells::new(sets), waiting }
    }

    /// Returns the remaining wait of a key and records a refusal.
    pub(super) fn wait(&self, key: LockoutKey, now_ms: u64) -> Option<Wait> {
        self.find(key, now_ms, |streak| streak.wait(self.rule, now_ms)).flatten()
    }

    /// Whether a key has to wait. Records no refusal.
    pub(super) fn is_waiting(&self, key: LockoutKey, now_ms: u64) -> bool {
        let waits = |streak: &mut FailureStreak| streak.left(self.rule, now_ms).is_some();
        self.find(key, now_ms, waits).unwrap_or_default()
    }

    /// See [`FailureStreak::claim_lookup`].
    pub(super) fn claim_lookup(&self, key: LockoutKey, now_ms: u64) -> bool {
        self.find(key, now_ms, |streak| streak.claim_lookup(self.rule, now_ms)).unwrap_or_default()
    }

    /// See [`FailureStreak::release_lookup`].
    pub(super) fn release_lookup(&self, key: LockoutKey, now_ms: u64) {
        self.find(key, now_ms, FailureStreak::release_lookup);
    }

    /// Removes and returns a key's own streak, never the shared one.
    pub(super) fn take(&self, key: LockoutKey) -> Option<FailureStreak> {
        self.sets.lock(key.0).own.remove(key)
    }

    /// Replaces a key's own streak by a longer one. A new key gets a slot if there is one.
    pub(super) fn lengthen(&self, key: LockoutKey, streak: FailureStreak, now_ms: u64) {
        if streak.is_over(now_ms) {
            return;
        }
        let mut set = self.sets.lock(key.0);
        let rank = |streak: &FailureStreak| streak.eviction_rank(self.rule, now_ms);
        if let Some(own) = set.own.get_or_insert(key, streak, rank)
            && streak.outweighs(own, now_ms)
        {
            *own = streak;
        }
        self.flag(key, &streak, now_ms);
    }

    /// Counts a failure of a key, unless it has to wait. A new key gets a slot if there is one.
    pub(super) fn fail(&self, key: LockoutKey, now_ms: u64) -> Option<Wait> {
        let mut set = self.sets.lock(key.0);
        let StreakSet { own, shared } = &mut *set;
        let rank = |streak: &FailureStreak| streak.eviction_rank(self.rule, now_ms);
        let streak = match own.get_or_insert(key, FailureStreak::default(), rank) {
            Some(streak) => streak,
            None => shared.get_or_insert_default(),
        };
        let wait = streak.fail(self.rule, now_ms);
        self.flag(key, streak, now_ms);
        wait
    }

    /// Flags the set of a streak that causes a wait. The caller holds the set's lock.
    fn flag(&self, key: LockoutKey, streak: &FailureStreak, now_ms: u64) {
        if streak.left(self.rule, now_ms).is_some() {
            let index = self.sets.index(key.0);
            if let Some(flags) = self.waiting.get(index / 64) {
                flags.fetch_or(1 << (index % 64), Relaxed);
            }
        }
    }

    /// Counts the keys that have to wait now. Locks only the sets that may have one.
    pub(super) fn waiting(&self, now_ms: u64) -> usize {
        let mut count = 0;
        for (first, flags) in (0..).step_by(64).zip(&self.waiting) {
            let flagged = flags.load(Relaxed);
            for bit in (0..64).filter(|bit| flagged >> bit & 1 == 1) {
                let set = self.sets.lock(first + bit);
                let waits =
                    |(_, streak): &&(_, FailureStreak)| streak.left(self.rule, now_ms).is_some();
                let waiting = set.own.iter().filter(waits).count();
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
        for mut set in self.sets.part(turn, SWEEP_PARTS) {
            set.own.retain(|streak| !streak.is_over(now_ms));
            drop(set.shared.take_if(|streak| streak.is_over(now_ms)));
        }
    }

    /// Runs `work` on the streak that applies to a key: its own one, or without room for that the
    /// shared one.
    fn find<R>(
        &self,
        key: LockoutKey,
        now_ms: u64,
        work: impl FnOnce(&mut FailureStreak) -> R,
    ) -> Option<R> {
        let mut set = self.sets.lock(key.0);
        let StreakSet { own, shared } = &mut *set;
        let has_room = own.has_room(|streak| streak.eviction_rank(self.rule, now_ms));
        let shared = shared.as_deref_mut().filter(|_| !has_room);
        own.get(key).or(shared).map(work)
    }
}

/// Address blocks with a recent login to an account, each with its own failure streak.
///
/// All blocks of an account are in the account's set. Logins from many blocks evict only blocks of
/// the same account and of the few that share its set. The block unseen longest is evicted first.
#[derive(Debug)]
pub(super) struct KnownBlocks {
    rule: Rule,
    /// The keys of the slots are the hashes of account and block.
    sets: Cells<Slots<KnownBlock>>,
}

#[derive(Debug)]
struct KnownBlock {
    /// The time of the last login. Unit: ms since the start.
    seen_ms: u64,
    streak: FailureStreak,
}

impl KnownBlocks {
    pub(super) fn new(rule: Rule, sets: usize) -> Self {
        Self { rule, sets: Cells::new(sets) }
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
        self.know(login, now_ms, FailureStreak::default(), now_ms);
    }

    /// Records an earlier login at `seen_ms` with the block's failures since then.
    ///
    /// Keeps the streak of a known block. Does nothing if the set is full of blocks seen later.
    pub(super) fn restore(&self, login: LoginKey, seen_ms: u64, streak: FailureStreak) {
        let mut set = self.sets.lock(login.account.0);
        let rank = |block: &KnownBlock| Some(block.seen_ms).filter(|seen| *seen <= seen_ms);
        if let Some(block) = set.get_or_insert(login.pair, KnownBlock { seen_ms, streak }, rank) {
            block.seen_ms = block.seen_ms.max(seen_ms);
        }
    }

    /// Makes a block known. Its streak ends if the given one is empty, and else becomes the longer one.
    pub(super) fn know(&self, login: LoginKey, seen_ms: u64, streak: FailureStreak, now_ms: u64) {
        let mut set = self.sets.lock(login.account.0);
        let new = || KnownBlock { seen_ms, streak };
        if let Some(block) = set.get_or_insert(login.pair, new(), |block| Some(block.seen_ms)) {
            let ends = streak == FailureStreak::default();
            let streak =
                if ends || streak.outweighs(&block.streak, now_ms) { streak } else { block.streak };
            *block = KnownBlock { seen_ms: block.seen_ms.max(seen_ms), streak };
        }
    }

    /// Frees the memory of expired blocks in a part of the sets. `turn` counts the calls.
    pub(super) fn sweep(&self, turn: usize, now_ms: u64) {
        for mut set in self.sets.part(turn, SWEEP_PARTS) {
            set.retain(|block| block.is_known(now_ms));
        }
    }

    fn with<R>(
        &self,
        login: LoginKey,
        now_ms: u64,
        work: impl FnOnce(&mut FailureStreak) -> R,
    ) -> Option<R> {
        let mut set = self.sets.lock(login.account.0);
        let block = set.get(login.pair).filter(|block| block.is_known(now_ms))?;
        Some(work(&mut block.streak))
    }
}

impl KnownBlock {
    fn is_known(&self, now_ms: u64) -> bool {
        Duration::from_millis(now_ms.saturating_sub(self.seen_ms)) < KNOWN_TTL
    }
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
        let held: usize = streaks.sets.part(0, 1).map(|set| set.own.iter().count()).sum();
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
        let set = streaks.sets.lock(0);
        let mut keys: Vec<u64> = set.own.iter().map(|(key, _)| key.0).collect();
        keys.sort_unstable();
        assert_eq!(keys, [0, 1, 2, 4, 5, 6, 7, 50]);
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
        let set = streaks.sets.lock(0);
        assert!(set.own.iter().count() == 0 && set.shared.is_none());
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
        assert!(known.sets.part(0, 1).all(|set| set.iter().count() == 0));
    }
}
