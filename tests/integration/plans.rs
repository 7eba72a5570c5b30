//! Query plans of every statement with 100,000 users.

use crate::support::{SOON, TestApp, TestDatabase, until};
use serde_json::Value;
use staunch::store::STATEMENTS;
use tokio_postgres::Client;

/// Inserts 100,000 accounts with one live session each, and 2,000 ended sessions.
async fn fill(db: &Client) {
    db.batch_execute(
        "INSERT INTO users (email, username, password_hash)
         SELECT 'user' || n || '@example.com', 'user' || n, '$2b$04$' || repeat('x', 53)
         FROM generate_series(1, 100000) AS n;
         INSERT INTO refresh_tokens (id, user_id, expires_at, expiry_check_at, revoked)
         SELECT gen_random_uuid(), n, now() + interval '1 day', now() + interval '1 day', false
         FROM generate_series(1, 100000) AS n;
         INSERT INTO refresh_tokens (id, user_id, expires_at, revoked)
         SELECT gen_random_uuid(), n, now() + CASE n % 2 WHEN 0 THEN interval '-1 s' ELSE interval '1 day' END, n % 2 = 1
         FROM generate_series(1, 2000) AS n;
         INSERT INTO auth_events (event, outcome, user_id)
         SELECT 'login', 'success', n FROM generate_series(1, 100000) AS n;
         INSERT INTO clients (id, name, secret_sha256)
         SELECT gen_random_uuid(), 'client ' || n, sha256(n::text::bytea)
         FROM generate_series(1, 1000) AS n;
         ANALYZE users, refresh_tokens, auth_events, clients",
    )
    .await
    .unwrap();
}

/// The arguments of each statement, as SQL.
fn arguments(name: &str) -> &'static str {
    match name {
        "insert_user" => "'new@example.com', 'new', 'hash', '192.0.2.1', 'request'",
        "credentials_by_username" => "'user50000', 'hash'",
        "credentials_by_email" => "'user50000@example.com', 'hash'",
        "session_blocks_by_username" => "'user50000', 2592000.0, 8",
        "session_blocks_by_email" => "'user50000@example.com', 2592000.0, 8",
        "insert_session" => {
            "gen_random_uuid(), 50000, now(), 60.0, '192.0.2.1', 'agent', 49, 'request'"
        }
        "refresh_session" | "refresh_sessions" => {
            "'{00000000-0000-4000-8000-000000000000}', '{3}', '{10.0}', '{60.0}', '{192.0.2.1}',
             '{request}'"
        }
        "delete_unanswered" => "'{00000000-0000-4000-8000-000000000000}'",
        "replace_hash" => "50000, 'old', 'new'",
        "revoke_session" => "'00000000-0000-4000-8000-000000000000', '192.0.2.1', 'request'",
        "end_session" => {
            "50000, '00000000-0000-4000-8000-000000000000',
             '00000000-0000-4000-8000-000000000000', '192.0.2.1', 'request'"
        }
        "end_account_sessions" => "50000, '192.0.2.1', 'request'",
        "account_sessions" | "credentials_by_id" => "50000",
        "lock_caller" => "50000, '00000000-0000-4000-8000-000000000000'",
        "replace_password" => "50000, now(), 'hash', '00000000-0000-4000-8000-000000000000'",
        "end_other_sessions" => {
            "50000, '00000000-0000-4000-8000-000000000000', '192.0.2.1', 'request'"
        }
        "session_account" => "'00000000-0000-4000-8000-000000000000', 50000",
        "insert_events" => "'{1.5}', '{login}', '{rejected}', '{1}', '{192.0.2.1}', '{request}'",
        "clean_events" => "32497639476945768, 1000, 5, 7776000.0",
        "client_secret" => "'00000000-0000-4000-8000-000000000000'",
        "live_refresh" => "'00000000-0000-4000-8000-000000000000', 3",
        "clean_expired_sessions" => "32497639476945768, 1000, now() - interval '1 hour'",
        "clean_ended_sessions" => "32497639476945768, 1000, '00000000-0000-4000-8000-000000000000'",
        other => panic!("add the arguments of {other} here"),
    }
}

/// Collects every node of a plan.
fn nodes(plan: &Value, found: &mut Vec<(String, String)>) {
    let text = |name: &str| plan[name].as_str().unwrap_or_default().to_owned();
    found.push((text("Node Type"), text("Relation Name")));
    for child in plan["Plans"].as_array().into_iter().flatten() {
        nodes(child, found);
    }
}

#[tokio::test]
async fn every_statement_uses_its_index_at_100_000_users() {
    let database = TestDatabase::create().await;
    let db = database.connect().await;
    fill(&db).await;
    // The generic plan, which a prepared statement uses whatever its parameters.
    db.batch_execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    for statement in STATEMENTS {
        let name = statement.name;
        assert!(statement.sql.starts_with(&format!("-- {name}\n")), "{name}");
        db.batch_execute(&format!("PREPARE {name} AS {}", statement.sql))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE {name}({})", arguments(name));
        let rows =
            db.query_one(&explain, &[]).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let plan: PlanText = rows.get(0);
        let plan: Value = serde_json::from_str(&plan.0).unwrap();
        let mut found = Vec::new();
        nodes(&plan[0]["Plan"], &mut found);
        let scans = found.iter().filter(|(kind, table)| kind == "Seq Scan" && !table.is_empty());
        assert_eq!(scans.count(), 0, "{name}: {plan:#}");
        let reads = !["insert_user", "insert_events"].contains(&name);
        let indexed = found.iter().any(|(kind, _)| kind.contains("Index"));
        assert_eq!(indexed, reads, "{name}: {plan:#}");
    }
}

#[tokio::test]
async fn unique_names_and_session_lookups_have_indexes() {
    let database = TestDatabase::create().await;
    let db = database.connect().await;
    let query = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1";
    let rows = db.query(query, &[]).await.unwrap();
    let indexes: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    for (unique, part) in [
        (true, "users USING btree (lower((email COLLATE \"C\")))"),
        (true, "users USING btree (lower((username COLLATE \"C\")))"),
        (true, "clients USING btree (name COLLATE \"C\")"),
        (false, "refresh_tokens USING btree (user_id, revoked)"),
        (false, "refresh_tokens USING btree (expiry_check_at) WHERE (NOT revoked)"),
    ] {
        let found = indexes.iter().find(|index| index.contains(part));
        let found = found.unwrap_or_else(|| panic!("no index on {part}: {indexes:#?}"));
        assert_eq!(found.starts_with("CREATE UNIQUE"), unique, "{found}");
    }
}

#[tokio::test]
async fn a_refresh_writes_no_index_entry() {
    const REFRESHES: i64 = 20;
    let app = TestApp::start().await;
    let client = app.anonymous();
    let mut tokens = app.registered("ada").await;
    for _ in 0..REFRESHES {
        tokens = client.refresh(&tokens.refresh).await.tokens();
    }
    let db = app.db().await;
    let query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables
         WHERE relname = 'refresh_tokens'";
    // A server process publishes its counts within seconds.
    until("the updates are counted", SOON, async || {
        db.query_one(query, &[]).await.unwrap().get::<_, i64>(0) >= REFRESHES
    })
    .await;
    let row = db.query_one(query, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(1), row.get::<_, i64>(0), "all updates are heap-only");
}

// Case F6 of the field list.
#[tokio::test]
async fn no_index_depends_on_a_locale() {
    let database = TestDatabase::create().await;
    let db = database.connect().await;
    let query = "SELECT i.indexrelid::regclass::text, c.collname
         FROM pg_index AS i JOIN pg_class AS t ON t.oid = i.indrelid
              CROSS JOIN LATERAL unnest(i.indcollation) AS used (\"collation\")
              JOIN pg_collation AS c ON c.oid = used.\"collation\"
         WHERE t.relnamespace = 'public'::regnamespace ORDER BY 1";
    let rows = db.query(query, &[]).await.unwrap();
    let found: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = ["clients_name_exact_key", "users_email_fold_key", "users_username_fold_key"]
        .map(|index| (index.to_owned(), "C".to_owned()));
    assert_eq!(found, expected);
}

/// JSON as PostgreSQL writes it.
struct PlanText(String);

impl<'a> tokio_postgres::types::FromSql<'a> for PlanText {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(std::str::from_utf8(raw)?.to_owned()))
    }

    fn accepts(kind: &tokio_postgres::types::Type) -> bool {
        *kind == tokio_postgres::types::Type::JSON
    }
}
