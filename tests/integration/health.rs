//! Liveness and readiness.

use crate::support::{Link, TestApp};
use futures_util::future::join_all;
use serde_json::json;
use std::time::{Duration, SystemTime};

#[tokio::test]
async fn liveness_and_readiness_have_the_documented_bodies() {
    let app = TestApp::start().await;
    let alive = app.anonymous().get("/health/liveness").await;
    alive.assert_status(200);
    assert_eq!(alive.text(), r#"{"status":"alive"}"#);
    let ready = app.anonymous().get("/health/readiness").await;
    ready.assert_status(200);
    assert_eq!(ready.text(), r#"{"status":"ready"}"#);
    assert_eq!(ready.json(), json!({"status": "ready"}));
}

const ANSWERED: &str =
    r#"staunch_http_requests_total{route="/health/readiness",method="GET",status="200"}"#;

/// The backend that answered the last readiness query, and the time of the query.
async fn last_question(db: &tokio_postgres::Client) -> (i32, SystemTime) {
    let query = "SELECT pid, query_start FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE '-- health%'";
    let row = db.query_one(query, &[]).await.expect("a readiness connection");
    (row.get(0), row.get(1))
}

// Reliability: B5.
#[tokio::test]
async fn readiness_keeps_a_dedicated_connection() {
    let app = TestApp::builder().set("STAUNCH_DB_POOL_MAX", "1").start().await;
    let db = app.db().await;
    app.readiness().await.assert_status(200);
    let (first, mut before) = last_question(&db).await;
    for _ in 0..5 {
        app.readiness().await.assert_status(200);
        let (backend, asked) = last_question(&db).await;
        assert!(backend == first && asked > before);
        before = asked;
    }
}

// Case F2 of the field list: of 4,096 concurrent calls, 50 in 51 were answered 503.
#[tokio::test]
async fn readiness_queries_the_database_once_a_second_at_most() {
    let app = TestApp::start().await;
    let db = app.db().await;
    app.readiness().await.assert_status(200);
    let asked = last_question(&db).await;
    let callers = (0..20).map(async |_| {
        let client = app.anonymous();
        for _ in 0..50 {
            client.get("/health/readiness").await.assert_status(200);
        }
    });
    join_all(callers).await;
    assert_eq!(last_question(&db).await, asked, "the clock does not move");
    assert_eq!(app.metric(ANSWERED).await, 1_001.0);
    app.readiness().await.assert_status(200);
    let next = last_question(&db).await;
    assert!(next.0 == asked.0 && next.1 > asked.1, "a second later");
}

// Case F3 of the field list: each call that was cut off cost a database connection.
#[tokio::test]
async fn a_disconnecting_caller_does_not_cancel_the_readiness_query() {
    let (builder, proxy) = TestApp::builder().behind_proxy().await;
    let app = builder.start().await;
    let db = app.db().await;
    app.readiness().await.assert_status(200);
    let asked = last_question(&db).await;
    proxy.set(Link::Slow(Duration::from_millis(50)));
    app.clock.advance(Duration::from_secs(1));
    for _ in 0..5 {
        let mut raw = app.raw().await;
        raw.write("GET /health/readiness HTTP/1.1\r\nHost: x\r\n\r\n").await;
        // Most clients disconnect between the query and its result; the assertions hold either way.
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(raw);
    }
    app.anonymous().get("/health/readiness").await.assert_status(200);
    proxy.set(Link::Open);
    let next = last_question(&db).await;
    assert!(next.0 == asked.0 && next.1 > asked.1, "one query, on the same connection");
}

#[tokio::test]
async fn readiness_follows_the_database_and_liveness_does_not() {
    let app = TestApp::start().await;
    app.readiness().await.assert_status(200);
    app.database.set_open(false).await;
    let reply = app.readiness().await;
    reply.assert_problem(503, "not-ready");
    assert!(!reply.text().contains(&app.database.name), "the reason belongs in the log");
    app.anonymous().get("/health/liveness").await.assert_status(200);
    app.database.set_open(true).await;
    app.readiness().await.assert_status(200);
}
