//! POST /api/v1/auth/register

use super::AccountBody;
use crate::auth::Register;
use crate::http::request::Call;
use crate::http::response::Answer;
use crate::http::response::error::ApiError;
use crate::secret::Secret;
use hyper::StatusCode;

pub(in crate::http) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let (auth, origin, limits) = (&call.app.auth, call.origin(), call.limits);
    let mut body = call.json().await?;
    let request = Register {
        email: body.text("email"),
        username: body.text("username"),
        password: body.text("password").map(Secret::new),
        origin,
    };
    let account = auth.register(request, limits).await?;
    Ok(Answer::json(&AccountBody::new(&account, None)).status(StatusCode::CREATED).no_store())
}
