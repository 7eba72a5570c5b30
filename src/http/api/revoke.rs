//! POST /api/v1/auth/revoke (RFC 7009): clients alone; first-party programs log out instead.

use super::client_call;
use crate::http::error::ApiError;
use crate::http::request::Call;
use crate::http::response::Answer;

pub(in crate::http) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let auth = &call.edge.auth;
    let (client, token) = client_call(call).await?;
    auth.revoke(&client, token.expose()).await?;
    // §2.2: 200 and nothing to read.
    Ok(Answer::fixed_json("{}").no_store())
}
