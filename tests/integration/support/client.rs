//! A client that checks what every reply must have.

use super::{PASSWORD, SOON, contract};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::net::SocketAddr;

const REGISTER: &str = "/api/v1/auth/register";
const TOKEN: &str = "/api/v1/auth/token";
const REFRESH: &str = "/api/v1/auth/refresh";
const LOGOUT: &str = "/api/v1/auth/logout";
const ME: &str = "/api/v1/auth/me";
const SESSIONS: &str = "/api/v1/auth/sessions";
const LOGOUT_ALL: &str = "/api/v1/auth/logout-all";
const CHANGE_PASSWORD: &str = "/api/v1/auth/password";

/// Headers that an answer may have. Adding one should be a decision.
const ALLOWED_HEADERS: [&str; 15] = [
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "etag",
    "pragma",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "traceresponse",
    "www-authenticate",
    "x-content-type-options",
    "x-request-id",
];

#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    inner: legacy::Client<HttpConnector, Full<Bytes>>,
    headers: HeaderMap,
}

/// The access and refresh token of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) version: hyper::Version,
    pub(crate) headers: HeaderMap,
    body: Bytes,
    asked: String,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            inner: legacy::Client::builder(TokioExecutor::new()).build_http(),
            headers: HeaderMap::new(),
        }
    }

    /// A client that uses HTTP/2 with prior knowledge.
    pub(crate) fn http2(address: SocketAddr) -> Self {
        Self {
            inner: legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http(),
            ..Self::new(address)
        }
    }

    /// The same client with this header on every request.
    pub(crate) fn with(&self, name: &'static str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.append(name, value.parse().expect("a header value"));
        client
    }

    /// The same client with an access token.
    pub(crate) fn bearer(&self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// The same client behind a proxy that reports this client address.
    pub(crate) fn from(&self, address: &str) -> Self {
        self.with("x-forwarded-for", address)
    }

    /// Sends one request; returns `None` if the server closed the connection without an answer.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Option<Reply> {
        let asked = format!("{method} {path}");
        let head = method == Method::HEAD;
        let mut request =
            Request::builder().method(method.clone()).uri(format!("http://{}{path}", self.address));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let answer = tokio::time::timeout(SOON, self.inner.request(request)).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer in {SOON:?}: {asked}"));
        let (parts, body) = answer.ok()?.into_parts();
        let body = tokio::time::timeout(SOON, body.collect()).await;
        let reply = Reply {
            status: parts.status.as_u16(),
            version: parts.version,
            headers: parts.headers,
            body: body.expect("a body").ok()?.to_bytes(),
            asked,
        };
        reply.check(head);
        contract::check(&method, path, &reply);
        Some(reply)
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Reply {
        let reply = self.try_send(method, path, content_type, body).await;
        reply.unwrap_or_else(|| panic!("an answer to {path}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None, "").await
    }

    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Reply {
        let json = Some("application/json");
        self.send(Method::POST, path, json, body.to_string()).await
    }

    pub(crate) async fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.post_form_text(path, &form(fields)).await
    }

    /// A form, encoded as on the wire.
    pub(crate) async fn post_form_text(&self, path: &str, body: &str) -> Reply {
        let form = Some("application/x-www-form-urlencoded");
        self.send(Method::POST, path, form, body.to_owned()).await
    }

    pub(crate) async fn register(&self, email: &str, username: &str, password: &str) -> Reply {
        let body = json!({"email": email, "username": username, "password": password});
        self.post_json(REGISTER, &body).await
    }

    pub(crate) async fn login(&self, name: &str, password: &str) -> Reply {
        self.post_form(TOKEN, &[("username", name), ("password", password)]).await
    }

    /// Logs in with [`PASSWORD`], which all test accounts have.
    pub(crate) async fn log_in(&self, name: &str) -> Tokens {
        self.login(name, PASSWORD).await.tokens()
    }

    pub(crate) async fn refresh(&self, token: &str) -> Reply {
        self.post_json(REFRESH, &json!({"refresh_token": token})).await
    }

    pub(crate) async fn logout(&self, token: &str) -> Reply {
        self.post_json(LOGOUT, &json!({"refresh_token": token})).await
    }

    pub(crate) async fn me(&self, access: &str) -> Reply {
        self.bearer(access).get(ME).await
    }

    pub(crate) async fn sessions(&self, access: &str) -> Reply {
        self.bearer(access).get(SESSIONS).await
    }

    pub(crate) async fn end_session(&self, access: &str, id: impl std::fmt::Display) -> Reply {
        let path = format!("{SESSIONS}/{id}");
        self.bearer(access).send(Method::DELETE, &path, None, "").await
    }

    pub(crate) async fn logout_all(&self, access: &str) -> Reply {
        self.bearer(access).send(Method::POST, LOGOUT_ALL, None, "").await
    }

    pub(crate) async fn change_password(&self, access: &str, current: &str, new: &str) -> Reply {
        let body = json!({"current_password": current, "new_password": new});
        self.bearer(access).post_json(CHANGE_PASSWORD, &body).await
    }
}

/// The fields as an encoded form.
pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    let escaped = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
        .collect();
    pairs.join("&")
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?;
        Some(value.to_str().expect("headers are ASCII"))
    }

    /// Everything in an answer by which a client could tell it from another.
    pub(crate) fn seen(&self) -> (u16, Vec<(String, String)>, String) {
        let mut headers: Vec<(String, String)> = self
            .headers
            .iter()
            .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        headers.sort();
        (self.status, headers, self.text().to_owned())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.asked, self.text()))
    }

    #[track_caller]
    pub(crate) fn assert_status(&self, status: u16) -> &Self {
        let Self { asked, .. } = self;
        assert_eq!(self.status, status, "{asked}: {}", self.text());
        self
    }

    /// Asserts that the answer is this problem document.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) -> &Self {
        self.assert_status(status);
        let kind = &self.json()["type"];
        assert_eq!(kind, &format!("urn:staunch:problem:{code}"));
        self
    }

    /// The field names in a problem's errors.
    #[track_caller]
    pub(crate) fn fields(&self) -> Vec<String> {
        let errors = self.json()["errors"].clone();
        let errors = errors.as_array().expect("errors").clone();
        errors
            .iter()
            .map(|error| {
                assert!(!error["message"].as_str().expect("a message").is_empty());
                error["field"].as_str().expect("a field").to_owned()
            })
            .collect()
    }

    #[track_caller]
    pub(crate) fn tokens(&self) -> Tokens {
        self.assert_status(200);
        assert_eq!(self.header("pragma"), Some("no-cache"), "RFC 6749 section 5.1");
        let body = self.json();
        assert_eq!(body["token_type"], "bearer");
        assert!(body["expires_in"].as_u64().expect("expires_in") > 0);
        let token = |name: &str| body[name].as_str().expect("a token").to_owned();
        Tokens { access: token("access_token"), refresh: token("refresh_token") }
    }

    #[track_caller]
    fn check(&self, head: bool) {
        let Self { asked, status, .. } = self;
        for name in self.headers.keys() {
            let allowed = ALLOWED_HEADERS.contains(&name.as_str());
            assert!(allowed, "{asked}: unexpected header {name}");
            let count = self.headers.get_all(name).iter().count();
            assert_eq!(count, 1, "{asked}: {name} is repeated");
        }
        if *status == 431 {
            // hyper sends this response itself, before there is a request.
            assert!(self.body.is_empty(), "{asked}");
            return;
        }
        let id = self.header("x-request-id").unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(
            (1..=128).contains(&id.len()) && id.chars().all(plain),
            "{asked}: request id '{id}'"
        );
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
        if *status == StatusCode::NO_CONTENT {
            assert!(self.body.is_empty(), "{asked}");
        }
        if self.text().contains("_token\":\"") || self.header("authorization").is_some() {
            assert_eq!(self.header("cache-control"), Some("no-store"), "{asked}");
        }
        if *status >= 400 {
            self.check_problem(head);
        }
    }

    #[track_caller]
    fn check_problem(&self, head: bool) {
        let Self { asked, status, .. } = self;
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{asked}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{asked}");
        let present = |name| self.headers.contains_key(name);
        assert_eq!(present("www-authenticate"), *status == 401, "{asked}");
        assert_eq!(present("allow"), *status == 405, "{asked}");
        let told = self.header("retry-after").map(|wait| {
            let wait: u64 = wait.parse().expect("whole seconds");
            assert!(wait >= 1, "{asked}");
        });
        assert_eq!(told.is_some(), [429, 503].contains(status), "{asked}");
        if head {
            assert!(self.body.is_empty(), "{asked}");
            return;
        }
        let problem = self.json();
        assert_eq!(problem["status"], *status, "{asked}");
        for member in ["type", "title", "detail"] {
            let text = problem[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{asked}: no {member}");
        }
        assert!(
            problem["type"].as_str().is_some_and(|kind| kind.starts_with("urn:staunch:problem:")),
            "{asked}: {problem}"
        );
        assert_eq!(
            problem["error"].is_string(),
            problem["error_description"].is_string(),
            "{asked}: {problem}"
        );
    }
}

/// The claims of the access token, not verified.
pub(crate) fn claims(token: &str) -> Value {
    use base64::Engine;
    let middle = token.split('.').nth(1).expect("a JWT");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(middle);
    serde_json::from_slice(&bytes.expect("base64url")).expect("JSON")
}

impl Tokens {
    /// The session id in the access token.
    pub(crate) fn session(&self) -> uuid::Uuid {
        let claims = claims(&self.access);
        claims["sid"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn claims(&self) -> Value {
        claims(&self.access)
    }
}
