//! Clients that disconnect in the middle of a statement: the database connections stay open.

use crate::introspect::{INTROSPECT, REVOKE};
use crate::support::{Builder, PASSWORD, SOON, TestApp, Tokens, form, until};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const FINISHED: &str = r#"staunch_db_abandoned_statements_total{result="finished"}"#;
const CANCELLED: &str = r#"staunch_db_abandoned_statements_total{result="cancelled"}"#;
const CLOSED: &str = r#"staunch_db_abandoned_statements_total{result="closed"}"#;
/// Pool connections in these tests.
const CONNECTIONS: usize = 4;

fn builder() -> Builder {
    TestApp::builder()
        .set("STAUNCH_DB_POOL_MIN", CONNECTIONS.to_string())
        .set("STAUNCH_DB_POOL_MAX", CONNECTIONS.to_string())
}

/// A request that changes ada's password.
fn change_password(tokens: &Tokens) -> String {
    let body = format!(r#"{{"current_password":"{PASSWORD}","new_password":"AnotherPass456!"}}"#);
    format!(
        "POST /api/v1/auth/password HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
        tokens.access,
        body.len()
    )
}

// Case F1 of the field list: 600 such requests a second opened 599 database connections a second,
// and concurrent logins were answered 503.
#[tokio::test]
async fn reset_requests_cost_no_database_connections_and_fail_no_logins() {
    let app = builder().start().await;
    app.register("ada").await;
    let before = app.backends(CONNECTIONS).await;
    let reset = async |number: u64| {
        let id = uuid::Uuid::new_v4().to_string();
        let body = form(&[("client_id", &id), ("client_secret", "x"), ("token", "x")]);
        let path = [INTROSPECT, REVOKE][usize::from(number.is_multiple_of(2))];
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        // Each disconnects at another point of the query.
        tokio::time::sleep(Duration::from_micros(number * 5)).await;
        stream.set_zero_linger().unwrap();
    };
    let resets = async {
        for round in 0..40 {
            join_all((0..16).map(|number| reset(16 * round + number))).await;
        }
    };
    let logins = async {
        for _ in 0..10 {
            app.anonymous().log_in("ada").await;
        }
    };
    tokio::join!(resets, logins);
    until("some requests are cut off", SOON, async || app.metric(FINISHED).await >= 1.0).await;
    // A statement that takes a second on a busy machine may lose its connection. Before, most did.
    let closed = app.metric(CLOSED).await;
    assert!(closed <= 5.0, "{closed}");
    let after = app.backends(CONNECTIONS).await;
    let kept = before.intersection(&after).count();
    assert!(kept as f64 + closed >= CONNECTIONS as f64, "{before:?}, {after:?}");
}

#[tokio::test]
async fn a_disconnected_clients_transaction_is_rolled_back_and_its_connection_kept() {
    let app = builder().long_calls().start().await;
    let tokens = app.registered("ada").await;
    app.anonymous().me(&tokens.access).await.assert_status(200);
    let before = app.backends(CONNECTIONS).await;
    let db = app.db().await;
    // Blocks the first statement of the transaction.
    db.batch_execute("BEGIN; LOCK TABLE users IN EXCLUSIVE MODE").await.unwrap();
    let mut raw = app.raw().await;
    raw.write(change_password(&tokens)).await;
    app.database.until_blocked(1).await;
    drop(raw);
    let left =
        r#"staunch_http_requests_total{route="/api/v1/auth/password",method="POST",status="499"}"#;
    until("the disconnect is noticed", SOON, async || app.metric(left).await == 1.0).await;
    db.batch_execute("COMMIT").await.unwrap();
    let done = async || {
        app.metric(FINISHED).await + app.metric(CANCELLED).await + app.metric(CLOSED).await
    };
    until("its connection is handled", SOON, async || done().await == 1.0).await;
    let open = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    until("no transaction stays open", SOON, async || {
        db.query_one(open, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    let closed = app.metric(CLOSED).await;
    let kept = before.intersection(&app.backends(CONNECTIONS).await).count();
    assert_eq!(kept as f64 + closed, CONNECTIONS as f64);
    app.anonymous().log_in("ada").await;
}

#[tokio::test]
async fn a_disconnected_clients_slow_statement_is_cancelled_and_its_connection_kept() {
    let app = builder().long_calls().start().await;
    let tokens = app.registered("ada").await;
    let before = app.backends(CONNECTIONS).await;
    let db = app.db().await;
    db.batch_execute("BEGIN; SELECT 1 FROM refresh_tokens FOR UPDATE").await.unwrap();
    let body = format!(r#"{{"refresh_token":"{}"}}"#, tokens.refresh);
    let mut raw = app.raw().await;
    raw.write(format!(
        "POST /api/v1/auth/logout HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    app.database.until_blocked(1).await;
    drop(raw);
    // On a busy machine, the answer to the cancellation may be late.
    let done = async || app.metric(CANCELLED).await + app.metric(CLOSED).await;
    until("the statement is cancelled", SOON, async || done().await == 1.0).await;
    let closed = app.metric(CLOSED).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until("the server has stopped it", SOON, async || {
        app.db().await.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    db.batch_execute("ROLLBACK").await.unwrap();
    let kept = before.intersection(&app.backends(CONNECTIONS).await).count();
    assert_eq!(kept as f64 + closed, CONNECTIONS as f64);
    app.anonymous().refresh(&tokens.refresh).await;
    app.anonymous().log_in("ada").await;
}
