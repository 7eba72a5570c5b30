//! The defence of each account against guessing, besides the limits of each address.
//!
//! **The rule.** Failed logins are counted by the name that was typed, whether or not an account
//! has it, in two runs of failures in a row:
//!
//! | counted by | free | then a wait that doubles | up to |
//! |---|---|---|---|
//! | name and address block | 4 | 30 s after the 5th | 1 h |
//! | name, over all unknown blocks | 19 | 1 min after the 20th | 1 h |
//!
//! The 100th failure of a run is its last: the wait after it is 24 h, which is also the silence
//! after which any run is forgotten. A block that has logged in to the account within 30 days is
//! *known*: it is judged by a run of its own only, and its failures count nowhere else, so nobody
//! elsewhere can keep the owner out of a place they have used. A login ends the run of its block;
//! the run over all unknown blocks only time ends, as the login says nothing about the others.
//!
//! **Why these numbers.** NIST SP 800-63B §5.2.2 allows 100 failures in a row on an account, and
//! names as means waits "from 30 seconds up to an hour", and the addresses from which the subscriber
//! logged in before; OWASP ASVS 5.0 asks that guessing is slowed without a way to lock owners out
//! (6.1.1, 6.3.1). Five failures are what a person with a faulty memory makes; twenty over all
//! places more than one person makes in a day. After some two hours an attacker has one guess an
//! hour, whatever their addresses: a hundred take over three days.
//!
//! **A block** is what one customer holds and nobody else: an IPv4 address, or an IPv6 /64. A
//! coarser one (an IPv4 /24) would hold no attacker up, as the run over all unknown blocks does
//! so anyway, and would let a neighbour use up the run of the owner's block.
//!
//! **Two names.** An account's username and its e-mail address are counted apart: if they were
//! one, five failures under a name would show in the answer to somebody's address whose it is. It
//! doubles the guesses. A login makes its block known under both.
//!
//! **A change of password** asks for the current one, and is judged as a login under the account's
//! username: whoever has an access token gets no further guesses by it.
//!
//! **At the same time.** A login is looked at before anything is done for it (refused, it costs no
//! query and no hash) and again when its password has been checked: of a thousand guesses sent at
//! once five are answered, the others are refused like those that come later, right or wrong.
//!
//! **Memory.** Keys are 64-bit hashes under a key of this process; no name or address is kept. Each
//! table has 131,072 places and never gives up a run that costs time; see `table`. Each node counts
//! for itself, and a restart forgets.
//!
//! **After a restart**, and on a node that an owner has not used, no block is known. So the first
//! login that only the wait over all unknown blocks keeps out looks the account's live sessions up:
//! the blocks that opened them are known again ([`Lockout::restore`]). One query for a name and wait,
//! whether or not an account has the name; see `super::known_blocks`.

mod run;
mod table;

use crate::identity::{LoginName, address_block};
use run::{Rule, Wait};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
pub(super) use table::{KNOWN_TTL, PLACES};
use table::{Key, Known, Runs, SETS};

/// Memory of the three tables when they are full, and of a bit a set.
pub(super) const OCTETS_MAX: u64 = 3 * SETS as u64 * (40 + PLACES as u64 * 32) + SETS as u64 / 4;

/// By name and address block.
const PAIR: Rule =
    Rule { first: 5, wait: Duration::from_secs(30), wait_max: Duration::from_secs(3_600) };
/// By name, over all unknown blocks.
const ACCOUNT: Rule =
    Rule { first: 20, wait: Duration::from_secs(60), wait_max: Duration::from_secs(3_600) };

/// What is remembered of failed logins, and of places that accounts were logged in to from.
#[derive(Debug)]
pub(super) struct Lockout {
    start: Instant,
    hasher: RandomState,
    strangers: Runs,
    accounts: Runs,
    known: Known,
    sweeps: AtomicUsize,
}

/// Who is trying to log in: a name and an address block, as keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    account: Key,
    pair: Key,
}

/// A login that is refused unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Locked {
    /// Until the next try is looked at. Never zero.
    pub(super) retry_after: Duration,
    /// Whether it is the first one refused in this wait.
    pub(super) first: bool,
}

impl From<Wait> for Locked {
    fn from(Wait { left, first }: Wait) -> Self {
        Self { retry_after: left, first }
    }
}

impl Lockout {
    /// Nothing remembered. `start` is the earliest time that will be handed in.
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            hasher: RandomState::new(),
            strangers: Runs::new(PAIR, SETS),
            accounts: Runs::new(ACCOUNT, SETS),
            known: Known::new(PAIR, SETS),
            sweeps: AtomicUsize::new(0),
        }
    }

    /// The keys of a login; `None` for a name that no account can have, which needs no defence.
    pub(super) fn who(&self, name: &LoginName, address: IpAddr) -> Option<Who> {
        let (LoginName::Username(name) | LoginName::Email(name)) = name else { return None };
        let account = self.hasher.hash_one(name);
        let pair = self.hasher.hash_one((name, address_block(address)));
        Some(Who { account: Key(account), pair: Key(pair) })
    }

    /// Whether the login may be tried. Counts nothing.
    ///
    /// # Errors
    /// The wait.
    pub(super) fn check(&self, who: Who, now: Instant) -> Result<(), Locked> {
        let now_ms = self.millis(now);
        let wait = self.known.wait(who.account, who.pair, now_ms).unwrap_or_else(|| {
            let pair = self.strangers.wait(who.pair, now_ms);
            longer(pair, self.accounts.wait(who.account, now_ms))
        });
        wait.map_or(Ok(()), |wait| Err(wait.into()))
    }

    /// Counts a failed login.
    ///
    /// # Errors
    /// Others failed meanwhile, and by now it would not be tried: its client must not hear more
    /// than that.
    pub(super) fn fail(&self, who: Who, now: Instant) -> Result<(), Locked> {
        let now_ms = self.millis(now);
        let wait = self.known.fail(who.account, who.pair, now_ms).unwrap_or_else(|| {
            let account = self.accounts.fail(who.account, now_ms);
            longer(self.strangers.fail(who.pair, now_ms), account)
        });
        wait.map_or(Ok(()), |wait| Err(wait.into()))
    }

    /// Notes a login: the block's failures are forgotten, and it is known from now on, under each
    /// of the account's names. Ask [`Lockout::check`] first.
    pub(super) fn succeed(&self, names: &[LoginName], address: IpAddr, now: Instant) {
        let now_ms = self.millis(now);
        for who in names.iter().filter_map(|name| self.who(name, address)) {
            self.strangers.take(who.pair);
            self.known.succeed(who.account, who.pair, now_ms);
        }
    }

    /// Claims the look-up of the account's sessions: true once in a wait, when nothing but the wait
    /// over all unknown blocks keeps this login out. End it with [`Lockout::restore`], or with
    /// [`Lockout::release_lookup`] if it gave nothing.
    pub(super) fn claim_lookup(&self, who: Who, now: Instant) -> bool {
        let now_ms = self.millis(now);
        !self.known.has(who.account, who.pair, now_ms)
            && !self.strangers.is_waiting(who.pair, now_ms)
            && self.accounts.claim_lookup(who.account, now_ms)
    }

    /// Lets the next login look the sessions up.
    pub(super) fn release_lookup(&self, who: Who, now: Instant) {
        self.accounts.release_lookup(who.account, self.millis(now));
    }

    /// Makes blocks known that logged in under that name so long ago. Their failures still count.
    pub(super) fn restore(&self, name: &LoginName, address: IpAddr, age: Duration, now: Instant) {
        let seen_ms = self.millis(now).saturating_sub(run::millis(age));
        if let Some(who) = self.who(name, address) {
            let run = self.strangers.take(who.pair).unwrap_or_default();
            self.known.restore(who.account, who.pair, seen_ms, run);
        }
    }

    /// Names that unknown blocks have to wait for now.
    pub(super) fn names_waiting(&self, now: Instant) -> usize {
        self.accounts.waiting(self.millis(now))
    }

    /// Gives memory back, a part at a time; called every second or so.
    pub(super) fn sweep(&self, now: Instant) {
        let (turn, now_ms) = (self.sweeps.fetch_add(1, Ordering::Relaxed), self.millis(now));
        self.strangers.sweep(turn, now_ms);
        self.accounts.sweep(turn, now_ms);
        self.known.sweep(turn, now_ms);
    }

    /// Counts from [`KNOWN_TTL`] before the start, so that logins before the start have a time.
    fn millis(&self, now: Instant) -> u64 {
        run::millis(now.saturating_duration_since(self.start).saturating_add(KNOWN_TTL))
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

        /// A wrong password; whether it was looked at.
        fn guess(&self, name: &str, address: impl Into<IpAddr>) -> bool {
            let who = self.lockout.who(&LoginName::parse(name), address.into()).unwrap();
            let now = self.clock.now();
            self.lockout.check(who, now).is_ok() && self.lockout.fail(who, now).is_ok()
        }

        fn may_try(&self, name: &str, address: impl Into<IpAddr>) -> bool {
            let who = self.lockout.who(&LoginName::parse(name), address.into()).unwrap();
            self.lockout.check(who, self.clock.now()).is_ok()
        }

        fn log_in(&self, address: impl Into<IpAddr>) {
            let names = ["ada", "ada@example.com"].map(LoginName::parse);
            self.lockout.succeed(&names, address.into(), self.clock.now());
        }
    }

    #[test]
    fn one_address_has_five_guesses() {
        let scene = Scene::new();
        let guesses = (0..50).filter(|_| scene.guess("ada", HOME)).count();
        assert_eq!(guesses, 5);
        assert!(!scene.may_try("ADA", HOME), "in any case");
        assert!(scene.may_try("eve", HOME) && scene.may_try("ada", [192, 0, 2, 2]));
        scene.clock.advance(Duration::from_secs(30));
        assert!(scene.guess("ada", HOME) && !scene.guess("ada", HOME));
    }

    #[test]
    fn f4_an_ipv6_block_is_a_64() {
        let scene = Scene::new();
        let address = |n: u16| [0x2001, 0xdb8, 0, 1, n, n, n, n];
        let guesses = (0..50).filter(|n| scene.guess("ada", address(*n))).count();
        assert_eq!(guesses, 5);
    }

    #[test]
    fn all_addresses_together_have_twenty_and_known_ones_are_judged_apart() {
        let scene = Scene::new();
        scene.log_in(HOME);
        let guesses = (0..200).filter(|n| scene.guess("ada", [198, 51, 100, *n])).count();
        assert_eq!(guesses, 20);
        assert_eq!(scene.lockout.names_waiting(scene.clock.now()), 1);
        assert!(!scene.may_try("ada", [203, 0, 113, 1]), "a place never seen");
        assert!(scene.may_try("ada", HOME) && scene.may_try("ada@example.com", HOME));
        // The owner's mistakes count here, and only here.
        let guesses = (0..9).filter(|_| scene.guess("ada", HOME)).count();
        assert_eq!(guesses, 5);
        scene.clock.advance(Duration::from_secs(30));
        assert!(scene.may_try("ada", HOME));
        scene.log_in(HOME);
        let guesses = (0..9).filter(|_| scene.guess("ada", HOME)).count();
        assert_eq!(guesses, 5, "a login forgets the failures");
    }

    #[test]
    fn a_login_forgives_its_own_block_alone() {
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
    fn guesses_at_the_same_time_are_no_more_than_one_after_another() {
        let scene = Scene::new();
        let who = scene.lockout.who(&LoginName::parse("ada"), HOME.into()).unwrap();
        let now = scene.clock.now();
        let begun = (0..1_000).filter(|_| scene.lockout.check(who, now).is_ok()).count();
        assert_eq!(begun, 1_000);
        let answered = (0..1_000).filter(|_| scene.lockout.fail(who, now).is_ok()).count();
        assert_eq!(answered, 5);
    }

    // Case F8 of the field list.
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
            let who = scene.lockout.who(&name, address.into()).unwrap();
            scene.lockout.claim_lookup(who, scene.clock.now()).then_some(who)
        };
        let who = claim(HOME).unwrap();
        assert!(claim(HOME).is_none() && claim([203, 0, 113, 1]).is_none(), "once in a wait");
        scene.lockout.release_lookup(who, scene.clock.now());
        assert!(claim(HOME).is_some());
        for address in [HOME, [192, 0, 2, 2]] {
            scene.lockout.restore(&name, address.into(), hour, scene.clock.now());
        }
        assert!(scene.may_try("ada", HOME) && !scene.may_try("ada", [203, 0, 113, 1]));
        assert_eq!((0..9).filter(|_| scene.guess("ada", HOME)).count(), 5);
        assert_eq!((0..9).filter(|_| scene.guess("ada", [192, 0, 2, 2])).count(), 4);
        // A known block waits for its own failures alone: nothing to look up.
        scene.clock.advance(Duration::from_secs(60));
        assert!(scene.guess("ada", [203, 0, 113, 1]));
        assert!(claim(HOME).is_none() && claim([203, 0, 113, 2]).is_some(), "another wait");
        scene.clock.advance(KNOWN_TTL - hour);
        for n in 0..20 {
            scene.guess("ada", [198, 51, 100, n]);
        }
        assert!(!scene.may_try("ada", HOME), "30 days after the login it is forgotten");
    }

    #[test]
    fn no_account_can_have_an_impossible_name() {
        let scene = Scene::new();
        assert!(scene.lockout.who(&LoginName::parse("a\0b"), HOME.into()).is_none());
    }
}
