//! An account's sessions: listing, ending one or all of them, and their limit.

use crate::support::{TestApp, Tokens};
use serde_json::Value;
use std::collections::HashSet;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The listed ids, in order.
async fn listed(app: &TestApp, access: &str) -> Vec<String> {
    let reply = app.anonymous().sessions(access).await;
    reply.assert_status(200);
    let list = reply.json();
    list.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

fn id(tokens: &Tokens) -> String {
    tokens.session().to_string()
}

/// The audit log's lines of these kinds: event, outcome, user, address, request.
async fn events(app: &TestApp, kinds: &[&str]) -> Vec<String> {
    let query = "SELECT concat_ws(' ', event, outcome, user_id, host(ip), request_id)
         FROM auth_events WHERE event = ANY ($1) ORDER BY id";
    let rows = app.db().await.query(query, &[&kinds]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn an_account_lists_its_live_sessions_newest_first() {
    let app = TestApp::start().await;
    app.register("ada").await;
    let phone = app.anonymous().with("user-agent", "phone/1").log_in("ada").await;
    let laptop = app.anonymous().with("user-agent", "laptop/2").log_in("ada").await;
    let ended = app.anonymous().log_in("ada").await;
    app.anonymous().logout(&ended.refresh).await.assert_status(204);
    let expired = app.anonymous().log_in("ada").await;
    let expire = "UPDATE refresh_tokens SET expires_at = now() WHERE id = $1";
    app.db().await.execute(expire, &[&expired.session()]).await.unwrap();
    let eve = app.registered("eve").await;

    let reply = app.anonymous().sessions(&phone.access).await;
    reply.assert_status(200);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let list = reply.json();
    let list: &Vec<Value> = list.as_array().unwrap();
    let ids: Vec<&str> = list.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [id(&laptop), id(&phone)]);
    let (first, second) = (&list[0], &list[1]);
    assert_eq!((&first["current"], &second["current"]), (&false.into(), &true.into()));
    assert_eq!(second["user_agent"], "phone/1");
    assert_eq!(second["ip"], "127.0.0.1");
    assert_eq!(first.as_object().unwrap().len(), 6, "{first}");
    let time = |of: &Value| OffsetDateTime::parse(of.as_str().unwrap(), &Rfc3339).unwrap();
    assert_eq!(time(&second["created_at"]), time(&second["last_used_at"]));

    let next = app.anonymous().refresh(&phone.refresh).await.tokens();
    let list = app.anonymous().sessions(&next.access).await.json();
    assert_eq!(list[1]["id"], id(&phone), "ordered by creation");
    assert!(time(&list[1]["last_used_at"]) > time(&list[1]["created_at"]));
    assert_eq!(listed(&app, &eve.access).await, [id(&eve)]);
}

#[tokio::test]
async fn only_its_own_account_can_end_a_session() {
    let app = TestApp::start().await;
    let [mine, other, eve] = app.three_sessions().await;
    let client = app.anonymous();
    client.end_session(&eve.access, id(&other)).await.assert_problem(404, "not-found");
    let unknown = "3f2b8c1e-7a4d-4e9b-9c55-0123456789ab";
    client.end_session(&mine.access, unknown).await.assert_problem(404, "not-found");
    client.me(&other.access).await.assert_status(200);
    assert!(events(&app, &["session_end"]).await.is_empty());

    let named = client.with("x-request-id", "end-1");
    named.end_session(&mine.access, id(&other)).await.assert_status(204);
    client.me(&other.access).await.assert_problem(401, "token-rejected");
    client.refresh(&other.refresh).await.assert_problem(401, "refresh-token-rejected");
    client.end_session(&mine.access, id(&other)).await.assert_problem(404, "not-found");
    assert_eq!(events(&app, &["session_end"]).await, ["session_end success 1 127.0.0.1 end-1"]);
    assert_eq!(listed(&app, &mine.access).await, [id(&mine)]);

    client.end_session(&mine.access, id(&mine)).await.assert_status(204);
    client.me(&mine.access).await.assert_status(401);
    client.me(&eve.access).await.assert_status(200);
}

#[tokio::test]
async fn only_well_formed_session_ids_are_paths_and_no_metric_shows_one() {
    let app = TestApp::start().await;
    let mine = app.registered("ada").await;
    let client = app.anonymous();
    let own = id(&mine);
    for other in [
        own.to_uppercase(),
        own.replace('-', ""),
        format!("{own}/"),
        format!("{own}/x"),
        format!("%7B{own}%7D"),
        own.replace('-', "%2D"),
        "'%20OR%201=1".to_owned(),
        String::new(),
    ] {
        client.end_session(&mine.access, &other).await.assert_problem(404, "not-found");
    }
    client.me(&mine.access).await.assert_status(200);
    let path = format!("/api/v1/auth/sessions/{own}");
    client.get(&path).await.assert_problem(405, "method-not-allowed");
    client.send(hyper::Method::DELETE, &path, None, "").await.assert_problem(401, "token-missing");
    let refused = client.end_session("nonsense", &own).await;
    refused.assert_problem(401, "token-rejected");
    client.end_session(&mine.access, &own).await.assert_status(204);
    let page = app.anonymous().get("/metrics").await;
    assert!(!page.text().contains(&own));
    assert!(page.text().contains(r#"route="/api/v1/auth/sessions/{id}""#), "{}", page.text());
}

#[tokio::test]
async fn logout_all_ends_every_session_of_the_account() {
    let app = TestApp::start().await;
    let [mine, other, eve] = app.three_sessions().await;
    let client = app.anonymous();
    let named = client.with("x-request-id", "all-1");
    named.logout_all(&mine.access).await.assert_status(204);
    for tokens in [&mine, &other] {
        client.me(&tokens.access).await.assert_problem(401, "token-rejected");
        client.refresh(&tokens.refresh).await.assert_status(401);
    }
    client.logout_all(&mine.access).await.assert_status(401);
    client.me(&eve.access).await.assert_status(200);
    let later = client.log_in("ada").await;
    client.me(&later.access).await.assert_status(200);
    let reasons = "SELECT DISTINCT revoked_reason FROM refresh_tokens WHERE revoked";
    let rows = app.db().await.query(reasons, &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["logout_all"]);
    assert_eq!(events(&app, &["logout_all"]).await, ["logout_all success 1 127.0.0.1 all-1"]);
}

// Reliability: E3.
#[tokio::test]
async fn logout_all_ends_a_login_that_is_storing_its_session() {
    let app = TestApp::builder().long_calls().start().await;
    let mine = app.registered("ada").await;
    // A login in progress: it locks the account as insert_session does.
    let mut db = app.db().await;
    let login = db.transaction().await.unwrap();
    login.execute("SELECT 1 FROM users WHERE id = 1 FOR SHARE", &[]).await.unwrap();
    let insert = "INSERT INTO refresh_tokens (id, user_id, expires_at)
         VALUES (gen_random_uuid(), 1, now() + interval '1 h')";
    login.execute(insert, &[]).await.unwrap();
    let ending = tokio::spawn({
        let (client, access) = (app.anonymous(), mine.access.clone());
        async move { client.logout_all(&access).await }
    });
    app.database.until_blocked(1).await;
    login.commit().await.unwrap();
    ending.await.unwrap().assert_status(204);
    let live = "SELECT count(*) FROM refresh_tokens WHERE NOT revoked";
    assert_eq!(db.query_one(live, &[]).await.unwrap().get::<_, i64>(0), 0);
}

// Reliability: E3.
#[tokio::test]
async fn a_request_whose_session_ends_while_it_waits_ends_no_other_session() {
    let app = TestApp::builder().long_calls().start().await;
    app.register("ada").await;
    let other = app.anonymous().log_in("ada").await;
    for all in [false, true] {
        let mine = app.anonymous().log_in("ada").await;
        // Locks the account as a login does until its session is stored.
        let db = app.db().await;
        db.batch_execute("BEGIN; SELECT 1 FROM users WHERE id = 1 FOR SHARE").await.unwrap();
        let ending = tokio::spawn({
            let (client, access, id) = (app.anonymous(), mine.access.clone(), other.session());
            async move {
                if all {
                    client.logout_all(&access).await
                } else {
                    client.end_session(&access, id).await
                }
            }
        });
        app.database.until_blocked(1).await;
        app.anonymous().logout(&mine.refresh).await.assert_status(204);
        db.batch_execute("COMMIT").await.unwrap();
        ending.await.unwrap().assert_problem(401, "token-rejected");
        app.anonymous().me(&other.access).await.assert_status(200);
        app.anonymous().refresh(&other.refresh).await.assert_status(200);
    }
}

#[tokio::test]
async fn a_logout_is_logged_once_in_the_audit_log() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let client = app.anonymous().with("x-request-id", "out-1");
    client.logout(&tokens.refresh).await.assert_status(204);
    client.logout(&tokens.refresh).await.assert_status(204);
    client.logout("nonsense").await.assert_status(204);
    assert_eq!(events(&app, &["logout"]).await, ["logout success 1 127.0.0.1 out-1"]);
}

#[tokio::test]
async fn a_login_over_the_limit_ends_the_least_recently_used_session() {
    let app = TestApp::builder().set("STAUNCH_SESSIONS_PER_ACCOUNT", "3").start().await;
    app.register("ada").await;
    let eve = app.registered("eve").await;
    let client = app.anonymous();
    let first = client.log_in("ada").await;
    let second = client.log_in("ada").await;
    let third = client.log_in("ada").await;
    for tokens in [&first, &second, &third] {
        client.me(&tokens.access).await.assert_status(200);
    }
    let first = client.refresh(&first.refresh).await.tokens();
    let fourth = client.with("x-request-id", "fourth").log_in("ada").await;
    assert_eq!(events(&app, &["session_end"]).await, ["session_end limited 1 127.0.0.1 fourth"]);
    client.me(&second.access).await.assert_problem(401, "token-rejected");
    client.refresh(&second.refresh).await.assert_status(401);
    let reason = "SELECT revoked_reason FROM refresh_tokens WHERE id = $1";
    let row = app.db().await.query_one(reason, &[&second.session()]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "limit");
    assert_eq!(listed(&app, &fourth.access).await, [id(&fourth), id(&third), id(&first)]);
    // A wrong password ends no session, and an expired session does not count.
    client.login("ada", "wrong password").await.assert_status(401);
    let expire = "UPDATE refresh_tokens SET expires_at = now() WHERE id = $1";
    app.db().await.execute(expire, &[&third.session()]).await.unwrap();
    let fifth = client.log_in("ada").await;
    let expected = [id(&fifth), id(&fourth), id(&first)];
    assert_eq!(listed(&app, &fifth.access).await, expected);
    client.me(&eve.access).await.assert_status(200);
}

#[tokio::test]
async fn a_limit_of_one_session_works_and_trims_a_backlog_at_once() {
    let app = TestApp::builder().set("STAUNCH_SESSIONS_PER_ACCOUNT", "1").start().await;
    app.register("ada").await;
    let fill = "INSERT INTO refresh_tokens (id, user_id, expires_at)
         SELECT gen_random_uuid(), 1, now() + interval '1 h' FROM generate_series(1, 300)";
    app.db().await.execute(fill, &[]).await.unwrap();
    let first = app.anonymous().log_in("ada").await;
    assert_eq!(listed(&app, &first.access).await, [id(&first)]);
    let second = app.anonymous().log_in("ada").await;
    assert_eq!(listed(&app, &second.access).await, [id(&second)]);
    app.anonymous().me(&first.access).await.assert_status(401);
}

#[tokio::test]
async fn concurrent_logins_exceed_the_session_limit_only_by_their_number_and_briefly() {
    const LIMIT: usize = 5;
    const AT_ONCE: usize = 8;
    let app = TestApp::builder().set("STAUNCH_SESSIONS_PER_ACCOUNT", "5").start().await;
    app.register("ada").await;
    for _ in 0..3 {
        let logins: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let client = app.anonymous();
                tokio::spawn(async move { client.log_in("ada").await })
            })
            .collect();
        let mut opened = HashSet::new();
        for login in logins {
            opened.insert(id(&login.await.unwrap()));
        }
        let count = "SELECT count(*) FROM refresh_tokens WHERE NOT revoked";
        let row = app.db().await.query_one(count, &[]).await.unwrap();
        let live = usize::try_from(row.get::<_, i64>(0)).unwrap();
        assert!((LIMIT..LIMIT + AT_ONCE).contains(&live), "{live}");
        let last = app.anonymous().log_in("ada").await;
        assert_eq!(listed(&app, &last.access).await.len(), LIMIT);
    }
}
