//! Failure streaks and known address blocks, by login name.
//!
//! Memory of the store, for each name: a streak (24 h after the last failure), a streak for each block
//! with a failure (24 h), and one hash of at most eight known blocks (30 days).

use super::keys::LoginKeys;
use super::scripts::{Script, ScriptCall};
use std::time::Duration;

/// The waits after failures.
#[derive(Clone, Copy, Debug)]
pub struct WaitRule {
    /// The failure that causes the first wait.
    pub first: u8,
    /// The first wait. Each further failure doubles it.
    pub wait: Duration,
    /// The longest wait.
    pub wait_max: Duration,
}

/// The rules, which the script gets as arguments.
#[derive(Clone, Copy, Debug)]
pub struct LockoutRules {
    /// A streak ends after this time without a failure.
    pub streak_ttl: Duration,
    /// The longest streak.
    pub failures_max: u8,
    /// How long a block stays known.
    pub known_ttl: Duration,
    /// The known blocks of a name, at most.
    pub known_max: usize,
    /// By name and block.
    pub pair: WaitRule,
    /// By name, over all unknown blocks.
    pub name: WaitRule,
}

/// What to do with the counters of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginAct {
    /// Check whether the login may go on.
    Check,
    /// Count a failure, unless the login has to wait.
    Fail,
    /// Check, and if the login may go on, make its block known and end its streak.
    Succeed,
}

/// A change without a check.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// Make the block known and end its streak.
    Know,
    /// Let the next login claim the look-up of the account's sessions.
    Release,
}

/// Consecutive failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    /// The number of failures; 0: there is no streak.
    pub failures: u8,
    /// The time since the last failure.
    pub age: Duration,
    /// Whether a login was refused since.
    pub refused: bool,
    /// Whether the account's sessions were looked up since.
    pub looked_up: bool,
}

/// The streaks that apply to a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streaks {
    /// The block is known, and only its own streak applies.
    Known {
        /// The time since the last login of the block.
        seen: Duration,
        /// The streak of the block.
        streak: Streak,
    },
    /// The block is not known.
    Unknown {
        /// The streak of name and block.
        pair: Streak,
        /// The streak of the name over all unknown blocks.
        name: Streak,
    },
}

/// The store's answer about a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginState {
    /// The time until the next login is checked, and whether this is the first refusal of the wait.
    pub wait: Option<(Duration, bool)>,
    /// Whether the caller has to look up the sessions of the account, once in this wait.
    pub claimed: bool,
    /// The streaks after the call.
    pub streaks: Streaks,
}

impl LoginAct {
    fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Fail => "fail",
            Self::Succeed => "succeed",
        }
    }
}

/// Builds the run of the script for a login.
pub(super) fn login<'a>(
    script: &'a Script,
    rules: &LockoutRules,
    keys: &LoginKeys,
    act: LoginAct,
    may_claim: bool,
) -> ScriptCall<'a> {
    call(script, rules, keys, act.as_str(), may_claim)
}

/// Builds the run that changes the counters of a login without a check.
pub(super) fn change<'a>(
    script: &'a Script,
    rules: &LockoutRules,
    keys: &LoginKeys,
    change: Change,
) -> ScriptCall<'a> {
    let what = match change {
        Change::Know => "know",
        Change::Release => "release",
    };
    call(script, rules, keys, what, false)
}

/// Builds the run that makes blocks known which logged in some time ago. Their failures still count.
pub(super) fn restore<'a>(
    script: &'a Script,
    rules: &LockoutRules,
    keys: &LoginKeys,
    blocks: &[(LoginKeys, Duration)],
) -> ScriptCall<'a> {
    let mut call = call(script, rules, keys, "restore", false);
    for (block, age) in blocks {
        call.keys.push(block.pair());
        call.arguments.extend([block.block.clone(), millis(*age)]);
    }
    call
}

fn call<'a>(
    script: &'a Script,
    rules: &LockoutRules,
    keys: &LoginKeys,
    what: &str,
    may_claim: bool,
) -> ScriptCall<'a> {
    let LockoutRules { streak_ttl, failures_max, known_ttl, known_max, pair, name } = *rules;
    let wait = |rule: WaitRule| [rule.first.to_string(), millis(rule.wait), millis(rule.wait_max)];
    let mut arguments = vec![
        what.to_owned(),
        keys.block.clone(),
        u8::from(may_claim).to_string(),
        millis(streak_ttl),
        failures_max.to_string(),
        millis(known_ttl),
        known_max.to_string(),
    ];
    arguments.extend(wait(pair));
    arguments.extend(wait(name));
    ScriptCall { script, keys: vec![keys.name(), keys.pair(), keys.known()], arguments }
}

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}

impl LoginState {
    /// Reads the script's answer. `None` if it has another form.
    pub(super) fn of(answer: &[i64]) -> Option<Self> {
        let [wait, first, claimed, known, seen, streak @ .., looked_up] = answer else {
            return None;
        };
        let [failures, age, refused, name_failures, name_age, name_refused] = streak else {
            return None;
        };
        let time = |ms: &i64| u64::try_from(*ms).ok().map(Duration::from_millis);
        let streak = |failures: &i64, age: &i64, refused: &i64, looked_up: &i64| {
            let failures = u8::try_from(*failures).ok()?;
            Some(Streak {
                failures,
                age: time(age)?,
                refused: *refused == 1,
                looked_up: *looked_up == 1,
            })
        };
        let own = streak(failures, age, refused, &0)?;
        let streaks = if *known == 1 {
            Streaks::Known { seen: time(seen)?, streak: own }
        } else {
            let name = streak(name_failures, name_age, name_refused, looked_up)?;
            Streaks::Unknown { pair: own, name }
        };
        let wait = Some(time(wait)?).filter(|wait| !wait.is_zero());
        Some(Self { wait: wait.map(|wait| (wait, *first == 1)), claimed: *claimed == 1, streaks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_form_is_refused() {
        let known = LoginState::of(&[0, 0, 0, 1, 9, 2, 5, 1, 0, 99, 0, 0]).unwrap();
        let streak =
            Streak { failures: 2, age: Duration::from_millis(5), refused: true, looked_up: false };
        assert_eq!(known.streaks, Streaks::Known { seen: Duration::from_millis(9), streak });
        assert_eq!((known.wait, known.claimed), (None, false));
        let unknown = LoginState::of(&[30, 1, 1, 0, 0, 0, 99, 0, 20, 7, 0, 1]).unwrap();
        assert_eq!(unknown.wait, Some((Duration::from_millis(30), true)));
        assert!(unknown.claimed);
        let Streaks::Unknown { pair, name } = unknown.streaks else { panic!("{unknown:?}") };
        assert_eq!((pair.failures, name.failures, name.looked_up), (0, 20, true));
        assert_eq!(LoginState::of(&[]), None);
        assert_eq!(LoginState::of(&[0; 11]), None);
        assert_eq!(LoginState::of(&[0; 13]), None);
        assert_eq!(LoginState::of(&[0, 0, 0, 0, 0, 256, 0, 0, 0, 0, 0, 0]), None);
    }
}
