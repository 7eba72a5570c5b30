//! The clean-up of ended sessions and of the audit log.

use crate::support::{CLEANUP_LOCK, SOON, TestApp, TestDatabase, until};
use serde_json::Value;
use staunch::clock::Clock;
use staunch::store::{Cleaned, Deadlines, STATEMENTS, Store, StoreConfig, StoreError};
use staunch::telemetry::Metrics;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

const EPOCH: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

const SUCCESS: &str = r#"staunch_cleanup_runs_total{result="success"}"#;
const REMOVED: &str = "staunch_cleanup_removed_total";

/// A store with account 1, and no server that also cleans up.
async fn store(database: &TestDatabase, db: &tokio_postgres::Client) -> Store {
    let insert =
        "INSERT INTO users (email, username, password_hash) VALUES ('a@example.com', 'ada', '')";
    db.execute(insert, &[]).await.unwrap();
    let config = StoreConfig {
        database: database.config.clone().into(),
        pool_min: 1,
        pool_max: 2,
        deadlines: Deadlines::default(),
    };
    let metrics = Metrics::new().unwrap();
    Store::open(&config, &metrics, Clock::manual()).await.unwrap()
}

/// What a batch removed, and where the next one starts.
#[track_caller]
fn removed<P>(cleaned: Result<Cleaned<P>, StoreError>) -> (u64, P) {
    match cleaned.unwrap() {
        Cleaned::Removed { rows, next, .. } => (rows, next),
        Cleaned::Elsewhere => panic!("another node cleans up"),
    }
}

/// Inserts sessions of account 1: numbers of live, revoked and expired ones.
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
async fn ended_sessions_are_removed_in_batches_and_live_ones_kept() {
    let app = TestApp::builder().set("STAUNCH_CLEANUP_INTERVAL", "1s").start().await;
    app.register("ada").await;
    let kept = app.anonymous().log_in("ada").await;
    let db = app.db().await;
    fill(&db, 10, 1_500, 1_200).await;
    until("only live sessions remain", SOON, async || sessions(&db).await == 11).await;
    until("the run is counted", SOON, async || app.metric(REMOVED).await == 2_700.0).await;
    assert!(app.metric(SUCCESS).await >= 1.0);
    let last = app.metric("staunch_cleanup_last_success_timestamp_seconds").await;
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact")]
    let now = app.clock.unix_s() as f64;
    assert!((last - now).abs() < 1.0, "{last} at {now}");
    app.anonymous().refresh(&kept.refresh).await.tokens();
}

#[tokio::test]
async fn only_one_node_cleans_up_at_a_time() {
    let database = TestDatabase::create().await;
    let mut db = database.connect().await;
    let store = store(&database, &db).await;
    fill(&db, 0, 5, 5).await;
    let other = db.transaction().await.unwrap();
    // The lock's number must stay the same, because nodes of two versions share it.
    other.execute("SELECT pg_advisory_xact_lock($1)", &[&CLEANUP_LOCK]).await.unwrap();
    assert_eq!(store.clean_expired_sessions(EPOCH, 100).await.unwrap(), Cleaned::Elsewhere);
    assert_eq!(store.clean_ended_sessions(Uuid::nil(), 100).await.unwrap(), Cleaned::Elsewhere);
    let events = store.clean_events(Duration::ZERO, 0, 100).await;
    assert_eq!(events.unwrap(), Cleaned::Elsewhere);
    other.rollback().await.unwrap();
    for expected in [3, 2, 0] {
        assert_eq!(removed(store.clean_expired_sessions(EPOCH, 3).await).0, expected);
    }
    let mut next = Uuid::nil();
    for expected in [3, 2, 0] {
        let rows;
        (rows, next) = removed(store.clean_ended_sessions(next, 3).await);
        assert_eq!(rows, expected);
    }
    store.close();
}

#[tokio::test]
async fn a_refreshed_session_is_looked_at_again_when_it_expires() {
    let database = TestDatabase::create().await;
    let db = database.connect().await;
    let store = store(&database, &db).await;
    // Due, as of the last check, and expired or refreshed since.
    fill(&db, 5, 0, 2).await;
    let mut next = EPOCH;
    let mut counts = Vec::new();
    loop {
        match store.clean_expired_sessions(next, 3).await.unwrap() {
            Cleaned::Removed { rows, is_full, next: place } => {
                counts.push(rows);
                next = place;
                if !is_full {
                    break;
                }
            }
            Cleaned::Elsewhere => panic!("another node cleans up"),
        }
    }
    assert_eq!((counts.len(), counts.iter().sum::<u64>()), (3, 2), "{counts:?}");
    assert_eq!(sessions(&db).await, 5);
    let moved = "SELECT count(*) FROM refresh_tokens WHERE expiry_check_at = expires_at";
    assert_eq!(db.query_one(moved, &[]).await.unwrap().get::<_, i64>(0), 5);
    store.close();
}

#[tokio::test]
async fn a_row_locked_by_a_refresh_is_left_for_the_next_run() {
    let database = TestDatabase::create().await;
    let mut db = database.connect().await;
    let store = store(&database, &db).await;
    fill(&db, 0, 3, 0).await;
    let refresh = db.transaction().await.unwrap();
    refresh
        .execute("SELECT 1 FROM refresh_tokens ORDER BY id LIMIT 1 FOR UPDATE", &[])
        .await
        .unwrap();
    assert_eq!(removed(store.clean_ended_sessions(Uuid::nil(), 100).await).0, 2);
    refresh.rollback().await.unwrap();
    assert_eq!(removed(store.clean_ended_sessions(Uuid::nil(), 100).await).0, 1);
    store.close();
}

/// Inserts `lines` old lines into the audit log.
async fn fill_log(db: &tokio_postgres::Client, lines: i32) {
    let insert = "INSERT INTO auth_events (at, event, outcome, user_id)
         SELECT now() - interval '100 days', 'login', 'success', n FROM generate_series(1, $1) AS n";
    db.execute(insert, &[&lines]).await.unwrap();
}

async fn lines(db: &tokio_postgres::Client) -> i64 {
    db.query_one("SELECT count(*) FROM auth_events", &[]).await.unwrap().get(0)
}

/// Runs a statement and returns the pages that it read, and its row.
async fn pages(db: &tokio_postgres::Client, statement: &str, arguments: &str) -> u64 {
    let explain =
        format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {statement}({arguments})");
    let rows = db.simple_query(&explain).await.unwrap();
    let text = rows.iter().find_map(|message| {
        let tokio_postgres::SimpleQueryMessage::Row(row) = message else { return None };
        row.get(0)
    });
    let plan: Value = serde_json::from_str(text.unwrap()).unwrap();
    let count = |name: &str| plan[0]["Plan"][name].as_u64().unwrap();
    count("Shared Hit Blocks") + count("Shared Read Blocks")
}

// Case F12 of the field list. Counts pages, because they determine a batch's time.
#[tokio::test]
async fn batch_cost_does_not_grow_with_dead_rows_under_an_open_snapshot() {
    const BATCHES: usize = 20;
    let database = TestDatabase::create().await;
    let db = database.connect().await;
    store(&database, &db).await.close();
    fill_log(&db, 25_000).await;
    fill(&db, 0, 25_000, 25_000).await;
    // One second apart, so that the order has no ties.
    db.batch_execute(
        "UPDATE refresh_tokens AS r
         SET expires_at = now() - s.n * interval '1 s',
             expiry_check_at = now() - s.n * interval '1 s'
         FROM (SELECT id, row_number() OVER () AS n FROM refresh_tokens WHERE NOT revoked) AS s
         WHERE r.id = s.id",
    )
    .await
    .unwrap();
    db.batch_execute("VACUUM ANALYZE refresh_tokens, auth_events").await.unwrap();
    let holder = database.connect().await;
    let hold = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM auth_events";
    holder.batch_execute(hold).await.unwrap();
    db.batch_execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    let begins = |table: &str, key: &str, condition: &str| {
        format!(
            "SELECT coalesce(min({key}::text COLLATE \"C\"), '') FROM {table} WHERE {condition}"
        )
    };
    for (name, more, first, next) in [
        (
            "clean_events",
            ", 7776000.0",
            "0",
            begins("auth_events", "lpad((id - 1)::text, 9, '0')", "true"),
        ),
        (
            "clean_expired_sessions",
            "",
            "epoch",
            begins("refresh_tokens", "expiry_check_at", "NOT revoked"),
        ),
        (
            "clean_ended_sessions",
            "",
            "00000000-0000-0000-0000-000000000000",
            begins("refresh_tokens", "(left(id::text, 24) || repeat('0', 12))", "revoked"),
        ),
    ] {
        let statement = STATEMENTS.iter().find(|statement| statement.name == name).unwrap();
        db.batch_execute(&format!("PREPARE {name} AS {}", statement.sql)).await.unwrap();
        // The first remaining row, or just before it: where the previous batch ended.
        let from = async || db.query_one(&next, &[]).await.unwrap().get::<_, String>(0);
        let clean = async |from: &str, rows| {
            pages(&db, name, &format!("{CLEANUP_LOCK}, {rows}, '{from}'{more}")).await
        };
        let mut costs = Vec::new();
        for _ in 0..BATCHES {
            clean(&from().await, 1_000).await;
            costs.push(clean(&from().await, 10).await);
        }
        let most = costs.iter().max().unwrap();
        assert!(*most < 2 * costs[0] + 20, "{name}: {costs:?}");
        let again = clean(first, 10).await;
        assert!(again > 2 * most, "{name} from the start: {again} pages, otherwise {costs:?}");
    }
}

// Case F12 of the field list.
#[tokio::test]
async fn a_batch_that_times_out_is_retried_with_fewer_rows() {
    let app = TestApp::builder().set("STAUNCH_CLEANUP_INTERVAL", "1s").start().await;
    let db = app.db().await;
    // Fails batches of more than 200 rows as the statement timeout does, without waiting for it.
    db.batch_execute(
        "CREATE FUNCTION too_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF (SELECT count(*) FROM gone) > 200 THEN
                 RAISE 'canceling statement due to statement timeout' USING ERRCODE = '57014';
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER too_slow AFTER DELETE ON auth_events REFERENCING OLD TABLE AS gone
             FOR EACH STATEMENT EXECUTE FUNCTION too_slow();",
    )
    .await
    .unwrap();
    fill_log(&db, 1_500).await;
    until("the old lines are removed", SOON, async || lines(&db).await == 0).await;
}

#[tokio::test]
async fn the_next_batch_starts_where_the_last_one_ended() {
    let database = TestDatabase::create().await;
    let db = database.connect().await;
    let store = store(&database, &db).await;
    fill_log(&db, 25).await;
    db.batch_execute("INSERT INTO auth_events (event, outcome) VALUES ('login', 'success')")
        .await
        .unwrap();
    let keep = Duration::from_secs(90 * 24 * 3_600);
    let mut next = 0;
    for (expected, ends_at) in [(10, 10), (10, 20), (5, 25), (0, 25)] {
        let rows;
        (rows, next) = removed(store.clean_events(keep, next, 10).await);
        assert_eq!((rows, next), (expected, ends_at));
    }
    store.close();
}
