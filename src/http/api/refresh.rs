//! POST /api/v1/auth/refresh

use super::{refresh_token, token_answer};
use crate::http::request::Call;
use crate::http::response::Answer;
use crate::http::response::error::ApiError;

pub(in crate::http) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let (auth, origin, limits) = (&call.app.auth, call.origin(), call.limits);
    let token = refresh_token(call.json().await?)?;
    Ok(token_answer(&auth.refresh(token.expose(), &origin, limits).await?))
}
