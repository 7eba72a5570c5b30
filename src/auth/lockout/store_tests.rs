//! The script of the store against the tables of this node, on a real server.

use super::shared::RULES;
use super::*;
use crate::clock::Clock;
use crate::counters::{LoginAct, LoginKeys, LoginState, Streaks, TestStore};
use proptest::prelude::*;
use std::cell::Cell;

const NAMES: [&str; 2] = ["ada", "eve"];

/// One step of a history: who does what, from which of six addresses, and how long afterwards.
#[derive(Clone, Copy, Debug)]
struct Step {
    name: usize,
    address: u8,
    act: Act,
    pause_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Check,
    /// A guess: a check, then a failure.
    Guess,
    /// A failure that was checked before others failed.
    Fail,
    LogIn,
    /// Sessions make an address known that logged in some hours ago.
    Restore(u64),
    Release,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let act = prop_oneof![
        8 => Just(Act::Check),
        40 => Just(Act::Guess),
        12 => Just(Act::Fail),
        1 => Just(Act::LogIn),
        1 => (0..900_u64).prop_map(Act::Restore),
        1 => Just(Act::Release),
    ];
    let pause_ms = prop_oneof![
        80 => 0..5_u64,
        20 => 0..70_000_u64,
        4 => 0..4_000_000_u64,
        1 => 80_000_000..90_000_000_u64,
        1 => 2_500_000_000..2_700_000_000_u64,
    ];
    let step = (0..NAMES.len(), 0..6_u8, act, pause_ms);
    let step =
        step.prop_map(|(name, address, act, pause_ms)| Step { name, address, act, pause_ms });
    prop::collection::vec(step, 1..300)
}

/// The same history in the tables and in the store.
struct Both<'a> {
    lockout: Lockout,
    clock: Clock,
    store: &'a TestStore,
    case: usize,
    now_ms: u64,
    /// The look-ups that were claimed.
    claims: usize,
}

impl Both<'_> {
    fn login_key(&self, step: Step) -> LoginKey {
        let name = LoginName::parse(NAMES[step.name]);
        self.lockout.login_key(&name, [192, 0, 2, step.address].into()).unwrap()
    }

    fn keys(&self, step: Step) -> LoginKeys {
        // Each case has names of its own in the store.
        let name = format!("{}{}", NAMES[step.name], self.case);
        self.store.keys(&name, [192, 0, 2, step.address].into())
    }

    async fn ask(&self, step: Step, act: LoginAct, may_claim: bool) -> LoginState {
        self.store.login(&RULES, &self.keys(step), act, may_claim, self.now_ms).await
    }

    /// Checks a login in both, with its look-up, and returns whether it may go on.
    async fn check(&mut self, step: Step, act: LoginAct) -> bool {
        let (login, now) = (self.login_key(step), self.clock.now());
        let mut state = self.ask(step, act, true).await;
        assert_eq!(state.claimed, self.lockout.claim_lookup(login, now), "{step:?}");
        if state.claimed {
            self.claims += 1;
            state = self.ask(step, act, false).await;
        }
        let wait = self.lockout.check(login, now).err();
        assert_eq!(state.wait.map(Locked::from), wait, "{step:?}");
        wait.is_none()
    }

    async fn fail(&self, step: Step) {
        let state = self.ask(step, LoginAct::Fail, false).await;
        let wait = self.lockout.fail(self.login_key(step), self.clock.now()).err();
        assert_eq!(state.wait.map(Locked::from), wait, "{step:?}");
    }

    async fn run(&mut self, step: Step) {
        let (name, address) = (LoginName::parse(NAMES[step.name]), [192, 0, 2, step.address]);
        match step.act {
            Act::Check => drop(self.check(step, LoginAct::Check).await),
            Act::Guess => {
                if self.check(step, LoginAct::Check).await {
                    self.fail(step).await;
                }
            }
            Act::Fail => self.fail(step).await,
            Act::LogIn => {
                if self.check(step, LoginAct::Succeed).await {
                    self.lockout.succeed(&[name], address.into(), self.clock.now());
                }
            }
            Act::Restore(hours) => {
                let age = Duration::from_secs(hours * 3_600);
                self.lockout.restore(&name, address.into(), age, self.clock.now());
                self.store.restore(&RULES, &self.keys(step), age, self.now_ms).await;
            }
            Act::Release => {
                self.lockout.release_lookup(self.login_key(step), self.clock.now());
                self.store.release(&RULES, &self.keys(step), self.now_ms).await;
            }
        }
        self.now_ms += step.pause_ms;
        self.clock.advance(Duration::from_millis(step.pause_ms));
    }
}

/// A thousand millions of seconds since 1970. Real keys expire by the server's clock, none within a test.
const START_MS: u64 = 1_000_000_000_000;

#[test]
fn the_script_and_the_tables_answer_every_history_alike() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Some(store) = runtime.block_on(TestStore::start()) else { return };
    let (case, claims) = (Cell::new(0), Cell::new(0));
    let config = ProptestConfig { cases: 64, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| {
        case.set(case.get() + 1);
        let clock = Clock::manual();
        let lockout = Lockout::new(clock.now());
        let mut both =
            Both { lockout, clock, store: &store, case: case.get(), now_ms: START_MS, claims: 0 };
        runtime.block_on(async {
            for step in steps {
                both.run(step).await;
            }
        });
        claims.set(claims.get() + both.claims);
    });
    assert!(claims.get() > 20, "{}: the histories reach long waits", claims.get());
}

#[tokio::test]
async fn the_store_keeps_the_eight_blocks_seen_last() {
    let Some(store) = TestStore::start().await else { return };
    let keys = |n: u8| store.keys("ada", [192, 0, 2, n].into());
    for n in 0..20_u8 {
        let now_ms = START_MS + u64::from(n);
        let state = store.login(&RULES, &keys(n), LoginAct::Succeed, true, now_ms).await;
        assert!(matches!(state.streaks, Streaks::Known { .. }), "{state:?}");
    }
    // A block seen earlier than all of them is not restored, one seen later is.
    store.restore(&RULES, &keys(30), Duration::from_secs(60), START_MS + 20).await;
    store.restore(&RULES, &keys(31), Duration::ZERO, START_MS + 20).await;
    let mut known = Vec::new();
    for n in 0..40 {
        let state = store.login(&RULES, &keys(n), LoginAct::Check, false, START_MS + 20).await;
        if matches!(state.streaks, Streaks::Known { .. }) {
            known.push(n);
        }
    }
    assert_eq!(known, [13, 14, 15, 16, 17, 18, 19, 31]);
}
