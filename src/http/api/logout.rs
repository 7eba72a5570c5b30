//! POST /api/v1/auth/logout

use super::refresh_token;
use crate::http::request::Call;
use crate::http::response::Answer;
use crate::http::response::error::ApiError;

pub(in crate::http) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let (auth, origin) = (&call.app.auth, call.origin());
    let token = refresh_token(call.json().await?)?;
    auth.logout(token.expose(), &origin).await?;
    Ok(Answer::no_content())
}
