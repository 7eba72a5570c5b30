//! POST /api/v1/auth/password

use crate::auth::ChangePassword;
use crate::http::request::Call;
use crate::http::response::Answer;
use crate::http::response::error::ApiError;
use crate::secret::Secret;

pub(in crate::http) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let (auth, origin, limits) = (&call.app.auth, call.origin(), call.limits);
    let token = Secret::new(call.bearer()?.to_owned());
    let mut body = call.json().await?;
    let request = ChangePassword {
        current: body.text("current_password").map(Secret::new),
        new: body.text("new_password").map(Secret::new),
        origin,
    };
    auth.change_password(token.expose(), request, limits).await?;
    Ok(Answer::no_content())
}
