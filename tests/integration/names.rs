//! Which texts name the same account: registration, login, lockout and import must agree, in any
//! database locale.

use crate::migrate::{AT_ONCE, old_database};
use crate::support::{PASSWORD, TestApp, TestDatabase};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use staunch::auth::import_users;
use staunch::identity::{LoginName, fold};
use staunch::store::{Admin, Deadlines, Importer, Store, StoreConfig, migrate};
use staunch::telemetry::Metrics;
use std::sync::Arc;

/// Letters that Unicode or some locale folds to a to z or to each other: dotted capital and dotless
/// small i, the Kelvin sign, long and sharp s, sigma and its final form, full-width letters, the
/// Angstrom sign, a ligature, combining marks.
const TRICKY: [&str; 20] = [
    "\u{130}", "\u{131}", "i\u{307}", "\u{212a}", "\u{17f}", "\u{df}", "\u{1e9e}", "\u{3a3}",
    "\u{3c3}", "\u{3c2}", "\u{ff29}", "\u{ff49}", "\u{212b}", "\u{e5}", "\u{c9}", "\u{e9}",
    "e\u{301}", "\u{fb01}", "\u{1c5}", "\u{307}",
];

/// Letters that may fold to an i, or look like one.
const DISGUISES: [&str; 5] = ["\u{130}", "\u{131}", "i\u{307}", "\u{ff49}", "\u{ff29}"];

fn tricky_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => "[a-cik-lsA-CIK-LS]",
        2 => prop::sample::select(&TRICKY[..]).prop_map(str::to_owned),
    ];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.concat())
}

/// Variants that may be the same text: other case, other normalization form.
fn variant() -> impl Strategy<Value = fn(&str) -> String> {
    prop::sample::select(&[
        |text: &str| text.to_owned(),
        |text: &str| text.to_uppercase(),
        |text: &str| text.to_lowercase(),
        |text: &str| text.to_ascii_uppercase(),
        |text: &str| text.to_ascii_lowercase(),
        |text: &str| text.replace('i', "\u{130}"),
        |text: &str| text.replace('k', "\u{212a}"),
        |text: &str| text.replace(['I', '\u{130}', '\u{131}'], "i"),
    ] as &[fn(&str) -> String])
}

async fn property_in(database: TestDatabase) {
    let endpoint = database.config.clone().into();
    migrate(&endpoint).await.unwrap();
    let db = database.connect().await;
    let metrics = Metrics::new().unwrap();
    let config = StoreConfig {
        database: endpoint.clone(),
        pool_min: 1,
        pool_max: 2,
        deadlines: Deadlines::default(),
    };
    let store = Store::open(&config, &metrics, staunch::clock::Clock::system()).await.unwrap();
    let admin = Admin::open(&endpoint).await.unwrap();
    let mut runner = TestRunner::deterministic();
    let strategy = (tricky_text(), tricky_text(), variant(), variant());
    let mut same = 0;
    for n in 0..300 {
        let (local, domain, of_local, of_domain) =
            strategy.new_tree(&mut runner).unwrap().current();
        let stored = format!("{local}@{domain}.example");
        let typed = format!("{}@{}.example", of_local(&local), of_domain(&domain));
        let insert = "INSERT INTO users (email, username, password_hash) VALUES ($1, $2, 'none')
             RETURNING id, lower($3 COLLATE \"C\")";
        let row = db.query_one(insert, &[&stored, &format!("user-{n}"), &typed]).await.unwrap();
        let (id, folded): (i64, String) = (row.get(0), row.get(1));
        assert_eq!(folded, fold(&typed), "PostgreSQL folds {typed:?} to the same text");
        let name = LoginName::parse(&typed);
        // The lockout sees only this value of a login's name.
        let is_same = name == LoginName::parse(&stored);
        let found = store.credentials(&name, "none").await.unwrap();
        assert_eq!(found.user.map(|user| user.0), is_same.then_some(id), "{stored:?}, {typed:?}");
        assert!(!is_same || found.names.contains(&name), "a login makes {name:?} known");
        let found = admin.find(&name).await.unwrap();
        assert_eq!(found.map(|account| account.id.0), is_same.then_some(id), "{stored:?}");
        same += usize::from(is_same && stored != typed);
        db.execute("DELETE FROM users", &[]).await.unwrap();
    }
    assert!(same > 30, "{same} pairs name the same account in another case");
    admin.close().await;
    store.close();
}

// Case F4 of the field list.
#[tokio::test]
async fn names_that_find_one_account_share_one_failure_count() {
    property_in(TestDatabase::create().await).await;
    if let Some(turkish) = TestDatabase::create_icu("tr-TR").await {
        property_in(turkish).await;
    }
}

// Case F4 of the field list.
#[tokio::test]
async fn a_lookalike_name_opens_no_account_and_no_second_failure_count() {
    let app = TestApp::start().await;
    app.register("mimi.iris").await;
    let client = app.anonymous();
    client.register("alice@mimi.example", "alice", PASSWORD).await.assert_status(201);
    for disguise in DISGUISES {
        for name in ["alice", "alice@mimi.example"] {
            let name = name.replace('i', disguise);
            client.login(&name, PASSWORD).await.assert_problem(401, "credentials-rejected");
        }
        for name in [format!("al{disguise}ce@mimi.example"), format!("alice@mim{disguise}.example")]
        {
            client.login(&name, PASSWORD).await.assert_problem(401, "credentials-rejected");
        }
    }
    for name in ["alice", "alice@mimi.example"] {
        for typed in [name.to_owned(), name.to_uppercase(), name.replace('i', "I")] {
            client.login(&typed, "Wrong-Pass123").await.assert_status(401);
        }
        for typed in [name.to_owned(), name.replace('a', "A")] {
            client.login(&typed, "Wrong-Pass123").await.assert_status(401);
        }
        for typed in [name.to_owned(), name.to_uppercase(), name.replace('c', "C")] {
            client.login(&typed, PASSWORD).await.assert_problem(429, "login-locked");
        }
        client.login(&name.replace('i', "\u{130}"), PASSWORD).await.assert_status(401);
    }
    // Four letters i, 16 spellings: five guesses altogether.
    let mut looked_at = 0;
    for way in 0..16_u32 {
        let mut name = "mimi.iris".to_owned();
        for (number, (place, _)) in "mimi.iris".match_indices('i').enumerate() {
            if way >> number & 1 == 1 {
                name.replace_range(place..=place, "I");
            }
        }
        looked_at += usize::from(client.login(&name, "Wrong-Pass123").await.status == 401);
    }
    assert_eq!(looked_at, 5);
}

#[tokio::test]
async fn an_email_with_non_ascii_letters_is_found_as_registered() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    client.register("JOS\u{c9}@example.com", "jose", PASSWORD).await.assert_status(201);
    client.log_in("JOS\u{c9}@example.com").await;
    client.log_in("jos\u{c9}@EXAMPLE.com").await;
    client.login("jos\u{e9}@example.com", PASSWORD).await.assert_status(401);
    let again = client.register("jos\u{c9}@Example.com", "other", PASSWORD).await;
    again.assert_problem(409, "email-taken");
}

// Case F5 of the field list.
#[tokio::test]
async fn a_turkish_database_finds_the_same_accounts() {
    let Some(database) = TestDatabase::create_icu("tr-TR").await else { return };
    let db = database.connect().await;
    let lower: String = db.query_one("SELECT lower('I')", &[]).await.unwrap().get(0);
    assert_eq!(lower, "\u{131}", "the database folds case as Turkish does");
    let app = TestApp::builder().on(&Arc::new(database)).start().await;
    let client = app.anonymous();
    client.register("INFO@example.com", "INFO", PASSWORD).await.assert_status(201);
    for name in ["info", "INFO", "info@example.com", "Info@EXAMPLE.COM"] {
        client.log_in(name).await;
    }
    let again = client.register("info@example.com", "other", PASSWORD).await;
    again.assert_problem(409, "email-taken");
    let again = client.register("other@example.com", "info", PASSWORD).await;
    again.assert_problem(409, "username-taken");
}

// Case F6 of the field list. A test cannot change the operating system's sort order. Another ICU
// locale in the catalogue has the same effect on the indexes.
#[tokio::test]
async fn a_changed_collation_hides_no_account_and_allows_no_duplicate() {
    const ACCOUNTS: usize = 2_000;
    let Some(database) = old_database("en-US").await else { return };
    let db = database.connect().await;
    let insert = "INSERT INTO users (email, username, password_hash)
         SELECT md5(n::text) || '@example.com', 'u' || md5(n::text), '$2b$04$' || repeat('x', 53)
         FROM generate_series(1, 2000) AS n";
    db.execute(insert, &[]).await.unwrap();
    // Hawaiian sorts the vowels before all other letters.
    let change = "UPDATE pg_database SET daticulocale = 'haw' WHERE datname = current_database()";
    db.execute(change, &[]).await.unwrap();
    drop(db);

    let db = database.connect().await;
    db.batch_execute(
        "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off",
    )
    .await
    .unwrap();
    let count = "SELECT count(*) FROM generate_series(1, 2000) AS n
         WHERE EXISTS (SELECT 1 FROM users WHERE lower(username) = lower('u' || md5(n::text)))";
    let found: i64 = db.query_one(count, &[]).await.unwrap().get(0);
    assert!(found < 1_900, "the old index finds {found} of 2,000, so it is not damaged");

    let endpoint = database.config.clone().into();
    assert_eq!(migrate(&endpoint).await.unwrap(), AT_ONCE);
    let mut file = String::new();
    let admin = Admin::open(&endpoint).await.unwrap();
    let rows = db.query("SELECT email, username FROM users", &[]).await.unwrap();
    let mut missing = Vec::new();
    for row in &rows {
        let (email, username): (String, String) = (row.get(0), row.get(1));
        for name in [&email, &username] {
            if admin.find(&LoginName::parse(name)).await.unwrap().is_none() {
                missing.push(name.clone());
            }
        }
        let hash = bcrypt::hash_with_salt(PASSWORD, 4, [9; 16]);
        let hash = hash.unwrap().format_for_version(bcrypt::Version::TwoB);
        file += &format!(
            r#"{{"email":"{email}","username":"{username}","password_hash":"{hash}"}}{}"#,
            '\n'
        );
    }
    admin.close().await;
    assert_eq!((rows.len(), missing.len()), (ACCOUNTS, 0), "{missing:?}");

    let mut importer = Importer::open(&endpoint).await.unwrap();
    let count = import_users(file.as_bytes(), &mut importer, 4, |_, _| Ok(())).await.unwrap();
    importer.close().await;
    assert_eq!((count.imported, count.rejected), (0, ACCOUNTS as u64), "no duplicate");
}
