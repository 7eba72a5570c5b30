//! The endpoints.

use crate::App;
use crate::error::Problem;
use crate::tokens::{ACCESS_TTL_S, RefreshToken};
use axum::Json;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<App>>;

#[derive(Deserialize)]
pub(crate) struct Registration {
    email: String,
    username: String,
    password: String,
}

pub(crate) async fn register(
    State(app): Shared,
    Json(new): Json<Registration>,
) -> Result<Response, Problem> {
    let Registration { email, username, password } = new;
    if !(8..=72).contains(&password.len()) || !email.contains('@') || username.len() < 3 {
        return Err(Problem(StatusCode::UNPROCESSABLE_ENTITY, "a field is not valid"));
    }
    let cost = app.cost;
    let hash = tokio::task::spawn_blocking(move || bcrypt::hash(password, cost)).await??;
    let id = app.store.insert_user(&email, &username, &hash).await?;
    let body = json!({"id": id, "email": email, "username": username, "is_active": true});
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

#[derive(Deserialize)]
pub(crate) struct TokenForm {
    username: Option<String>,
    password: Option<String>,
    grant_type: Option<String>,
    refresh_token: Option<String>,
}

pub(crate) async fn token(
    State(app): Shared,
    Form(form): Form<TokenForm>,
) -> Result<Response, Problem> {
    if form.grant_type.as_deref() == Some("refresh_token") {
        let missing = Problem(StatusCode::BAD_REQUEST, "refresh_token is missing");
        return rotate(&app, form.refresh_token.ok_or(missing)?).await;
    }
    let (Some(username), Some(password)) = (form.username, form.password) else {
        return Err(Problem(StatusCode::UNPROCESSABLE_ENTITY, "username or password is missing"));
    };
    let (id, hash) = match app.store.credentials(&username).await? {
        Some((id, hash)) => (Some(id), hash),
        None => (None, app.dummy_hash.clone()),
    };
    let right = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash)).await??;
    let rejected = Problem(StatusCode::UNAUTHORIZED, "wrong username or password");
    let id = id.filter(|_| right).ok_or(rejected)?;
    let refresh = RefreshToken::random();
    app.store.open_session(id, &refresh.hash).await?;
    tokens(&app, id, &refresh)
}

#[derive(Deserialize)]
pub(crate) struct Presented {
    refresh_token: String,
}

pub(crate) async fn refresh(
    State(app): Shared,
    Json(presented): Json<Presented>,
) -> Result<Response, Problem> {
    rotate(&app, presented.refresh_token).await
}

pub(crate) async fn logout(
    State(app): Shared,
    Json(presented): Json<Presented>,
) -> Result<StatusCode, Problem> {
    app.store.revoke(&RefreshToken::of(presented.refresh_token).hash).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn me(State(app): Shared, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer "));
    let token = token.ok_or(Problem(StatusCode::UNAUTHORIZED, "no access token"))?;
    let id = app.signer.check(token)?;
    let gone = Problem(StatusCode::UNAUTHORIZED, "no such account");
    let account = app.store.account(id).await?.filter(|account| account.is_active).ok_or(gone)?;
    Ok(Json(json!({
        "id": id,
        "email": account.email,
        "username": account.username,
        "is_active": account.is_active,
        "created_at": account.created_at,
    })))
}

pub(crate) async fn liveness() -> Json<Value> {
    Json(json!({"status": "alive"}))
}

pub(crate) async fn readiness(State(app): Shared) -> Result<Json<Value>, Problem> {
    app.store.ping().await?;
    Ok(Json(json!({"status": "ready"})))
}

async fn rotate(app: &App, presented: String) -> Result<Response, Problem> {
    let (old, new) = (RefreshToken::of(presented), RefreshToken::random());
    let invalid = Problem(StatusCode::UNAUTHORIZED, "invalid refresh token");
    let id = app.store.rotate(&old.hash, &new.hash).await?.ok_or(invalid)?;
    tokens(app, id, &new)
}

fn tokens(app: &App, user_id: i64, refresh: &RefreshToken) -> Result<Response, Problem> {
    let body = json!({
        "access_token": app.signer.sign(user_id)?,
        "refresh_token": refresh.text,
        "token_type": "bearer",
        "expires_in": ACCESS_TTL_S,
    });
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}
