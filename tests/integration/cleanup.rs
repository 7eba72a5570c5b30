//! The clean-up of ended sessions.

use crate::support::{CLEANUP_LOCK, SOON, TestApp, TestDatabase, until};
use staunch::clock::Clock;
use staunch::store::{Cleaned, Store, StoreConfig};
use staunch::telemetry::Metrics;

const SUCCESS: &str = r#"staunch_cleanup_runs_total{result="success"}"#;
const REMOVED: &str = "staunch_cleanup_removed_total";

/// A store of account 1, and no server that cleans too.
async fn store(database: &TestDatabase, db: &tokio_postgres::Client) -> Store {
    let insert =
        "INSERT INTO users (email, username, password_hash) VALUES ('a@example.com', 'ada', '')";
    db.execute(insert, &[]).await.unwrap();
    let config = StoreConfig { database: database.config.clone().into(), pool_min: 1, pool_max: 2 };
    let metrics = Metrics::new().unwrap();
    Store::open(&config, &metrics, Clock::manual()).await.unwrap()
}

/// Sessions of account 1: so many live, revoked and expired ones.
async fn fill(db: &tokio_postgres::Client, live: i32, revoked: i32, expired: i32) {
    for (count, over, ended) in
        [(live, false, false), (revoked, true, false), (expired, false, true)]
    {
        let insert = "INSERT INTO refresh_tokens (id, user_id, expires_at, revoked)
             SELECT gen_random_uuid(), 1,
                    now() + CASE WHEN $3 THEN interval '-1 s' ELSE interval '1 h' END, $2
             FROM generate_series(1, $1)";
        db.execute(insert, &[&count, &over, &ended]).await.unwrap();
    }
}

async fn sessions(db: &tokio_postgres::Client) -> i64 {
    let row = db.query_one("SELECT count(*) FROM refresh_tokens", &[]).await.unwrap();
    row.get(0)
}

#[tokio::test]
async fn ended_sessions_go_batch_by_batch_and_live_ones_stay() {
    let app = TestApp::builder().set("STAUNCH_CLEANUP_INTERVAL", "1s").start().await;
    app.register("ada").await;
    let kept = app.anonymous().log_in("ada").await;
    let db = app.db().await;
    fill(&db, 10, 1_500, 1_200).await;
    until("only live ones are left", SOON, async || sessions(&db).await == 11).await;
    until("the run is counted", SOON, async || app.metric(REMOVED).await == 2_700.0).await;
    assert!(app.metric(SUCCESS).await >= 1.0);
    let last = app.metric("staunch_cleanup_last_success_timestamp_seconds").await;
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact")]
    let now = app.clock.unix_s() as f64;
    assert!((last - now).abs() < 1.0, "{last} at {now}");
    app.anonymous().refresh(&kept.refresh).await.tokens();
}

#[tokio::test]
async fn one_node_cleans_at_a_time() {
    let database = TestDatabase::create().await;
    let mut db = database.connect().await;
    let store = store(&database, &db).await;
    fill(&db, 0, 5, 5).await;
    let other = db.transaction().await.unwrap();
    // The lock's number must stay the same for nodes of two versions.
    other.execute("SELECT pg_advisory_xact_lock($1)", &[&CLEANUP_LOCK]).await.unwrap();
    assert_eq!(store.clean_sessions(100).await.unwrap(), Cleaned::Elsewhere);
    other.rollback().await.unwrap();
    assert_eq!(store.clean_sessions(7).await.unwrap(), Cleaned::Removed(7));
    assert_eq!(store.clean_sessions(7).await.unwrap(), Cleaned::Removed(3));
    assert_eq!(store.clean_sessions(7).await.unwrap(), Cleaned::Removed(0));
    store.close();
}

#[tokio::test]
async fn a_row_that_a_refresh_holds_is_left_for_the_next_run() {
    let database = TestDatabase::create().await;
    let mut db = database.connect().await;
    let store = store(&database, &db).await;
    fill(&db, 0, 3, 0).await;
    let refresh = db.transaction().await.unwrap();
    refresh
        .execute("SELECT 1 FROM refresh_tokens ORDER BY id LIMIT 1 FOR UPDATE", &[])
        .await
        .unwrap();
    assert_eq!(store.clean_sessions(100).await.unwrap(), Cleaned::Removed(2));
    refresh.rollback().await.unwrap();
    assert_eq!(store.clean_sessions(100).await.unwrap(), Cleaned::Removed(1));
    store.close();
}
