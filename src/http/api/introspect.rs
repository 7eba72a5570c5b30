//! POST /api/v1/auth/introspect (RFC 7662)

use super::client_call;
use crate::auth::ActiveToken;
use crate::http::request::Call;
use crate::http::response::Answer;
use crate::http::response::error::ApiError;
use serde::Serialize;

/// The response for an active token (RFC 7662 §2.2).
///
/// `client_id` is absent, because tokens of a password login have none. `aud`, `jti` and `token_type`
/// are present only for access tokens, so that a resource server that checks them does not accept a
/// refresh token as one.
#[derive(Serialize)]
struct Body<'a> {
    active: bool,
    sub: String,
    sid: String,
    username: &'a str,
    iss: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
}

pub(in crate::http) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let auth = &call.app.auth;
    let (client, token) = client_call(call).await?;
    let Some(found) = auth.introspect(&client, token.expose()).await? else {
        return Ok(Answer::fixed_json(r#"{"active":false}"#).no_store());
    };
    let ActiveToken { user, session, issued_unix_s, expires_unix_s, access, .. } = found;
    let tokens = auth.tokens();
    Ok(Answer::json(&Body {
        active: true,
        sub: user.to_string(),
        sid: session.to_string(),
        username: &found.username,
        iss: tokens.issuer(),
        iat: issued_unix_s,
        exp: expires_unix_s,
        aud: access.map(|_| tokens.audience()),
        jti: access.map(|id| id.to_string()),
        token_type: access.map(|_| "bearer"),
    })
    .no_store())
}
