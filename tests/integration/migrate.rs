//! Migrations.

use crate::support::{PASSWORD, SOON, TestApp, TestDatabase, until};
use aws_lc_rs::digest::{SHA256, digest};
use staunch::store::{MigrateError, migrate};
use std::sync::Arc;
use tokio_postgres::Client;

/// The number of files that an upgrade from [`OLD`] applies at once.
pub(crate) const AT_ONCE: usize = 3;
/// The number of files that it applies a day later.
const LATER: usize = 2;

/// The migrations of the last version without indexes of a fixed collation.
pub(crate) const OLD: [(i32, &str); 4] = [
    (1, include_str!("../../migrations/0001_users.sql")),
    (2, include_str!("../../migrations/0002_refresh_tokens.sql")),
    (3, include_str!("../../migrations/0003_auth_events.sql")),
    (4, include_str!("../../migrations/0004_clients.sql")),
];

/// A database with that ICU locale, migrated by that version; `None` without ICU.
pub(crate) async fn old_database(locale: &str) -> Option<TestDatabase> {
    let database = TestDatabase::create_icu(locale).await?;
    make_old(&database.connect().await).await;
    Some(database)
}

pub(crate) async fn make_old(db: &Client) {
    let table = "CREATE TABLE staunch_migrations (number integer PRIMARY KEY, name text NOT NULL,
         sha256 bytea NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())";
    db.batch_execute(table).await.unwrap();
    for (number, sql) in OLD {
        db.batch_execute(sql).await.unwrap();
        let record = "INSERT INTO staunch_migrations (number, name, sha256) VALUES ($1, '', $2)";
        let hash = digest(&SHA256, sql.as_bytes());
        db.execute(record, &[&number, &hash.as_ref()]).await.unwrap();
    }
}

pub(crate) async fn insert_user(db: &Client, username: &str) -> i64 {
    let insert = "INSERT INTO users (email, username, password_hash)
         VALUES ($1::text || '@example.com', $1::text, 'none') RETURNING id";
    db.query_one(insert, &[&username]).await.unwrap().get(0)
}

/// The indexes on names, and whether each is valid.
async fn name_indexes(db: &Client) -> Vec<(String, bool)> {
    let query = "SELECT indexrelid::regclass::text, indisvalid FROM pg_index
         WHERE indexrelid::regclass::text ~ '^(users|clients)_.*(_key|_idx)$' ORDER BY 1";
    let rows = db.query(query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn whole(names: &[&str]) -> Vec<(String, bool)> {
    names.iter().map(|name| ((*name).to_owned(), true)).collect()
}

pub(crate) async fn applied(db: &Client) -> i64 {
    let row = db.query_one("SELECT count(*) FROM staunch_migrations", &[]).await.unwrap();
    row.get(0)
}

// Reliability: C8.
#[tokio::test]
async fn nodes_starting_together_apply_each_migration_once() {
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
    assert_eq!(counts, [0, 0, 0, files], "one node applied all migrations");
    assert_eq!(usize::try_from(applied(&db).await).unwrap(), files);
    assert_eq!(migrate(&database.config.clone().into()).await.unwrap(), 0);
}

// Reliability: C8.
#[tokio::test]
async fn a_schema_of_a_newer_binary_is_refused() {
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
async fn a_migration_changed_after_it_ran_is_refused() {
    let database = TestDatabase::create().await;
    let db = database.connect().await;
    db.batch_execute("UPDATE staunch_migrations SET sha256 = '\\x00' WHERE number = 1")
        .await
        .unwrap();
    let error = migrate(&database.config.clone().into()).await.unwrap_err();
    assert!(matches!(error, MigrateError::Changed { number: 1 }), "{error}");
}

// Reliability: C8.
#[tokio::test]
async fn a_failed_migration_leaves_nothing_behind_and_is_resumed() {
    let database = TestDatabase::create_empty().await;
    let db = database.connect().await;
    // Makes the second file fail.
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
async fn a_starting_server_migrates_its_database() {
    let database = TestDatabase::create_empty().await;
    let app = TestApp::builder().set("STAUNCH_DATABASE_URL", database.url()).start().await;
    app.registered("ada").await;
    drop(app);
    let again = TestApp::builder().set("STAUNCH_DATABASE_URL", database.url()).start().await;
    again.anonymous().log_in("ada").await;
}

// Case F5 of the field list.
#[tokio::test]
async fn names_that_would_collide_are_reported_before_anything_changes() {
    let Some(database) = old_database("tr-TR").await else { return };
    let db = database.connect().await;
    insert_user(&db, "ada").await;
    let ids = [insert_user(&db, "INFO").await, insert_user(&db, "info").await];
    let before = name_indexes(&db).await;
    let error = migrate(&database.config.clone().into()).await.unwrap_err();
    assert!(matches!(error, MigrateError::Twins(_)), "{error}");
    let message = error.to_string();
    for part in [
        format!("email: id {} \"INFO@example.com\", id {} \"info@example.com\"", ids[0], ids[1]),
        format!("username: id {} \"INFO\", id {} \"info\"", ids[0], ids[1]),
    ] {
        assert!(message.contains(&part), "{message}");
    }
    assert!(!message.contains("ada"), "{message}");
    assert_eq!((applied(&db).await, name_indexes(&db).await), (4, before));
    // Applies the fix that the message describes.
    db.execute("DELETE FROM users WHERE id = $1", &[&ids[1]]).await.unwrap();
    assert_eq!(migrate(&database.config.clone().into()).await.unwrap(), AT_ONCE);
}

#[tokio::test]
async fn an_upgrade_keeps_the_indexes_of_older_servers_for_a_day() {
    let database = TestDatabase::create_empty().await;
    let db = database.connect().await;
    make_old(&db).await;
    insert_user(&db, "Ada").await;
    let endpoint = database.config.clone().into();
    let both = whole(&[
        "clients_name_exact_key",
        "clients_name_key",
        "users_email_fold_key",
        "users_email_key",
        "users_username_fold_key",
        "users_username_key",
    ]);
    assert_eq!(migrate(&endpoint).await.unwrap(), AT_ONCE);
    assert_eq!(migrate(&endpoint).await.unwrap(), 0);
    assert_eq!(name_indexes(&db).await, both);
    db.batch_execute("UPDATE staunch_migrations SET applied_at = now() - interval '25 hours'")
        .await
        .unwrap();
    assert_eq!(migrate(&endpoint).await.unwrap(), LATER);
    let new = whole(&["clients_name_exact_key", "users_email_fold_key", "users_username_fold_key"]);
    assert_eq!(name_indexes(&db).await, new);
    assert_eq!(migrate(&endpoint).await.unwrap(), 0);
}

#[tokio::test]
async fn altering_a_table_waits_in_turns_for_a_transaction_that_uses_it() {
    let database = TestDatabase::create_empty().await;
    let db = database.connect().await;
    make_old(&db).await;
    let mut reader = database.connect().await;
    let reading = reader.transaction().await.unwrap();
    reading.query("SELECT 1 FROM refresh_tokens", &[]).await.unwrap();
    let config = database.config.clone();
    let migrating = tokio::spawn(async move { migrate(&config.into()).await });
    database.until_blocked(1).await;
    // A statement that waits behind ALTER TABLE gets its turn although the transaction stays open.
    db.query("SELECT 1 FROM refresh_tokens", &[]).await.unwrap();
    assert!(!migrating.is_finished());
    reading.commit().await.unwrap();
    migrating.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_interrupted_index_build_is_repeated() {
    let database = TestDatabase::create_empty().await;
    let db = database.connect().await;
    make_old(&db).await;
    db.batch_execute("DROP INDEX users_username_key").await.unwrap();
    let twin = insert_user(&db, "ada").await;
    db.execute(
        "INSERT INTO users (email, username, password_hash) VALUES ('b@x.org', 'Ada', '')",
        &[],
    )
    .await
    .unwrap();
    let build = "CREATE UNIQUE INDEX CONCURRENTLY users_username_fold_key
         ON users (lower(username COLLATE \"C\"))";
    db.batch_execute(build).await.unwrap_err();
    let left = ("users_username_fold_key".to_owned(), false);
    assert!(name_indexes(&db).await.contains(&left));
    db.execute("DELETE FROM users WHERE id = $1", &[&twin]).await.unwrap();
    assert_eq!(migrate(&database.config.clone().into()).await.unwrap(), AT_ONCE);
    assert!(name_indexes(&db).await.contains(&(left.0, true)));
}

/// The GRANT statements of docs/operations.md, for `role`.
fn grants(role: &str) -> String {
    let page = include_str!("../../docs/operations.md");
    let blocks = page.split("```sql\n").skip(1);
    let mut blocks = blocks.filter_map(|block| block.split("```").next());
    let block =
        blocks.find(|block| block.contains("GRANT")).expect("docs/operations.md has the grants");
    block.replace("staunch_server", role)
}

// Case F11 of the field list.
#[tokio::test]
async fn a_role_without_create_rights_serves_after_a_migration() {
    let database = Arc::new(TestDatabase::create_empty().await);
    let db = database.connect().await;
    let role = format!("staunch_test_{}", uuid::Uuid::new_v4().simple());
    // Before version 15, PostgreSQL lets every role create tables.
    db.batch_execute(&format!(
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE {role} LOGIN PASSWORD '{role}'"
    ))
    .await
    .unwrap();
    let mut config = database.config.clone();
    config.user(&role).password(&role);
    let as_role: staunch::store::Endpoint = config.clone().into();

    let error = migrate(&as_role).await.unwrap_err();
    assert!(matches!(error, MigrateError::NotAllowed { .. }), "{error}");
    assert!(error.to_string().contains("run `staunch migrate` as the owner"), "{error}");
    make_old(&db).await;
    db.batch_execute(&grants(&role)).await.unwrap();
    let error = migrate(&as_role).await.unwrap_err();
    assert!(matches!(error, MigrateError::NotAllowed { name: "name_folds", .. }), "{error}");

    assert_eq!(migrate(&database.config.clone().into()).await.unwrap(), AT_ONCE);
    // Objects that the role may not drop are left to their owner.
    db.batch_execute("UPDATE staunch_migrations SET applied_at = now() - interval '25 hours'")
        .await
        .unwrap();
    assert_eq!(migrate(&as_role).await.unwrap(), 0);

    let builder = TestApp::builder().on(&database);
    let builder = builder.set("STAUNCH_DATABASE_URL", database.url_as(&role, &role));
    let app = builder.set("STAUNCH_CLEANUP_INTERVAL", "1s").start().await;
    let client = app.anonymous();
    client.get("/health/readiness").await.assert_status(200);
    let tokens = app.registered("ada").await;
    let tokens = client.refresh(&tokens.refresh).await.tokens();
    client.sessions(&tokens.access).await.assert_status(200);
    let changed = client.change_password(&tokens.access, PASSWORD, "Another-Pass-45").await;
    changed.assert_status(204);
    client.login("ada", PASSWORD).await.assert_status(401);
    client.logout(&tokens.refresh).await.assert_status(204);
    let cleaned = "staunch_cleanup_runs_total{result=\"success\"}";
    until("the clean-up runs", SOON, async || app.metric(cleaned).await >= 1.0).await;
    let log = "SELECT count(*) FROM auth_events WHERE outcome = 'rejected'";
    until("the audit log is written", SOON, async || {
        db.query_one(log, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    staunch::store::Importer::open(&as_role).await.unwrap().close().await;
    drop(app);
    db.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}
