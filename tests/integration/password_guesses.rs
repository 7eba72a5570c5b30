//! Password guesses with a stolen access token are limited like guesses at the login.

use crate::support::{Client, PASSWORD, SOON, TestApp, Tokens, until};
use std::time::Duration;

const VERIFIED: &str = r#"staunch_hash_seconds_count{op="verify"}"#;
const NEW: &str = "Another-Pass-45";

/// A server, and the tokens of an account that logged in from the test's address.
async fn app() -> (TestApp, Tokens) {
    let app = TestApp::builder().set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1").start().await;
    // From now on, a check of the cached session costs no query.
    app.listening().await;
    let tokens = app.registered("ada").await;
    (app, tokens)
}

/// Sends that many guesses; returns how many were evaluated.
async fn evaluated(thief: &Client, stolen: &Tokens, guesses: usize) -> usize {
    let mut count = 0;
    for _ in 0..guesses {
        let reply = thief.change_password(&stolen.access, "Wrong-Pass123", NEW).await;
        count += usize::from(reply.status == 401);
        if reply.status != 401 {
            reply.assert_problem(429, "login-locked");
        }
    }
    count
}

// Reliability: F2.
#[tokio::test]
async fn a_stolen_access_token_allows_five_guesses_and_refusals_cost_nothing() {
    let (app, tokens) = app().await;
    let thief = app.anonymous().from("203.0.113.1");
    assert_eq!(evaluated(&thief, &tokens, 5).await, 5);
    let (queries, hashes) = (app.all_queries().await, app.metric(VERIFIED).await);
    let refused = thief.change_password(&tokens.access, "Wrong-Pass123", NEW).await;
    assert_eq!(refused.header("retry-after"), Some("30"));
    // Correct and wrong passwords are refused, here and at the login.
    let right = thief.change_password(&tokens.access, PASSWORD, NEW).await;
    right.assert_problem(429, "login-locked");
    thief.login("Ada", PASSWORD).await.assert_problem(429, "login-locked");
    assert_eq!((app.all_queries().await, app.metric(VERIFIED).await), (queries, hashes));
    app.clock.advance(Duration::from_secs(30));
    assert_eq!(evaluated(&thief, &tokens, 3).await, 1);

    let db = app.db().await;
    let query = "SELECT concat_ws(' ', outcome, user_id, host(ip), count(*)) FROM auth_events
         WHERE event = 'password_change' GROUP BY outcome, user_id, ip ORDER BY outcome";
    let expected = ["limited 1 203.0.113.1 2", "rejected 1 203.0.113.1 6"];
    until("the lines are written", SOON, async || {
        let rows = db.query(query, &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>(0)).eq(expected)
    })
    .await;
}

// Reliability: F2.
#[tokio::test]
async fn logins_and_changes_share_failures_and_a_success_resets_them() {
    let (app, tokens) = app().await;
    let client = app.anonymous().from("203.0.113.1");
    for _ in 0..2 {
        client.login("ada", "Wrong-Pass123").await.assert_status(401);
    }
    assert_eq!(evaluated(&client, &tokens, 2).await, 2);
    client.change_password(&tokens.access, PASSWORD, NEW).await.assert_status(204);
    assert_eq!(evaluated(&client, &tokens, 9).await, 5);
}

// Reliability: F2.
#[tokio::test]
async fn guesses_from_many_addresses_leave_the_owner_able_to_change_the_password() {
    let (app, tokens) = app().await;
    let mut count = 0;
    for n in 0..30 {
        let thief = app.anonymous().from(&format!("198.51.100.{n}"));
        count += evaluated(&thief, &tokens, 1).await;
    }
    assert_eq!(count, 20);
    assert_eq!(app.metric("staunch_lockout_names").await, 1.0);
    let owner = app.anonymous();
    owner.change_password(&tokens.access, PASSWORD, NEW).await.assert_status(204);
    owner.login("ada", NEW).await.tokens();
}

// Reliability: F2.
#[tokio::test]
async fn concurrent_guesses_are_limited_like_sequential_ones() {
    let (app, tokens) = app().await;
    let guesses: Vec<_> = (0..40)
        .map(|_| {
            let (thief, tokens) = (app.anonymous().from("203.0.113.1"), tokens.clone());
            tokio::spawn(async move { evaluated(&thief, &tokens, 1).await })
        })
        .collect();
    let mut count = 0;
    for guess in guesses {
        count += guess.await.unwrap();
    }
    assert_eq!(count, 5);
}
