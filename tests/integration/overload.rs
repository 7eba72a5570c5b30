//! More logins than the machine can do: refused early, cheaply, and honestly.

use crate::support::{PASSWORD, SOON, TestApp, until};
use hyper::Method;
use std::time::Duration;

/// One hash takes long enough to be found under way.
const COST: &str = "10";

const VERIFIED: &str = r#"staunch_hash_seconds_count{op="verify"}"#;
const CANCELLED: &str = "staunch_hash_cancelled_total";
const FULL: &str = r#"staunch_hash_rejected_total{reason="queue_full"}"#;

#[tokio::test]
async fn b4_a_full_queue_is_503_with_retry_after_and_costs_no_query() {
    let app = TestApp::builder()
        .set("STAUNCH_BCRYPT_COST", COST)
        .set("STAUNCH_HASH_QUEUE", "1")
        .start()
        .await;
    app.register("ada").await;
    let logins: Vec<_> = (0..40)
        .map(|_| {
            let client = app.anonymous();
            tokio::spawn(async move { client.login("ada", PASSWORD).await })
        })
        .collect();
    let (mut served, mut refused) = (0.0, 0.0);
    for login in logins {
        let reply = login.await.unwrap();
        if reply.status == 200 {
            served += 1.0;
        } else {
            reply.assert_problem(503, "busy");
            refused += 1.0;
        }
    }
    assert!(served >= 1.0 && refused >= 10.0, "{served} served, {refused} refused");
    assert_eq!(app.queries("credentials_by_username").await, served);
    assert_eq!(app.metric(VERIFIED).await, served);
    assert_eq!(app.metric(FULL).await, refused);
    let overloaded = r#"staunch_logins_total{result="overloaded"}"#;
    assert_eq!(app.metric(overloaded).await, refused);
    // And it is over when the queue is empty.
    assert_eq!(app.metric("staunch_hash_queue_depth").await, 0.0);
    app.anonymous().log_in("ada").await;
}

#[tokio::test]
async fn b1_what_hashes_nothing_is_served_while_the_queue_is_full() {
    let app = TestApp::builder()
        .set("STAUNCH_BCRYPT_COST", COST)
        .set("STAUNCH_HASH_QUEUE", "1")
        .start()
        .await;
    let tokens = app.registered("ada").await;
    let busy: Vec<_> = (0..10)
        .map(|_| {
            let client = app.anonymous();
            tokio::spawn(async move { client.login("ada", PASSWORD).await.status })
        })
        .collect();
    let client = app.anonymous();
    until("the engine is at work", SOON, async || {
        app.metric("staunch_hash_lanes_busy").await >= 1.0
    })
    .await;
    client.get("/health/liveness").await.assert_status(200);
    client.me(&tokens.access).await.assert_status(200);
    let next = client.refresh(&tokens.refresh).await.tokens();
    client.logout(&next.refresh).await.assert_status(204);
    for login in busy {
        assert!([200, 503].contains(&login.await.unwrap()));
    }
}

#[tokio::test]
async fn b2_a_login_whose_client_left_is_not_hashed() {
    let app = TestApp::builder().set("STAUNCH_BCRYPT_COST", COST).start().await;
    app.register("ada").await;
    let logins: Vec<_> = (0..40)
        .map(|_| {
            let client = app.anonymous();
            tokio::spawn(async move { client.login("ada", PASSWORD).await.status })
        })
        .collect();
    // Past the database: a login that leaves before that was never a job.
    until("jobs wait", SOON, async || {
        let submitted = app.queries("credentials_by_username").await;
        submitted - app.metric(VERIFIED).await >= 10.0
    })
    .await;
    for login in &logins {
        login.abort();
    }
    until("the queue is empty", SOON, async || {
        app.metric("staunch_hash_queue_depth").await == 0.0
            && app.metric("staunch_hash_lanes_busy").await == 0.0
    })
    .await;
    let (cancelled, verified) = (app.metric(CANCELLED).await, app.metric(VERIFIED).await);
    assert!(cancelled >= 4.0, "{cancelled} cancelled, {verified} hashed");
    assert!(cancelled + verified <= 40.0, "{cancelled} cancelled, {verified} hashed");
    let left =
        r#"staunch_http_requests_total{route="/api/v1/auth/token",method="POST",status="499"}"#;
    assert!(app.metric(left).await >= cancelled);
    app.anonymous().log_in("ada").await;
}

#[tokio::test]
async fn b2_a_login_that_waited_past_its_deadline_is_not_hashed() {
    let app = TestApp::builder()
        .set("STAUNCH_BCRYPT_COST", COST)
        .set("STAUNCH_HASH_DEADLINE", "100ms")
        .system_clock()
        .start()
        .await;
    // Not registered: on a busy machine that could miss the deadline too.
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

#[tokio::test]
async fn b5_the_pool_exhausted_is_503_in_bounded_time_and_the_rest_goes_on() {
    let app = TestApp::builder().set("STAUNCH_DB_POOL_MAX", "1").start().await;
    let tokens = app.registered("ada").await;
    app.anonymous().me(&tokens.access).await.assert_status(200);
    // A row lock that the first refresh waits for, holding the only connection.
    let mut db = app.db().await;
    let transaction = db.transaction().await.unwrap();
    transaction.execute("SELECT 1 FROM refresh_tokens FOR UPDATE", &[]).await.unwrap();
    let client = app.anonymous();
    let blocked = {
        let (client, token) = (client.clone(), tokens.refresh.clone());
        tokio::spawn(async move { client.refresh(&token).await.status })
    };
    until("it holds the connection", SOON, async || {
        app.metric(r#"staunch_db_pool_connections{state="used"}"#).await == 1.0
    })
    .await;
    let begun = tokio::time::Instant::now();
    client.me(&tokens.access).await.assert_status(200);
    client.get("/health/readiness").await.assert_status(200);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let reply = client
        .send(
            Method::POST,
            "/api/v1/auth/token",
            Some("application/x-www-form-urlencoded"),
            "username=ada&password=x",
        )
        .await;
    assert!([401, 503].contains(&reply.status), "{}", reply.status);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(blocked.await.unwrap(), 503, "lock_timeout");
    transaction.rollback().await.unwrap();
    client.refresh(&tokens.refresh).await.tokens();
    assert_eq!(app.metric(r#"staunch_db_pool_connections{state="used"}"#).await, 0.0);
}
