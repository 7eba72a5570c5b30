//! The wall clock set an hour forward or back while the server runs.

use crate::support::{PASSWORD, TestApp};
use std::time::Duration;

const HOUR_S: i64 = 3_600;

// Reliability: D5.
#[tokio::test]
async fn a_wall_clock_step_changes_no_limit_lockout_or_grace_period() {
    for step_s in [HOUR_S, -HOUR_S] {
        let app = TestApp::builder()
            .set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1")
            .set("STAUNCH_LIMIT_LOGIN", "10/min,12/h")
            .start()
            .await;
        let first = app.registered("ada").await;
        let next = app.anonymous().refresh(&first.refresh).await.tokens();
        let (flooder, guesser) =
            (app.anonymous().from("203.0.113.1"), app.anonymous().from("203.0.113.2"));
        for n in 0..10 {
            flooder.login(&format!("nobody-{n}"), "x").await.assert_status(401);
        }
        for _ in 0..5 {
            guesser.login("ada", "Wrong-Pass123").await.assert_status(401);
        }

        app.clock.step_wall(step_s);
        let limited = flooder.login("nobody", "x").await;
        limited.assert_problem(429, "rate-limited");
        assert_eq!(limited.header("retry-after"), Some("6"), "{step_s}");
        let locked = guesser.login("ada", PASSWORD).await;
        locked.assert_problem(429, "login-locked");
        assert_eq!(locked.header("retry-after"), Some("30"), "{step_s}");
        let again = app.anonymous().refresh(&first.refresh).await.tokens();
        assert_eq!(again.refresh, next.refresh, "{step_s}: a retry within the grace");

        app.clock.advance(Duration::from_millis(5_999));
        flooder.login("nobody", "x").await.assert_status(429);
        app.clock.advance(Duration::from_millis(1));
        flooder.login("nobody", "x").await.assert_status(401);
        app.clock.advance(Duration::from_secs(24));
        guesser.login("ada", PASSWORD).await.tokens();
    }
}

// Reliability: D5.
#[tokio::test]
async fn access_tokens_follow_the_wall_clock() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    let tokens = app.registered("ada").await;
    let exp = tokens.claims()["exp"].as_i64().unwrap();
    client.me(&tokens.access).await.assert_status(200);

    app.clock.step_wall(HOUR_S);
    client.me(&tokens.access).await.assert_problem(401, "token-rejected");
    // The session uses the database's clock and continues.
    let later = client.refresh(&tokens.refresh).await.tokens();
    assert_eq!(later.claims()["exp"].as_i64().unwrap() - exp, HOUR_S);
    client.me(&later.access).await.assert_status(200);

    // An hour before the start: no key is due yet, and one signs all the same.
    app.clock.step_wall(-2 * HOUR_S);
    let earlier = client.login("ada", PASSWORD).await.tokens();
    assert_eq!(earlier.claims()["exp"].as_i64().unwrap() - exp, -HOUR_S);
    client.me(&earlier.access).await.assert_status(200);
    client.me(&later.access).await.assert_status(200);
    client.refresh(&earlier.refresh).await.tokens();
}

/// Sessions use the database's clock, which all nodes share. If it is set back, retries have more
/// time: they get the same successor, and the session continues.
// Reliability: D5.
#[tokio::test]
async fn setting_the_database_clock_back_ends_no_session() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    let first = app.registered("ada").await;
    let next = client.refresh(&first.refresh).await.tokens();
    let step = "UPDATE refresh_tokens SET rotated_at = rotated_at + interval '1 h',
         created_at = created_at + interval '1 h', last_used_at = last_used_at + interval '1 h',
         expires_at = expires_at + interval '1 h'";
    assert_eq!(app.db().await.execute(step, &[]).await.unwrap(), 1);
    let again = client.refresh(&first.refresh).await.tokens();
    assert_eq!(again.refresh, next.refresh);
    let after = client.refresh(&next.refresh).await.tokens();
    client.me(&after.access).await.assert_status(200);
}
