//! POST /api/v1/auth/logout-all

use crate::http::request::Call;
use crate::http::response::Answer;
use crate::http::response::error::ApiError;

pub(in crate::http) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let auth = &call.app.auth;
    let caller = auth.caller(call.bearer()?).await?;
    auth.logout_all(&caller, &call.origin()).await?;
    Ok(Answer::no_content())
}
