//! The counters that all nodes share, in the terms of this node's tables.
//!
//! While the store answers, it decides, and this node's tables decide as well: they hold what happened
//! here, and the longest streaks that the store has reported. So a store that loses its counters, by a
//! flush or because it evicts keys, ends no wait that this node knows of. Only a login ends a streak: the
//! store then reports a known block without failures. If the store is away, the tables decide alone.

use super::failure_streak::{FAILURES_MAX, FailureStreak, Rule, STREAK_TTL, millis};
use super::{ACCOUNT, KNOWN_TTL, Locked, Lockout, LoginKey, PAIR, SLOTS};
use crate::counters::{LockoutRules, Streak, Streaks, WaitRule};
use std::time::{Duration, Instant};

/// The rules of the lockout, for the store.
pub(in crate::auth) const RULES: LockoutRules = LockoutRules {
    streak_ttl: STREAK_TTL,
    failures_max: FAILURES_MAX,
    known_ttl: KNOWN_TTL,
    known_max: SLOTS,
    pair: wait_rule(PAIR),
    name: wait_rule(ACCOUNT),
};

const fn wait_rule(Rule { first, wait, wait_max }: Rule) -> WaitRule {
    WaitRule { first, wait, wait_max }
}

impl Lockout {
    /// Adds the store's answer about a login to the tables.
    pub(in crate::auth) fn learn(&self, login: LoginKey, streaks: Streaks, now: Instant) {
        let now_ms = self.millis(now);
        let before = |age: Duration| now_ms.saturating_sub(millis(age));
        let own = |streak: Streak| {
            let Streak { failures, age, refused, looked_up } = streak;
            match failures {
                0 => FailureStreak::default(),
                _ => FailureStreak::new(failures, before(age), refused, looked_up),
            }
        };
        match streaks {
            Streaks::Known { seen, streak } => {
                self.unknown_blocks.take(login.pair);
                self.known_blocks.know(login, before(seen), own(streak), now_ms);
            }
            Streaks::Unknown { pair, name } => {
                self.unknown_blocks.lengthen(login.pair, own(pair), now_ms);
                self.names.lengthen(login.account, own(name), now_ms);
            }
        }
    }
}

impl From<(Duration, bool)> for Locked {
    fn from((retry_after, first): (Duration, bool)) -> Self {
        Self { retry_after, first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::identity::LoginName;

    fn streak(failures: u8, age_s: u64) -> Streak {
        Streak { failures, age: Duration::from_secs(age_s), ..Streak::default() }
    }

    #[test]
    fn the_tables_keep_the_longest_streaks_until_a_login_ends_them() {
        let clock = Clock::manual();
        let lockout = Lockout::new(clock.now());
        let login = lockout.login_key(&LoginName::parse("ada"), [192, 0, 2, 1].into()).unwrap();
        let wait_s = || {
            let locked = lockout.check(login, clock.now()).err();
            locked.map_or(0, |locked| locked.retry_after.as_secs())
        };
        let learn = |streaks| lockout.learn(login, streaks, clock.now());
        let (none, unknown) = (Streak::default(), |pair, name| Streaks::Unknown { pair, name });

        learn(unknown(streak(5, 10), streak(5, 10)));
        assert_eq!(wait_s(), 20);
        // The store has lost its counters, or reports late what it counted before.
        learn(unknown(none, none));
        learn(unknown(streak(4, 11), streak(4, 11)));
        assert_eq!(wait_s(), 20);
        learn(unknown(streak(5, 10), streak(20, 0)));
        assert_eq!((wait_s(), lockout.names_waiting(clock.now())), (60, 1));
        // The owner has logged in on another node.
        learn(Streaks::Known { seen: Duration::ZERO, streak: none });
        assert_eq!(wait_s(), 0);
        learn(Streaks::Known { seen: Duration::ZERO, streak: streak(5, 0) });
        learn(Streaks::Known { seen: Duration::ZERO, streak: streak(1, 0) });
        assert_eq!(wait_s(), 30);
        learn(Streaks::Known { seen: Duration::ZERO, streak: none });
        assert_eq!(wait_s(), 0);
        // What this node counts itself is added to what the store has reported.
        learn(Streaks::Known { seen: Duration::ZERO, streak: streak(4, 0) });
        assert_eq!(lockout.fail(login, clock.now()), Ok(()));
        assert_eq!(wait_s(), 30);
    }
}
