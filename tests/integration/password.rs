//! POST /api/v1/auth/password

use crate::support::{PASSWORD, TestApp};
use serde_json::json;

const PATH: &str = "/api/v1/auth/password";
const NEW: &str = "Another-Pass-45";

#[tokio::test]
async fn a_new_password_replaces_the_old_and_ends_every_other_session() {
    let app = TestApp::start().await;
    let [mine, other, eve] = app.three_sessions().await;
    let client = app.anonymous();
    let named = client.with("x-request-id", "change-1");
    let reply = named.change_password(&mine.access, PASSWORD, NEW).await;
    reply.assert_status(204);
    client.me(&mine.access).await.assert_status(200);
    client.refresh(&mine.refresh).await.tokens();
    client.me(&other.access).await.assert_problem(401, "token-rejected");
    client.refresh(&other.refresh).await.assert_status(401);
    client.me(&eve.access).await.assert_status(200);
    client.login("ada", PASSWORD).await.assert_problem(401, "credentials-rejected");
    client.login("ada", NEW).await.tokens();
    client.log_in("eve").await;
    let query = "SELECT concat_ws(' ', event, outcome, user_id, host(ip), request_id)
         FROM auth_events WHERE event = 'password_change'";
    let rows = app.db().await.query(query, &[]).await.unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(lines, ["password_change success 1 127.0.0.1 change-1"]);
}

#[tokio::test]
async fn a_wrong_current_password_changes_nothing() {
    let app = TestApp::start().await;
    let mine = app.registered("ada").await;
    let other = app.anonymous().log_in("ada").await;
    let client = app.anonymous();
    for wrong in ["wrong password", "", &"x".repeat(5_000), &format!("{PASSWORD}\0")] {
        let reply = client.change_password(&mine.access, wrong, NEW).await;
        reply.assert_problem(401, "credentials-rejected");
    }
    client.me(&other.access).await.assert_status(200);
    client.log_in("ada").await;
    let changes = "SELECT count(*) FROM auth_events
         WHERE event = 'password_change' AND outcome = 'success'";
    let row = app.db().await.query_one(changes, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn every_invalid_field_is_named_and_nothing_is_hashed() {
    let app = TestApp::start().await;
    let mine = app.registered("ada").await;
    let hashed = app.metric("staunch_hash_seconds_count{op=\"verify\"}").await;
    let client = app.anonymous().bearer(&mine.access);
    for (body, fields) in [
        (json!({}), vec!["current_password", "new_password"]),
        (
            json!({"current_password": 1, "new_password": null}),
            vec!["current_password", "new_password"],
        ),
        (json!({"current_password": PASSWORD}), vec!["new_password"]),
        (json!({"current_password": PASSWORD, "new_password": "short"}), vec!["new_password"]),
        (
            json!({"current_password": PASSWORD, "new_password": "password123"}),
            vec!["new_password"],
        ),
        (
            json!({"current_password": PASSWORD, "new_password": "x".repeat(73)}),
            vec!["new_password"],
        ),
        (json!({"current_password": PASSWORD, "new_password": PASSWORD}), vec!["new_password"]),
        (json!({"new_password": NEW}), vec!["current_password"]),
    ] {
        let reply = client.post_json(PATH, &body).await;
        reply.assert_problem(422, "invalid-fields");
        assert_eq!(reply.fields(), fields, "{body}");
    }
    client.post_form(PATH, &[("current_password", PASSWORD)]).await.assert_status(415);
    assert_eq!(app.metric("staunch_hash_seconds_count{op=\"verify\"}").await, hashed);
    assert_eq!(app.queries("credentials_by_id").await, 0.0);
}

#[tokio::test]
async fn a_password_change_requires_a_live_session() {
    let app = TestApp::start().await;
    let mine = app.registered("ada").await;
    let client = app.anonymous();
    let body = json!({"current_password": PASSWORD, "new_password": NEW});
    client.post_json(PATH, &body).await.assert_problem(401, "token-missing");
    client.change_password("nonsense", PASSWORD, NEW).await.assert_problem(401, "token-rejected");
    assert_eq!(app.queries("credentials_by_id").await, 0.0);
    client.me(&mine.access).await.assert_status(200);
    // Cached as live, and ended in SQL without a notification: the statement itself must check it.
    let end = "UPDATE refresh_tokens SET revoked = true";
    app.db().await.execute(end, &[]).await.unwrap();
    let reply = client.change_password(&mine.access, PASSWORD, NEW).await;
    assert_eq!(reply.status, 401);
    client.log_in("ada").await;
}

#[tokio::test]
async fn a_password_change_counts_as_a_login() {
    let app = TestApp::builder().set("STAUNCH_LIMIT_LOGIN", "3/min").start().await;
    let mine = app.registered("ada").await;
    let client = app.anonymous();
    for _ in 0..2 {
        client.change_password(&mine.access, "wrong password", NEW).await.assert_status(401);
    }
    let reply = client.change_password(&mine.access, PASSWORD, NEW).await;
    reply.assert_problem(429, "rate-limited");
    assert!(reply.header("ratelimit").unwrap().starts_with(r#""login""#));
    client.me(&mine.access).await.assert_status(200);
}

#[tokio::test]
async fn only_one_of_several_concurrent_changes_succeeds() {
    let app = TestApp::start().await;
    app.register("ada").await;
    let mut current = PASSWORD.to_owned();
    for round in 0..4 {
        let mut sessions = Vec::new();
        for _ in 0..3 {
            sessions.push(app.anonymous().login("ada", &current).await.tokens());
        }
        let changes: Vec<_> = sessions
            .into_iter()
            .enumerate()
            .map(|(n, tokens)| {
                let (client, current) = (app.anonymous(), current.clone());
                let new = format!("Another-Pass-{round}-{n}");
                tokio::spawn(async move {
                    let reply = client.change_password(&tokens.access, &current, &new).await;
                    (reply.status, new, tokens)
                })
            })
            .collect();
        let mut held = Vec::new();
        for change in changes {
            let (status, new, tokens) = change.await.unwrap();
            if status == 204 {
                held.push(new);
                app.anonymous().me(&tokens.access).await.assert_status(200);
            } else {
                assert_eq!(status, 401);
                app.anonymous().me(&tokens.access).await.assert_status(401);
            }
        }
        assert_eq!(held.len(), 1, "{held:?}");
        app.anonymous().login("ada", &current).await.assert_status(401);
        current = held.remove(0);
    }
    app.anonymous().login("ada", &current).await.tokens();
}

// Reliability: E4.
#[tokio::test]
async fn a_change_ends_a_concurrent_login_with_the_old_password() {
    let app = TestApp::builder().long_calls().start().await;
    let mine = app.registered("ada").await;
    // Blocks a login between storing its session and its commit, until the test releases the lock.
    let db = app.db().await;
    db.batch_execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END';
         CREATE TRIGGER hold AFTER INSERT ON refresh_tokens FOR EACH ROW EXECUTE FUNCTION hold();
         SELECT pg_advisory_lock(7)",
    )
    .await
    .unwrap();
    let client = app.anonymous();
    let login = tokio::spawn({
        let client = client.clone();
        async move { client.login("ada", PASSWORD).await }
    });
    app.database.until_blocked(1).await;
    let change = tokio::spawn({
        let (client, access) = (app.anonymous(), mine.access.clone());
        async move { client.change_password(&access, PASSWORD, NEW).await }
    });
    // The change waits for the login, which read the account first.
    app.database.until_blocked(2).await;
    db.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    let opened = login.await.unwrap().tokens();
    change.await.unwrap().assert_status(204);
    client.me(&opened.access).await.assert_problem(401, "token-rejected");
    client.refresh(&opened.refresh).await.assert_status(401);
    client.me(&mine.access).await.assert_status(200);
}

// Reliability: E3.
#[tokio::test]
async fn a_change_whose_session_ends_while_it_waits_has_no_effect() {
    let app = TestApp::builder().long_calls().start().await;
    let mine = app.registered("ada").await;
    let client = app.anonymous();
    // Locks the account as a login does until its session is stored.
    let db = app.db().await;
    db.batch_execute("BEGIN; SELECT 1 FROM users WHERE id = 1 FOR SHARE").await.unwrap();
    let change = tokio::spawn({
        let (client, access) = (client.clone(), mine.access.clone());
        async move { client.change_password(&access, PASSWORD, NEW).await }
    });
    app.database.until_blocked(1).await;
    client.logout(&mine.refresh).await.assert_status(204);
    db.batch_execute("COMMIT").await.unwrap();
    assert_eq!(change.await.unwrap().status, 401);
    client.login("ada", NEW).await.assert_problem(401, "credentials-rejected");
    client.log_in("ada").await;
}

// Reliability: E4.
#[tokio::test]
async fn no_login_with_the_old_password_survives_the_change() {
    let app = TestApp::start().await;
    let mine = app.registered("ada").await;
    let mut passwords = [PASSWORD, NEW];
    for _ in 0..8 {
        let [old, new] = passwords;
        let logins: Vec<_> = (0..4)
            .map(|_| {
                let client = app.anonymous();
                tokio::spawn(async move { client.login("ada", old).await })
            })
            .collect();
        app.anonymous().change_password(&mine.access, old, new).await.assert_status(204);
        for login in logins {
            let reply = login.await.unwrap();
            if reply.status == 200 {
                let tokens = reply.tokens();
                app.anonymous().me(&tokens.access).await.assert_status(401);
                app.anonymous().refresh(&tokens.refresh).await.assert_status(401);
            } else {
                reply.assert_problem(401, "credentials-rejected");
            }
        }
        passwords.reverse();
    }
    app.anonymous().me(&mine.access).await.assert_status(200);
}
