//! Importing accounts.

use crate::support::{PASSWORD, TestApp, TestDatabase};
use staunch::auth::{ImportCount, ImportError, import_users};
use staunch::store::{Importer, StoreError};
use tokio_postgres::types::ToSql;

/// STAUNCH_BCRYPT_COST of the test servers.
const COST: u32 = 4;

struct Outcome {
    count: ImportCount,
    /// Line numbers and errors.
    rejected: Vec<(u64, String)>,
}

impl Outcome {
    #[track_caller]
    fn assert(&self, imported: u64, rejected: &[(u64, &str)]) {
        let found: Vec<(u64, &str)> =
            self.rejected.iter().map(|(line, error)| (*line, error.as_str())).collect();
        assert_eq!(found, rejected);
        assert_eq!(self.count.imported, imported);
        assert_eq!(self.count.rejected, rejected.len() as u64);
    }
}

async fn import(database: &TestDatabase, input: impl AsRef<[u8]>) -> Outcome {
    let mut importer = Importer::open(&database.config.clone().into()).await.unwrap();
    let mut rejected = Vec::new();
    let count = import_users(input.as_ref(), &mut importer, COST, |_, lines| {
        rejected.extend(lines.iter().map(|line| (line.line, line.error.clone())));
        Ok(())
    })
    .await
    .unwrap();
    importer.close().await;
    Outcome { count, rejected }
}

fn hash(cost: u32) -> String {
    bcrypt::hash_with_salt(PASSWORD, cost, [9; 16])
        .unwrap()
        .format_for_version(bcrypt::Version::TwoB)
}

/// A line with these names, and `more` fields.
fn line(email: &str, username: &str, more: &str) -> String {
    let hash = hash(COST);
    format!(r#"{{"email":"{email}","username":"{username}","password_hash":"{hash}"{more}}}"#)
}

fn named(name: &str) -> String {
    line(&format!("{name}@example.com"), name, "")
}

async fn names(database: &TestDatabase) -> Vec<String> {
    let rows = database.connect().await.query("SELECT username FROM users ORDER BY id", &[]).await;
    rows.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn imported_accounts_can_log_in() {
    let app = TestApp::start().await;
    let (a, y) = (named("ada").replace("$2b$", "$2a$"), named("yan").replace("$2b$", "$2y$"));
    let more = r#","is_active":true,"created_at":"2019-03-04T05:06:07+02:00""#;
    let old = line("Old.Timer@Example.com", "Old-Timer", more);
    let disabled = line("dis@example.com", "disabled", r#","is_active":false"#);
    let costly = named("costly").replace(&hash(4), &hash(6));
    let file = format!("{a}\n{y}\r\n\n \r\n{old}\n{disabled}\n{costly}");
    import(&app.database, file).await.assert(5, &[]);

    let client = app.anonymous();
    for name in ["ada", "yan", "old-timer", "OLD.timer@example.com", "costly"] {
        client.log_in(name).await;
        client.login(name, "Wrong-Pass123").await.assert_problem(401, "credentials-rejected");
    }
    client.login("disabled", PASSWORD).await.assert_problem(401, "credentials-rejected");
    let tokens = client.log_in("old-timer").await;
    let me = client.bearer(&tokens.access).get("/api/v1/auth/me").await.json();
    assert_eq!(me["created_at"], "2019-03-04T03:06:07Z");
    assert_eq!(
        (&me["email"], &me["username"]),
        (&"Old.Timer@Example.com".into(), &"Old-Timer".into())
    );
    client.register("ADA@example.com", "other", PASSWORD).await.assert_problem(409, "email-taken");
    assert_ne!(app.register("grace").await, 0);
}

#[tokio::test]
async fn a_header_line_selects_csv() {
    let app = TestApp::start().await;
    let hash = hash(COST);
    let file = format!(
        "\u{feff}username,email,is_active,password_hash,created_at\r\n\
         ada,ada@example.com,t,{hash},\r\n\
         \"bob\",\"bob@example.com\",false,\"{hash}\",2019-03-04T05:06:07Z\r\n\
         eve,eve@example.com,maybe,{hash},\r\n\
         eve,eve@example.com\r\n\
         eve,\"eve@example.com,t,{hash},\r\n\
         Ada,ada2@example.com,,{hash},\r\n"
    );
    import(&app.database, file).await.assert(
        2,
        &[
            (4, "is_active: must be true or false"),
            (5, "has 2 values, but the first line names 5 columns"),
            (6, "has a quoted value without a closing quote"),
            (7, "username: is taken"),
        ],
    );
    app.anonymous().log_in("ada").await;
    app.anonymous().login("bob", PASSWORD).await.assert_problem(401, "credentials-rejected");
    let header = "email,username,password_hash,role\n";
    let file = format!("{header}grace@example.com,grace,{hash},admin\n");
    import(&app.database, file).await.assert(0, &[(2, "role: is an unknown field")]);
}

#[tokio::test]
async fn a_bad_line_is_reported_and_the_others_are_imported() {
    let database = TestDatabase::create().await;
    let mut file: Vec<u8> = Vec::new();
    let huge = line("huge@example.com", "huge", &format!(r#","x":"{}""#, "y".repeat(2_000_000)));
    for text in [
        named("first"),
        named("costly").replace(&hash(4), &hash(7)),
        named("cheap").replace("$04$", "$03$"),
        "{".into(),
        huge,
        named("second"),
        named("extra").replace('}', r#","password":"plain"}"#),
        r#"{"username":"bob"}"#.into(),
    ] {
        file.extend_from_slice(text.as_bytes());
        file.push(b'\n');
    }
    file.extend_from_slice(b"{\"email\":\"\xff\xfe@example.com\"}\r\n\r\n\n");
    file.extend_from_slice(named("third").as_bytes());
    let outcome = import(&database, &file).await;
    outcome.assert(
        3,
        &[
            (2, "password_hash: has the cost 7, but a login accepts at most 6 (two more than STAUNCH_BCRYPT_COST)"),
            (3, "password_hash: has the cost 3, but bcrypt allows 4 to 31"),
            (4, "is not JSON (column 1)"),
            (5, "is longer than 4096 bytes"),
            (7, "password: is an unknown field"),
            (8, "email: is missing; password_hash: is missing"),
            (9, "is not UTF-8"),
        ],
    );
    assert_eq!(names(&database).await, ["first", "second", "third"]);
}

#[tokio::test]
async fn taken_names_are_reported_by_line() {
    let app = TestApp::start().await;
    app.register("grace").await;
    let file = [
        named("ada"),
        line("other@example.com", "ADA", ""),
        line("Ada@Example.com", "other", ""),
        named("ada"),
        named("grace"),
        line("grace@example.com", "grace2", ""),
        // Refused because of its username, so its address is free for the next line.
        line("free@example.com", "Grace", ""),
        line("free@example.com", "free", ""),
        line("free@example.com", "free", ""),
    ]
    .join("\n");
    let both = "email: is taken; username: is taken";
    let outcome = import(&app.database, &file).await;
    outcome.assert(
        2,
        &[
            (2, "username: is taken"),
            (3, "email: is taken"),
            (4, both),
            (5, both),
            (6, "email: is taken"),
            // When the reason is looked up, the next account already has the address.
            (7, both),
            (9, both),
        ],
    );
    assert_eq!(names(&app.database).await, ["grace", "ada", "free"]);
    for name in ["ada", "free", "grace"] {
        app.anonymous().log_in(name).await;
    }
}

/// A file of more than two batches. Line 15,001 has the name of line 1.
fn long_file() -> String {
    let hash = hash(COST);
    let mut file = String::new();
    for n in 1..=25_000 {
        let name = if n == 15_001 { 1 } else { n };
        let (email, username) = (format!("u{n}@example.com"), format!("user-{name}"));
        file += &format!(
            "{{\"email\":\"{email}\",\"username\":\"{username}\",\"password_hash\":\"{hash}\"}}\n"
        );
    }
    file
}

#[tokio::test]
async fn a_repeated_import_resumes_an_interrupted_one() {
    let database = TestDatabase::create().await;
    let file = long_file();
    let mut importer = Importer::open(&database.config.clone().into()).await.unwrap();
    let mut batches = 0;
    let broken = import_users(file.as_bytes(), &mut importer, COST, |count, lines| {
        batches += 1;
        assert_eq!((count.imported, lines.len()), (10_000, 0));
        Err(std::io::ErrorKind::StorageFull.into())
    })
    .await;
    assert!(matches!(broken, Err(ImportError::Report(_))), "{broken:?}");
    assert_eq!((batches, names(&database).await.len()), (1, 10_000));

    let outcome = import(&database, &file).await;
    assert_eq!(outcome.count, ImportCount { imported: 14_999, rejected: 10_001 });
    assert!(outcome.rejected.is_sorted_by_key(|(line, _)| *line));
    let last = outcome.rejected.last().unwrap();
    assert_eq!(last, &(15_001, "username: is taken".to_owned()));
    let again = import(&database, &file).await;
    assert_eq!(again.count, ImportCount { imported: 0, rejected: 25_000 });
    assert_eq!(names(&database).await.len(), 24_999);
}

#[tokio::test]
async fn losing_the_database_ends_an_import_and_reports_the_missing_lines() {
    let database = TestDatabase::create().await;
    let mut importer = Importer::open(&database.config.clone().into()).await.unwrap();
    database.set_open(false).await;
    let file = format!("\n{}\n{}\n", named("ada"), named("bob"));
    let ended =
        import_users(file.as_bytes(), &mut importer, COST, |_, _| Ok(())).await.unwrap_err();
    assert_eq!(ended.to_string(), "lines 2 to 3 were not imported");
    let unavailable =
        matches!(ended, ImportError::Store { source: StoreError::Unavailable { .. }, .. });
    assert!(unavailable, "{ended:?}");
    assert!(Importer::open(&database.config.clone().into()).await.is_err());
    database.set_open(true).await;
    import(&database, &file).await.assert(2, &[]);
}

#[tokio::test]
async fn a_batch_that_deadlocks_is_retried() {
    let database = std::sync::Arc::new(TestDatabase::create().await);
    let db = database.connect().await;
    let insert = "INSERT INTO users (email, username, password_hash) VALUES ($1, $2, '')";
    // Stops the import between its two lines: it has inserted `user-y`, but not x@example.com.
    let gate = database.connect().await;
    gate.batch_execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END';
         CREATE TRIGGER hold BEFORE INSERT ON users FOR EACH ROW WHEN (NEW.username = 'user-z')
             EXECUTE FUNCTION hold();
         SELECT pg_advisory_lock(7)",
    )
    .await
    .unwrap();
    // PostgreSQL cancels the import, because its wait began last.
    db.batch_execute("SET deadlock_timeout = '1h'; BEGIN").await.unwrap();
    db.execute(insert, &[&"x@example.com", &"user-x"]).await.unwrap();
    let importing = tokio::spawn({
        let database = std::sync::Arc::clone(&database);
        let lines = [line("y@example.com", "user-y", ""), line("x@example.com", "user-z", "")];
        async move { import(&database, lines.join("\n")).await }
    });
    database.until_blocked(1).await;
    let parameters: [&(dyn ToSql + Sync); 2] = [&"z@example.com", &"user-y"];
    let (inserted, ()) = tokio::join!(db.execute(insert, &parameters), async {
        database.until_blocked(2).await;
        gate.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    });
    inserted.unwrap();
    db.batch_execute("COMMIT").await.unwrap();
    let outcome = importing.await.unwrap();
    outcome.assert(0, &[(1, "username: is taken"), (2, "email: is taken")]);
}
