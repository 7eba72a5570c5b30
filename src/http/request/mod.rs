//! A request: its head, its body, and the client that sent it.
//!
//! Every part has a bound, the body has a timeout, and ambiguous input is refused, not guessed at.

mod body;
pub(super) mod client_address;
pub(super) mod credentials;
mod forms;
mod framing;
pub mod parsers;
pub(super) mod request_id;

pub use body::BODY_BYTES_MAX;
pub(super) use forms::{Form, JsonObject};
pub(super) use framing::check_framing;

use super::AppState;
use super::response::error::ApiError;
use crate::identity::{Origin, SessionId};
use crate::limiter::SharedCheck;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, USER_AGENT};
use hyper::{HeaderMap, Request};
use std::net::IpAddr;

/// The largest request head. Unit: bytes.
pub const HEAD_BYTES_MAX: u32 = 16 * 1024;
/// How much of a User-Agent is kept. Unit: characters.
const USER_AGENT_CHARS_MAX: usize = 256;

/// One request, with the state that its endpoint may use.
pub(super) struct Call<'a> {
    pub(super) app: &'a AppState,
    pub(super) client: IpAddr,
    pub(super) request_id: &'a str,
    /// The session id in the path, if the route has one.
    pub(super) session: Option<SessionId>,
    /// The limits that all nodes share, if the request counts against any.
    pub(super) limits: Option<&'a SharedCheck>,
    pub(super) request: Request<Incoming>,
}

impl Call<'_> {
    /// Reads the body as a JSON object (RFC 8259) without repeated names.
    pub(super) async fn json(self) -> Result<JsonObject, ApiError> {
        body::json(self).await
    }

    /// Reads the body as a form, strictly.
    ///
    /// The format is `application/x-www-form-urlencoded` as the URL standard defines it.
    pub(super) async fn form(self) -> Result<Form, ApiError> {
        body::form(self).await
    }

    /// Returns the bearer token, if the client sent one.
    pub(super) fn bearer(&self) -> Result<&str, ApiError> {
        bearer(self.request.headers())
    }

    /// Describes the client for the audit log and the session.
    pub(super) fn origin(&self) -> Origin {
        let user_agent =
            self.request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
        Origin {
            address: self.client,
            user_agent: user_agent.map(|text| text.chars().take(USER_AGENT_CHARS_MAX).collect()),
            request_id: self.request_id.to_owned(),
        }
    }
}

/// Returns the bearer token (RFC 6750 §2.1) of a request head.
fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(ApiError::TokenMissing)?;
    if values.next().is_some() {
        return Err(ApiError::TokenInvalid);
    }
    let value = value.to_str().map_err(|_| ApiError::TokenInvalid)?;
    let (scheme, token) = value.split_once(' ').ok_or(ApiError::TokenMissing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ApiError::TokenMissing);
    }
    Ok(token.trim_matches(' '))
}
