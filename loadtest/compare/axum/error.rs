//! The answer to a failed call: a problem document, as in staunch.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio_postgres::error::SqlState;

pub(crate) struct Problem(pub(crate) StatusCode, pub(crate) &'static str);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(status, detail) = self;
        let body = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": detail,
        });
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        let text = HeaderValue::from_static;
        headers.insert(header::CONTENT_TYPE, text("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, text("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, text("1"));
        }
        response
    }
}

impl From<deadpool_postgres::PoolError> for Problem {
    fn from(_: deadpool_postgres::PoolError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "database away")
    }
}

impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Self {
        if error.code() == Some(&SqlState::UNIQUE_VIOLATION) {
            return Self(StatusCode::CONFLICT, "email or username taken");
        }
        Self(StatusCode::SERVICE_UNAVAILABLE, "database away")
    }
}

impl From<bcrypt::BcryptError> for Problem {
    fn from(_: bcrypt::BcryptError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, "the password could not be hashed")
    }
}

impl From<tokio::task::JoinError> for Problem {
    fn from(_: tokio::task::JoinError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, "a task failed")
    }
}

impl From<jsonwebtoken::errors::Error> for Problem {
    fn from(_: jsonwebtoken::errors::Error) -> Self {
        Self(StatusCode::UNAUTHORIZED, "invalid access token")
    }
}
