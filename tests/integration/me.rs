//! GET /api/v1/auth/me

use crate::support::TestApp;
use hyper::Method;
use std::time::Duration;

const PATH: &str = "/api/v1/auth/me";

#[tokio::test]
async fn an_account_can_read_itself() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let reply = app.anonymous().me(&tokens.access).await;
    reply.assert_status(200);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let body = reply.json();
    assert_eq!(body["id"], 1);
    assert_eq!(body["email"], "ada@example.com");
    assert_eq!(body["username"], "ada");
    assert_eq!(body["is_active"], true);
    assert_eq!(body.as_object().unwrap().len(), 5, "{body}");
    let created = body["created_at"].as_str().unwrap();
    use time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::parse(created, &Rfc3339).unwrap();
}

#[tokio::test]
async fn calls_within_30_seconds_cost_one_query() {
    let app = TestApp::start().await;
    app.listening().await;
    let tokens = app.registered("ada").await;
    let client = app.anonymous();
    for _ in 0..10 {
        client.me(&tokens.access).await.assert_status(200);
    }
    assert_eq!(app.queries("session_account").await, 1.0);
    app.clock.advance(Duration::from_millis(29_999));
    client.me(&tokens.access).await.assert_status(200);
    assert_eq!(app.queries("session_account").await, 1.0);
    app.clock.advance(Duration::from_millis(1));
    client.me(&tokens.access).await.assert_status(200);
    assert_eq!(app.queries("session_account").await, 2.0);
    // A refresh keeps the session.
    let next = client.refresh(&tokens.refresh).await.tokens();
    client.me(&next.access).await.assert_status(200);
    assert_eq!(app.queries("session_account").await, 2.0);
}

#[tokio::test]
async fn an_account_disabled_in_sql_is_rejected_within_30_seconds() {
    let app = TestApp::start().await;
    app.listening().await;
    let tokens = app.registered("ada").await;
    let client = app.anonymous();
    client.me(&tokens.access).await.assert_status(200);
    let disable = "UPDATE users SET is_active = false";
    app.db().await.execute(disable, &[]).await.unwrap();
    client.me(&tokens.access).await.assert_status(200);
    app.clock.advance(Duration::from_secs(30));
    let reply = client.me(&tokens.access).await;
    reply.assert_problem(401, "token-rejected");
}

#[tokio::test]
async fn a_cached_session_is_not_trusted_after_it_expires() {
    let app = TestApp::start().await;
    app.listening().await;
    let tokens = app.registered("ada").await;
    let client = app.anonymous();
    let shorten = "UPDATE refresh_tokens SET expires_at = now() + interval '5 s'";
    app.db().await.execute(shorten, &[]).await.unwrap();
    client.me(&tokens.access).await.assert_status(200);
    let expire = "UPDATE refresh_tokens SET expires_at = now()";
    app.db().await.execute(expire, &[]).await.unwrap();
    app.clock.advance(Duration::from_secs(5));
    client.me(&tokens.access).await.assert_status(401);
}

#[tokio::test]
async fn an_access_token_is_rejected_after_it_expires() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let client = app.anonymous();
    app.clock.advance(Duration::from_secs(1_799));
    client.me(&tokens.access).await.assert_status(200);
    app.clock.advance(Duration::from_secs(1));
    let reply = client.me(&tokens.access).await;
    reply.assert_problem(401, "token-rejected");
    assert_eq!(reply.json()["error"], "invalid_token");
    let next = client.refresh(&tokens.refresh).await.tokens();
    client.me(&next.access).await.assert_status(200);
}

#[tokio::test]
async fn an_access_token_does_not_outlive_its_session() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let expire = "UPDATE refresh_tokens SET expires_at = now()";
    app.db().await.execute(expire, &[]).await.unwrap();
    app.anonymous().me(&tokens.access).await.assert_status(401);
}

// Reliability: F5.
#[tokio::test]
async fn foreign_and_altered_access_tokens_are_rejected() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let app = TestApp::start().await;
    let elsewhere = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let foreign = elsewhere.registered("ada").await;
    let parts: Vec<&str> = tokens.access.split('.').collect();
    let [header, payload, signature] = parts.as_slice() else {
        panic!("{parts:?}");
    };
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let none = part(r#"{"alg":"none","typ":"at+jwt"}"#);
    let hs256 = part(r#"{"alg":"HS256","typ":"at+jwt"}"#);
    let mut claims = tokens.claims();
    claims["sub"] = "2".into();
    let other_payload = part(&claims.to_string());
    let mut altered = signature.to_string();
    let first = if altered.starts_with('A') { "B" } else { "A" };
    altered.replace_range(0..1, first);
    for token in [
        "nonsense".to_owned(),
        tokens.refresh.clone(),
        foreign.access,
        format!("{none}.{payload}."),
        format!("{hs256}.{payload}.{signature}"),
        format!("{header}.{other_payload}.{signature}"),
        format!("{header}.{payload}.{altered}"),
        format!("{header}.{payload}"),
        format!("{}.x", tokens.access),
        "a".repeat(5_000),
    ] {
        let reply = app.anonymous().me(&token).await;
        reply.assert_problem(401, "token-rejected");
        let challenge = reply.header("www-authenticate").unwrap();
        assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
    }
    assert_eq!(app.queries("session_account").await, 0.0);
}

#[tokio::test]
async fn a_request_without_a_bearer_token_is_401_token_missing() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let client = app.anonymous();
    for client in [
        client.clone(),
        client.with("authorization", "Basic YWRhOng="),
        client.with("authorization", &tokens.access),
    ] {
        let reply = client.get(PATH).await;
        reply.assert_problem(401, "token-missing");
        assert_eq!(reply.header("www-authenticate"), Some(r#"Bearer realm="staunch""#));
    }
    let twice = client.bearer(&tokens.access).bearer(&tokens.access);
    twice.get(PATH).await.assert_problem(401, "token-rejected");
    let lower = client.with("authorization", &format!("bearer {}", tokens.access));
    lower.get(PATH).await.assert_status(200);
    let head = client.bearer(&tokens.access);
    let head = head.send(Method::HEAD, PATH, None, "").await;
    head.assert_status(200);
}
