//! Liveness and readiness.

use crate::support::TestApp;
use serde_json::json;

#[tokio::test]
async fn both_say_so_in_the_words_of_the_contract() {
    let app = TestApp::start().await;
    let alive = app.anonymous().get("/health/liveness").await;
    alive.assert_status(200);
    assert_eq!(alive.text(), r#"{"status":"alive"}"#);
    let ready = app.anonymous().get("/health/readiness").await;
    ready.assert_status(200);
    assert_eq!(ready.text(), r#"{"status":"ready"}"#);
    assert_eq!(ready.json(), json!({"status": "ready"}));
}

#[tokio::test]
async fn b5_readiness_has_a_connection_of_its_own_and_keeps_it() {
    let app = TestApp::builder().set("STAUNCH_DB_POOL_MAX", "1").start().await;
    let db = app.db().await;
    let backends = "SELECT count(*), max(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE '-- health%'";
    let mut pids = Vec::new();
    for _ in 0..5 {
        app.anonymous().get("/health/readiness").await.assert_status(200);
        let row = db.query_one(backends, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 1);
        pids.push(row.get::<_, i32>(1));
    }
    pids.dedup();
    assert_eq!(pids.len(), 1, "one connection, not one a question");
}

#[tokio::test]
async fn readiness_asks_the_database_each_time_and_liveness_never() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    client.get("/health/readiness").await.assert_status(200);
    app.database.set_open(false).await;
    let reply = client.get("/health/readiness").await;
    reply.assert_problem(503, "not-ready");
    assert!(!reply.text().contains(&app.database.name), "the reason is for the log");
    client.get("/health/liveness").await.assert_status(200);
    app.database.set_open(true).await;
    client.get("/health/readiness").await.assert_status(200);
}
