//! More logins than the machine can hash: refused early, cheaply, and with a correct Retry-After.

use crate::support::{PASSWORD, SOON, TestApp, Tokens, form, raw_login, until};
use hyper::Method;
use std::time::Duration;
use tokio::task::JoinSet;

/// A hash of this cost takes longer than the rest of a test.
const LONG: &str = "14";

const VERIFIED: &str = r#"staunch_hash_seconds_count{op="verify"}"#;
const CANCELLED: &str = "staunch_hash_cancelled_total";
const FULL: &str = r#"staunch_hash_rejected_total{reason="queue_full"}"#;
const OVERLOADED: &str = r#"staunch_logins_total{result="overloaded"}"#;
const LOOKED_UP: &str = "credentials_by_username";

/// A server with slow hashes, and a login of ada, whose own hash is fast.
async fn slow(queue: &str) -> (TestApp, Tokens) {
    let cheap = TestApp::start().await;
    let tokens = cheap.registered("ada").await;
    let app = cheap.sibling().set("STAUNCH_BCRYPT_COST", LONG).set("STAUNCH_HASH_QUEUE", queue);
    (app.start().await, tokens)
}

/// A server whose queue has one place for logins: two hash, one waits, and none of them finishes.
async fn full() -> (TestApp, Tokens, JoinSet<()>) {
    let (app, tokens) = slow("1").await;
    let mut busy = JoinSet::new();
    for n in 0..3 {
        let client = app.anonymous();
        busy.spawn(async move {
            // Waits until it has a place.
            while client.login(&format!("nobody-{n}"), PASSWORD).await.status == 503 {}
        });
    }
    until("the engine is full", SOON, async || {
        app.queries(LOOKED_UP).await == 3.0
            && app.metric("staunch_hash_lanes_busy").await == 2.0
            && app.metric("staunch_hash_queue_depth").await == 1.0
    })
    .await;
    (app, tokens, busy)
}

/// Waits until no hash runs and none is queued.
async fn empty(app: &TestApp) {
    until("the queue is empty", SOON, async || {
        app.metric("staunch_hash_queue_depth").await == 0.0
            && app.metric("staunch_hash_lanes_busy").await == 0.0
    })
    .await;
}

// Reliability: B4.
#[tokio::test]
async fn a_full_queue_is_503_with_retry_after_and_costs_no_query() {
    let (app, _, mut busy) = full().await;
    let (full, overloaded) = (app.metric(FULL).await, app.metric(OVERLOADED).await);
    let logins: Vec<_> = (0..40)
        .map(|_| {
            let client = app.anonymous();
            tokio::spawn(async move { client.login("ada", PASSWORD).await })
        })
        .collect();
    for login in logins {
        login.await.unwrap().assert_problem(503, "busy");
    }
    assert_eq!(app.queries(LOOKED_UP).await, 3.0, "only logins with a place are looked up");
    assert_eq!(app.metric(VERIFIED).await, 0.0);
    assert_eq!(app.metric(FULL).await - full, 40.0);
    assert_eq!(app.metric(OVERLOADED).await - overloaded, 40.0);
    // Logins work again once the queue is empty.
    busy.shutdown().await;
    empty(&app).await;
    app.anonymous().login("ada", "wrong password").await.assert_status(401);
}

#[tokio::test]
async fn a_login_refused_by_a_full_queue_keeps_its_connection() {
    let (app, _, mut busy) = full().await;
    let mut raw = app.raw().await;
    for _ in 0..20 {
        raw.write(raw_login("ada")).await;
        let reply = raw.reply().await.expect("the connection is open");
        assert_eq!(reply.status, 503);
        assert!(!reply.head.contains("connection:"), "{}", reply.head);
    }
    busy.shutdown().await;
}

// The grant of a token request is in its body, and a refresh needs no hash.
#[tokio::test]
async fn a_full_queue_does_not_refuse_the_refresh_grant() {
    let (app, tokens, mut busy) = full().await;
    let body = form(&[("grant_type", "refresh_token"), ("refresh_token", &tokens.refresh)]);
    let kind = Some("application/x-www-form-urlencoded");
    let reply = app.anonymous().send(Method::POST, "/api/v1/auth/token", kind, body).await;
    reply.assert_status(200);
    busy.shutdown().await;
}

// Reliability: B1.
#[tokio::test]
async fn requests_without_a_hash_are_served_while_the_queue_is_full() {
    let (app, tokens, mut busy) = full().await;
    let client = app.anonymous();
    client.get("/health/liveness").await.assert_status(200);
    client.me(&tokens.access).await.assert_status(200);
    let next = client.refresh(&tokens.refresh).await.tokens();
    client.logout(&next.refresh).await.assert_status(204);
    client.login("ada", PASSWORD).await.assert_problem(503, "busy");
    busy.shutdown().await;
}

// Reliability: B2.
#[tokio::test]
async fn a_login_whose_client_disconnected_is_not_hashed() {
    let (app, _) = slow("100").await;
    let mut logins = JoinSet::new();
    for n in 0..40 {
        let client = app.anonymous();
        logins.spawn(async move { client.login(&format!("nobody-{n}"), PASSWORD).await });
    }
    // After the database query: a login cancelled before that never became a job.
    until("jobs wait", SOON, async || app.queries(LOOKED_UP).await == 40.0).await;
    logins.shutdown().await;
    empty(&app).await;
    let (cancelled, verified) = (app.metric(CANCELLED).await, app.metric(VERIFIED).await);
    assert!(cancelled >= 4.0, "{cancelled} cancelled, {verified} hashed");
    assert!(cancelled + verified <= 40.0, "{cancelled} cancelled, {verified} hashed");
    let left =
        r#"staunch_http_requests_total{route="/api/v1/auth/token",method="POST",status="499"}"#;
    assert!(app.metric(left).await >= cancelled);
    // A wrong password: a correct one would upgrade the hash to this server's cost.
    app.anonymous().login("ada", "wrong password").await.assert_status(401);
}

// Reliability: B2.
#[tokio::test]
async fn a_login_that_waited_past_its_deadline_is_not_hashed() {
    let app = TestApp::builder()
        .set("STAUNCH_BCRYPT_COST", "10")
        .set("STAUNCH_HASH_DEADLINE", "100ms")
        .system_clock()
        .start()
        .await;
    // Inserted, because a registration on a busy machine could miss the deadline too.
    let insert =
        "INSERT INTO users (email, username, password_hash) VALUES ('a@example.com', 'ada', $1)";
    let hash = bcrypt::hash(PASSWORD, 10).unwrap();
    app.db().await.execute(insert, &[&hash]).await.unwrap();
    let logins: Vec<_> = (0..40)
        .map(|_| {
            let client = app.anonymous();
            tokio::spawn(async move { client.login("ada", PASSWORD).await })
        })
        .collect();
    let mut refused = 0.0;
    for login in logins {
        let reply = login.await.unwrap();
        if reply.status != 200 {
            reply.assert_problem(503, "busy");
            refused += 1.0;
        }
    }
    assert!(refused >= 1.0, "{refused} refused");
    assert_eq!(app.metric(VERIFIED).await, 40.0 - refused);
}

// Reliability: B5.
#[tokio::test]
async fn an_exhausted_pool_is_503_in_bounded_time_and_other_requests_continue() {
    let app = TestApp::builder()
        .set("STAUNCH_DB_POOL_MAX", "1")
        .set("STAUNCH_LOCKOUT", "off")
        .start()
        .await;
    let tokens = app.registered("ada").await;
    until("the session is cached", SOON, async || {
        app.anonymous().me(&tokens.access).await.status == 200
    })
    .await;
    // A row lock blocks the first refresh, which holds the only connection.
    let mut db = app.db().await;
    let transaction = db.transaction().await.unwrap();
    transaction.execute("SELECT 1 FROM refresh_tokens FOR UPDATE", &[]).await.unwrap();
    let client = app.anonymous();
    until("other requests are served while it waits", SOON, async || {
        let blocked = {
            let (client, token) = (client.clone(), tokens.refresh.clone());
            tokio::spawn(async move { client.refresh(&token).await.status })
        };
        until("the refresh holds the connection", SOON, async || {
            blocked.is_finished()
                || app.metric(r#"staunch_db_pool_connections{state="used"}"#).await == 1.0
        })
        .await;
        client.me(&tokens.access).await.assert_status(200);
        let ready = client.get("/health/readiness").await.status;
        let in_time = ready == 200 && !blocked.is_finished();
        let begun = tokio::time::Instant::now();
        let reply = client
            .send(
                Method::POST,
                "/api/v1/auth/token",
                Some("application/x-www-form-urlencoded"),
                "username=ada&password=x",
            )
            .await;
        assert!([401, 503].contains(&reply.status), "{}", reply.status);
        let took = begun.elapsed();
        assert_eq!(blocked.await.unwrap(), 503, "lock_timeout");
        in_time && took < Duration::from_secs(5)
    })
    .await;
    transaction.rollback().await.unwrap();
    client.refresh(&tokens.refresh).await.tokens();
    assert_eq!(app.metric(r#"staunch_db_pool_connections{state="used"}"#).await, 0.0);
}
