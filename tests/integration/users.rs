//! Operator commands on accounts while a server runs.

use crate::support::{PASSWORD, TestApp, TestDatabase};
use staunch::auth::{export_users, import_users};
use staunch::identity::{Email, LoginName, UserId, Username};
use staunch::store::{Admin, Importer, NewUser, RegisterError};
use std::time::Duration;

async fn admin(database: &TestDatabase) -> Admin {
    Admin::open(&database.config.clone().into()).await.unwrap()
}

async fn events(admin: &Admin, user: Option<i64>) -> Vec<String> {
    let mut found = Vec::new();
    let user = user.map(UserId);
    let count = admin
        .events(user, Duration::from_secs(3_600), |event| {
            found.push(format!("{} {}", event.event, event.outcome));
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(count, found.len() as u64);
    found
}

#[tokio::test]
async fn disabling_ends_all_sessions_at_once_and_enabling_restores_none() {
    let app = TestApp::start().await;
    let id = app.register("ada").await;
    let tokens = app.anonymous().log_in("ada").await;
    app.anonymous().log_in("ada").await;
    let expired = app.anonymous().log_in("ada").await;
    let expire = "UPDATE refresh_tokens SET expires_at = now() WHERE id = $1";
    app.db().await.execute(expire, &[&expired.session()]).await.unwrap();
    let other = app.registered("bob").await;
    let listener = app.db().await;
    listener.batch_execute("LISTEN staunch_account").await.unwrap();

    let mut admin = admin(&app.database).await;
    let found = admin.find(&LoginName::parse("ADA@example.com")).await.unwrap().unwrap();
    assert_eq!((found.id.0, found.is_active), (id, true));
    assert_eq!(admin.sessions(found.id).await.unwrap().len(), 2);
    assert_eq!(admin.disable(found.id).await.unwrap(), Some(2), "the live sessions");
    assert_eq!(admin.disable(found.id).await.unwrap(), None);
    assert!(admin.sessions(found.id).await.unwrap().is_empty());
    let client = app.anonymous();
    client.refresh(&tokens.refresh).await.assert_status(401);
    client.login("ada", PASSWORD).await.assert_problem(401, "credentials-rejected");
    client.me(&tokens.access).await.assert_status(401);
    client.me(&other.access).await.assert_status(200);

    assert!(admin.enable(found.id).await.unwrap());
    assert!(!admin.enable(found.id).await.unwrap());
    client.refresh(&tokens.refresh).await.assert_status(401);
    client.log_in("ada").await;
    let logged = events(&admin, Some(id)).await;
    let changes = logged.iter().filter(|line| line.starts_with("account"));
    assert_eq!(changes.collect::<Vec<_>>(), ["account_disable success", "account_enable success"]);
    assert!(!events(&admin, None).await.is_empty());
    admin.close().await;
}

#[tokio::test]
async fn setting_a_password_ends_all_sessions_and_the_old_password() {
    let app = TestApp::start().await;
    let id = app.register("ada").await;
    let tokens = app.anonymous().log_in("ada").await;
    let mut admin = admin(&app.database).await;
    let hash = bcrypt::hash("Another-Pass123", 4).unwrap();
    assert_eq!(admin.set_password(UserId(id), &hash).await.unwrap(), Some(1));
    let client = app.anonymous();
    client.refresh(&tokens.refresh).await.assert_status(401);
    client.login("ada", PASSWORD).await.assert_status(401);
    client.login("ada", "Another-Pass123").await.tokens();
    assert_eq!(admin.set_password(UserId(99), &hash).await.unwrap(), None);
    assert!(events(&admin, Some(id)).await.contains(&"password_change success".into()));
    admin.close().await;
}

// Reliability: E4.
#[tokio::test]
async fn disabling_ends_a_login_that_is_storing_its_session() {
    let app = TestApp::start().await;
    let id = app.register("ada").await;
    let mut admin = admin(&app.database).await;
    // A login in progress: it locks the account as insert_session does.
    let mut db = app.db().await;
    let login = db.transaction().await.unwrap();
    login.execute("SELECT 1 FROM users WHERE id = $1 FOR SHARE", &[&id]).await.unwrap();
    let insert = "INSERT INTO refresh_tokens (id, user_id, expires_at)
         VALUES (gen_random_uuid(), $1, now() + interval '1 h')";
    login.execute(insert, &[&id]).await.unwrap();
    let disabling = tokio::spawn(async move {
        let ended = admin.disable(UserId(id)).await.unwrap();
        (admin, ended)
    });
    app.database.until_blocked(1).await;
    login.commit().await.unwrap();
    let (admin, ended) = disabling.await.unwrap();
    assert_eq!(ended, Some(1));
    admin.close().await;
}

#[tokio::test]
async fn deleting_an_account_keeps_its_audit_history() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let id: i64 = tokens.claims()["sub"].as_str().unwrap().parse().unwrap();
    let mut admin = admin(&app.database).await;
    assert!(admin.delete(UserId(id)).await.unwrap());
    assert!(!admin.delete(UserId(id)).await.unwrap());
    assert!(admin.find(&LoginName::parse("ada")).await.unwrap().is_none());
    app.anonymous().refresh(&tokens.refresh).await.assert_status(401);
    app.anonymous().login("ada", PASSWORD).await.assert_status(401);
    let logged = events(&admin, Some(id)).await;
    assert_eq!(logged, ["register success", "login success", "account_delete success"]);
    assert_ne!(app.register("ada").await, id);
    admin.close().await;
}

#[tokio::test]
async fn an_added_account_works_like_a_registered_one() {
    let app = TestApp::start().await;
    app.register("grace").await;
    let admin = admin(&app.database).await;
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    let add = async |email: &str, username: &str| {
        let (email, username) = (Email::parse(email).unwrap(), Username::parse(username).unwrap());
        let (email, username) = (&email, &username);
        admin.add(&NewUser { email, username, password_hash: &hash, origin: None }).await
    };
    let account = add("ada@example.com", "ada").await.unwrap();
    app.anonymous().log_in("ada").await;
    assert!(matches!(add("ADA@example.com", "ada2").await, Err(RegisterError::EmailTaken)));
    assert!(matches!(add("a@example.com", "Grace").await, Err(RegisterError::UsernameTaken)));
    assert_eq!(events(&admin, Some(account.id.0)).await, ["register success", "login success"]);
    admin.close().await;
}

/// All columns of an account except its id and version.
async fn rows(database: &TestDatabase) -> Vec<String> {
    let query = "SELECT concat_ws('|', email, username, password_hash, is_active,
                 extract(epoch FROM created_at)) FROM users ORDER BY id";
    let rows = database.connect().await.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn importing_an_export_restores_the_same_accounts() {
    let first = TestDatabase::create().await;
    let insert = "INSERT INTO users (email, username, password_hash, is_active, created_at)
         SELECT 'User.' || n || '@Example.com', 'User-' || n,
                '$2b$04$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW', n % 3 > 0,
                timestamptz '2001-02-03 04:05:06.789012+00' + n * interval '1.000001 h'
         FROM generate_series(1, 12000) AS n";
    first.connect().await.execute(insert, &[]).await.unwrap();
    let exporter = admin(&first).await;
    let mut file = Vec::new();
    assert_eq!(export_users(&exporter, &mut file).await.unwrap(), 12_000);
    exporter.close().await;

    let second = TestDatabase::create().await;
    let mut importer = Importer::open(&second.config.clone().into()).await.unwrap();
    let count = import_users(file.as_slice(), &mut importer, 4, |_, _| Ok(())).await.unwrap();
    importer.close().await;
    assert_eq!((count.imported, count.rejected), (12_000, 0));
    assert_eq!(rows(&first).await, rows(&second).await);

    let again = admin(&second).await;
    let mut copy = Vec::new();
    export_users(&again, &mut copy).await.unwrap();
    again.close().await;
    assert!(copy == file, "the same file");
}
