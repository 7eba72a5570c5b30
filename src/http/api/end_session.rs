//! DELETE /api/v1/auth/sessions/{id}

use crate::http::request::Call;
use crate::http::response::Answer;
use crate::http::response::error::ApiError;

pub(in crate::http) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let session = call.session.ok_or(ApiError::NotFound)?;
    let auth = &call.app.auth;
    let caller = auth.caller(call.bearer()?).await?;
    if auth.end_session(&caller, session, &call.origin()).await? {
        Ok(Answer::no_content())
    } else {
        Err(ApiError::NotFound)
    }
}
