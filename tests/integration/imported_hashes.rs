//! Accounts with hashes of other software: imported, verified once, then replaced with bcrypt.

use crate::support::{PASSWORD, SOON, TestApp, TestDatabase, until};
use serde_json::{Value, json};
use staunch::auth::{ImportCount, export_users, import_users};
use staunch::store::{Admin, Importer};

/// Made with argon2-cffi 25.1, passlib 1.7.4 and Django 5.2, of [`PASSWORD`].
const ARGON2ID: &str = "$argon2id$v=19$m=256,t=3,p=4$c2FsdHNhbHRzYWx0c2FsdA$W8rVA48xRHtRCAYWo/vu96VEN21Oy+BKJxpzz++kcSU";
const SCRYPT: &str =
    "$scrypt$ln=4,r=8,p=1$c2FsdHNhbHRzYWx0c2FsdA$W+M2HVzHdbjdpcko3Glf5FLovgYLAsMSC1RTJCstM38";
const DJANGO: &str = "pbkdf2_sha256$1000$djangosalt12$EotNsBALWHRCFpdTep6pPFFDiZuoVq3Uz95QgbB4fnY=";
const DJANGO_ARGON2: &str = "argon2$argon2id$v=19$m=64,t=1,p=1$ZGphbmdvc2FsdDEy$igHjZQoB12EYt9Mjxoy8Iakkt09lXia3ozVsPMVT9X4";

/// The number of imported hashes that were computed.
const IMPORTED: &str = r#"staunch_hash_seconds_count{op="foreign"}"#;

/// A credential as Keycloak exports it. The digest was computed in Python (`hashlib`, argon2-cffi)
/// from [`PASSWORD`]; for PBKDF2, padded with NULs to 14 bytes, as Keycloak does.
fn keycloak(algorithm: &str, iterations: u32, digest: &str, more: Value) -> Value {
    let secret =
        json!({"value": digest, "salt": "EBESExQVFhcYGRobHB0eHw==", "additionalParameters": {}});
    let data =
        json!({"hashIterations": iterations, "algorithm": algorithm, "additionalParameters": more});
    json!({
        "id": "0d2f", "type": "password", "userLabel": "My password", "createdDate": 1_611_230_538_676_u64,
        "secretData": secret.to_string(), "credentialData": data.to_string(),
    })
}

/// Every supported form, with the name of its account.
fn forms() -> Vec<(&'static str, Value)> {
    let sha256 =
        "TyUfrmDq1guPyK3FfriWwDHstB+7G57bOezpZO3HnBbEyaD3XtqGatfbA85yhT0sNc/N307n4Zm2GV/SRclGsA==";
    let sha512 =
        "KKCBR2sx0ZvHvkD8mMPPfygI70IOYlwH+PkP9j62xrhC9QiF6F9tpiHHZrvgJLzqXpzTkcLropr6cxfDDgNCdA==";
    let argon2 = json!({
        "hashLength": ["32"], "memory": ["64"], "type": ["id"], "version": ["1.3"], "parallelism": ["1"],
    });
    let argon2 = keycloak("argon2", 5, "r//saki3N5f23uwQg3Z0mMIMuT7IfCP1iMPOnn2r8h4=", argon2);
    vec![
        ("argon2", ARGON2ID.into()),
        ("scrypt", SCRYPT.into()),
        ("django", DJANGO.into()),
        ("django-argon2", DJANGO_ARGON2.into()),
        ("keycloak-sha256", keycloak("pbkdf2-sha256", 1_000, sha256, json!({}))),
        ("keycloak-sha512", keycloak("pbkdf2-sha512", 1_000, sha512, json!({}))),
        ("keycloak-argon2", argon2),
    ]
}

fn line(name: &str, hash: &Value) -> String {
    let email = format!("{name}@example.com");
    json!({"email": email, "username": name, "password_hash": hash}).to_string()
}

fn file() -> String {
    forms().iter().map(|(name, hash)| line(name, hash) + "\n").collect()
}

/// Imports, and returns the errors of rejected lines.
async fn import(database: &TestDatabase, input: &str) -> (ImportCount, Vec<(u64, String)>) {
    let mut importer = Importer::open(&database.config.clone().into()).await.unwrap();
    let mut rejected = Vec::new();
    let count = import_users(input.as_bytes(), &mut importer, 4, |_, lines| {
        rejected.extend(lines.iter().map(|line| (line.line, line.error.clone())));
        Ok(())
    });
    let count = count.await.unwrap();
    importer.close().await;
    (count, rejected)
}

async fn stored(app: &TestApp, name: &str) -> String {
    let query = "SELECT password_hash FROM users WHERE username = $1";
    app.db().await.query_one(query, &[&name]).await.unwrap().get(0)
}

#[tokio::test]
async fn the_first_login_verifies_an_imported_hash_and_replaces_it_with_bcrypt() {
    let app = TestApp::start().await;
    assert_eq!(import(&app.database, &file()).await, (count(7, 0), vec![]));
    let client = app.anonymous();
    for (name, _) in forms() {
        let before = stored(&app, name).await;
        assert!(before.starts_with('$') && !before.starts_with("$2"), "{before}");
        client.login(name, "Wrong-Pass123").await.assert_problem(401, "credentials-rejected");
        assert_eq!(stored(&app, name).await, before, "a wrong password changes nothing");
        client.log_in(name).await;
        until("rehashed", SOON, async || stored(&app, name).await.starts_with("$2b$04$")).await;
    }
    assert_eq!(app.metric(IMPORTED).await, 14.0);
    for (name, _) in forms() {
        client.log_in(name).await;
        client.login(name, "Wrong-Pass123").await.assert_problem(401, "credentials-rejected");
    }
    assert_eq!(app.metric(IMPORTED).await, 14.0, "later logins verify bcrypt hashes");
    assert_eq!(app.metric(r#"staunch_rehashes_total{result="success"}"#).await, 7.0);
}

fn count(imported: u64, rejected: u64) -> ImportCount {
    ImportCount { imported, rejected }
}

// Reliability: F10.
#[tokio::test]
async fn a_planted_costly_imported_hash_is_refused_and_not_computed() {
    let app = TestApp::builder().set("STAUNCH_LOCKOUT", "off").start().await;
    app.register("ada").await;
    let update = "UPDATE users SET password_hash = $1";
    for hash in [
        // These need 8 GiB, 2^30 blocks, an hour.
        ARGON2ID.replace("m=256", "m=8388608"),
        SCRYPT.replace("ln=4", "ln=30"),
        DJANGO.replace("1000", "4294967295"),
        ARGON2ID.replace("argon2id", "argon2d"),
        ARGON2ID.replace("W8rV", "W8r"),
        "$argon2id$".into(),
    ] {
        app.db().await.execute(update, &[&hash]).await.unwrap();
        app.anonymous().login("ada", PASSWORD).await.assert_problem(401, "credentials-rejected");
        assert_eq!(stored(&app, "ada").await, hash);
    }
    assert_eq!(app.metric(IMPORTED).await, 0.0);
    let ours = r#"staunch_hash_seconds_count{op="verify"}"#;
    assert_eq!(app.metric(ours).await, 6.0, "a dummy hash each");
}

// Reliability: F10.
#[tokio::test]
async fn an_import_refuses_hashes_that_no_login_would_compute() {
    let database = TestDatabase::create().await;
    let big = keycloak(
        "pbkdf2-sha512",
        5_000_000,
        "J4TBlm8s36o4Df1JLPBeH/yzVuYtjHI0zX8M7oP9s2Q=",
        json!({}),
    );
    let lines = [
        line("a-a", &ARGON2ID.replace("m=256", "m=8388608").into()),
        line("scrypt", &SCRYPT.into()),
        line("b-b", &SCRYPT.replace("ln=4", "ln=18").into()),
        line("c-c", &DJANGO.replace("1000", "2000001").into()),
        line("d-d", &"pbkdf2_sha1$1000$djangosalt12$nbaaGd11qMiYrqIuG2jz3y4vvIE=".into()),
        line("e-e", &ARGON2ID.replace("t=3", "t=3,").into()),
        line("f-f", &big),
        line("g-g", &json!({"type": "otp"})),
    ];
    let (counted, rejected) = import(&database, &lines.join("\n")).await;
    assert_eq!(counted, count(1, 7));
    let again = ": this password must be reset";
    let expected = [
        (1, "password_hash: has the argon2 parameter m = 8388608, but a login accepts 32 to 131072".into()),
        (3, "password_hash: has the scrypt parameter ln = 18, but a login accepts 1 to 17".into()),
        (4, "password_hash: has the PBKDF2 parameter iterations = 2000001, but a login accepts 1 to 2000000".into()),
        (5, format!("password_hash: is PBKDF2 with SHA-1, which is not supported{again}")),
        (6, "password_hash: is a damaged argon2 hash".into()),
        (7, "password_hash: has the PBKDF2 parameter iterations = 5000000, but a login accepts 1 to 700000".into()),
        (8, "password_hash: is a Keycloak credential that is not a password".into()),
    ];
    assert_eq!(rejected, expected);
}

async fn hashes(database: &TestDatabase) -> Vec<String> {
    let query = "SELECT username || ' ' || password_hash FROM users ORDER BY id";
    let rows = database.connect().await.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn export(database: &TestDatabase) -> String {
    let admin = Admin::open(&database.config.clone().into()).await.unwrap();
    let mut file = Vec::new();
    export_users(&admin, &mut file).await.unwrap();
    admin.close().await;
    String::from_utf8(file).unwrap()
}

#[tokio::test]
async fn exporting_and_importing_keeps_imported_hashes() {
    let (first, second) = (TestDatabase::create().await, TestDatabase::create().await);
    import(&first, &file()).await;
    let exported = export(&first).await;
    assert_eq!(import(&second, &exported).await, (count(7, 0), vec![]));
    assert_eq!(hashes(&first).await, hashes(&second).await);
    assert_eq!(export(&second).await, exported);
}

#[tokio::test]
async fn csv_files_can_contain_imported_hashes() {
    let (lines, csv) = (TestDatabase::create().await, TestDatabase::create().await);
    let mut file = "username,email,password_hash\n".to_owned();
    for (name, hash) in forms() {
        let text = hash.as_str().map_or_else(|| hash.to_string(), str::to_owned);
        file += &format!("{name},{name}@example.com,\"{}\"\n", text.replace('"', "\"\""));
    }
    assert_eq!(import(&csv, &file).await, (count(7, 0), vec![]));
    import(&lines, &self::file()).await;
    assert_eq!(hashes(&csv).await, hashes(&lines).await);
}

// Reliability: F7.
#[tokio::test]
async fn a_password_over_72_bytes_keeps_its_imported_hash() {
    let app = TestApp::start().await;
    // Made with argon2-cffi from 100 bytes.
    let hash = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$oAb2u8+dAuYXuLORAP7oDoJDSHneeYtfMEZBT95ViVY";
    import(&app.database, &line("ada", &hash.into())).await;
    let client = app.anonymous();
    for _ in 0..2 {
        client.login("ada", &"long ".repeat(20)).await.assert_status(200);
        let cut = "long ".repeat(20)[..72].to_owned();
        client.login("ada", &cut).await.assert_problem(401, "credentials-rejected");
    }
    assert_eq!(app.metric(IMPORTED).await, 4.0);
    assert_eq!(stored(&app, "ada").await, hash);
}

#[tokio::test]
async fn a_new_password_replaces_an_imported_hash() {
    let app = TestApp::start().await;
    import(&app.database, &line("ada", &ARGON2ID.into())).await;
    let update = "UPDATE users SET password_hash = $1";
    let tokens = app.anonymous().log_in("ada").await;
    until("rehashed", SOON, async || stored(&app, "ada").await.starts_with("$2b$")).await;
    app.db().await.execute(update, &[&ARGON2ID]).await.unwrap();
    let client = app.anonymous();
    let wrong = client.change_password(&tokens.access, "Wrong-Pass123", "Another-Pass1").await;
    wrong.assert_problem(401, "credentials-rejected");
    client.change_password(&tokens.access, PASSWORD, "Another-Pass1").await.assert_status(204);
    assert!(stored(&app, "ada").await.starts_with("$2b$04$"));
}
