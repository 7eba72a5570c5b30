//! Migrations.

use crate::support::{TestApp, TestDatabase};
use staunch::store::{MigrateError, migrate};

async fn applied(db: &tokio_postgres::Client) -> i64 {
    let row = db.query_one("SELECT count(*) FROM staunch_migrations", &[]).await.unwrap();
    row.get(0)
}

#[tokio::test]
async fn c8_nodes_that_start_together_apply_each_file_once() {
    let database = TestDatabase::create_empty().await;
    let all = (0..4).map(|_| {
        let config = database.config.clone();
        tokio::spawn(async move { migrate(&config.into()).await.unwrap() })
    });
    let tasks: Vec<_> = all.collect();
    let mut counts = Vec::new();
    for task in tasks {
        counts.push(task.await.unwrap());
    }
    counts.sort_unstable();
    let db = database.connect().await;
    let files =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().count();
    assert_eq!(counts, [0, 0, 0, files], "one did all the work");
    assert_eq!(usize::try_from(applied(&db).await).unwrap(), files);
    assert_eq!(migrate(&database.config.clone().into()).await.unwrap(), 0);
}

#[tokio::test]
async fn c8_a_schema_of_a_newer_binary_is_refused() {
    let database = TestDatabase::create().await;
    let db = database.connect().await;
    db.batch_execute(
        "INSERT INTO staunch_migrations (number, name, sha256) VALUES (9999, 'later', '\\x00')",
    )
    .await
    .unwrap();
    let error = migrate(&database.config.clone().into()).await.unwrap_err();
    assert!(matches!(error, MigrateError::Newer { found: 9999, .. }), "{error}");
    assert!(error.to_string().contains("run a newer one"), "{error}");
}

#[tokio::test]
async fn a_file_that_was_changed_after_it_ran_is_refused() {
    let database = TestDatabase::create().await;
    let db = database.connect().await;
    db.batch_execute("UPDATE staunch_migrations SET sha256 = '\\x00' WHERE number = 1")
        .await
        .unwrap();
    let error = migrate(&database.config.clone().into()).await.unwrap_err();
    assert!(matches!(error, MigrateError::Changed { number: 1 }), "{error}");
}

#[tokio::test]
async fn c8_a_failed_migration_leaves_nothing_and_is_resumed() {
    let database = TestDatabase::create_empty().await;
    let db = database.connect().await;
    // In the way of the second file.
    db.batch_execute("CREATE TABLE refresh_tokens (x integer)").await.unwrap();
    let error = migrate(&database.config.clone().into()).await.unwrap_err();
    assert!(matches!(error, MigrateError::Failed { .. }), "{error}");
    assert_eq!(applied(&db).await, 1);
    db.batch_execute("DROP TABLE refresh_tokens").await.unwrap();
    let files =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().count();
    assert_eq!(migrate(&database.config.clone().into()).await.unwrap(), files - 1);
    let columns =
        "SELECT count(*) FROM information_schema.columns WHERE table_name = 'refresh_tokens'";
    let row = db.query_one(columns, &[]).await.unwrap();
    assert!(row.get::<_, i64>(0) > 5);
}

#[tokio::test]
async fn c8_a_node_that_dies_while_it_migrates_does_not_keep_the_lock() {
    let database = TestDatabase::create_empty().await;
    let dying = database.connect().await;
    // "migrate" in ASCII, as two versions must agree on it.
    dying.execute("SELECT pg_advisory_lock($1)", &[&0x6d_6967_7261_7465_i64]).await.unwrap();
    let config = database.config.clone();
    let waiting = tokio::spawn(async move { migrate(&config.into()).await });
    let db = database.connect().await;
    let blocked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    crate::support::until("it waits", crate::support::SOON, async || {
        db.query_one(blocked, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    drop(dying);
    assert!(waiting.await.unwrap().unwrap() > 0);
}

#[tokio::test]
async fn a_server_migrates_what_it_starts_on() {
    let database = TestDatabase::create_empty().await;
    let app = TestApp::builder().set("STAUNCH_DATABASE_URL", database.url()).start().await;
    app.registered("ada").await;
    drop(app);
    let again = TestApp::builder().set("STAUNCH_DATABASE_URL", database.url()).start().await;
    again.anonymous().log_in("ada").await;
}
