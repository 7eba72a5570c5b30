//! POST /api/v1/auth/token: the OAuth 2.0 token endpoint.
//!
//! It supports the password and refresh grants (RFC 6749 §4.3.2, §6). First-party clients do not
//! authenticate.

use super::token_answer;
use crate::auth::{FieldError, Login};
use crate::http::request::{Call, Form};
use crate::http::response::Answer;
use crate::http::response::error::ApiError;
use crate::identity::LoginName;
use crate::secret::Secret;

pub(in crate::http) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let (auth, origin, limits) = (&call.app.auth, call.origin(), call.limits);
    let mut form = call.form().await?;
    let grant = form.take("grant_type");
    let pair = match grant.as_ref().map_or("password", Secret::expose) {
        "password" => {
            let [username, password] = required(&mut form, ["username", "password"])?;
            let name = LoginName::parse(username.expose());
            auth.login(Login { name, password, origin }, limits).await?
        }
        "refresh_token" => {
            let [token] = required(&mut form, ["refresh_token"])?;
            auth.refresh(token.expose(), &origin, limits).await?
        }
        _ => return Err(ApiError::UnsupportedGrantType),
    };
    Ok(token_answer(&pair))
}

/// Takes the fields that the grant requires, or lists the missing ones.
fn required<const N: usize>(
    form: &mut Form,
    names: [&'static str; N],
) -> Result<[Secret; N], ApiError> {
    let mut errors = Vec::new();
    let values = names.map(|field| {
        form.take(field).unwrap_or_else(|| {
            errors.push(FieldError { field, message: "is required".to_owned() });
            Secret::new(String::new())
        })
    });
    if errors.is_empty() {
        Ok(values)
    } else {
        Err(ApiError::InvalidRequest { detail: "some fields are missing; see errors", errors })
    }
}
