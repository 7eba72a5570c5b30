//! GET /.well-known/*: the public keys and the metadata.

use crate::support::{Reply, TestApp};
use hyper::Method;
use serde_json::{Value, json};

const JWKS: &str = "/.well-known/jwks.json";
const METADATA: &str = "/.well-known/oauth-authorization-server";

/// The members of each kind of key, besides those of RFC 7517 §4.
const SHAPES: [(&str, &[&str]); 3] =
    [("EdDSA", &["crv", "x"]), ("ES256", &["crv", "x", "y"]), ("RS256", &["e", "n"])];

fn keys(reply: &Reply) -> Vec<Value> {
    reply.assert_status(200);
    reply.json()["keys"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_key_set_contains_the_public_half_of_the_signing_key() {
    for (algorithm, members) in SHAPES {
        let app = TestApp::builder().set("STAUNCH_JWT_ALG", algorithm).start().await;
        let tokens = app.registered("ada").await;
        let reply = app.anonymous().get(JWKS).await;
        assert_eq!(reply.header("content-type"), Some("application/jwk-set+json"));
        let keys = keys(&reply);
        assert_eq!(keys.len(), 1);
        let key = keys[0].as_object().unwrap();
        assert_eq!((&key["alg"], &key["use"]), (&json!(algorithm), &json!("sig")));
        let mut names: Vec<&str> = key.keys().map(String::as_str).collect();
        names.retain(|name| !["alg", "kid", "kty", "use"].contains(name));
        assert_eq!(names, members, "no private member");
        let header = jsonwebtoken::decode_header(&tokens.access).unwrap();
        assert_eq!(header.kid.as_deref(), key["kid"].as_str());

        // A client that has only the key set can verify the token.
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(keys[0].clone()).unwrap();
        let mut validation = jsonwebtoken::Validation::new(header.alg);
        validation.set_audience(&["staunch"]);
        validation.set_issuer(&["http://localhost:8080"]);
        let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
        let read = jsonwebtoken::decode::<Value>(&tokens.access, &key, &validation).unwrap();
        assert_eq!(read.claims["sub"], "1");
        let thumbprint = jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256);
        assert_eq!(jwk.common.key_id.unwrap(), thumbprint.unwrap(), "RFC 7638");
    }
}

#[tokio::test]
async fn a_shared_secret_is_not_in_the_key_set() {
    let app = TestApp::builder().set("STAUNCH_JWT_ALG", "HS256").start().await;
    let tokens = app.registered("ada").await;
    app.anonymous().me(&tokens.access).await.assert_status(200);
    let reply = app.anonymous().get(JWKS).await;
    assert_eq!(reply.text(), r#"{"keys":[]}"#);
}

#[tokio::test]
async fn a_client_with_the_current_document_gets_304() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    for path in [JWKS, METADATA] {
        let reply = client.get(path).await;
        reply.assert_status(200);
        assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
        let tag = reply.header("etag").unwrap().to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10, "strong: {tag}");
        for given in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".into()] {
            for method in [Method::GET, Method::HEAD] {
                let asked = client.with("if-none-match", &given);
                let reply = asked.send(method, path, None, "").await;
                reply.assert_status(304);
                assert_eq!(reply.text(), "");
                assert_eq!(reply.header("etag"), Some(tag.as_str()));
                assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
                assert_eq!(reply.header("content-type"), None);
            }
        }
        client.with("if-none-match", "\"x\"").get(path).await.assert_status(200);
        let head = client.send(Method::HEAD, path, None, "").await;
        head.assert_status(200);
        let length = reply.text().len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()));
        client.post_json(path, &json!({})).await.assert_status(405);
    }
}

#[tokio::test]
async fn the_metadata_lists_every_endpoint() {
    let issuer = "https://auth.example/login/";
    let app = TestApp::builder().set("STAUNCH_JWT_ISSUER", issuer).start().await;
    let reply = app.anonymous().get(METADATA).await;
    reply.assert_status(200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let methods = json!(["client_secret_basic", "client_secret_post"]);
    assert_eq!(
        reply.json(),
        json!({
            "issuer": issuer,
            "token_endpoint": "https://auth.example/login/api/v1/auth/token",
            "jwks_uri": "https://auth.example/login/.well-known/jwks.json",
            "introspection_endpoint": "https://auth.example/login/api/v1/auth/introspect",
            "revocation_endpoint": "https://auth.example/login/api/v1/auth/revoke",
            "grant_types_supported": ["password", "refresh_token"],
            "response_types_supported": ["none"],
            "token_endpoint_auth_methods_supported": ["none"],
            "introspection_endpoint_auth_methods_supported": methods,
            "revocation_endpoint_auth_methods_supported": methods,
        })
    );
    let tokens = app.registered("ada").await;
    assert_eq!(tokens.claims()["iss"], issuer, "exactly the same text");
}

// Case F18 of the field list: the metadata named http://localhost:8080 for every server.
#[tokio::test]
async fn the_default_issuer_has_the_port_that_was_bound() {
    let app = TestApp::builder().set("STAUNCH_JWT_ISSUER", "").start().await;
    let base = format!("http://localhost:{}", app.address.port());
    let metadata = app.anonymous().get(METADATA).await.json();
    assert_eq!(metadata["issuer"], base);
    assert_eq!(metadata["jwks_uri"], format!("{base}/.well-known/jwks.json"));
    let tokens = app.registered("ada").await;
    assert_eq!(tokens.claims()["iss"], base);
    app.anonymous().me(&tokens.access).await.assert_status(200);
}

#[tokio::test]
async fn both_documents_count_towards_the_global_limit() {
    let app = TestApp::builder().set("STAUNCH_LIMIT_GLOBAL", "2/min").start().await;
    app.anonymous().get(JWKS).await.assert_status(200);
    app.anonymous().get(METADATA).await.assert_status(200);
    app.anonymous().get(JWKS).await.assert_status(429);
}
