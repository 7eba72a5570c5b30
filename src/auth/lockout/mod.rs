//! Defends each account against guessing, in addition to the rate limits by address.
//!
//! **The rule.** Failed logins are counted by the given name, whether or not an account has it, in
//! two streaks of consecutive failures:
//!
//! | counted by | free | then a wait that doubles | up to |
//! |---|---|---|---|
//! | name and address block | 4 | 30 s after the 5th | 1 h |
//! | name, over all unknown blocks | 19 | 1 min after the 20th | 1 h |
//!
//! A streak ends with its 100th failure, after which the wait is 24 h, or after 24 h without a
//! failure. A block with a login to the account within 30 days is *known*. Only its own streak
//! applies to it, and its failures count in no other, so failures elsewhere cannot lock the owner
//! out at a usual address. A login resets the streak of its block. Only time ends the streak over
//! all unknown blocks, as a login from one block says nothing about the others.
//!
//! **Why these numbers.** NIST SP 800-63B §5.2.2 allows 100 consecutive failures on an account. It
//! suggests waits "from 30 seconds up to an hour" and an exception for addresses that the
//! subscriber used before. OWASP ASVS 5.0 (6.1.1, 6.3.1) requires that guessing is slowed without a
//! way to lock owners out. Five failures allow for a forgetful person. Twenty failures from all
//! blocks are more than one person makes in a day. After some two hours an attacker has one guess
//! an hour from any number of addresses, so a hundred guesses take over three days.
//!
//! **A block** is what one customer alone controls: an IPv4 address or an IPv6 /64. A larger block
//! (an IPv4 /24) would not slow attackers further, because the streak over all unknown blocks does
//! that, and would let a neighbour use up the streak of the owner's block.
//!
//! **Two names.** An account's username and e-mail address are counted separately. Otherwise five
//! failures under one name would lock the other and reveal that both are the same account. This
//! doubles the guesses. A login makes its block known under both names.
//!
//! **A password change** requires the current password and counts as a login under the account's
//! username, so an access token gives no additional guesses.
//!
//! **Concurrency.** A login is checked before any other work (a refusal costs no query and no
//! hash), and again after its password has been verified. Of a thousand concurrent guesses, five
//! are answered. The others are refused like later ones, whether right or wrong.
//!
//! **Memory.** Keys are 64-bit hashes under a key of this process; no name or address is stored.
//! Each table has 131,072 slots and never evicts a streak that causes waits; see `table`. Without
//! shared counters, each node counts on its own, and a restart clears the counts.
//!
//! **Shared counters.** With a store (`crate::counters`), the streaks and known blocks are those of all
//! nodes, by the same rules. A login must pass both the store and the tables of its node, which decide alone
//! while the store is away; see `shared`.
//!
//! **After a restart**, and on a node that the owner has not used, no block is known. The first
//! login that only the wait over all unknown blocks would refuse looks up the account's live
//! sessions and restores their blocks ([`Lockout::restore`]). That is one query per name and wait,
//! whether or not an account has the name; see `super::known_blocks`.

mod failure_streak;
mod shared;
mod slots;
#[cfg(test)]
mod store_tests;
mod table;

use crate::identity::{LoginName, address_block};
use failure_streak::{Rule, Wait};
pub(super) use shared::RULES;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
pub(super) use table::{KNOWN_TTL, LoginKey, SLOTS};
use table::{KnownBlocks, LockoutKey, SETS, StreakTable};

/// The memory of the three tables when full, and of their bits per set. Unit: bytes.
pub(super) const BYTES_MAX: u64 = 3 * SETS as u64 * (40 + SLOTS as u64 * 32) + SETS as u64 / 4;

/// The waits by name and address block.
const PAIR: Rule =
    Rule { first: 5, wait: Duration::from_secs(30), wait_max: Duration::from_secs(3_600) };
/// The waits by name, over all unknown blocks.
const ACCOUNT: Rule =
    Rule { first: 20, wait: Duration::from_secs(60), wait_max: Duration::from_secs(3_600) };

/// The failure streaks of logins, and the known address blocks of accounts.
#[derive(Debug)]
pub(super) struct Lockout {
    start: Instant,
    hasher: RandomState,
    unknown_blocks: StreakTable,
    names: StreakTable,
    known_blocks: KnownBlocks,
    sweeps: AtomicUsize,
}

/// The refusal of a login before its password is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Locked {
    /// The time until the next login is checked. Never zero.
    pub(super) retry_after: Duration,
    /// Whether this is the first refusal of the wait.
    pub(super) first: bool,
}

impl From<Wait> for Locked {
    fn from(Wait { left, first }: Wait) -> Self {
        Self { retry_after: left, first }
    }
}

impl Lockout {
    /// Makes an empty lockout. No later call passes a time before `start`.
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            hasher: RandomState::new(),
            unknown_blocks: StreakTable::new(PAIR, SETS),
            names: StreakTable::new(ACCOUNT, SETS),
            known_blocks: KnownBlocks::new(PAIR, SETS),
            sweeps: AtomicUsize::new(0),
        }
    }

    /// Returns the keys of a login, or `None` for a name that no account can have.
    pub(super) fn login_key(&self, name: &LoginName, address: IpAddr) -> Option<LoginKey> {
        let (LoginName::Username(name) | LoginName::Email(name)) = name else { return None };
        let account = self.hasher.hash_one(name);
        let pair = self.hasher.hash_one((name, address_block(address)));
        Some(LoginKey { account: LockoutKey(account), pair: LockoutKey(pair) })
    }

    /// Checks whether a login may proceed. Counts nothing.
    ///
    /// # Errors
    /// The wait, if the login is locked out.
    pub(super) fn check(&self, login: LoginKey, now: Instant) -> Result<(), Locked> {
        let now_ms = self.millis(now);
        let wait = self.known_blocks.wait(login, now_ms).unwrap_or_else(|| {
            let pair = self.unknown_blocks.wait(login.pair, now_ms);
            longer(pair, self.names.wait(login.account, now_ms))
        });
        wait.map_or(Ok(()), |wait| Err(wait.into()))
    }

    /// Counts a failed login.
    ///
    /// # Errors
    /// The wait, if concurrent failures have locked the login out since. The response must not
    /// reveal more than that.
    pub(super) fn fail(&self, login: LoginKey, now: Instant) -> Result<(), Locked> {
        let now_ms = self.millis(now);
        let wait = self.known_blocks.fail(login, now_ms).unwrap_or_else(|| {
            let account = self.names.fail(login.account, now_ms);
            longer(self.unknown_blocks.fail(login.pair, now_ms), account)
        });
        wait.map_or(Ok(()), |wait| Err(wait.into()))
    }

    /// Records a login: resets the block's failures and makes it known, under each of the account's
    /// names. Call [`Lockout::check`] first.
    pub(super) fn succeed(&self, names: &[LoginName], address: IpAddr, now: Instant) {
        let now_ms = self.millis(now);
        for login in names.iter().filter_map(|name| self.login_key(name, address)) {
            self.unknown_blocks.take(login.pair);
            self.known_blocks.succeed(login, now_ms);
        }
    }

    /// Claims the look-up of the account's sessions.
    ///
    /// True once per wait, if only the wait over all unknown blocks refuses this login. Call
    /// [`Lockout::restore`] afterwards, or [`Lockout::release_lookup`] if the look-up failed.
    pub(super) fn claim_lookup(&self, login: LoginKey, now: Instant) -> bool {
        let now_ms = self.millis(now);
        !self.known_blocks.has(login, now_ms)
            && !self.unknown_blocks.is_waiting(login.pair, now_ms)
            && self.names.claim_lookup(login.account, now_ms)
    }

    /// Releases the claim, so that the next login can look up the sessions.
    pub(super) fn release_lookup(&self, login: LoginKey, now: Instant) {
        self.names.release_lookup(login.account, self.millis(now));
    }

    /// Makes a block known that logged in under this name `age` ago. Its failures still count.
    pub(super) fn restore(&self, name: &LoginName, address: IpAddr, age: Duration, now: Instant) {
        let seen_ms = self.millis(now).saturating_sub(failure_streak::millis(age));
        if let Some(login) = self.login_key(name, address) {
            let streak = self.unknown_blocks.take(login.pair).unwrap_or_default();
            self.known_blocks.restore(login, seen_ms, streak);
        }
    }

    /// Counts the names for which unknown blocks have to wait now.
    pub(super) fn names_waiting(&self, now: Instant) -> usize {
        self.names.waiting(self.millis(now))
    }

    /// Frees the memory of ended entries in a part of the tables. Called about once a second.
    pub(super) fn sweep(&self, now: Instant) {
        let (turn, now_ms) = (self.sweeps.fetch_add(1, Ordering::Relaxed), self.millis(now));
        self.unknown_blocks.sweep(turn, now_ms);
        self.names.sweep(turn, now_ms);
        self.known_blocks.sweep(turn, now_ms);
    }

    /// Converts to ms since [`KNOWN_TTL`] before the start, so that earlier logins have a time.
    fn millis(&self, now: Instant) -> u64 {
        failure_streak::millis(now.saturating_duration_since(self.start).saturating_add(KNOWN_TTL))
    }
}

fn longer(one: Option<Wait>, other: Option<Wait>) -> Option<Wait> {
    match (one, other) {
        (Some(one), Some(other)) if one.left < other.left => Some(other),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const HOME: [u8; 4] = [192, 0, 2, 1];

    struct Scene {
        lockout: Lockout,
        clock: Clock,
    }

    impl Scene {
        fn new() -> Self {
            let clock = Clock::manual();
            Self { lockout: Lockout::new(clock.now()), clock }
        }

        /// Tries a wrong password, and returns whether it was checked.
        fn guess(&self, name: &str, address: impl Into<IpAddr>) -> bool {
            let login = self.lockout.login_key(&LoginName::parse(name), address.into()).unwrap();
            let now = self.clock.now();
            self.lockout.check(login, now).is_ok() && self.lockout.fail(login, now).is_ok()
        }

        fn may_try(&self, name: &str, address: impl Into<IpAddr>) -> bool {
            let login = self.lockout.login_key(&LoginName::parse(name), address.into()).unwrap();
            self.lockout.check(login, self.clock.now()).is_ok()
        }

        fn log_in(&self, address: impl Into<IpAddr>) {
            let names = ["ada", "ada@example.com"].map(LoginName::parse);
            self.lockout.succeed(&names, address.into(), self.clock.now());
        }
    }

    #[test]
    fn an_address_has_five_guesses() {
        let scene = Scene::new();
        let guesses = (0..50).filter(|_| scene.guess("ada", HOME)).count();
        assert_eq!(guesses, 5);
        assert!(!scene.may_try("ADA", HOME), "the case does not matter");
        assert!(scene.may_try("eve", HOME) && scene.may_try("ada", [192, 0, 2, 2]));
        scene.clock.advance(Duration::from_secs(30));
        assert!(scene.guess("ada", HOME) && !scene.guess("ada", HOME));
    }

    // Reliability: F4.
    #[test]
    fn an_ipv6_block_is_a_slash_64() {
        let scene = Scene::new();
        let address = |n: u16| [0x2001, 0xdb8, 0, 1, n, n, n, n];
        let guesses = (0..50).filter(|n| scene.guess("ada", address(*n))).count();
        assert_eq!(guesses, 5);
    }

    #[test]
    fn all_unknown_addresses_share_twenty_guesses_and_known_ones_have_their_own() {
        let scene = Scene::new();
        scene.log_in(HOME);
        let guesses = (0..200).filter(|n| scene.guess("ada", [198, 51, 100, *n])).count();
        assert_eq!(guesses, 20);
        assert_eq!(scene.lockout.names_waiting(scene.clock.now()), 1);
        assert!(!scene.may_try("ada", [203, 0, 113, 1]), "an unknown address");
        assert!(scene.may_try("ada", HOME) && scene.may_try("ada@example.com", HOME));
        // The owner's failures count here only.
        let guesses = (0..9).filter(|_| scene.guess("ada", HOME)).count();
        assert_eq!(guesses, 5);
        scene.clock.advance(Duration::from_secs(30));
        assert!(scene.may_try("ada", HOME));
        scene.log_in(HOME);
        let guesses = (0..9).filter(|_| scene.guess("ada", HOME)).count();
        assert_eq!(guesses, 5, "a login resets the failures");
    }

    #[test]
    fn a_login_resets_only_the_failures_of_its_block() {
        let scene = Scene::new();
        for n in 0..3 {
            (0..4).for_each(|_| assert!(scene.guess("ada", [198, 51, 100, n])));
        }
        scene.log_in([198, 51, 100, 0]);
        for n in 1..3 {
            assert!(scene.guess("ada", [198, 51, 100, n]));
            assert!(!scene.may_try("ada", [198, 51, 100, n]));
        }
        // 14 failures of unknown blocks so far.
        let guesses = (0..99).filter(|n| scene.guess("ada", [203, 0, 113, *n])).count();
        assert_eq!(guesses, 6);
    }

    #[test]
    fn concurrent_guesses_are_limited_like_sequential_ones() {
        let scene = Scene::new();
        let login = scene.lockout.login_key(&LoginName::parse("ada"), HOME.into()).unwrap();
        let now = scene.clock.now();
        let begun = (0..1_000).filter(|_| scene.lockout.check(login, now).is_ok()).count();
        assert_eq!(begun, 1_000);
        let answered = (0..1_000).filter(|_| scene.lockout.fail(login, now).is_ok()).count();
        assert_eq!(answered, 5);
    }

    #[test]
    fn a_restored_block_is_known_and_keeps_its_failures() {
        let scene = Scene::new();
        let name = LoginName::parse("ada");
        let hour = Duration::from_secs(3_600);
        assert!(scene.guess("ada", [192, 0, 2, 2]));
        for n in 0..19 {
            assert!(scene.guess("ada", [198, 51, 100, n]));
        }
        let claim = |address: [u8; 4]| {
            let login = scene.lockout.login_key(&name, address.into()).unwrap();
            scene.lockout.claim_lookup(login, scene.clock.now()).then_some(login)
        };
        let login = claim(HOME).unwrap();
        assert!(claim(HOME).is_none() && claim([203, 0, 113, 1]).is_none(), "once per wait");
        scene.lockout.release_lookup(login, scene.clock.now());
        assert!(claim(HOME).is_some());
        for address in [HOME, [192, 0, 2, 2]] {
            scene.lockout.restore(&name, address.into(), hour, scene.clock.now());
        }
        assert!(scene.may_try("ada", HOME) && !scene.may_try("ada", [203, 0, 113, 1]));
        assert_eq!((0..9).filter(|_| scene.guess("ada", HOME)).count(), 5);
        assert_eq!((0..9).filter(|_| scene.guess("ada", [192, 0, 2, 2])).count(), 4);
        // A known block waits only for its own failures, so there is no look-up.
        scene.clock.advance(Duration::from_secs(60));
        assert!(scene.guess("ada", [203, 0, 113, 1]));
        assert!(claim(HOME).is_none() && claim([203, 0, 113, 2]).is_some(), "another wait");
        scene.clock.advance(KNOWN_TTL - hour);
        for n in 0..20 {
            scene.guess("ada", [198, 51, 100, n]);
        }
        assert!(!scene.may_try("ada", HOME), "30 days after the login it is unknown again");
    }

    #[test]
    fn an_impossible_name_has_no_login_key() {
        let scene = Scene::new();
        assert!(scene.lockout.login_key(&LoginName::parse("a\0b"), HOME.into()).is_none());
    }
}
