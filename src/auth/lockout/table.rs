//! Where runs of failures and known address blocks live: a fixed number of sets of a few places.
//!
//! A key's hash chooses its set; only the keys of one set compete for places, and nobody outside
//! knows which those are. A set takes memory when it is first used.

use super::run::{Rule, Run, Wait};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sets of a table: a power of two. 40 octets each at most.
pub(super) const SETS: usize = 16_384;
/// Places of a set. 131,072 in all, of up to 32 octets: with the sets 5 MiB a table when full.
pub(in crate::auth) const PLACES: usize = 8;

/// How long a block that logged in stays known.
pub(in crate::auth) const KNOWN_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A keyed hash: no name and no address is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) u64);

/// Runs of failures by key.
///
/// Where a set is full, a newcomer takes the place of a run that is over, or else of the lightest
/// run that does not cost time yet. One that does is never given up: if there are only such, those
/// without a place share one run. So a flood of other names wins an attacker back what is below the
/// threshold, for eight times as many failed logins as there are sets; and it takes five or twenty
/// failures for each of 131,072 places within a day to make newcomers share.
#[derive(Debug)]
pub(super) struct Runs {
    rule: Rule,
    sets: Box<[Mutex<RunSet>]>,
    /// A bit a set: whether a key of it may have to wait. Written under the set's lock.
    waiting: Box<[AtomicU64]>,
}

#[derive(Debug, Default)]
struct RunSet {
    /// At most [`PLACES`].
    runs: Vec<(Key, Run)>,
    /// Of those without a place.
    shared: Option<Box<Run>>,
}

impl Runs {
    pub(super) fn new(rule: Rule, sets: usize) -> Self {
        let sets: Box<[_]> = (0..sets.next_power_of_two()).map(|_| Mutex::default()).collect();
        let waiting = (0..sets.len().div_ceil(64)).map(|_| AtomicU64::default()).collect();
        Self { rule, sets, waiting }
    }

    /// The wait that is left for that key.
    pub(super) fn wait(&self, key: Key, now_ms: u64) -> Option<Wait> {
        self.set(key)?.find(key, self.rule, now_ms)?.wait(self.rule, now_ms)
    }

    /// Whether that key has to wait, for somebody who only looks.
    pub(super) fn is_waiting(&self, key: Key, now_ms: u64) -> bool {
        let Some(mut set) = self.set(key) else { return false };
        set.find(key, self.rule, now_ms).is_some_and(|run| run.left(self.rule, now_ms).is_some())
    }

    /// See [`Run::claim_lookup`].
    pub(super) fn claim_lookup(&self, key: Key, now_ms: u64) -> bool {
        let Some(mut set) = self.set(key) else { return false };
        set.find(key, self.rule, now_ms).is_some_and(|run| run.claim_lookup(self.rule, now_ms))
    }

    /// See [`Run::release_lookup`].
    pub(super) fn release_lookup(&self, key: Key, now_ms: u64) {
        if let Some(mut set) = self.set(key)
            && let Some(run) = set.find(key, self.rule, now_ms)
        {
            run.release_lookup();
        }
    }

    /// Takes the key's run out. Not the shared one: it is not its own.
    pub(super) fn take(&self, key: Key) -> Option<Run> {
        let mut set = self.set(key)?;
        let place = set.runs.iter().position(|(other, _)| *other == key)?;
        Some(set.runs.swap_remove(place).1)
    }

    /// Counts a failure of that key, unless it has to wait.
    pub(super) fn fail(&self, key: Key, now_ms: u64) -> Option<Wait> {
        let mut set = self.set(key)?;
        let run = set.run(key, self.rule, now_ms);
        let wait = run.fail(self.rule, now_ms);
        if run.left(self.rule, now_ms).is_some() {
            let place = index(key, self.sets.len());
            if let Some(flags) = self.waiting.get(place / 64) {
                flags.fetch_or(1 << (place % 64), Relaxed);
            }
        }
        wait
    }

    /// Keys that have to wait now. Locks only sets that may hold one.
    pub(super) fn waiting(&self, now_ms: u64) -> usize {
        let mut count = 0;
        for (sets, flags) in self.sets.chunks(64).zip(&self.waiting) {
            let flagged = flags.load(Relaxed);
            for (bit, set) in sets.iter().enumerate().filter(|(bit, _)| flagged >> bit & 1 == 1) {
                let set = lock(set);
                let waits = |(_, run): &&(Key, Run)| run.left(self.rule, now_ms).is_some();
                let waiting = set.runs.iter().filter(waits).count();
                if waiting == 0 {
                    flags.fetch_and(!(1 << bit), Relaxed);
                }
                count += waiting;
            }
        }
        count
    }

    /// Gives back what runs that are over take, in a part of the sets; `turn` counts up.
    pub(super) fn sweep(&self, turn: usize, now_ms: u64) {
        for set in part(&self.sets, turn) {
            let mut set = lock(set);
            set.runs.retain(|(_, run)| !run.is_over(now_ms));
            drop(set.shared.take_if(|run| run.is_over(now_ms)));
            set.runs.shrink_to_fit();
        }
    }

    fn set(&self, key: Key) -> Option<MutexGuard<'_, RunSet>> {
        self.sets.get(index(key, self.sets.len())).map(lock)
    }
}

impl RunSet {
    /// Whether a newcomer would get a place.
    fn has_room(&self, rule: Rule, now_ms: u64) -> bool {
        let may_go = |(_, run): &(Key, Run)| run.is_over(now_ms) || !run.is_spent(rule);
        self.runs.len() < PLACES || self.runs.iter().any(may_go)
    }

    /// The run by which that key is judged, if there is one.
    fn find(&mut self, key: Key, rule: Rule, now_ms: u64) -> Option<&mut Run> {
        let has_room = self.has_room(rule, now_ms);
        match self.runs.iter_mut().find(|(other, _)| *other == key) {
            Some((_, run)) => Some(run),
            None if has_room => None,
            None => self.shared.as_deref_mut(),
        }
    }

    /// The run of that key, which gets a place if there is one.
    fn run(&mut self, key: Key, rule: Rule, now_ms: u64) -> &mut Run {
        let own = self.runs.iter().position(|(other, _)| *other == key);
        let place = own.or_else(|| {
            let new = (key, Run::default());
            if self.runs.len() < PLACES {
                self.runs.push(new);
                return Some(self.runs.len() - 1);
            }
            let lightest = self
                .runs
                .iter_mut()
                .enumerate()
                .filter(|(_, (_, run))| run.is_over(now_ms) || !run.is_spent(rule))
                .min_by_key(|(_, (_, run))| (!run.is_over(now_ms), run.weight()));
            lightest.map(|(place, slot)| {
                *slot = new;
                place
            })
        });
        match place.and_then(|place| self.runs.get_mut(place)) {
            Some((_, run)) => run,
            None => self.shared.get_or_insert_default(),
        }
    }
}

/// Blocks that logged in to an account lately, each with its own run of failures.
///
/// An account's blocks are all in the account's set: whoever logs in from many places pushes out
/// the blocks of their own account, and of the few that share its set, the longest unseen first.
#[derive(Debug)]
pub(super) struct Known {
    rule: Rule,
    sets: Box<[Mutex<Vec<KnownBlock>>]>,
}

#[derive(Debug)]
struct KnownBlock {
    /// Of account and block.
    pair: Key,
    /// When it last logged in. Unit: ms since the start.
    seen_ms: u64,
    run: Run,
}

impl Known {
    pub(super) fn new(rule: Rule, sets: usize) -> Self {
        let sets = (0..sets.next_power_of_two()).map(|_| Mutex::default()).collect();
        Self { rule, sets }
    }

    /// The wait that is left for a known block; `None` if it is not known.
    pub(super) fn wait(&self, account: Key, pair: Key, now_ms: u64) -> Option<Option<Wait>> {
        self.with(account, pair, now_ms, |run| run.wait(self.rule, now_ms))
    }

    /// Counts a failure of a known block, unless it has to wait; `None` if it is not known.
    pub(super) fn fail(&self, account: Key, pair: Key, now_ms: u64) -> Option<Option<Wait>> {
        self.with(account, pair, now_ms, |run| run.fail(self.rule, now_ms))
    }

    /// Whether the block is known.
    pub(super) fn has(&self, account: Key, pair: Key, now_ms: u64) -> bool {
        self.with(account, pair, now_ms, |_| ()).is_some()
    }

    /// Notes a login, which ends the block's run of failures.
    pub(super) fn succeed(&self, account: Key, pair: Key, now_ms: u64) {
        let Some(set) = self.sets.get(index(account, self.sets.len())) else { return };
        let mut set = lock(set);
        set.retain(|block| block.pair != pair);
        make_room(&mut set, now_ms);
        set.push(KnownBlock { pair, seen_ms: now_ms, run: Run::default() });
    }

    /// Notes a login of `seen_ms` with the failures of its block since, unless the block is known, or
    /// the set is full of blocks that were seen later.
    pub(super) fn restore(&self, account: Key, pair: Key, seen_ms: u64, run: Run) {
        let Some(set) = self.sets.get(index(account, self.sets.len())) else { return };
        let mut set = lock(set);
        if let Some(block) = set.iter_mut().find(|block| block.pair == pair) {
            block.seen_ms = block.seen_ms.max(seen_ms);
        } else if make_room(&mut set, seen_ms) {
            set.push(KnownBlock { pair, seen_ms, run });
        }
    }

    /// Gives back what blocks that are no longer known take, in a part of the sets.
    pub(super) fn sweep(&self, turn: usize, now_ms: u64) {
        for set in part(&self.sets, turn) {
            let mut set = lock(set);
            set.retain(|block| block.is_known(now_ms));
            set.shrink_to_fit();
        }
    }

    fn with<R>(
        &self,
        account: Key,
        pair: Key,
        now_ms: u64,
        work: impl FnOnce(&mut Run) -> R,
    ) -> Option<R> {
        let mut set = lock(self.sets.get(index(account, self.sets.len()))?);
        let block = set.iter_mut().find(|block| block.pair == pair && block.is_known(now_ms))?;
        Some(work(&mut block.run))
    }
}

/// Makes room for a block that was seen at `seen_ms`, by giving up the one that was not seen for the
/// longest time. False: all were seen later.
fn make_room(set: &mut Vec<KnownBlock>, seen_ms: u64) -> bool {
    if set.len() < PLACES {
        return true;
    }
    let oldest = set.iter().enumerate().min_by_key(|(_, block)| block.seen_ms);
    let place = oldest.filter(|(_, block)| block.seen_ms <= seen_ms).map(|(place, _)| place);
    place.map(|place| set.swap_remove(place)).is_some()
}

impl KnownBlock {
    fn is_known(&self, now_ms: u64) -> bool {
        Duration::from_millis(now_ms.saturating_sub(self.seen_ms)) < KNOWN_TTL
    }
}

/// Parts in which the sets are swept, one a second.
const SWEEP_PARTS: usize = 64;

fn part<T>(sets: &[T], turn: usize) -> impl Iterator<Item = &T> {
    sets.iter().skip(turn % SWEEP_PARTS).step_by(SWEEP_PARTS)
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits of a hash")]
fn index(Key(hash): Key, sets: usize) -> usize {
    hash as usize & (sets - 1)
}

/// A panic cannot leave a set half changed, so poison means nothing.
fn lock<T>(set: &Mutex<T>) -> MutexGuard<'_, T> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::{ACCOUNT, PAIR};
    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

    fn spend(runs: &Runs, key: Key, failures: u8) {
        for _ in 0..failures {
            assert_eq!(runs.fail(key, 0), None);
        }
    }

    #[test]
    fn a_flood_never_forgives_a_run_that_costs_time() {
        let runs = Runs::new(PAIR, 4);
        let victims: Vec<Key> = (0..8).map(Key).collect();
        for victim in &victims {
            spend(&runs, *victim, PAIR.first);
        }
        for key in 100..10_000 {
            runs.fail(Key(key), 1);
        }
        for victim in &victims {
            assert!(runs.wait(*victim, 2).is_some(), "{victim:?}");
        }
        let held: usize = runs.sets.iter().map(|set| lock(set).runs.len()).sum();
        assert_eq!(held, 4 * PLACES);
    }

    // Case F9 of the field list.
    #[test]
    fn counting_the_waits_locks_only_sets_that_have_one() {
        let runs = Runs::new(ACCOUNT, 256);
        let flagged =
            || runs.waiting.iter().map(|flags| flags.load(Relaxed).count_ones()).sum::<u32>();
        spend(&runs, Key(3), ACCOUNT.first - 1);
        assert_eq!((flagged(), runs.waiting(0)), (0, 0));
        for key in [3, 70, 255] {
            spend(&runs, Key(key), if key == 3 { 1 } else { ACCOUNT.first });
        }
        assert_eq!((flagged(), runs.waiting(59_999)), (3, 3));
        assert_eq!((runs.waiting(60_000), flagged()), (0, 0));
        assert_eq!(runs.fail(Key(70), 60_000), None);
        assert_eq!((flagged(), runs.waiting(60_001)), (1, 1));
    }

    #[test]
    fn the_lightest_run_gives_way_first() {
        let runs = Runs::new(ACCOUNT, 1);
        for key in 0..8 {
            spend(&runs, Key(key), if key == 3 { 1 } else { 5 });
        }
        spend(&runs, Key(50), 1);
        let keys: Vec<u64> = lock(&runs.sets[0]).runs.iter().map(|(key, _)| key.0).collect();
        assert_eq!(keys, [0, 1, 2, 50, 4, 5, 6, 7]);
    }

    #[test]
    fn where_every_place_is_spent_newcomers_share_one_run() {
        let runs = Runs::new(PAIR, 1);
        for key in 0..8 {
            spend(&runs, Key(key), PAIR.first);
        }
        assert_eq!(runs.wait(Key(99), 0), None);
        for key in 20..25 {
            assert_eq!(runs.fail(Key(key), 0), None);
        }
        assert!(runs.wait(Key(99), 0).is_some() && runs.fail(Key(25), 0).is_some());
        // A place is free again as soon as a run is over.
        assert_eq!(runs.wait(Key(99), DAY_MS), None);
        runs.sweep(0, DAY_MS);
        assert!(lock(&runs.sets[0]).runs.is_empty() && lock(&runs.sets[0]).shared.is_none());
    }

    #[test]
    fn an_account_pushes_out_its_own_blocks_only() {
        let known = Known::new(PAIR, 2);
        known.succeed(Key(0), Key(1_000), 0);
        for pair in 0..100 {
            known.succeed(Key(1), Key(pair), pair);
        }
        assert_eq!(known.wait(Key(0), Key(1_000), 200), Some(None));
        assert_eq!(known.wait(Key(1), Key(91), 200), None, "pushed out");
        assert_eq!(known.wait(Key(1), Key(92), 200), Some(None));
        let month_ms = 30 * DAY_MS;
        assert_eq!(known.wait(Key(1), Key(92), 92 + month_ms), None);
        for turn in 0..SWEEP_PARTS {
            known.sweep(turn, 200 + month_ms);
        }
        assert!(known.sets.iter().all(|set| lock(set).is_empty()));
    }
}
