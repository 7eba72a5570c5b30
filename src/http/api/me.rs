//! GET /api/v1/auth/me

use super::AccountBody;
use crate::http::request::Call;
use crate::http::response::Answer;
use crate::http::response::error::ApiError;
use time::format_description::well_known::Rfc3339;

pub(in crate::http) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let account = call.app.auth.account(call.bearer()?).await?;
    let created_at = account.created_at.format(&Rfc3339).ok();
    Ok(Answer::json(&AccountBody::new(&account, created_at)).no_store())
}
