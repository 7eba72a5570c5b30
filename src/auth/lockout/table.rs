//! Where runs of failures and known address blocks live: a fixed number of sets of a few places.
//!
//! A key's hash chooses its set; only the keys of one set compete for places, and nobody outside
//! knows which those are. A set takes memory when it is first used.

use super::run::{Rule, Run, Wait};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sets of a table: a power of two. 40 octets each at most.
pub(super) const SETS: usize = 16_384;
/// Places of a set. 131,072 in all, of up to 32 octets: with the sets 5 MiB a table when full.
pub(super) const PLACES: usize = 8;

/// How long a block that logged in stays known.
pub(super) const KNOWN_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

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
        let sets = (0..sets.next_power_of_two()).map(|_| Mutex::default()).collect();
        Self { rule, sets }
    }

    /// The wait that is left for that key.
    pub(super) fn wait(&self, key: Key, now_ms: u64) -> Option<Wait> {
        let mut set = self.set(key)?;
        if let Some((_, run)) = set.runs.iter_mut().find(|(other, _)| *other == key) {
            return run.wait(self.rule, now_ms);
        }
        if set.has_room(self.rule, now_ms) {
            return None;
        }
        set.shared.as_mut()?.wait(self.rule, now_ms)
    }

    /// Counts a failure of that key, unless it has to wait.
    pub(super) fn fail(&self, key: Key, now_ms: u64) -> Option<Wait> {
        let mut set = self.set(key)?;
        set.run(key, self.rule, now_ms).fail(self.rule, now_ms)
    }

    /// Ends the key's run. Not the shared one: it is not its own.
    pub(super) fn clear(&self, key: Key) {
        if let Some(mut set) = self.set(key) {
            set.runs.retain(|(other, _)| *other != key);
        }
    }

    /// Keys that have to wait now.
    pub(super) fn waiting(&self, now_ms: u64) -> usize {
        let in_set = |set: &Mutex<RunSet>| {
            let set = lock(set);
            set.runs.iter().filter(|(_, run)| run.left(self.rule, now_ms).is_some()).count()
        };
        self.sets.iter().map(in_set).sum()
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

    /// Notes a login, which ends the block's run of failures.
    pub(super) fn succeed(&self, account: Key, pair: Key, now_ms: u64) {
        let Some(set) = self.sets.get(index(account, self.sets.len())) else { return };
        let mut set = lock(set);
        set.retain(|block| block.pair != pair);
        if set.len() >= PLACES {
            let oldest = set.iter().enumerate().min_by_key(|(_, block)| block.seen_ms);
            if let Some((place, _)) = oldest {
                set.swap_remove(place);
            }
        }
        set.push(KnownBlock { pair, seen_ms: now_ms, run: Run::default() });
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
