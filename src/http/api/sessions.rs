//! GET /api/v1/auth/sessions

use crate::http::request::Call;
use crate::http::response::Answer;
use crate::http::response::error::ApiError;
use serde::Serialize;
use std::net::IpAddr;
use time::format_description::well_known::Rfc3339;

#[derive(Serialize)]
struct SessionBody {
    id: String,
    created_at: Option<String>,
    last_used_at: Option<String>,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
    current: bool,
}

pub(in crate::http) async fn answer(call: Call<'_>) -> Result<Answer, ApiError> {
    let auth = &call.app.auth;
    let caller = auth.caller(call.bearer()?).await?;
    let sessions = auth.list_sessions(&caller).await?;
    let list: Vec<SessionBody> = sessions
        .into_iter()
        .map(|session| SessionBody {
            id: session.id.to_string(),
            created_at: session.created_at.format(&Rfc3339).ok(),
            last_used_at: session.last_used_at.format(&Rfc3339).ok(),
            ip: session.address,
            user_agent: session.user_agent,
            current: session.id == caller.session,
        })
        .collect();
    Ok(Answer::json(&list).no_store())
}
