//! GET /openapi.json matches the server. `support::contract`, in the tests' client, checks that
//! every response is documented. These tests check that every documented response occurs.

use crate::support::{Client, PASSWORD, Reply, TestApp, Tokens, contract, form};
use hyper::Method;
use serde_json::json;
use staunch::auth::NewClient;
use staunch::hashing::{PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN};
use staunch::http::{BODY_BYTES_MAX, ROUTES};
use staunch::identity::{EMAIL_BYTES_MAX, USERNAME_CHARS_MAX, USERNAME_CHARS_MIN};
use std::collections::BTreeSet;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const NO_SESSION: &str = "3f2b8c1e-7a4d-4e9b-9c55-0123456789ab";

/// Maximum number of header fields, as documented.
const HEADER_FIELDS_MAX: usize = 64;

/// Problems that other tests cause. Their responses are checked there.
const ELSEWHERE: [&str; 5] = ["body-timeout", "busy", "unavailable", "not-ready", "internal"];

/// One operation, an account to call it with, and the responses seen.
struct Tour<'a> {
    app: &'a TestApp,
    service: &'a NewClient,
    method: &'a str,
    path: &'a str,
    name: String,
    tokens: Tokens,
    seen: BTreeSet<(u16, Option<String>)>,
}

impl<'a> Tour<'a> {
    async fn new(
        app: &'a TestApp,
        service: &'a NewClient,
        (method, path): (&'a str, &'a str),
        name: String,
    ) -> Self {
        let tokens = app.registered(&name).await;
        Self { app, service, method, path, name, tokens, seen: BTreeSet::new() }
    }

    /// A valid body.
    fn body(&self) -> Option<(&'static str, String)> {
        let Self { name, tokens, service, .. } = self;
        let refresh = || (JSON, json!({"refresh_token": tokens.refresh}).to_string());
        let about_token = |token: &str| {
            let (id, secret) = (service.id.to_string(), service.secret.expose());
            (FORM, form(&[("client_id", &id), ("client_secret", secret), ("token", token)]))
        };
        Some(match self.path.strip_prefix("/api/v1/auth/")? {
            "register" => (JSON, registration(&format!("{name}@example.net"), "new")),
            "password" => (JSON, password_change(PASSWORD)),
            "token" => (FORM, form(&[("username", name), ("password", PASSWORD)])),
            "refresh" | "logout" => refresh(),
            "introspect" => about_token(&tokens.access),
            "revoke" => about_token(&tokens.refresh),
            _ => return None,
        })
    }

    fn needs_bearer(&self) -> bool {
        let method = self.method.to_lowercase();
        let operation = &contract::document()["paths"][self.path][method];
        operation["security"] == json!([{"accessToken": []}])
    }

    /// The client that the operation accepts.
    fn client(&self) -> Client {
        let client = self.app.anonymous();
        if self.needs_bearer() { client.bearer(&self.tokens.access) } else { client }
    }

    async fn send(&mut self, client: &Client, media_type: Option<&str>, body: String) {
        let method = Method::from_bytes(self.method.as_bytes()).unwrap();
        let session = self.tokens.session().to_string();
        let path = self.path.replace("{id}", &session);
        let reply = client.send(method, &path, media_type, body).await;
        self.note(&reply);
    }

    fn note(&mut self, reply: &Reply) {
        // Responses that hyper sends itself have no body.
        let code = (reply.status >= 400 && !reply.text().is_empty()).then(|| {
            let kind = reply.json()["type"].as_str().unwrap().to_owned();
            kind.strip_prefix("urn:staunch:problem:").unwrap().to_owned()
        });
        self.seen.insert((reply.status, code));
    }

    async fn send_good(&mut self, client: &Client) {
        let (media_type, body) = self.body().unzip();
        self.send(client, media_type, body.unwrap_or_default()).await;
    }

    /// Errors that every operation can return.
    async fn head(&mut self) {
        let client = self.client();
        self.send_good(&client.with("host", "a b")).await;
        let crowded =
            (0..HEADER_FIELDS_MAX).fold(self.client(), |client, _| client.with("x-many", "x"));
        self.send_good(&crowded).await;
        if self.needs_bearer() {
            self.send_good(&self.app.anonymous()).await;
            self.send_good(&self.app.anonymous().bearer("a.b.c")).await;
        }
        if self.path.ends_with("{id}") {
            let reply = self.app.anonymous().end_session(&self.tokens.access, NO_SESSION).await;
            self.note(&reply);
        }
    }

    /// Errors in a body.
    async fn bodies(&mut self) {
        let Some((media_type, _)) = self.body() else { return };
        let client = self.client();
        self.send(&client, Some("text/plain"), "x".to_owned()).await;
        for body in [
            " ".repeat(BODY_BYTES_MAX + 1),
            "{".to_owned(),
            "a=%zz".to_owned(),
            "{}".to_owned(),
            "grant_type=implicit".to_owned(),
            "grant_type=refresh_token&refresh_token=x".to_owned(),
            form(&[("username", &self.name), ("password", "wrong")]),
            form(&[("client_id", "x"), ("client_secret", "x"), ("token", "x")]),
            json!({"refresh_token": "x"}).to_string(),
            password_change("wrong"),
            registration("another@example.com", &self.name),
            registration(&format!("{}@example.com", self.name), "another"),
        ] {
            self.send(&client, Some(media_type), body).await;
        }
        self.broken_off(media_type).await;
    }

    /// A body that breaks off inside its chunked coding.
    async fn broken_off(&mut self, media_type: &str) {
        let mut raw = self.app.raw().await;
        let Self { method, path, tokens, .. } = &*self;
        let bearer = if self.needs_bearer() {
            format!("Authorization: Bearer {}\r\n", tokens.access)
        } else {
            String::new()
        };
        raw.write(format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\n{bearer}Content-Type: {media_type}\r\n\
             Transfer-Encoding: chunked\r\n\r\nzz\r\n"
        ))
        .await;
        let reply = raw.reply().await.expect("an answer");
        assert_eq!(reply.status, 400, "{}", reply.body);
        assert!(reply.body.contains("urn:staunch:problem:malformed"), "{}", reply.body);
        self.seen.insert((400, Some("malformed".to_owned())));
    }

    /// Errors of particular operations: a lockout, and 304 for an unchanged document.
    async fn particular(&mut self) {
        let client = self.client();
        match self.path {
            "/api/v1/auth/token" | "/api/v1/auth/password" => {
                let wrong = if self.path.ends_with("token") {
                    (FORM, form(&[("username", &self.name), ("password", "wrong")]))
                } else {
                    (JSON, password_change("wrong"))
                };
                for _ in 0..6 {
                    self.send(&client, Some(wrong.0), wrong.1.clone()).await;
                }
            }
            _ => self.send(&client.with("if-none-match", "*"), None, String::new()).await,
        }
    }
}

fn registration(email: &str, username: &str) -> String {
    json!({"email": email, "username": username, "password": PASSWORD}).to_string()
}

fn password_change(current: &str) -> String {
    json!({"current_password": current, "new_password": "Other-Pass123"}).to_string()
}

#[tokio::test]
async fn the_document_describes_exactly_the_routes() {
    let app = TestApp::start().await;
    let reply = app.anonymous().get("/openapi.json").await;
    reply.assert_status(200);
    assert_eq!(reply.header("content-type"), Some(JSON));
    let document = reply.json();
    assert_eq!(&document, contract::document());
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let described: BTreeSet<_> = contract::operations().into_iter().collect();
    let routes: BTreeSet<_> = ROUTES.iter().map(|r| (r.method.to_string(), r.path)).collect();
    assert_eq!(described, routes);
    let page = include_str!("../../docs/http-api.md");
    for (method, path) in described {
        let row = format!("| {method} `{path}` |");
        assert!(page.contains(&row), "docs/http-api.md lacks {method} {path}");
    }
}

#[tokio::test]
async fn documented_bounds_match_the_source() {
    let document = contract::document();
    let schema = |name: &str| &document["components"]["schemas"][name];
    assert_eq!(schema("Email")["maxLength"], EMAIL_BYTES_MAX);
    assert_eq!(schema("NewPassword")["minLength"], PASSWORD_CHARS_MIN);
    assert_eq!(schema("NewPassword")["maxLength"], PASSWORD_BYTES_MAX);
    let username = format!("^[A-Za-z0-9._-]{{{USERNAME_CHARS_MIN},{USERNAME_CHARS_MAX}}}$");
    assert_eq!(schema("Username")["pattern"], username);
    let too_large = schema("BodyTooLarge")["description"].as_str().unwrap();
    assert!(too_large.contains(&BODY_BYTES_MAX.to_string()), "{too_large}");
}

#[tokio::test]
async fn every_documented_response_occurs() {
    let app = TestApp::start().await;
    let service = app.oauth_client().await;
    let limits = [
        "STAUNCH_LIMIT_REGISTER",
        "STAUNCH_LIMIT_LOGIN",
        "STAUNCH_LIMIT_REFRESH",
        "STAUNCH_LIMIT_CLIENTS",
        "STAUNCH_LIMIT_GLOBAL",
    ];
    let strict = limits.into_iter().fold(app.sibling(), |builder, name| builder.set(name, "1/h"));
    let strict = strict.start().await;
    let mut faults = Vec::new();
    for (n, (method, path)) in contract::operations().into_iter().enumerate() {
        let mut tour = Tour::new(&app, &service, (&method, path), format!("user{n}")).await;
        tour.head().await;
        tour.bodies().await;
        let client = tour.client();
        tour.send_good(&client).await;
        tour.particular().await;
        let limited = Client::new(strict.address);
        tour.send_good(&limited).await;
        tour.send_good(&limited).await;

        let described = contract::answers(&method, path)
            .into_iter()
            .filter(|(_, code)| code.is_none_or(|code| !ELSEWHERE.contains(&code)));
        let described: BTreeSet<_> =
            described.map(|(status, code)| (status, code.map(str::to_owned))).collect();
        if tour.seen != described {
            faults.push(format!("{method} {path}: {:?}, documented {described:?}", tour.seen));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
