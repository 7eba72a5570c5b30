//! POST /api/v1/auth/token

use crate::support::{PASSWORD, TestApp};
use serde_json::json;
use std::net::IpAddr;

const PATH: &str = "/api/v1/auth/token";

#[tokio::test]
async fn a_login_accepts_username_or_email_in_any_case() {
    let app = TestApp::start().await;
    let id = app.register("Ada").await;
    for name in ["Ada", "ada", "ADA", "Ada@example.com", "aDA@EXAMPLE.COM"] {
        let reply = app.anonymous().login(name, PASSWORD).await;
        reply.tokens();
        let body = reply.json();
        assert_eq!(body["expires_in"], 1800);
        assert_eq!(body.as_object().unwrap().len(), 4, "{body}");
    }
    let tokens = app.anonymous().log_in("ada").await;
    let claims = tokens.claims();
    assert_eq!(claims["sub"], id.to_string());
    assert_eq!(claims["iss"], "http://localhost:8080");
    assert_eq!(claims["aud"], "staunch");
    let now = app.clock.unix_s();
    assert_eq!(claims["iat"], now);
    assert_eq!(claims["exp"], now + 1800);
    assert_eq!(app.queries("credentials_by_username").await, 4.0);
    assert_eq!(app.queries("credentials_by_email").await, 2.0);
    assert_eq!(app.queries("insert_session").await, 6.0);
}

#[tokio::test]
async fn passwords_are_compared_exactly() {
    let app = TestApp::start().await;
    app.register("ada").await;
    for wrong in [
        PASSWORD.to_lowercase(),
        format!(" {PASSWORD}"),
        format!("{PASSWORD} "),
        PASSWORD[..PASSWORD.len() - 1].to_owned(),
    ] {
        let reply = app.anonymous().login("ada", &wrong).await;
        reply.assert_problem(401, "credentials-rejected");
    }
}

// Reliability: F1.
#[tokio::test]
async fn every_rejected_login_has_the_same_body_and_headers() {
    let app = TestApp::start().await;
    app.register("ada").await;
    app.register("disabled").await;
    let disable = "UPDATE users SET is_active = false WHERE username = 'disabled'";
    app.db().await.execute(disable, &[]).await.unwrap();
    let damaged = "UPDATE users SET password_hash = $1 WHERE username = 'damaged'";
    app.register("damaged").await;
    app.db().await.execute(damaged, &[&"$2b$31$damaged"]).await.unwrap();
    let over_long = "x".repeat(10_000);
    let with_nul = format!("{PASSWORD}\0");
    let long_name = "n".repeat(300);
    let tries = [
        ("ada", "wrong password"),
        ("ada", over_long.as_str()),
        ("ada", with_nul.as_str()),
        ("nobody", PASSWORD),
        ("nobody@example.com", PASSWORD),
        ("disabled", PASSWORD),
        ("disabled", "wrong password"),
        ("damaged", PASSWORD),
        ("ada\0", PASSWORD),
        (long_name.as_str(), PASSWORD),
        ("' OR 1=1 --", PASSWORD),
    ];
    let mut first = None;
    for (name, password) in tries {
        let reply = app.anonymous().login(name, password).await;
        reply.assert_problem(401, "credentials-rejected");
        assert_eq!(reply.json()["error"], "invalid_grant");
        assert_eq!(&reply.seen(), first.get_or_insert_with(|| reply.seen()), "{name}");
    }
    let hashed = app.metric("staunch_hash_seconds_count{op=\"verify\"}").await;
    assert_eq!(hashed, 11.0, "each login costs one hash");
    let rejected = app.metric("staunch_logins_total{result=\"rejected\"}").await;
    assert_eq!(rejected, 11.0);
    assert_eq!(app.queries("insert_session").await, 0.0);
}

#[tokio::test]
async fn one_endpoint_serves_both_grants() {
    let app = TestApp::start().await;
    app.register("ada").await;
    let client = app.anonymous();
    let fields = [
        ("grant_type", "password"),
        ("username", "ada"),
        ("password", PASSWORD),
        ("scope", "ignored"),
    ];
    let tokens = client.post_form(PATH, &fields).await.tokens();
    let fields = [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str())];
    let next = client.post_form(PATH, &fields).await.tokens();
    assert_eq!(next.session(), tokens.session());
    assert_ne!(next.refresh, tokens.refresh);
    let fields = [("grant_type", "refresh_token"), ("refresh_token", "nonsense")];
    let reply = client.post_form(PATH, &fields).await;
    reply.assert_problem(401, "refresh-token-rejected");
    assert_eq!(reply.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn oauth_errors_follow_rfc_6749() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    let reply = client.post_form(PATH, &[("grant_type", "magic")]).await;
    reply.assert_problem(400, "unsupported-grant-type");
    assert_eq!(reply.json()["error"], "unsupported_grant_type");

    for (body, fields) in [
        ("", vec!["username", "password"]),
        ("username=ada", vec!["password"]),
        ("username=&password=x", vec!["username"]),
        ("grant_type=password&password=x", vec!["username"]),
        ("grant_type=refresh_token", vec!["refresh_token"]),
        ("grant_type=refresh_token&refresh_token=", vec!["refresh_token"]),
    ] {
        let reply = client.post_form_text(PATH, body).await;
        reply.assert_problem(400, "invalid-request");
        assert_eq!(reply.json()["error"], "invalid_request");
        assert_eq!(reply.fields(), fields, "{body}");
    }
}

// Reliability: A12.
#[tokio::test]
async fn an_ambiguous_form_is_400() {
    let app = TestApp::start().await;
    app.register("ada").await;
    let client = app.anonymous();
    let many = "f=1&".repeat(2_000);
    let fields: Vec<String> = (0..2_000).map(|n| format!("f{n}=1")).collect();
    for body in [
        "username=ada&username=eve&password=x",
        "username=ada&%75sername=eve&password=x",
        "username=%zz&password=x",
        "username=%4&password=x",
        "username=ada&password=%",
        "username=%ff&password=x",
        many.as_str(),
        &fields.join("&"),
    ] {
        let reply = client.post_form_text(PATH, body).await;
        reply.assert_problem(400, "invalid-request");
    }
    let raw = client.send(
        hyper::Method::POST,
        PATH,
        Some("application/x-www-form-urlencoded"),
        b"username=\xff&password=x".to_vec(),
    );
    raw.await.assert_problem(400, "invalid-request");
    let reply = client.post_json(PATH, &json!({"username": "ada"})).await;
    reply.assert_problem(415, "unsupported-media-type");
    assert_eq!(app.metric("staunch_hash_seconds_count{op=\"verify\"}").await, 0.0);
}

#[tokio::test]
async fn a_session_stores_its_address_and_user_agent() {
    let app = TestApp::builder().set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1").start().await;
    app.register("ada").await;
    let db = app.db().await;
    let opened = async |agent: &str, address: &str| {
        let client = app.anonymous().with("user-agent", agent).from(address);
        let tokens = client.log_in("ada").await;
        let query = "SELECT ip, user_agent FROM refresh_tokens WHERE id = $1";
        let row = db.query_one(query, &[&tokens.session()]).await.unwrap();
        (row.get::<_, IpAddr>(0).to_string(), row.get::<_, String>(1))
    };
    let seen = opened("Mozilla/5.0 (X11)", "203.0.113.7").await;
    assert_eq!(seen, ("203.0.113.7".into(), "Mozilla/5.0 (X11)".into()));
    let seen = opened(&"x".repeat(5_000), "2001:db8::5").await;
    assert_eq!(seen, ("2001:db8::5".into(), "x".repeat(256)));
    let plain = app.anonymous().log_in("ada").await;
    let query = "SELECT ip, user_agent FROM refresh_tokens WHERE id = $1";
    let row = db.query_one(query, &[&plain.session()]).await.unwrap();
    assert_eq!(row.get::<_, IpAddr>(0).to_string(), "127.0.0.1");
    assert_eq!(row.get::<_, Option<String>>(1), None);
}

// Reliability: F8.
#[tokio::test]
async fn names_and_agents_reach_the_database_as_parameters() {
    let app = TestApp::start().await;
    app.register("ada").await;
    let hostile = "x'; DROP TABLE refresh_tokens; --";
    let client = app.anonymous().with("user-agent", hostile);
    let tokens = client.log_in("ada").await;
    let query = "SELECT user_agent FROM refresh_tokens WHERE id = $1";
    let row = app.db().await.query_one(query, &[&tokens.session()]).await;
    assert_eq!(row.unwrap().get::<_, String>(0), hostile);
}

// Reliability: E4.
#[tokio::test]
async fn a_login_started_before_a_password_change_gets_no_session() {
    use staunch::identity::{Origin, SessionId, UserId};
    use staunch::store::{Deadlines, NewSession, Store, StoreConfig};
    let app = TestApp::start().await;
    let id = app.register("ada").await;
    let db = app.db().await;
    let metrics = staunch::telemetry::Metrics::new().unwrap();
    let config = StoreConfig {
        database: app.database.config.clone().into(),
        pool_min: 1,
        pool_max: 2,
        deadlines: Deadlines::default(),
    };
    let store = Store::open(&config, &metrics, app.clock.clone()).await.unwrap();
    let name = staunch::identity::LoginName::parse("ada");
    let address = IpAddr::from([127, 0, 0, 1]);
    let origin = Origin { address, user_agent: None, request_id: "1".into() };
    let open = async |account_version| {
        let session = NewSession {
            id: SessionId::random(),
            user: UserId(id),
            account_version,
            ttl: std::time::Duration::from_secs(60),
            origin: &origin,
            sessions_max: 50,
        };
        store.insert_session(&session).await.unwrap().is_some()
    };
    let before = store.credentials(&name, "none").await.unwrap().updated_at;
    assert!(open(before).await);
    let change = "UPDATE users SET password_hash = 'x', updated_at = now()";
    db.execute(change, &[]).await.unwrap();
    assert!(!open(before).await);
    let after = store.credentials(&name, "none").await.unwrap().updated_at;
    assert!(open(after).await);
    db.execute("UPDATE users SET is_active = false", &[]).await.unwrap();
    assert!(!open(after).await, "disabled while the login was hashed");
    store.close();
}
