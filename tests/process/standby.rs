//! A primary whose synchronous standby is gone: its commits wait, and its reads go on.

use crate::support::{Server, folder, until};
use futures_util::future::join_all;
use std::fs;
use std::path::Path;
use tokio_postgres::{Client, Config, NoTls};

/// Connects to the server's embedded database.
async fn connect(top: &Path) -> Client {
    let folder = top.join("data/postgres");
    let file = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
    let socket = file.lines().nth(4).unwrap();
    let password = fs::read_to_string(folder.join("password")).unwrap();
    let mut config = Config::new();
    config.host(socket).user("staunch").password(password.trim()).dbname("staunch");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Makes every commit wait for a standby that does not exist, or none.
async fn require_standby(db: &Client, required: bool) {
    let change = if required {
        "SET synchronous_standby_names = 'nobody'"
    } else {
        "RESET synchronous_standby_names"
    };
    db.batch_execute(&format!("ALTER SYSTEM {change}")).await.unwrap();
    db.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

async fn count(db: &Client, from: &str) -> i64 {
    db.query_one(&format!("SELECT count(*) FROM {from}"), &[]).await.unwrap().get(0)
}

// Case N6 of the field list: readiness stayed 200, and each login left a session that nobody held.
// Reliability: C5.
#[tokio::test]
async fn commits_that_wait_for_a_standby_are_reported_and_leave_no_session() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    server.ready().await;
    let db = connect(top.path()).await;
    require_standby(&db, true).await;
    let login = async || server.login("ada").await.unwrap().status;
    let mut answered = 0;
    until("a login is refused", async || {
        let status = login().await;
        answered += i64::from(status == 200);
        status == 503
    })
    .await;
    let readiness = async || server.get("/health/readiness").await.unwrap().status;
    until("readiness reports it", async || {
        // On a busy machine, the statement may be seen in the next attempt only.
        let (_, status) = tokio::join!(login(), readiness());
        status == 503
    })
    .await;
    let why = "its commits wait for a synchronous standby";
    until("the log has the reason", async || server.log().contains(why)).await;
    let statuses = join_all((0..8).map(|_| login())).await;
    assert_eq!(statuses, [503; 8]);
    // The waiting statements are cancelled, so they do not fill the server.
    until("no statement waits", async || {
        count(
            &db,
            "pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '-- insert_session%'",
        )
        .await
            == 0
    })
    .await;
    assert!(count(&db, "refresh_tokens").await > answered, "the sessions are stored");
    // Without any statement that waits, only a commit shows whether commits work.
    until("readiness commits", async || {
        assert_eq!(readiness().await, 503);
        count(&db, "pg_stat_activity WHERE query LIKE '-- health_commit%'").await == 1
    })
    .await;
    require_standby(&db, false).await;
    server.ready().await;
    until("the sessions of refused logins are removed", async || {
        count(&db, "refresh_tokens").await == answered
    })
    .await;
    let removed = "auth_events WHERE event = 'session_end' AND outcome = 'unanswered'";
    assert!(count(&db, removed).await > 0);
    assert_eq!(login().await, 200);
    server.stop().await;
}
