//! POST /api/v1/auth/logout

use super::refresh_token;
use crate::http::error::ApiError;
use crate::http::request::Call;
use crate::http::response::Answer;

pub(in crate::http) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let auth = &call.edge.auth;
    let token = refresh_token(call.json().await?)?;
    auth.logout(token.expose()).await?;
    Ok(Answer::no_content())
}
