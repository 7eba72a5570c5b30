//! POST /api/v1/auth/revoke (RFC 7009), for OAuth clients. First-party programs log out instead.

use super::client_call;
use crate::http::request::Call;
use crate::http::response::Answer;
use crate::http::response::error::ApiError;

pub(in crate::http) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let auth = &call.app.auth;
    let origin = call.origin();
    let (client, token) = client_call(call).await?;
    auth.revoke(&client, token.expose(), &origin).await?;
    // RFC 7009 §2.2: status 200; the client ignores the body.
    Ok(Answer::fixed_json("{}").no_store())
}
