//! The audit log.

use crate::support::{PASSWORD, SOON, TestApp, until};
use std::net::IpAddr;
use std::time::Duration;
use tokio_postgres::Client;

const DROPPED: &str = "staunch_audit_events_dropped_total";

/// Event, outcome, account, address and request id, in order of time.
type Line = (String, String, Option<i64>, Option<String>, Option<String>);

async fn lines(db: &Client) -> Vec<Line> {
    let query = "SELECT event, outcome, user_id, ip, request_id FROM auth_events ORDER BY at, id";
    let rows = db.query(query, &[]).await.unwrap();
    let address = |address: Option<IpAddr>| address.map(|address| address.to_string());
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), address(row.get(3)), row.get(4)))
        .collect()
}

fn line(
    (event, outcome): (&str, &str),
    user: Option<i64>,
    address: &str,
    request_id: &str,
) -> Line {
    (event.into(), outcome.into(), user, Some(address.into()), Some(request_id.into()))
}

/// Waits until the audit log has `count` lines.
async fn settled(db: &Client, count: usize) -> Vec<Line> {
    until("the lines are written", SOON, async || lines(db).await.len() >= count).await;
    lines(db).await
}

#[tokio::test]
async fn successes_are_logged_at_once_and_failures_within_a_second() {
    let app = TestApp::builder().set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1").start().await;
    let db = app.db().await;
    let client = |id: &str| app.anonymous().from("192.0.2.7").with("x-request-id", id);
    let reply = client("r1").register("ada@example.com", "ada", PASSWORD).await;
    let ada = reply.json()["id"].as_i64();
    let tokens = client("r2").log_in("ada").await;
    let mut expected = vec![
        line(("register", "success"), ada, "192.0.2.7", "r1"),
        line(("login", "success"), ada, "192.0.2.7", "r2"),
    ];
    assert_eq!(lines(&db).await, expected);

    client("r3").login("ada", "Wrong-Pass123").await.assert_status(401);
    client("r4").login("nobody", PASSWORD).await.assert_status(401);
    let next = client("r5").refresh(&tokens.refresh).await.tokens();
    client("r6").refresh(&next.refresh).await.tokens();
    client("r7").refresh(&tokens.refresh).await.assert_status(401);
    let reuse = line(("refresh", "reuse"), ada, "192.0.2.7", "r7");
    assert!(lines(&db).await.contains(&reuse), "reuse is logged with the session that it ended");
    expected.extend([
        line(("login", "rejected"), ada, "192.0.2.7", "r3"),
        line(("login", "rejected"), None, "192.0.2.7", "r4"),
        reuse,
    ]);
    let mut found = settled(&db, 5).await;
    found.sort_by(|one, other| one.4.cmp(&other.4));
    assert_eq!(found, expected);
    client("r8").register("ada@example.com", "ada", PASSWORD).await.assert_status(409);
    assert_eq!(lines(&db).await.len(), 5, "no line without an account");
    assert_eq!(app.metric(DROPPED).await, 0.0);
}

#[tokio::test]
async fn logging_a_successful_login_costs_no_extra_round_trip() {
    let app = TestApp::start().await;
    app.register("ada").await;
    let before = app.all_queries().await;
    app.anonymous().log_in("ada").await;
    assert_eq!(app.all_queries().await - before, 2.0);
}

#[tokio::test]
async fn only_the_first_login_refused_during_a_lockout_is_logged() {
    let mut app = TestApp::start().await;
    app.register("ada").await;
    for _ in 0..50 {
        app.anonymous().login("ada", "Wrong-Pass123").await;
    }
    app.clock.advance(Duration::from_secs(30));
    for _ in 0..50 {
        app.anonymous().login("ada", "Wrong-Pass123").await;
    }
    let db = app.db().await;
    // Stopping the server writes the queued lines.
    app.begin_stop();
    let found = settled(&db, 9).await;
    let count = |outcome: &str| found.iter().filter(|line| line.1 == outcome).count();
    assert_eq!((count("rejected"), count("limited"), found.len()), (6, 2, 9));
}

#[tokio::test]
async fn events_queue_during_an_outage_and_keep_their_time() {
    let app = TestApp::start().await;
    app.register("ada").await;
    // Keeps lines from being written before the database is cut off.
    let lock = app.db().await;
    lock.batch_execute("BEGIN; LOCK TABLE auth_events").await.unwrap();
    app.anonymous().login("ada", "Wrong-Pass123").await.assert_status(401);
    app.database.set_open(false).await;
    app.clock.advance(Duration::from_secs(3_600));
    let failed = r#"staunch_db_errors_total{query="insert_events"}"#;
    until("an attempt fails", SOON, async || app.metric(failed).await >= 1.0).await;
    app.database.set_open(true).await;
    let db = app.db().await;
    settled(&db, 2).await;
    let query =
        "SELECT extract(epoch FROM now() - at)::float8 FROM auth_events WHERE outcome = 'rejected'";
    let age: f64 = db.query_one(query, &[]).await.unwrap().get(0);
    assert!((3_600.0..4_000.0).contains(&age), "{age}");
    assert_eq!(app.metric(DROPPED).await, 0.0);
}

#[tokio::test]
async fn old_events_are_removed_in_batches_and_recent_ones_kept() {
    let app = TestApp::builder()
        .set("STAUNCH_CLEANUP_INTERVAL", "1s")
        .set("STAUNCH_AUDIT_KEEP", "30d")
        .start()
        .await;
    let db = app.db().await;
    let insert = "INSERT INTO auth_events (at, event, outcome)
         SELECT now() - make_interval(days => $1), 'login', 'success' FROM generate_series(1, $2)";
    db.execute(insert, &[&31, &2_500]).await.unwrap();
    db.execute(insert, &[&29, &7]).await.unwrap();
    until("only recent lines remain", SOON, async || lines(&db).await.len() == 7).await;
    assert_eq!(app.metric("staunch_cleanup_removed_total").await, 0.0, "counts sessions");
}
