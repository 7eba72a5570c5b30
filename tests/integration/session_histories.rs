//! Long random histories of one session against a model: refreshes, retries, concurrent refreshes,
//! late and stolen tokens, logout, expiry, and the passing of time.
//!
//! Time passes on both clocks. The server uses the test's clock; for the database, the test moves
//! the session's times back. A tick is far longer than a step takes, so that no answer depends on
//! the machine's speed.

use crate::support::{Client, PASSWORD, Reply, TestApp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// STAUNCH_REFRESH_GRACE, in seconds.
const GRACE_S: u64 = 300;
/// STAUNCH_REFRESH_TOKEN_TTL, in seconds.
const TTL_S: u64 = 1_000;
/// STAUNCH_ACCESS_TOKEN_TTL, in seconds.
const ACCESS_TTL_S: u64 = 600;
/// Time advances in multiples of this, so that it is never close to a limit: 300 and 1,000 both lie
/// between two multiples.
const TICK_S: u64 = 70;
/// No history starts later than this: a busy machine runs fewer.
const TIME_LIMIT: Duration = Duration::from_secs(12);

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A refresh with the newest token.
    Refresh,
    /// Two concurrent refreshes with the newest token.
    RefreshTwice,
    /// A refresh with the previous token, as a client that lost the answer sends it.
    Retry,
    /// A refresh with a token `back` generations old, at least two.
    Steal {
        back: usize,
    },
    Logout {
        back: usize,
    },
    /// `ticks` ticks pass.
    Pass {
        ticks: u64,
    },
    /// A call with the access token `back` generations old.
    Me {
        back: usize,
    },
    List,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => Just(Step::Refresh),
        8 => Just(Step::RefreshTwice),
        12 => Just(Step::Retry),
        1 => (2..6usize).prop_map(|back| Step::Steal { back }),
        1 => (0..4usize).prop_map(|back| Step::Logout { back }),
        16 => (1..4u64).prop_map(|ticks| Step::Pass { ticks }),
        2 => (5..16u64).prop_map(|ticks| Step::Pass { ticks }),
        16 => (0..4usize).prop_map(|back| Step::Me { back }),
        4 => Just(Step::List),
    ]
}

/// The expected behaviour, in its simplest form.
struct Model {
    /// Refresh tokens, one per generation, oldest first.
    refresh: Vec<String>,
    /// Access tokens and when each was signed, in the model's seconds.
    access: Vec<(String, u64)>,
    now_s: u64,
    /// When the newest generation was created.
    moved_s: u64,
    live: bool,
}

impl Model {
    fn is_live(&self) -> bool {
        self.live && self.now_s - self.moved_s < TTL_S
    }

    /// Applies a refresh with the token `back` generations old; returns whether it succeeds.
    fn refreshed(&mut self, back: usize) -> bool {
        let works = match back {
            _ if !self.is_live() => return false,
            0 => true,
            1 => self.now_s - self.moved_s < GRACE_S,
            _ => false,
        };
        if !works {
            self.live = false;
        }
        works
    }

    /// The token `back` generations old, or the oldest one; returns its age too.
    fn token(&self, back: usize) -> (usize, String) {
        let back = back.min(self.refresh.len() - 1);
        (back, self.refresh[self.refresh.len() - 1 - back].clone())
    }

    /// Compares an answer with the model, and keeps its tokens.
    fn check(&mut self, reply: &Reply, works: bool, back: usize) -> Result<(), TestCaseError> {
        prop_assert_eq!(reply.status, if works { 200 } else { 401 });
        if !works {
            return Ok(());
        }
        let tokens = reply.tokens();
        if back == 0 {
            prop_assert!(!self.refresh.contains(&tokens.refresh), "a successor is new");
            self.refresh.push(tokens.refresh);
            self.moved_s = self.now_s;
        } else {
            prop_assert_eq!(Some(&tokens.refresh), self.refresh.last(), "one successor");
        }
        self.access.push((tokens.access, self.now_s));
        Ok(())
    }
}

struct History<'a> {
    app: &'a TestApp,
    client: Client,
    db: &'a tokio_postgres::Client,
    session: Uuid,
    model: Model,
}

impl History<'_> {
    async fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        let Self { client, model, .. } = self;
        match step {
            Step::Refresh => self.refresh(0).await,
            Step::Retry => self.refresh(1).await,
            Step::Steal { back } => self.refresh(back).await,
            Step::RefreshTwice => {
                let (_, token) = model.token(0);
                let works = model.refreshed(0);
                let second = self.app.anonymous();
                let (one, two) = tokio::join!(client.refresh(&token), second.refresh(&token));
                model.check(&one, works, 0)?;
                model.check(&two, works, 1)
            }
            Step::Logout { back } => {
                let (_, token) = model.token(back);
                prop_assert_eq!(client.logout(&token).await.status, 204);
                model.live = false;
                Ok(())
            }
            Step::Pass { ticks } => {
                let passed_s = ticks * TICK_S;
                model.now_s += passed_s;
                self.app.clock.advance(Duration::from_secs(passed_s));
                let pass =
                    "UPDATE refresh_tokens SET rotated_at = rotated_at - make_interval(secs => $2),
                    created_at = created_at - make_interval(secs => $2),
                    last_used_at = last_used_at - make_interval(secs => $2),
                    expires_at = expires_at - make_interval(secs => $2) WHERE id = $1";
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let moved = self.db.execute(pass, &[&self.session, &(passed_s as f64)]).await;
                prop_assert_eq!(moved.unwrap(), 1);
                Ok(())
            }
            Step::Me { back } => {
                let at = model.access.len() - 1 - back.min(model.access.len() - 1);
                let (access, signed_s) = &model.access[at];
                let works = model.is_live() && model.now_s - signed_s < ACCESS_TTL_S;
                let expected = if works { 200 } else { 401 };
                prop_assert_eq!(client.me(access).await.status, expected);
                Ok(())
            }
            Step::List => {
                let (access, signed_s) = model.access.last().unwrap();
                let works = model.is_live() && model.now_s - signed_s < ACCESS_TTL_S;
                let reply = client.sessions(access).await;
                prop_assert_eq!(reply.status, if works { 200 } else { 401 });
                if works {
                    let id = self.session.to_string();
                    let list = reply.json();
                    let mut own = list.as_array().unwrap().iter().filter(|one| one["id"] == *id);
                    prop_assert_eq!(own.next().map(|one| &one["current"]), Some(&true.into()));
                }
                Ok(())
            }
        }
    }

    async fn refresh(&mut self, back: usize) -> Result<(), TestCaseError> {
        let (back, token) = self.model.token(back);
        let works = self.model.refreshed(back);
        let reply = self.client.refresh(&token).await;
        self.model.check(&reply, works, back)
    }

    /// Checks the session's row: the generation counts the successors, and it ends with the model.
    async fn row_agrees(&self) -> Result<(), TestCaseError> {
        let query = "SELECT generation, NOT revoked AND expires_at > now()
             FROM refresh_tokens WHERE id = $1";
        let row = self.db.query_one(query, &[&self.session]).await.unwrap();
        let generation = i64::try_from(self.model.refresh.len() - 1).unwrap();
        prop_assert_eq!(row.get::<_, i64>(0), generation);
        prop_assert_eq!(row.get::<_, bool>(1), self.model.is_live());
        Ok(())
    }
}

async fn run(
    app: &TestApp,
    db: &tokio_postgres::Client,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let client = app.anonymous();
    let first = client.login("ada", PASSWORD).await.tokens();
    let session = first.session();
    let model = Model {
        refresh: vec![first.refresh],
        access: vec![(first.access, 0)],
        now_s: 0,
        moved_s: 0,
        live: true,
    };
    let mut history = History { app, client, db, session, model };
    let mut after_end = 0;
    for step in steps {
        history.take(*step).await?;
        history.row_agrees().await?;
        after_end += usize::from(!history.model.is_live());
        if after_end > 6 {
            break;
        }
    }
    // After any history, a stolen token ends the session for good, and with it all its tokens.
    history.refresh(2).await?;
    history.client.logout(&history.model.token(0).1).await.assert_status(204);
    history.model.live = false;
    for token in history.model.refresh.clone() {
        prop_assert_eq!(history.client.refresh(&token).await.status, 401);
    }
    for (access, _) in &history.model.access {
        prop_assert_eq!(history.client.me(access).await.status, 401);
    }
    Ok(())
}

// Reliability: E5.
#[test]
fn long_session_histories_match_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (app, db) = runtime.block_on(async {
        let app = TestApp::builder()
            .set("STAUNCH_REFRESH_GRACE", format!("{GRACE_S}s"))
            .set("STAUNCH_REFRESH_TOKEN_TTL", format!("{TTL_S}s"))
            .set("STAUNCH_ACCESS_TOKEN_TTL", format!("{ACCESS_TTL_S}s"))
            .start()
            .await;
        app.register("ada").await;
        let db = app.db().await;
        (app, db)
    });
    let begun = Instant::now();
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(step(), 30..80), |steps| {
            if begun.elapsed() > TIME_LIMIT {
                return Ok(());
            }
            runtime.block_on(run(&app, &db, &steps))
        })
        .unwrap();
}
