//! Migrations while other nodes start or serve: the lock, and adjacent versions.

use crate::migrate::{AT_ONCE, OLD, applied, insert_user, make_old};
use crate::support::{SOON, TestApp, TestDatabase, until};
use staunch::store::migrate;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// "migrate" in ASCII. The number must not change, because two versions must agree on it.
const MIGRATION_LOCK: i64 = 0x6d_6967_7261_7465;

/// The server processes that hold the migration lock of this database.
const HOLDERS: &str =
    "SELECT a.pid, a.state FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
     WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()";

/// Starts migrations that wait for a transaction of `db`, and have the lock.
async fn blocked_migrations(database: &TestDatabase, db: &Client) -> JoinHandle<usize> {
    make_old(db).await;
    let id = insert_user(db, "ada").await;
    // Blocks the build of the first index until the transaction ends.
    db.batch_execute("BEGIN").await.unwrap();
    db.execute("UPDATE users SET is_active = true WHERE id = $1", &[&id]).await.unwrap();
    let config = database.config.clone();
    let migrating = tokio::spawn(async move { migrate(&config.into()).await.unwrap() });
    database.until_blocked(1).await;
    migrating
}

// Reliability: C8.
#[tokio::test]
async fn a_node_that_dies_while_migrating_releases_the_lock() {
    let database = TestDatabase::create_empty().await;
    let dying = database.connect().await;
    dying.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await.unwrap();
    let config = database.config.clone();
    let waiting = tokio::spawn(async move { migrate(&config.into()).await });
    let db = database.connect().await;
    let asking = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE '-- migration lock%'";
    until("the node tries to take the lock", SOON, async || {
        db.query_one(asking, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    assert!(!waiting.is_finished());
    drop(dying);
    assert!(waiting.await.unwrap().unwrap() > 0);
}

// Case N3 of the field list: a session's lock stayed on a pooler's connection, and no other node started.
// Reliability: C8.
#[tokio::test]
async fn the_lock_belongs_to_a_transaction_that_no_timeout_ends() {
    let database = TestDatabase::create_empty().await;
    let (db, watching) = (database.connect().await, database.connect().await);
    let name = &database.name;
    let short = format!("ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '1ms'");
    watching.batch_execute(&short).await.unwrap();
    let migrating = blocked_migrations(&database, &db).await;
    let before = watching.query_one(HOLDERS, &[]).await.unwrap();
    assert_eq!(before.get::<_, &str>(1), "idle in transaction");
    watching.query("SELECT pg_sleep(0.1)", &[]).await.unwrap();
    let after = watching.query_one(HOLDERS, &[]).await.unwrap();
    assert_eq!(after.get::<_, i32>(0), before.get::<_, i32>(0), "it is still held");
    db.batch_execute("COMMIT").await.unwrap();
    assert_eq!(migrating.await.unwrap(), AT_ONCE);
    assert!(watching.query(HOLDERS, &[]).await.unwrap().is_empty());
}

// Case N3 of the field list: a node that loses the lock stops, because another one may begin.
// Reliability: C8.
#[tokio::test]
async fn migrations_stop_when_their_lock_is_lost_and_are_repeated() {
    let database = TestDatabase::create_empty().await;
    let (db, watching) = (database.connect().await, database.connect().await);
    let migrating = blocked_migrations(&database, &db).await;
    let holder: i32 = watching.query_one(HOLDERS, &[]).await.unwrap().get(0);
    watching.query("SELECT pg_terminate_backend($1)", &[&holder]).await.unwrap();
    until("another attempt has the lock", SOON, async || {
        let holders = watching.query(HOLDERS, &[]).await.unwrap();
        holders.iter().any(|row| row.get::<_, i32>(0) != holder)
    })
    .await;
    db.batch_execute("COMMIT").await.unwrap();
    assert_eq!(migrating.await.unwrap(), AT_ONCE);
}

#[tokio::test]
async fn an_older_server_waiting_for_the_lock_blocks_no_index_build() {
    let database = TestDatabase::create_empty().await;
    let db = database.connect().await;
    let migrating = blocked_migrations(&database, &db).await;
    let older = database.connect().await;
    // PostgreSQL checks for a deadlock once per wait, so the later wait is the one that detects it.
    older.batch_execute("SET deadlock_timeout = '1ms'").await.unwrap();
    let older = tokio::spawn(async move {
        older.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await
    });
    database.until_blocked(2).await;
    db.batch_execute("COMMIT").await.unwrap();
    // Both now wait for each other, until PostgreSQL cancels one of them.
    assert_eq!(migrating.await.unwrap(), AT_ONCE);
    if let Err(error) = older.await.unwrap() {
        assert_eq!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED), "{error}");
    }
}

// Two adjacent versions run side by side during a rolling upgrade.
// Reliability: C8.
#[tokio::test]
async fn a_server_starts_and_serves_on_a_newer_schema_that_is_compatible() {
    let old = TestApp::start().await;
    let tokens = old.registered("ada").await;
    let db = old.db().await;
    let last = i32::try_from(applied(&db).await).unwrap();
    let newer = "ALTER TABLE users ADD COLUMN nickname text;
         ALTER TABLE refresh_tokens ADD COLUMN device text NOT NULL DEFAULT ''";
    db.batch_execute(newer).await.unwrap();
    let record = "INSERT INTO staunch_migrations (number, name, sha256, compatible_since)
         VALUES ($1, 'later', '\\x00', $2)";
    db.execute(record, &[&(last + 1), &last]).await.unwrap();
    let started = old.sibling().start().await;
    for app in [&old, &started] {
        app.ready().await;
        let name = format!("user{}", app.address.port());
        let own = app.registered(&name).await;
        let next = app.anonymous().refresh(&own.refresh).await.tokens();
        app.anonymous().me(&next.access).await.assert_status(200);
        app.anonymous().log_in("ada").await;
        app.anonymous().me(&tokens.access).await.assert_status(200);
    }
    // A migration that this version does not support.
    db.execute(record, &[&(last + 2), &(last + 1)]).await.unwrap();
    let error = old.sibling().try_start().await.err().expect("it does not start").to_string();
    assert!(error.contains("run a newer one"), "{error}");
    old.anonymous().log_in("ada").await;
}

#[tokio::test]
async fn applied_migrations_record_the_oldest_version_that_supports_them() {
    let database = TestDatabase::create_empty().await;
    let db = database.connect().await;
    make_old(&db).await;
    migrate(&database.config.clone().into()).await.unwrap();
    let rows = "SELECT number, compatible_since FROM staunch_migrations ORDER BY number";
    let rows = db.query(rows, &[]).await.unwrap();
    let rows: Vec<(i32, Option<i32>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let (old, new) = rows.split_at(OLD.len());
    assert!(old.iter().all(|(_, since)| since.is_none()), "{old:?}");
    assert!(
        new.iter().all(|(number, since)| since.is_some_and(|since| since <= *number)),
        "{new:?}"
    );
}
