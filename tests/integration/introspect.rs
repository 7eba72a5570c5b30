//! POST /api/v1/auth/introspect and /revoke.

use crate::support::{Client, PASSWORD, Reply, TestApp};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use staunch::auth::add_client;
use staunch::store::Admin;
use std::time::Duration;

pub(crate) const INTROSPECT: &str = "/api/v1/auth/introspect";
pub(crate) const REVOKE: &str = "/api/v1/auth/revoke";

async fn admin(app: &TestApp) -> Admin {
    Admin::open(&app.database.config.clone().into()).await.unwrap()
}

fn basic(app: &TestApp, id: &str, secret: &str) -> Client {
    let value = STANDARD.encode(format!("{id}:{secret}"));
    app.anonymous().with("authorization", &format!("Basic {value}"))
}

async fn service(app: &TestApp) -> Client {
    let client = app.oauth_client().await;
    basic(app, &client.id.to_string(), client.secret.expose())
}

async fn ask(service: &Client, token: &str) -> Value {
    let reply = service.post_form(INTROSPECT, &[("token", token)]).await;
    reply.assert_status(200);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    reply.json()
}

#[track_caller]
fn assert_no_client(reply: &Reply) {
    reply.assert_problem(401, "client-rejected");
    assert_eq!(reply.json()["error"], "invalid_client");
    assert!(reply.header("www-authenticate").unwrap().starts_with("Basic "));
}

#[tokio::test]
async fn an_access_token_is_active_until_it_expires() {
    let app = TestApp::start().await;
    let service = service(&app).await;
    let tokens = app.registered("Ada").await;
    let claims = tokens.claims();
    let answer = ask(&service, &tokens.access).await;
    assert_eq!(
        answer,
        json!({
            "active": true, "sub": "1", "sid": claims["sid"], "username": "Ada",
            "iss": claims["iss"], "aud": "staunch", "iat": claims["iat"], "exp": claims["exp"],
            "jti": claims["jti"], "token_type": "bearer",
        })
    );
    app.clock.advance(Duration::from_secs(1_800));
    assert_eq!(ask(&service, &tokens.access).await, json!({"active": false}));
    let count = r#"staunch_introspections_total{result="active"}"#;
    assert_eq!(app.metric(count).await, 1.0);
}

#[tokio::test]
async fn a_refresh_token_is_described_as_such_and_is_no_access_token() {
    let app = TestApp::start().await;
    let service = service(&app).await;
    let tokens = app.registered("ada").await;
    let answer = ask(&service, &tokens.refresh).await;
    assert_eq!(answer["active"], true);
    assert_eq!((&answer["sub"], &answer["username"]), (&json!("1"), &json!("ada")));
    assert_eq!(answer["sid"], tokens.claims()["sid"]);
    let times = (answer["iat"].as_i64().unwrap(), answer["exp"].as_i64().unwrap());
    assert_eq!(times.1 - times.0, 7 * 24 * 3_600);
    for member in ["aud", "jti", "token_type", "client_id"] {
        assert!(answer[member].is_null(), "{answer}");
    }
    let next = app.anonymous().refresh(&tokens.refresh).await.tokens();
    assert_eq!(ask(&service, &tokens.refresh).await, json!({"active": false}), "it was replaced");
    assert_eq!(ask(&service, &next.refresh).await["active"], true);
    app.db().await.execute("UPDATE users SET is_active = false", &[]).await.unwrap();
    assert_eq!(ask(&service, &next.refresh).await, json!({"active": false}));
}

#[tokio::test]
async fn an_invalid_token_is_inactive_without_details() {
    let app = TestApp::start().await;
    let service = service(&app).await;
    let tokens = app.registered("ada").await;
    // Changes one character in the middle of the signature or MAC.
    let altered = |token: &str| {
        let (start, end) = token.split_at(token.len() - 9);
        let other = if end.starts_with('A') { 'B' } else { 'A' };
        format!("{start}{other}{}", &end[1..])
    };
    let long = "a".repeat(10_000);
    let id = tokens.session().to_string();
    for token in [
        "x",
        "a.b.c",
        "srt_",
        &altered(&tokens.refresh),
        &altered(&tokens.access),
        &long,
        &id,
        PASSWORD,
    ] {
        assert_eq!(ask(&service, token).await, json!({"active": false}), "{token}");
        let hinted = [("token", token), ("token_type_hint", "refresh_token")];
        let reply = service.post_form(INTROSPECT, &hinted).await;
        assert_eq!(reply.json(), json!({"active": false}));
        let reply = service.post_form(REVOKE, &[("token", token)]).await;
        assert_eq!((reply.status, reply.json()), (200, json!({})), "RFC 7009 section 2.2");
    }
    // A wrong hint changes nothing.
    let hinted = [("token", &*tokens.access), ("token_type_hint", "refresh_token")];
    assert_eq!(service.post_form(INTROSPECT, &hinted).await.json()["active"], true);
    for path in [INTROSPECT, REVOKE] {
        let reply = service.post_form(path, &[("token_type_hint", "access_token")]).await;
        reply.assert_problem(400, "invalid-request");
        assert_eq!(reply.fields(), ["token"]);
        service.post_json(path, &json!({"token": "x"})).await.assert_status(415);
    }
}

#[tokio::test]
async fn an_ended_session_is_inactive_at_once() {
    let app = TestApp::start().await;
    let service = service(&app).await;
    app.register("ada").await;
    let client = app.anonymous();
    for way in ["logout", "revoke refresh", "revoke access"] {
        let tokens = client.log_in("ada").await;
        assert_eq!(ask(&service, &tokens.access).await["active"], true);
        let path = [("token", &*tokens.refresh)];
        if way == "logout" {
            client.logout(&tokens.refresh).await.assert_status(204);
        } else {
            let access = [("token", &*tokens.access), ("token_type_hint", "access_token")];
            let fields = if way == "revoke access" { &access[..] } else { &path[..] };
            service.post_form(REVOKE, fields).await.assert_status(200);
        }
        for token in [&tokens.access, &tokens.refresh] {
            assert_eq!(ask(&service, token).await, json!({"active": false}), "{way}");
        }
        client.me(&tokens.access).await.assert_status(401);
        client.refresh(&tokens.refresh).await.assert_status(401);
        service.post_form(REVOKE, &path).await.assert_status(200);
    }
    let ended = r#"staunch_logouts_total{result="success"}"#;
    assert_eq!(app.metric(ended).await, 3.0);
}

#[tokio::test]
async fn clients_are_cached_for_2_seconds_and_tokens_for_30() {
    let app = TestApp::start().await;
    app.listening().await;
    let service = service(&app).await;
    let tokens = app.registered("ada").await;
    ask(&service, &tokens.access).await;
    let before = app.all_queries().await;
    for _ in 0..10 {
        assert_eq!(ask(&service, &tokens.access).await["active"], true);
    }
    assert_eq!(app.all_queries().await, before);
    app.clock.advance(Duration::from_secs(2));
    ask(&service, &tokens.access).await;
    assert_eq!(app.all_queries().await, before + 1.0, "the client");
    app.clock.advance(Duration::from_secs(28));
    ask(&service, &tokens.access).await;
    assert_eq!(app.all_queries().await, before + 3.0, "both");
}

#[tokio::test]
async fn only_clients_may_introspect_and_revoke() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let client = app.oauth_client().await;
    let (id, secret) = (client.id.to_string(), client.secret.expose().to_owned());
    let other = uuid::Uuid::new_v4().to_string();
    let nobody = app.anonymous();
    let token = ("token", &*tokens.access);
    for path in [INTROSPECT, REVOKE] {
        for caller in [
            nobody.clone(),
            nobody.bearer(&tokens.access),
            nobody.with("authorization", "Basic"),
            nobody.with("authorization", "Basic !!!"),
            basic(&app, &id, "wrong"),
            basic(&app, &id, ""),
            basic(&app, &other, &secret),
            basic(&app, "", &secret),
            basic(&app, "ada", PASSWORD),
            basic(&app, &id, &secret).with("authorization", "Basic YTpi"),
        ] {
            let sent = caller.post_form(path, &[token]).await;
            // Two fields of the same name are ambiguous.
            assert_no_client(&sent);
        }
        let in_form = |id, secret| [token, ("client_id", id), ("client_secret", secret)];
        assert_no_client(&nobody.post_form(path, &in_form(&id, "wrong")).await);
        assert_no_client(&nobody.post_form(path, &in_form(&other, &secret)).await);
        assert_no_client(&nobody.post_form(path, &[token, ("client_id", &id)]).await);
        let service = basic(&app, &id, &secret);
        let reply = service.post_form(path, &in_form(&id, &secret)).await;
        reply.assert_problem(400, "invalid-request");
        assert_no_client(&service.post_form(path, &[token, ("client_id", &other)]).await);
        assert_eq!(ask(&service, &tokens.access).await["active"], true, "nothing was ended");
        // The three supported ways to authenticate.
        nobody.post_form(INTROSPECT, &in_form(&id, &secret)).await.assert_status(200);
        service.post_form(INTROSPECT, &[token, ("client_id", &id)]).await.assert_status(200);
        let escaped = basic(&app, &id.replace('-', "%2D"), &secret.replace('_', "%5F"));
        escaped.post_form(INTROSPECT, &[token]).await.assert_status(200);
    }
    let rejected = r#"staunch_introspections_total{result="rejected"}"#;
    assert!(app.metric(rejected).await > 0.0);
}

#[tokio::test]
async fn a_removed_client_is_refused_within_two_seconds() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let client = app.oauth_client().await;
    let service = basic(&app, &client.id.to_string(), client.secret.expose());
    ask(&service, &tokens.access).await;
    let admin = admin(&app).await;
    assert_eq!(admin.clients().await.unwrap().len(), 1);
    assert_eq!(admin.delete_client(client.id).await.unwrap().unwrap().name, "billing");
    assert!(admin.delete_client(client.id).await.unwrap().is_none());
    app.clock.advance(Duration::from_secs(2));
    assert_no_client(&service.post_form(INTROSPECT, &[("token", &tokens.access)]).await);
}

#[tokio::test]
async fn client_secrets_are_stored_only_as_hashes_and_names_are_checked() {
    let app = TestApp::start().await;
    let client = app.oauth_client().await;
    let row = app.db().await.query_one("SELECT c::text FROM clients c", &[]).await.unwrap();
    let text: String = row.get(0);
    assert!(!text.contains(&client.secret.expose()[4..]), "{text}");
    assert!(client.secret.expose().len() >= 4 + 43, "256 bits");
    let admin = admin(&app).await;
    let long = "x".repeat(65);
    for name in ["", " a", "a\n", &long, "billing"] {
        let error = add_client(&admin, name).await.unwrap_err().to_string();
        assert!(error.contains("NAME"), "{error}");
    }
    assert_eq!(admin.clients().await.unwrap().len(), 1);
}

#[tokio::test]
async fn introspection_without_a_database_is_503() {
    let (builder, proxy) = TestApp::builder().behind_proxy().await;
    let app = builder.start().await;
    let service = service(&app).await;
    let tokens = app.registered("ada").await;
    ask(&service, &tokens.access).await;
    app.clock.advance(Duration::from_secs(2));
    proxy.set(crate::support::Link::Cut);
    let reply = service.post_form(INTROSPECT, &[("token", &tokens.access)]).await;
    reply.assert_problem(503, "unavailable");
    let away = r#"staunch_introspections_total{result="unavailable"}"#;
    assert_eq!(app.metric(away).await, 1.0);
}
