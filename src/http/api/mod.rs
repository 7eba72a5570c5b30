//! The endpoints, one file each.
//!
//! An endpoint parses the request, calls `auth`, and builds the response.

pub(super) mod end_session;
pub(super) mod introspect;
pub(super) mod logout;
pub(super) mod logout_all;
pub(super) mod me;
pub(super) mod password;
pub(super) mod refresh;
pub(super) mod register;
pub(super) mod revoke;
pub(super) mod sessions;
pub(super) mod token;

use super::rate_limit::{self, GLOBAL};
use super::request::credentials::ClientAuthorization;
use super::request::{Call, JsonObject};
use super::response::Answer;
use super::response::error::ApiError;
use crate::auth::{Account, ClientCredentials, FieldError, TokenPair};
use crate::secret::Secret;
use hyper::header::{HeaderValue, PRAGMA};
use serde::Serialize;

/// An account in the responses of `register` and `me`.
#[derive(Serialize)]
struct AccountBody<'a> {
    id: i64,
    email: &'a str,
    username: &'a str,
    is_active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
}

impl<'a> AccountBody<'a> {
    fn new(account: &'a Account, created_at: Option<String>) -> Self {
        let Account { id, email, username, is_active, .. } = account;
        Self { id: id.0, email, username, is_active: *is_active, created_at }
    }
}

/// Builds the response of the token endpoint (RFC 6749 §5.1).
fn token_answer(pair: &TokenPair) -> Answer {
    #[derive(Serialize)]
    struct Body<'a> {
        access_token: &'a str,
        refresh_token: &'a str,
        token_type: &'static str,
        expires_in: u64,
    }
    Answer::json(&Body {
        access_token: pair.access.expose(),
        refresh_token: pair.refresh.expose(),
        token_type: "bearer",
        expires_in: pair.expires_in.as_secs(),
    })
    .no_store()
    // For HTTP/1.0 caches; RFC 6749 §5.1 requires it.
    .with(PRAGMA, HeaderValue::from_static("no-cache"))
}

/// Takes the `refresh_token` of a JSON body.
fn refresh_token(mut body: JsonObject) -> Result<Secret, ApiError> {
    const FIELD: &str = "refresh_token";
    body.text(FIELD).map(Secret::new).map_err(|message| {
        ApiError::Unprocessable(vec![FieldError { field: FIELD, message: message.to_owned() }])
    })
}

/// Reads the client's credentials and the token of an introspection or a revocation.
///
/// See RFC 7662 §2.1 and RFC 7009 §2.1. A client that has not authenticated within the last minute
/// also counts against the global limit. It counts before the database query, because a client can
/// disconnect before the result.
async fn client_call(call: Call<'_>) -> Result<(ClientCredentials, Secret), ApiError> {
    let (app, address) = (call.app, call.client);
    let authorization = ClientAuthorization::of(call.request.headers());
    let mut form = call.form().await?;
    let client = authorization.with(&mut form)?;
    let token = form.take("token").ok_or_else(|| ApiError::InvalidRequest {
        detail: "some fields are missing; see errors",
        errors: vec![FieldError { field: "token", message: "is required".to_owned() }],
    })?;
    if !app.auth.is_recent_client(&client) {
        rate_limit::check(app, GLOBAL, address)?;
    }
    Ok((client, token))
}
