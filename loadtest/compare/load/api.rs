//! The calls of the login API.

use crate::client::{Answer, Call, Target};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use serde_json::{Value, json};
use std::fmt::Write;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

impl Target {
    pub(crate) fn register(&self, email: &str, username: &str, password: &str) -> Call {
        let body = json!({"email": email, "username": username, "password": password});
        self.post("/api/v1/auth/register", JSON, body.to_string())
    }

    pub(crate) fn login(&self, username: &str, password: &str) -> Call {
        let body = format!("username={}&password={}", encoded(username), encoded(password));
        self.post("/api/v1/auth/token", FORM, body)
    }

    pub(crate) fn refresh(&self, token: &str) -> Call {
        self.post("/api/v1/auth/refresh", JSON, json!({"refresh_token": token}).to_string())
    }

    pub(crate) fn me(&self, access_token: &str) -> Call {
        let mut call = self.build(Method::GET, "/api/v1/auth/me", String::new());
        if let Ok(value) = format!("Bearer {access_token}").parse() {
            call.headers_mut().insert(AUTHORIZATION, value);
        }
        call
    }

    pub(crate) fn liveness(&self) -> Call {
        self.build(Method::GET, "/health/liveness", String::new())
    }

    fn post(&self, path: &'static str, kind: &'static str, body: String) -> Call {
        let mut call = self.build(Method::POST, path, body);
        call.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
        call
    }

    fn build(&self, method: Method, path: &'static str, body: String) -> Call {
        let mut call = Request::new(Full::new(Bytes::from(body)));
        *call.method_mut() = method;
        *call.uri_mut() = hyper::Uri::from_static(path);
        if let Ok(host) = self.authority.parse() {
            call.headers_mut().insert(HOST, host);
        }
        call
    }
}

/// The tokens of a login or a refresh.
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

impl Tokens {
    /// `None` unless the answer is a 200 with both tokens.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        let body: Value = serde_json::from_slice(&answer.body).ok()?;
        let text = |name| Some(body.get(name)?.as_str()?.to_owned());
        (answer.status == 200).then_some(())?;
        Some(Self { access: text("access_token")?, refresh: text("refresh_token")? })
    }
}

/// The text, percent-encoded for a form.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
