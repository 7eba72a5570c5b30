//! POST /api/v1/auth/refresh: rotation, grace period, reuse, and races.

use crate::support::{Client, PASSWORD, TestApp, Tokens};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

const REUSE: &str = r#"staunch_refreshes_total{result="reuse"}"#;

/// Moves a session's last rotation back past the grace period.
async fn age_past_grace(db: &tokio_postgres::Client, session: Uuid) {
    let age = "UPDATE refresh_tokens SET rotated_at = rotated_at - interval '301 s' WHERE id = $1";
    assert_eq!(db.execute(age, &[&session]).await.unwrap(), 1);
}

async fn revoked_reason(db: &tokio_postgres::Client, session: Uuid) -> Option<String> {
    let query = "SELECT revoked, revoked_reason FROM refresh_tokens WHERE id = $1";
    let row = db.query_one(query, &[&session]).await.unwrap();
    row.get::<_, bool>(0).then(|| row.get(1))
}

async fn rejected(client: &Client, token: &str) {
    let reply = client.refresh(token).await;
    reply.assert_problem(401, "refresh-token-rejected");
    assert_eq!(reply.json()["error"], "invalid_grant");
}

/// A session that was refreshed once: the tokens before and after.
async fn refreshed() -> (TestApp, Client, Tokens, Tokens) {
    let app = TestApp::start().await;
    let first = app.registered("ada").await;
    let client = app.anonymous();
    let next = client.refresh(&first.refresh).await.tokens();
    (app, client, first, next)
}

#[tokio::test]
async fn a_refresh_replaces_the_token_and_keeps_the_session() {
    let app = TestApp::start().await;
    let first = app.registered("ada").await;
    let client = app.anonymous();
    let mut seen = vec![first.refresh.clone()];
    let mut current = first.clone();
    for _ in 0..5 {
        let next = client.refresh(&current.refresh).await.tokens();
        assert_eq!(next.session(), first.session());
        assert_eq!(next.claims()["sub"], first.claims()["sub"]);
        assert_ne!(next.claims()["jti"], current.claims()["jti"]);
        assert!(!seen.contains(&next.refresh));
        client.me(&next.access).await.assert_status(200);
        seen.push(next.refresh.clone());
        current = next;
    }
    let db = app.db().await;
    let row =
        db.query_one("SELECT count(*), max(generation) FROM refresh_tokens", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 5), "one row a session");
}

#[tokio::test]
async fn a_retry_within_the_grace_period_gets_the_same_successor() {
    let (app, client, first, next) = refreshed().await;
    for _ in 0..3 {
        let again = client.refresh(&first.refresh).await.tokens();
        assert_eq!(again.refresh, next.refresh);
    }
    client.refresh(&next.refresh).await.tokens();
    assert_eq!(app.metric(REUSE).await, 0.0);
}

#[tokio::test]
async fn a_retry_extends_neither_the_grace_period_nor_the_session() {
    let (app, client, first, _) = refreshed().await;
    let db = app.db().await;
    let times = "SELECT rotated_at::text, expires_at::text FROM refresh_tokens";
    let read = async || {
        let row = db.query_one(times, &[]).await.unwrap();
        (row.get::<_, String>(0), row.get::<_, String>(1))
    };
    let before = read().await;
    client.refresh(&first.refresh).await.tokens();
    assert_eq!(read().await, before);
}

#[tokio::test]
async fn an_older_token_is_reuse_and_ends_the_session() {
    let app = TestApp::start().await;
    let first = app.registered("ada").await;
    let other = app.anonymous().log_in("ada").await;
    let client = app.anonymous();
    let second = client.refresh(&first.refresh).await.tokens();
    let third = client.refresh(&second.refresh).await.tokens();
    client.me(&third.access).await.assert_status(200);
    rejected(&client, &first.refresh).await;
    let db = app.db().await;
    let reason = revoked_reason(&db, first.session()).await;
    assert_eq!(reason.as_deref(), Some("reuse"));
    for token in [&third.refresh, &second.refresh, &first.refresh] {
        rejected(&client, token).await;
    }
    let reply = client.me(&third.access).await;
    reply.assert_problem(401, "token-rejected");
    assert_eq!(app.metric(REUSE).await, 1.0);
    client.refresh(&other.refresh).await.tokens();
}

#[tokio::test]
async fn the_previous_token_after_the_grace_period_is_reuse() {
    let (app, client, first, second) = refreshed().await;
    let db = app.db().await;
    age_past_grace(&db, first.session()).await;
    rejected(&client, &first.refresh).await;
    rejected(&client, &second.refresh).await;
    assert_eq!(app.metric(REUSE).await, 1.0);
}

#[tokio::test]
async fn the_current_token_works_long_after_the_grace_period() {
    let (app, client, first, second) = refreshed().await;
    let db = app.db().await;
    age_past_grace(&db, first.session()).await;
    client.refresh(&second.refresh).await.tokens();
}

#[tokio::test]
async fn the_grace_period_can_be_zero() {
    let app = TestApp::builder().set("STAUNCH_REFRESH_GRACE", "0s").start().await;
    let first = app.registered("ada").await;
    let client = app.anonymous();
    client.refresh(&first.refresh).await.tokens();
    rejected(&client, &first.refresh).await;
    assert_eq!(app.metric(REUSE).await, 1.0);
}

#[tokio::test]
async fn a_session_ends_when_it_expires_or_its_account_is_disabled() {
    let app = TestApp::builder().set("STAUNCH_REFRESH_TOKEN_TTL", "8h").start().await;
    let first = app.registered("ada").await;
    let client = app.anonymous();
    let db = app.db().await;
    let left =
        "SELECT extract(epoch FROM expires_at - now())::float8 FROM refresh_tokens WHERE id = $1";
    let hours = async || {
        let row = db.query_one(left, &[&first.session()]).await.unwrap();
        row.get::<_, f64>(0) / 3600.0
    };
    assert!((7.9..=8.0).contains(&hours().await));
    let shorten = "UPDATE refresh_tokens SET expires_at = now() + interval '1 h'";
    db.execute(shorten, &[]).await.unwrap();
    let second = client.refresh(&first.refresh).await.tokens();
    assert!((7.9..=8.0).contains(&hours().await), "each refresh extends the session");

    let disable = "UPDATE users SET is_active = false";
    db.execute(disable, &[]).await.unwrap();
    rejected(&client, &second.refresh).await;
    db.execute("UPDATE users SET is_active = true", &[]).await.unwrap();
    let third = client.refresh(&second.refresh).await.tokens();

    db.execute("UPDATE refresh_tokens SET expires_at = now()", &[]).await.unwrap();
    rejected(&client, &third.refresh).await;
    assert_eq!(revoked_reason(&db, first.session()).await, None, "an expired token is not reuse");
    assert_eq!(app.metric(REUSE).await, 0.0);
}

// Reliability: F6.
#[tokio::test]
async fn altered_and_foreign_tokens_are_rejected_without_a_query() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let client = app.anonymous();
    let token = tokens.refresh.as_str();
    for at in 0..token.len() {
        let mut altered = token.as_bytes().to_vec();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        rejected(&client, std::str::from_utf8(&altered).unwrap()).await;
    }
    let elsewhere = TestApp::start().await;
    let foreign = elsewhere.registered("ada").await;
    for other in [
        "",
        "srt_",
        "srt_AAAA",
        &token[..token.len() - 1],
        &format!("{token}A"),
        &format!("{token}="),
        &format!(" {token}"),
        tokens.access.as_str(),
        foreign.refresh.as_str(),
        &"A".repeat(10_000),
    ] {
        rejected(&client, other).await;
    }
    assert_eq!(app.queries("refresh_session").await, 0.0);
    client.refresh(token).await.tokens();
}

#[tokio::test]
async fn a_missing_refresh_token_field_is_reported() {
    let app = TestApp::start().await;
    for body in [serde_json::json!({}), serde_json::json!({"refresh_token": 1})] {
        for path in ["/api/v1/auth/refresh", "/api/v1/auth/logout"] {
            let reply = app.anonymous().post_json(path, &body).await;
            reply.assert_problem(422, "invalid-fields");
            assert_eq!(reply.fields(), ["refresh_token"]);
        }
    }
}

/// Refreshes one token many times concurrently, alternating between the servers.
async fn at_once(apps: &[&TestApp], token: &str, times: usize) -> Vec<Tokens> {
    let tasks: Vec<_> = (0..times)
        .map(|n| {
            // One connection each, because a shared connection would send them one after another.
            let client = apps[n % apps.len()].anonymous();
            let token = token.to_owned();
            tokio::spawn(async move { client.refresh(&token).await.tokens() })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.unwrap());
    }
    all
}

// Reliability: E2.
#[tokio::test]
async fn concurrent_refreshes_of_one_token_get_one_successor() {
    let app = TestApp::start().await;
    let mut current = app.registered("ada").await.refresh;
    for _ in 0..4 {
        let all = at_once(&[&app], &current, 50).await;
        assert!(all.iter().all(|tokens| tokens.refresh == all[0].refresh));
        current = all[0].refresh.clone();
    }
    app.anonymous().refresh(&current).await.tokens();
    assert_eq!(app.metric(REUSE).await, 0.0);
}

// Reliability: E2.
#[tokio::test]
async fn concurrent_refreshes_on_two_servers_get_one_successor() {
    let one = TestApp::start().await;
    let other = one.sibling().start().await;
    let first = one.registered("ada").await;
    let all = at_once(&[&one, &other], &first.refresh, 20).await;
    assert!(all.iter().all(|tokens| tokens.refresh == all[0].refresh));
    other.anonymous().refresh(&all[0].refresh).await.tokens();
}

// Reliability: E3.
#[tokio::test]
async fn no_token_of_a_session_works_after_its_logout_is_acknowledged() {
    let app = TestApp::start().await;
    app.register("ada").await;
    for round in 0..10 {
        let first = app.anonymous().log_in("ada").await;
        let refreshing: Vec<_> = (0..4)
            .map(|_| {
                let (client, mut token) = (app.anonymous(), first.refresh.clone());
                tokio::spawn(async move {
                    let mut got = vec![token.clone()];
                    for _ in 0..4 {
                        let reply = client.refresh(&token).await;
                        if reply.status != 200 {
                            break;
                        }
                        token = reply.tokens().refresh;
                        got.push(token.clone());
                    }
                    got
                })
            })
            .collect();
        app.anonymous().logout(&first.refresh).await.assert_status(204);
        app.anonymous().me(&first.access).await.assert_status(401);
        for task in refreshing {
            for token in task.await.unwrap() {
                rejected(&app.anonymous(), &token).await;
            }
        }
        let db = app.db().await;
        assert!(revoked_reason(&db, first.session()).await.is_some(), "{round}");
    }
}

/// An action of a client on a session.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A refresh with the token `back` generations before the current one; 0 is the current one.
    Refresh {
        back: usize,
    },
    AgePastGrace,
    Logout {
        back: usize,
    },
    Me,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Refresh { back: 0 }),
        4 => Just(Step::Refresh { back: 1 }),
        1 => (2..4usize).prop_map(|back| Step::Refresh { back }),
        2 => Just(Step::AgePastGrace),
        1 => (0..3usize).prop_map(|back| Step::Logout { back }),
        2 => Just(Step::Me),
    ]
}

/// The expected behaviour, in its simplest form.
struct Model {
    tokens: Vec<String>,
    in_grace: bool,
    live: bool,
}

impl Model {
    fn token(&self, back: usize) -> (usize, String) {
        let at = self.tokens.len().saturating_sub(1 + back);
        (self.tokens.len() - 1 - at, self.tokens[at].clone())
    }
}

async fn run(app: &TestApp, steps: &[Step]) -> Result<(), TestCaseError> {
    let client = app.anonymous();
    let db = app.db().await;
    let first = client.login("ada", PASSWORD).await.tokens();
    let session = first.session();
    let access = first.access.clone();
    let mut model = Model { tokens: vec![first.refresh], in_grace: false, live: true };
    for step in steps {
        match *step {
            Step::Refresh { back } => {
                let (back, token) = model.token(back);
                let reply = client.refresh(&token).await;
                let expected = match back {
                    _ if !model.live => 401,
                    0 => 200,
                    1 if model.in_grace => 200,
                    _ => 401,
                };
                prop_assert_eq!(reply.status, expected, "{:?}", step);
                if expected == 200 {
                    let next = reply.tokens().refresh;
                    if back == 0 {
                        prop_assert!(!model.tokens.contains(&next));
                        model.tokens.push(next);
                        model.in_grace = true;
                    } else {
                        prop_assert_eq!(Some(&next), model.tokens.last());
                    }
                } else {
                    model.live = false;
                }
            }
            Step::AgePastGrace => {
                age_past_grace(&db, session).await;
                model.in_grace = false;
            }
            Step::Logout { back } => {
                let (_, token) = model.token(back);
                prop_assert_eq!(client.logout(&token).await.status, 204);
                model.live = false;
            }
            Step::Me => {
                let expected = if model.live { 200 } else { 401 };
                prop_assert_eq!(client.me(&access).await.status, expected);
            }
        }
    }
    Ok(())
}

// Reliability: E5.
#[test]
fn random_histories_match_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = runtime.block_on(async {
        let app = TestApp::start().await;
        app.register("ada").await;
        app
    });
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(step(), 1..14), |steps| runtime.block_on(run(&app, &steps)))
        .unwrap();
}
