//! Requests in progress when the server stops.

use crate::support::{ALIVE, PASSWORD, SOON, TestApp, until};

// Reliability: D2.
#[tokio::test]
async fn requests_in_progress_are_answered_during_shutdown() {
    let mut app = TestApp::builder()
        .long_calls()
        .set("STAUNCH_SHUTDOWN_GRACE", "30s")
        // One connection per login, so that no login waits for a connection.
        .set("STAUNCH_DB_POOL_MIN", "4")
        .start()
        .await;
    app.register("ada").await;
    let mut idle = app.raw().await;
    idle.write(ALIVE).await;
    idle.reply().await.unwrap();
    // The logins have a place in the engine and wait for the database.
    let db = app.db().await;
    db.batch_execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let client = app.anonymous();
    let under_way: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.login("ada", PASSWORD).await.status })
        })
        .collect();
    app.database.until_blocked(3).await;
    app.begin_stop();
    until("the port is closed", SOON, async || {
        tokio::net::TcpStream::connect(app.address).await.is_err()
    })
    .await;
    db.batch_execute("COMMIT").await.unwrap();
    for login in under_way {
        assert_eq!(login.await.unwrap(), 200);
    }
    assert_eq!(idle.rest().await, "", "an idle connection is closed");
}

// Reliability: D2.
#[tokio::test]
async fn requests_that_outlast_the_grace_period_get_503() {
    let mut app = TestApp::builder()
        // Far more than the server can hash within the grace period.
        .set("STAUNCH_BCRYPT_COST", "14")
        .set("STAUNCH_SHUTDOWN_GRACE", "2s")
        .start()
        .await;
    let logins: Vec<_> = (0..40)
        .map(|n| {
            let client = app.anonymous();
            tokio::spawn(async move { client.login(&format!("nobody-{n}"), PASSWORD).await })
        })
        .collect();
    until("all have read their account", SOON, async || {
        app.queries("credentials_by_username").await == 40.0
    })
    .await;
    app.begin_stop();
    let mut refused = 0;
    for login in logins {
        let reply = login.await.expect("an answer");
        if reply.status != 401 {
            reply.assert_status(503);
            refused += 1;
        }
    }
    assert!(refused > 0, "{refused}");
}
