//! Keys: every algorithm, key confusion, and rotation while servers run.

use crate::support::{TestApp, Tokens};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Method;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use staunch::tokens::{Algorithm, KeyError, KeyKind, KeyState, PUBLISH_DELAY, RetireError};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const JWKS: &str = "/.well-known/jwks.json";
const ACCESS_TTL: Duration = Duration::from_secs(1_800);
/// The margin that `retire` adds for nodes that load keys late.
const HANDOVER: Duration = Duration::from_secs(60);

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

async fn published(app: &TestApp) -> Vec<String> {
    let keys = app.anonymous().get(JWKS).await.json();
    let keys = keys["keys"].as_array().unwrap();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

async fn renewed(app: &TestApp, tokens: &mut Tokens) {
    *tokens = app.anonymous().refresh(&tokens.refresh).await.tokens();
}

/// The first key of that kind, decoded.
fn secret(app: &TestApp, prefix: &str) -> Vec<u8> {
    let names = fs::read_dir(app.keys_dir()).unwrap().map(|entry| entry.unwrap().path());
    let wanted = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    let path = names.filter(wanted).min().unwrap();
    pem::parse(fs::read(path).unwrap()).unwrap().into_contents()
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test]
async fn each_algorithm_works_from_login_to_logout() {
    for algorithm in Algorithm::ALL {
        let app = TestApp::builder().set("STAUNCH_JWT_ALG", algorithm.name()).start().await;
        let mut tokens = app.registered("ada").await;
        let header = jsonwebtoken::decode_header(&tokens.access).unwrap();
        assert_eq!(format!("{:?}", header.alg), algorithm.name());
        assert_eq!(header.typ.as_deref(), Some("at+jwt"), "RFC 9068");
        for _ in 0..2 {
            app.anonymous().me(&tokens.access).await.assert_status(200);
        }
        renewed(&app, &mut tokens).await;
        app.anonymous().me(&tokens.access).await.assert_status(200);
        app.anonymous().logout(&tokens.refresh).await.assert_status(204);
        app.anonymous().me(&tokens.access).await.assert_status(401);
    }
}

// Reliability: F5.
#[tokio::test]
async fn the_key_and_not_the_header_determines_the_algorithm() {
    for algorithm in Algorithm::ALL {
        let app = TestApp::builder().set("STAUNCH_JWT_ALG", algorithm.name()).start().await;
        let tokens = app.registered("ada").await;
        let parts: Vec<&str> = tokens.access.split('.').collect();
        let kid = kid(&tokens.access);
        let header = |alg: &str| encoded(&json!({"alg": alg, "typ": "at+jwt", "kid": kid}));
        let mut forged = Vec::new();
        for alg in
            ["none", "None", "", "HS256", "HS512", "ES256", "ES384", "RS256", "PS256", "EdDSA"]
        {
            if alg != algorithm.name() {
                forged.push(format!("{}.{}.{}", header(alg), parts[1], parts[2]));
                forged.push(format!("{}.{}.", header(alg), parts[1]));
            }
        }
        // RFC 8725 section 2.1: the public key, which is no secret, used as an HMAC secret.
        let keys = app.anonymous().get(JWKS).await.json();
        for key in keys["keys"].as_array().unwrap() {
            let text = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
            let raw = |name: &str| URL_SAFE_NO_PAD.decode(text(name)).unwrap();
            let point = [&[4][..], &raw("x"), &raw("y")].concat();
            for secret in
                [raw("x"), raw("n"), point, key.to_string().into_bytes(), text("x").into()]
            {
                let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
                (header.typ, header.kid) = (Some("at+jwt".into()), Some(kid.clone()));
                let key = EncodingKey::from_secret(&secret);
                forged.push(jsonwebtoken::encode(&header, &tokens.claims(), &key).unwrap());
            }
        }
        for token in &forged {
            app.anonymous().me(token).await.assert_problem(401, "token-rejected");
        }
        app.anonymous().me(&tokens.access).await.assert_status(200);
    }
}

// Reliability: F5.
#[tokio::test]
async fn a_kid_selects_only_its_own_key() {
    let app = TestApp::builder().set("STAUNCH_JWT_ALG", "HS256").start().await;
    let tokens = app.registered("ada").await;
    app.clock.advance(Duration::from_secs(1));
    let other = app.key_folder(Algorithm::Hs256).rotate(false, true).unwrap().made;
    assert!(app.keys.reload().unwrap());
    let own = secret(&app, "access-hs256-");
    let sign = |kid: Option<&str>, secret: &[u8]| {
        let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
        (header.typ, header.kid) = (Some("at+jwt".into()), kid.map(str::to_owned));
        jsonwebtoken::encode(&header, &tokens.claims(), &EncodingKey::from_secret(secret)).unwrap()
    };
    let first = kid(&tokens.access);
    let known = fs::read(&other.path).unwrap();
    let theirs = pem::parse(known).unwrap().into_contents();
    let client = app.anonymous();
    for (id, secret, status) in [
        (Some(&*first), &own, 200),
        (Some(&*other.kid), &theirs, 200),
        (Some(&*first), &theirs, 401),
        (Some(&*other.kid), &own, 401),
        (Some("x"), &own, 401),
        (None, &own, 401),
    ] {
        client.me(&sign(id, secret)).await.assert_status(status);
    }
    let refresh = secret(&app, "refresh-hmac-");
    client.me(&sign(Some(&first), &refresh)).await.assert_status(401);
}

#[tokio::test]
async fn a_key_is_published_before_it_signs_and_the_old_one_outlives_its_tokens() {
    let app = TestApp::start().await;
    let folder = app.key_folder(Algorithm::EdDsa);
    let mut tokens = app.registered("ada").await;
    let old = kid(&tokens.access);
    let created = "staunch_signing_key_created_timestamp_seconds";
    let first_created = app.metric(created).await;
    app.clock.advance(Duration::from_secs(3_600));

    let made = folder.rotate(false, false).unwrap().made;
    assert_eq!((made.kind, made.state), (KeyKind::Access(Algorithm::EdDsa), KeyState::Waits));
    assert_eq!(published(&app).await, [old.as_str()], "not read yet");
    let tag = app.anonymous().get(JWKS).await.header("etag").unwrap().to_owned();
    assert!(app.keys.reload().unwrap());
    assert!(!app.keys.reload().unwrap(), "nothing changed since the last reload");
    assert_eq!(published(&app).await, [old.clone(), made.kid.clone()]);
    let client = app.anonymous().with("if-none-match", &tag);
    client.send(Method::GET, JWKS, None, "").await.assert_status(200);

    app.clock.advance(PUBLISH_DELAY - Duration::from_secs(1));
    renewed(&app, &mut tokens).await;
    assert_eq!(kid(&tokens.access), old);
    assert_eq!(app.metric(created).await, first_created);
    let last = tokens.access.clone();
    app.clock.advance(Duration::from_secs(1));
    renewed(&app, &mut tokens).await;
    assert_eq!(kid(&tokens.access), made.kid);
    assert!(app.metric(created).await >= first_created + 4_200.0);
    app.anonymous().me(&last).await.assert_status(200);

    // The old key stays while one of its tokens may still be valid.
    app.clock.advance(ACCESS_TTL + HANDOVER - Duration::from_secs(1));
    let error = folder.retire(&old, false).unwrap_err();
    assert!(matches!(error, RetireError::Needed { left, .. } if left.as_secs() == 1), "{error}");
    let error = folder.retire(&made.kid, true).unwrap_err();
    assert!(matches!(error, RetireError::Signs { .. }), "{error}");
    assert!(matches!(folder.retire("x", true), Err(RetireError::Unknown { .. })));
    app.clock.advance(Duration::from_secs(1));
    let retired = folder.retire(&old, false).unwrap();
    assert!(!retired.path.exists());
    assert!(app.keys.reload().unwrap());
    assert_eq!(published(&app).await, [made.kid.as_str()]);
    app.anonymous().refresh(&tokens.refresh).await.tokens();
}

#[tokio::test]
async fn nodes_sharing_a_key_folder_follow_each_others_rotations() {
    let one = TestApp::start().await;
    let other = one.sibling().start().await;
    let tokens = one.registered("ada").await;
    // Rotated in the folder of one node; the other node loads the rotation first.
    let made = one.key_folder(Algorithm::Es256).rotate(false, false).unwrap().made;
    other.keys.reload().unwrap();
    one.clock.advance(PUBLISH_DELAY);
    let by_other = other.anonymous().refresh(&tokens.refresh).await.tokens();
    // Both nodes are set to EdDSA, so a key of another kind signs nothing.
    assert_eq!(kid(&by_other.access), kid(&tokens.access));
    assert_eq!(published(&other).await.len(), 2);

    let made_too = one.key_folder(Algorithm::EdDsa).rotate(false, false).unwrap().made;
    one.keys.reload().unwrap();
    other.keys.reload().unwrap();
    one.clock.advance(PUBLISH_DELAY);
    let renewed = other.anonymous().refresh(&by_other.refresh).await.tokens();
    assert_eq!(kid(&renewed.access), made_too.kid);
    one.anonymous().me(&renewed.access).await.assert_status(200);
    assert_ne!(made.kid, made_too.kid);
    // A node that used this key stopped when the key of the configured kind took over.
    let folder = one.key_folder(Algorithm::EdDsa);
    let state = |kid: &str| folder.list().unwrap().into_iter().find(|key| key.kid == kid);
    let until = state(&made.kid).unwrap().state;
    assert!(matches!(until, KeyState::Checks { until_unix_s: Some(_) }), "{until:?}");
    folder.retire(&made.kid, true).unwrap();
}

// Reliability: F5.
#[tokio::test]
async fn tokens_of_a_forcibly_retired_key_are_rejected() {
    let app = TestApp::start().await;
    let folder = app.key_folder(Algorithm::EdDsa);
    let tokens = app.registered("ada").await;
    app.anonymous().me(&tokens.access).await.assert_status(200);
    app.clock.advance(Duration::from_secs(5));
    let made = folder.rotate(false, true).unwrap().made;
    assert_eq!(made.state, KeyState::Signs);
    app.keys.reload().unwrap();
    folder.retire(&kid(&tokens.access), true).unwrap();
    app.keys.reload().unwrap();
    // The token was cached as valid.
    app.anonymous().me(&tokens.access).await.assert_problem(401, "token-rejected");
    let next = app.anonymous().refresh(&tokens.refresh).await.tokens();
    app.anonymous().me(&next.access).await.assert_status(200);
}

#[tokio::test]
async fn keys_made_in_the_same_second_take_over_one_after_the_other() {
    let app = TestApp::start().await;
    let folder = app.key_folder(Algorithm::EdDsa);
    let [first, second] =
        [folder.rotate(false, true).unwrap().made, folder.rotate(false, true).unwrap().made];
    assert_eq!(second.from_unix_s, first.from_unix_s + 1);
    app.clock.advance(Duration::from_secs(2));
    let keys = folder.list().unwrap();
    let signs: Vec<_> = keys
        .iter()
        .filter(|key| key.kind != KeyKind::Refresh && key.state == KeyState::Signs)
        .map(|key| &key.kid)
        .collect();
    assert_eq!(signs, [&second.kid]);
}

// Case F17 of the field list.
#[tokio::test]
async fn a_key_that_signs_at_once_removes_waiting_keys_of_its_kind() {
    let app = TestApp::start().await;
    let folder = app.key_folder(Algorithm::EdDsa);
    let first = app.registered("ada").await;
    app.clock.advance(Duration::from_secs(5));
    let waits = folder.rotate(false, false).unwrap();
    assert!(waits.superseded.is_empty());
    let other_kind = folder.rotate(true, false).unwrap().made;
    let other_algorithm = app.key_folder(Algorithm::Es256).rotate(false, false).unwrap().made;
    app.clock.advance(Duration::from_secs(5));
    let now = folder.rotate(false, true).unwrap();
    let removed: Vec<_> = now.superseded.iter().map(|key| &key.kid).collect();
    assert_eq!(removed, [&waits.made.kid]);
    assert!(!waits.made.path.exists() && other_kind.path.exists() && other_algorithm.path.exists());
    app.keys.reload().unwrap();
    app.clock.advance(PUBLISH_DELAY);
    let next = app.anonymous().refresh(&first.refresh).await.tokens();
    assert_eq!(kid(&next.access), now.made.kid, "no other key took over");
}

#[tokio::test]
async fn refresh_keys_rotate_like_signing_keys() {
    let app = TestApp::start().await;
    let folder = app.key_folder(Algorithm::EdDsa);
    let tokens = app.registered("ada").await;
    let idle = app.anonymous().log_in("ada").await;
    let refresh_keys = || {
        let keys = folder.list().unwrap().into_iter();
        keys.filter(|key| key.kind == KeyKind::Refresh).collect::<Vec<_>>()
    };
    let old = refresh_keys().remove(0);
    assert_eq!(old.state, KeyState::Signs);
    app.clock.advance(Duration::from_secs(5));
    let made = folder.rotate(true, false).unwrap().made;
    app.keys.reload().unwrap();
    app.clock.advance(PUBLISH_DELAY);
    let next = app.anonymous().refresh(&tokens.refresh).await.tokens();
    // The same token again within the grace period, although its predecessor has another key.
    assert_eq!(app.anonymous().refresh(&tokens.refresh).await.tokens().refresh, next.refresh);
    assert_eq!(refresh_keys().iter().filter(|key| key.state == KeyState::Signs).count(), 1);
    assert!(matches!(folder.retire(&old.kid, false), Err(RetireError::Needed { .. })));
    folder.retire(&old.kid, true).unwrap();
    app.keys.reload().unwrap();
    app.anonymous().refresh(&next.refresh).await.tokens();
    app.anonymous().refresh(&idle.refresh).await.assert_status(401);
    assert_eq!(refresh_keys().remove(0).kid, made.kid);
}

// Reliability: D6.
#[tokio::test]
async fn a_damaged_key_folder_changes_nothing_in_a_running_server() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let moved = app.keys_dir().with_file_name("elsewhere");
    let damaged = app.keys_dir().join("access-eddsa-0000000001.pem");
    fs::write(&damaged, "half a key").unwrap();
    assert!(matches!(app.keys.reload(), Err(KeyError::Exposed { .. })));
    fs::remove_file(&damaged).unwrap();
    fs::rename(app.keys_dir(), &moved).unwrap();
    assert!(matches!(app.keys.reload(), Err(KeyError::Io { .. })));
    fs::create_dir(app.keys_dir()).unwrap();
    assert!(matches!(app.keys.reload(), Err(KeyError::Missing { .. })));
    app.anonymous().me(&tokens.access).await.assert_status(200);
    app.anonymous().refresh(&tokens.refresh).await.tokens();
    assert_eq!(published(&app).await.len(), 1);
    assert_eq!(fs::read_dir(app.keys_dir()).unwrap().count(), 0, "no key is created");
}

#[tokio::test]
async fn changing_the_algorithm_creates_a_key_that_waits_and_then_signs() {
    let app = TestApp::start().await;
    let old = app.registered("ada").await;
    let next = app.sibling().set("STAUNCH_JWT_ALG", "ES256").start().await;
    assert_eq!(published(&next).await.len(), 2);
    let early = next.anonymous().log_in("ada").await;
    assert_eq!(kid(&early.access), kid(&old.access), "every node knows this key");
    // A node that has not loaded the new key yet.
    app.anonymous().me(&early.access).await.assert_status(200);
    next.clock.advance(PUBLISH_DELAY);
    app.keys.reload().unwrap();
    let late = next.anonymous().log_in("ada").await;
    assert_ne!(kid(&late.access), kid(&old.access));
    for node in [&app, &next] {
        for tokens in [&old, &early, &late] {
            node.anonymous().me(&tokens.access).await.assert_status(200);
        }
    }
}
