//! Database outages: reported early, bounded everywhere, and over once the database is back.

use crate::support::{Link, PASSWORD, Proxy, SOON, TestApp, Tokens, until};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::Instant;

/// Limit for refusing a login during an outage, and for a login to succeed after it.
const LOGIN_LIMIT: Duration = Duration::from_secs(5);
/// Limit for readiness to follow the database.
const READY_LIMIT: Duration = Duration::from_secs(2);

const IDLE: &str = r#"staunch_db_pool_connections{state="idle"}"#;
const USED: &str = r#"staunch_db_pool_connections{state="used"}"#;

async fn start() -> (TestApp, Proxy, Tokens) {
    let (builder, proxy) = TestApp::builder().behind_proxy().await;
    let app = builder.set("STAUNCH_DB_POOL_MIN", "2").start().await;
    let tokens = app.registered("ada").await;
    (app, proxy, tokens)
}

/// Waits until every call that needs the database is refused in time, and no other call.
async fn assert_away(app: &TestApp, tokens: &Tokens) {
    let client = app.anonymous();
    until("readiness reports it in time", SOON, async || {
        let begun = Instant::now();
        let ready = app.readiness().await;
        assert!(!ready.text().contains("127.0.0.1"), "{}", ready.text());
        ready.status == 503 && begun.elapsed() < READY_LIMIT
    })
    .await;
    app.readiness().await.assert_problem(503, "not-ready");
    client.get("/health/liveness").await.assert_status(200);
    until("each is refused in time", SOON, async || refused(app, tokens).await < LOGIN_LIMIT).await;
}

/// Sends more concurrent calls than the pool has connections. All must be refused; returns the
/// longest time.
async fn refused(app: &TestApp, tokens: &Tokens) -> Duration {
    let calls: Vec<_> = (0..12)
        .map(|n| {
            let (client, tokens) = (app.anonymous(), tokens.clone());
            tokio::spawn(async move {
                let begun = Instant::now();
                let reply = match n % 4 {
                    0 => client.login("ada", PASSWORD).await,
                    1 => client.login("ada@example.com", "wrong password").await,
                    2 => client.refresh(&tokens.refresh).await,
                    _ => {
                        let (email, name) = (format!("n{n}@example.com"), format!("new{n}"));
                        client.register(&email, &name, PASSWORD).await
                    }
                };
                (reply, begun.elapsed())
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for call in calls {
        let (reply, took) = call.await.unwrap();
        reply.assert_problem(503, "unavailable");
        longest = longest.max(took);
    }
    longest
}

/// Cuts the database off and restores it, until a recovery is in time.
async fn assert_away_and_back(app: &TestApp, proxy: &Proxy, link: Link, tokens: &Tokens) {
    until("the recovery is in time", SOON, async || {
        proxy.set(link);
        assert_away(app, tokens).await;
        proxy.set(Link::Open);
        back(app).await < LOGIN_LIMIT
    })
    .await;
    assert_whole(app, tokens).await;
}

/// Waits until readiness and logins work; returns how long it took.
async fn back(app: &TestApp) -> Duration {
    let (client, begun) = (app.anonymous(), Instant::now());
    app.ready().await;
    until("logins work again", SOON, async || client.login("ada", PASSWORD).await.status == 200)
        .await;
    begun.elapsed()
}

/// Checks that everything works, and that the pool has the right size.
async fn assert_whole(app: &TestApp, tokens: &Tokens) {
    let client = app.anonymous();
    for _ in 0..8 {
        client.log_in("ada").await;
    }
    client.refresh(&tokens.refresh).await.tokens();
    // More logins than the pool has slots, so that a lost slot shows. A single 503 on a busy disk
    // is acceptable.
    let logins = (0..16).map(async |_| {
        let client = app.anonymous();
        until("this one logs in", SOON, async || client.login("ada", PASSWORD).await.status == 200)
            .await
    });
    join_all(logins).await;
    until("the pool has all its slots", SOON, async || {
        let (idle, used) = (app.metric(IDLE).await, app.metric(USED).await);
        used == 0.0 && (1.0..=4.0).contains(&idle)
    })
    .await;
}

// Reliability: C1.
#[tokio::test]
async fn a_lost_database_is_reported_and_the_server_recovers() {
    let (app, proxy, tokens) = start().await;
    app.ready().await;
    assert_away_and_back(&app, &proxy, Link::Cut, &tokens).await;
}

// Reliability: C2.
#[tokio::test]
async fn a_network_that_drops_everything_is_reported_and_the_server_recovers() {
    let (app, proxy, tokens) = start().await;
    assert_away_and_back(&app, &proxy, Link::Paused, &tokens).await;
}

// Reliability: C3.
#[tokio::test]
async fn waits_for_a_slow_database_are_bounded() {
    let (app, proxy, _) = start().await;
    proxy.set(Link::Slow(Duration::from_millis(150)));
    until("the call waits", SOON, async || {
        let begun = Instant::now();
        let reply = app.anonymous().login("ada", PASSWORD).await;
        assert!(begun.elapsed() > Duration::from_millis(300), "it was slow");
        reply.status == 200
    })
    .await;
    proxy.set(Link::Slow(Duration::from_secs(2)));
    until("the call fails in time", SOON, async || {
        let begun = Instant::now();
        let reply = app.anonymous().login("ada", PASSWORD).await;
        reply.assert_problem(503, "unavailable");
        begun.elapsed() < LOGIN_LIMIT
    })
    .await;
}

// Reliability: C4.
#[tokio::test]
async fn terminated_backends_cost_a_503_at_most_and_no_pool_slot() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let db = app.db().await;
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for _ in 0..5 {
        until("there are backends to terminate", SOON, async || {
            db.query_one(terminate, &[]).await.unwrap().get::<_, i64>(0) >= 1
        })
        .await;
        let logins: Vec<_> = (0..6)
            .map(|_| {
                let client = app.anonymous();
                tokio::spawn(async move { client.login("ada", PASSWORD).await.status })
            })
            .collect();
        for login in logins {
            assert!([200, 503].contains(&login.await.unwrap()));
        }
    }
    back(&app).await;
    assert_whole(&app, &tokens).await;
}

// Reliability: C5.
#[tokio::test]
async fn a_read_only_database_is_503_for_writes_and_serves_reads() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let db = app.db().await;
    let name = &app.database.name;
    let only_read = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    db.batch_execute(&only_read).await.unwrap();
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()";
    db.query(terminate, &[]).await.unwrap();
    let client = app.anonymous();
    until("the pool has new connections", SOON, async || {
        client.me(&tokens.access).await.status == 200
    })
    .await;
    let reply = client.login("ada", PASSWORD).await;
    reply.assert_problem(503, "unavailable");
    let reply = client.refresh(&tokens.refresh).await;
    reply.assert_problem(503, "unavailable");
    let reply = client.register("b@example.com", "bob", PASSWORD).await;
    reply.assert_problem(503, "unavailable");
    let reply = client.login("ada", "wrong password").await;
    reply.assert_problem(401, "credentials-rejected");
}

/// A connection reads the setting when it opens. When the database becomes writable again, nothing
/// closes the server's connections, and the server must open new ones itself.
// Reliability: C5.
#[tokio::test]
async fn a_read_only_database_is_not_ready_until_it_is_writable_again() {
    let app = TestApp::builder().set("STAUNCH_DB_POOL_MIN", "4").start().await;
    let tokens = app.registered("ada").await;
    let db = app.db().await;
    let name = &app.database.name;
    let client = app.anonymous();
    let readiness = async || app.readiness().await.status;
    // Twice, in case a connection of an earlier round remains.
    for round in 0..2 {
        until("readiness follows in time", SOON, async || {
            let only_read = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
            db.batch_execute(&only_read).await.unwrap();
            let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid()";
            db.query(terminate, &[]).await.unwrap();
            let down = until("not ready", SOON, async || readiness().await == 503).await;
            // Answered on each of its connections.
            for _ in 0..6 {
                app.readiness().await.assert_problem(503, "not-ready");
                assert_eq!(client.login("ada", PASSWORD).await.status, 503, "round {round}");
            }
            assert_eq!(app.metric("staunch_ready").await, 0.0);
            let writable = format!("ALTER DATABASE {name} RESET default_transaction_read_only");
            db.batch_execute(&writable).await.unwrap();
            let up = until("ready again", SOON, async || readiness().await == 200).await;
            // Ready means that no read-only connection remains.
            let logins: Vec<_> = (0..8)
                .map(|_| {
                    let client = app.anonymous();
                    tokio::spawn(async move { client.log_in("ada").await })
                })
                .collect();
            for login in logins {
                login.await.unwrap();
            }
            down.max(up) < READY_LIMIT
        })
        .await;
    }
    client.refresh(&tokens.refresh).await.tokens();
}

/// Reads still work when the disk is full, so a probe that only reads cannot detect it.
// Reliability: C5.
#[tokio::test]
async fn a_full_disk_is_not_ready_until_2_seconds_after_the_last_failed_write() {
    let app = TestApp::start().await;
    app.register("ada").await;
    let db = app.db().await;
    db.batch_execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER full_disk BEFORE INSERT ON refresh_tokens
             FOR EACH ROW EXECUTE FUNCTION full_disk()",
    )
    .await
    .unwrap();
    let client = app.anonymous();
    client.get("/health/readiness").await.assert_status(200);
    client.login("ada", PASSWORD).await.assert_problem(503, "unavailable");
    client.get("/health/readiness").await.assert_problem(503, "not-ready");
    app.clock.advance(Duration::from_secs(2));
    client.get("/health/readiness").await.assert_status(200);
    client.login("ada", PASSWORD).await.assert_problem(503, "unavailable");
    db.batch_execute("DROP TRIGGER full_disk ON refresh_tokens").await.unwrap();
    client.get("/health/readiness").await.assert_problem(503, "not-ready");
    app.clock.advance(Duration::from_secs(2));
    client.get("/health/readiness").await.assert_status(200);
    client.log_in("ada").await;
}

// Reliability: C5.
#[tokio::test]
async fn a_locked_table_does_not_affect_readiness() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let db = app.db().await;
    let client = app.anonymous();
    client.me(&tokens.access).await.assert_status(200);
    let lock = "BEGIN; LOCK TABLE refresh_tokens IN ACCESS EXCLUSIVE MODE";
    db.batch_execute(lock).await.unwrap();
    client.login("ada", PASSWORD).await.assert_problem(503, "unavailable");
    app.ready().await;
    client.login("ada", "wrong password").await.assert_problem(401, "credentials-rejected");
    client.me(&tokens.access).await.assert_status(200);
    db.batch_execute("ROLLBACK").await.unwrap();
    client.log_in("ada").await;
}

/// Transient error classes of PostgreSQL's appendix A, each raised by a real server.
// Reliability: C5.
#[tokio::test]
async fn transient_database_errors_are_503_and_leave_nothing_half_done() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let db = app.db().await;
    db.batch_execute(
        "CREATE TABLE fault (code text);
         INSERT INTO fault VALUES (NULL);
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         DECLARE code text := (SELECT f.code FROM fault f);
         BEGIN
             IF code IS NOT NULL THEN RAISE EXCEPTION 'injected' USING ERRCODE = code; END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION fail();
         CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON refresh_tokens
             FOR EACH ROW EXECUTE FUNCTION fail();",
    )
    .await
    .unwrap();
    let client = app.anonymous();
    let logins = "staunch_logins_total{result=\"unavailable\"}";
    // disk_full, out_of_memory, too_many_connections, deadlock_detected, serialization_failure,
    // lock_not_available, query_canceled, admin_shutdown, io_error
    let codes = ["53100", "53200", "53300", "40P01", "40001", "55P03", "57014", "57P01", "58030"];
    for code in codes {
        db.execute("UPDATE fault SET code = $1", &[&code]).await.unwrap();
        for reply in [
            client.login("ada", PASSWORD).await,
            client.refresh(&tokens.refresh).await,
            client.logout(&tokens.refresh).await,
            client.register("b@example.com", "bob", PASSWORD).await,
            client.change_password(&tokens.access, PASSWORD, "AnotherPass456!").await,
        ] {
            reply.assert_problem(503, "unavailable");
            assert!(reply.header("retry-after").is_some(), "{code}");
        }
    }
    assert_eq!(app.metric(logins).await, codes.len() as f64);
    db.execute("UPDATE fault SET code = NULL", &[]).await.unwrap();
    client.me(&tokens.access).await.assert_status(200);
    client.refresh(&tokens.refresh).await.tokens();
    client.login("bob", PASSWORD).await.assert_problem(401, "credentials-rejected");
    let rows = "SELECT count(*) FROM refresh_tokens";
    assert_eq!(db.query_one(rows, &[]).await.unwrap().get::<_, i64>(0), 1, "no login left a row");
    client.log_in("ada").await;
}

// Reliability: C1.
#[tokio::test]
async fn no_login_is_hashed_during_an_outage() {
    let (app, proxy, tokens) = start().await;
    let hashed = "staunch_hash_seconds_count{op=\"verify\"}";
    let before = app.metric(hashed).await;
    proxy.set(Link::Cut);
    for _ in 0..3 {
        app.anonymous().login("ada", PASSWORD).await.assert_problem(503, "unavailable");
    }
    assert_eq!(app.metric(hashed).await, before, "no hash for a login that cannot finish");
    assert_eq!(app.metric("staunch_hash_queue_depth").await, 0.0);
    proxy.set(Link::Open);
    back(&app).await;
    assert_whole(&app, &tokens).await;
}

// Reliability: C6.
#[tokio::test]
async fn a_registration_that_loses_its_commit_reply_is_503_and_may_exist() {
    let (builder, proxy) = TestApp::builder().behind_proxy().await;
    let app = builder.long_locks().set("STAUNCH_DB_POOL_MAX", "1").start().await;
    // Prepares the statement on the only connection.
    app.register("ada").await;
    let client = app.anonymous();
    // Blocks the statement, so that the cut falls between it and its answer.
    let db = app.db().await;
    db.batch_execute("BEGIN; LOCK TABLE users IN EXCLUSIVE MODE").await.unwrap();
    let registering = {
        let client = client.clone();
        tokio::spawn(async move { client.register("b@example.com", "bob", PASSWORD).await })
    };
    app.database.until_blocked(1).await;
    proxy.set(Link::Paused);
    db.batch_execute("COMMIT").await.unwrap();
    let count = "SELECT count(*) FROM users WHERE username = 'bob'";
    until("the account exists", SOON, async || {
        db.query_one(count, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let reply = registering.await.unwrap();
    reply.assert_problem(503, "unavailable");
    proxy.set(Link::Open);
    app.ready().await;
    let again = client.register("b@example.com", "bob", PASSWORD).await;
    again.assert_problem(409, "email-taken");
    client.log_in("bob").await;
}
