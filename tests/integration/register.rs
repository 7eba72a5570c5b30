//! POST /api/v1/auth/register

use crate::support::{PASSWORD, TestApp};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/auth/register";

#[tokio::test]
async fn a_registered_account_can_log_in() {
    let app = TestApp::start().await;
    let reply = app.anonymous().register("Test@Example.com", "TestUser", PASSWORD).await;
    reply.assert_status(201);
    assert_eq!(
        reply.json(),
        json!({"id": 1, "email": "Test@Example.com", "username": "TestUser", "is_active": true})
    );
    assert_eq!(reply.header("content-type"), Some("application/json"));
    app.anonymous().log_in("testuser").await;
    let stored = app.db().await;
    let row = stored.query_one("SELECT password_hash FROM users", &[]).await.unwrap();
    let hash: String = row.get(0);
    assert!(
        hash.starts_with("$2b$04$") && bcrypt::verify(PASSWORD, &hash).unwrap(),
        "another implementation agrees"
    );
    let series = r#"staunch_registrations_total{result="success"}"#;
    assert_eq!(app.metric(series).await, 1.0);
}

#[tokio::test]
async fn a_taken_name_is_409_regardless_of_case() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    app.register("ada").await;
    let email = client.register("ADA@example.COM", "grace", PASSWORD).await;
    email.assert_problem(409, "email-taken");
    let username = client.register("grace@example.com", "Ada", PASSWORD).await;
    username.assert_problem(409, "username-taken");
    let both = client.register("ada@example.com", "ada", PASSWORD).await;
    both.assert_status(409);
    let rows = app.db().await.query("SELECT 1 FROM users", &[]).await;
    assert_eq!(rows.unwrap().len(), 1);
}

#[tokio::test]
async fn all_invalid_fields_are_reported_together() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    let named = async |body: Value| {
        let reply = client.post_json(PATH, &body).await;
        reply.assert_problem(422, "invalid-fields");
        reply.fields()
    };
    let all = ["email", "username", "password"];
    assert_eq!(named(json!({})).await, all);
    let wrong_types = json!({"email": 1, "username": null, "password": ["x"]});
    assert_eq!(named(wrong_types).await, all);
    let broken = json!({"email": "nobody", "username": "a b", "password": "short"});
    assert_eq!(named(broken).await, all);

    let with = |field: &str, value: &str| {
        let mut body = json!({"email": "a@example.com", "username": "ada", "password": PASSWORD});
        body[field] = value.into();
        body
    };
    let long_email = format!("{}@example.com", "a".repeat(250));
    for (field, value) in [
        ("email", ""),
        ("email", "a@b"),
        ("email", "a@ex\0ample.com"),
        ("email", long_email.as_str()),
        ("username", "ab"),
        ("username", &"x".repeat(65)),
        ("username", "ada@example"),
        ("username", "ada\r\nx"),
        ("username", "'; DROP TABLE users; --"),
        ("password", "seven77"),
        ("password", "password123"),
        ("password", "has a \0 inside"),
    ] {
        assert_eq!(named(with(field, value)).await, [field], "{value:?}");
    }
    assert_eq!(app.queries("insert_user").await, 0.0, "no insert was attempted");
    assert_eq!(app.metric("staunch_hash_seconds_count{op=\"hash\"}").await, 0.0);
}

// Reliability: F7.
#[tokio::test]
async fn passwords_over_72_bytes_are_refused_and_none_is_truncated() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    let longest = "é".repeat(36);
    let reply = client.register("a@example.com", "ada", &longest).await;
    reply.assert_status(201);
    client.login("ada", &longest).await.tokens();
    let longer = format!("{longest}x");
    let refused = client.register("b@example.com", "bob", &longer).await;
    refused.assert_problem(422, "invalid-fields");
    assert_eq!(refused.fields(), ["password"]);
    let reply = client.login("ada", &longer).await;
    reply.assert_problem(401, "credentials-rejected");
}

#[tokio::test]
async fn a_body_that_is_not_a_json_object_is_400_or_415() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    let send = async |content_type: Option<&str>, body: &str| {
        client.send(hyper::Method::POST, PATH, content_type, body.to_owned()).await
    };
    let json = Some("application/json");
    let deep = format!(r#"{{"email":{}}}"#, "[".repeat(10_000));
    for body in [
        "",
        "null",
        "[]",
        "{",
        r#"{"email":"a"} x"#,
        r#"{"email":"a","email":"b"}"#,
        r#"{"email":1e999}"#,
        r#"{"email":"\ud800"}"#,
        "\u{feff}{}",
        deep.as_str(),
    ] {
        let reply = send(json, body).await;
        reply.assert_problem(400, "malformed");
    }
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/json; charset=latin1"),
    ] {
        let reply = send(content_type, "{}").await;
        reply.assert_problem(415, "unsupported-media-type");
    }
    let encoded = client.with("content-encoding", "gzip");
    let reply = encoded.post_json(PATH, &json!({})).await;
    reply.assert_problem(415, "unsupported-media-type");
    send(Some("Application/JSON;charset=UTF-8"), "{}").await.assert_status(422);
}

#[tokio::test]
async fn unknown_members_are_ignored() {
    let app = TestApp::start().await;
    let body = json!({
        "email": "a@example.com", "username": "ada", "password": PASSWORD,
        "is_active": false, "id": 99, "nested": {"deep": [1, 2]}
    });
    let reply = app.anonymous().post_json(PATH, &body).await;
    reply.assert_status(201);
    assert_eq!(reply.json()["id"], 1);
    assert_eq!(reply.json()["is_active"], true);
}
