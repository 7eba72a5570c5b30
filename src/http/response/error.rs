//! The status and problem document (RFC 9457) of every failure, in one table.

use super::Answer;
use crate::auth::{
    ClientCallError, FieldError, LoginError, MeError, PasswordError, RefreshError, RegisterError,
};
use crate::hashing::HashError;
use crate::limiter::QuotaStatus;
use crate::store::StoreError;
use crate::telemetry::{trace, with_causes};
use hyper::StatusCode;
use hyper::header::{ALLOW, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use std::time::Duration;

/// The challenge of a 401 without a token (RFC 6750 §3).
const CHALLENGE: &str = r#"Bearer realm="staunch""#;
/// The challenge of a 401 for an invalid token (RFC 6750 §3.1).
const CHALLENGE_INVALID: &str = r#"Bearer realm="staunch", error="invalid_token""#;
/// The challenge to an OAuth client (RFC 6749 §5.2, RFC 7617 §2).
const CHALLENGE_CLIENT: &str = r#"Basic realm="staunch", charset="UTF-8""#;
/// The Retry-After while the database is unavailable: about the time that a reconnect takes.
const DATABASE_RETRY: Duration = Duration::from_secs(2);

/// Why a request failed, in HTTP terms.
#[derive(Debug)]
pub(in crate::http) enum ApiError {
    /// The body does not match its Content-Type.
    Malformed { detail: &'static str },
    /// Two servers could read this request differently.
    Ambiguous { detail: &'static str },
    /// The form is not a valid OAuth request (RFC 6749 §5.2 `invalid_request`).
    InvalidRequest { detail: &'static str, errors: Vec<FieldError> },
    /// The grant type is not supported (RFC 6749 §5.2).
    UnsupportedGrantType,
    /// The name or the password is wrong. The detail is the same for every reason.
    WrongCredentials,
    /// The refresh token is invalid, expired or revoked.
    InvalidRefreshToken,
    /// The OAuth client is unknown or did not authenticate (RFC 6749 §5.2).
    InvalidClient,
    /// The request has no bearer token.
    TokenMissing,
    /// The bearer token is invalid, expired or revoked.
    TokenInvalid,
    /// The path has no route.
    NotFound,
    /// The route does not allow the method.
    MethodNotAllowed { allow: HeaderValue },
    /// The body did not arrive within the timeout.
    BodyTimeout,
    /// Another account has the name or e-mail address.
    Taken { field: &'static str },
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The endpoint does not accept the Content-Type.
    UnsupportedMediaType { expected: &'static str },
    /// Fields are missing or invalid. Lists all of them.
    Unprocessable(Vec<FieldError>),
    /// The client's address is over a rate limit.
    RateLimited(QuotaStatus),
    /// The login name has too many failed logins.
    LoginLocked { retry_after: Duration },
    /// The hashing capacity is exhausted.
    Busy { retry_after: Duration },
    /// The database is unavailable.
    DatabaseAway,
    /// The server is starting, is draining, or has no database.
    NotReady,
    /// A bug in the server. The log has the cause.
    Internal,
}

/// The members of a problem document.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_description: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: Vec<ProblemField<'a>>,
}

#[derive(Serialize)]
struct ProblemField<'a> {
    field: &'static str,
    message: &'a str,
}

/// A row of the table: status, last part of `type`, title and detail.
type Row = (StatusCode, &'static str, &'static str, &'static str);

impl ApiError {
    /// Returns the table's row for this failure.
    #[rustfmt::skip]
    fn row(&self) -> Row {
        match self {
            Self::Malformed { detail } => (StatusCode::BAD_REQUEST, "malformed", "Malformed body", detail),
            Self::Ambiguous { detail } => (StatusCode::BAD_REQUEST, "ambiguous", "Ambiguous request", detail),
            Self::InvalidRequest { detail, .. } => (StatusCode::BAD_REQUEST, "invalid-request", "Invalid request", detail),
            Self::UnsupportedGrantType => (StatusCode::BAD_REQUEST, "unsupported-grant-type", "Unsupported grant type", "grant_type must be password or refresh_token"),
            Self::WrongCredentials => (StatusCode::UNAUTHORIZED, "credentials-rejected", "Credentials rejected", "incorrect username or password"),
            Self::InvalidRefreshToken => (StatusCode::UNAUTHORIZED, "refresh-token-rejected", "Refresh token rejected", "the refresh token is invalid, expired or revoked"),
            Self::InvalidClient => (StatusCode::UNAUTHORIZED, "client-rejected", "Client rejected", "client authentication failed: send client_id and client_secret by Basic or in the form"),
            Self::TokenMissing => (StatusCode::UNAUTHORIZED, "token-missing", "Access token missing", "send an access token: Authorization: Bearer <token>"),
            Self::TokenInvalid => (StatusCode::UNAUTHORIZED, "token-rejected", "Access token rejected", "the access token is invalid, expired or revoked"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found", "no resource at this path"),
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", "this path does not support that method; see Allow"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body-timeout", "Body timeout", "the body did not arrive in time"),
            Self::Taken { field: "email" } => (StatusCode::CONFLICT, "email-taken", "E-mail address taken", "this e-mail address is already registered"),
            Self::Taken { .. } => (StatusCode::CONFLICT, "username-taken", "Username taken", "this username is already registered"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large", "the body must not exceed 16384 bytes"),
            Self::UnsupportedMediaType { expected } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type", expected),
            Self::Unprocessable(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-fields", "Invalid fields", "some fields are missing or invalid; see errors"),
            Self::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, "rate-limited", "Too many requests", "too many requests from this address; see Retry-After"),
            Self::LoginLocked { .. } => (StatusCode::TOO_MANY_REQUESTS, "login-locked", "Too many failed logins", "too many failed logins under this name; see Retry-After"),
            Self::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "busy", "Busy", "the server is at capacity; see Retry-After"),
            Self::DatabaseAway => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable", "the account database is unavailable; see Retry-After"),
            Self::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready", "the server is not ready; see Retry-After"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", "internal error; look up X-Request-Id in the server log"),
        }
    }

    /// Returns the OAuth error code, if RFC 6749 §5.2 or RFC 6750 §3.1 defines one.
    fn oauth(&self) -> Option<&'static str> {
        match self {
            Self::InvalidRequest { .. } => Some("invalid_request"),
            Self::UnsupportedGrantType => Some("unsupported_grant_type"),
            Self::WrongCredentials | Self::InvalidRefreshToken => Some("invalid_grant"),
            Self::InvalidClient => Some("invalid_client"),
            Self::TokenInvalid => Some("invalid_token"),
            Self::Malformed { .. }
            | Self::Ambiguous { .. }
            | Self::TokenMissing
            | Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::BodyTimeout
            | Self::Taken { .. }
            | Self::BodyTooLarge
            | Self::UnsupportedMediaType { .. }
            | Self::Unprocessable(_)
            | Self::RateLimited(_)
            | Self::LoginLocked { .. }
            | Self::Busy { .. }
            | Self::DatabaseAway
            | Self::NotReady
            | Self::Internal => None,
        }
    }

    fn fields(&self) -> &[FieldError] {
        if let Self::InvalidRequest { errors, .. } | Self::Unprocessable(errors) = self {
            errors
        } else {
            &[]
        }
    }

    /// Returns the header that HTTP requires or recommends for the status.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let fixed = |name, value| Some((name, HeaderValue::from_static(value)));
        match self {
            Self::WrongCredentials | Self::InvalidRefreshToken | Self::TokenMissing => {
                fixed(WWW_AUTHENTICATE, CHALLENGE)
            }
            Self::InvalidClient => fixed(WWW_AUTHENTICATE, CHALLENGE_CLIENT),
            Self::TokenInvalid => fixed(WWW_AUTHENTICATE, CHALLENGE_INVALID),
            Self::MethodNotAllowed { allow } => Some((ALLOW, allow.clone())),
            Self::RateLimited(QuotaStatus { more_after: retry_after, .. })
            | Self::LoginLocked { retry_after }
            | Self::Busy { retry_after } => {
                Some((RETRY_AFTER, whole_seconds(*retry_after).max(1).into()))
            }
            Self::DatabaseAway | Self::NotReady => {
                Some((RETRY_AFTER, whole_seconds(DATABASE_RETRY).into()))
            }
            // The server does not read the rest of the body.
            Self::Ambiguous { .. } | Self::BodyTimeout | Self::BodyTooLarge => {
                fixed(CONNECTION, "close")
            }
            Self::Malformed { .. }
            | Self::InvalidRequest { .. }
            | Self::UnsupportedGrantType
            | Self::NotFound
            | Self::Taken { .. }
            | Self::UnsupportedMediaType { .. }
            | Self::Unprocessable(_)
            | Self::Internal => None,
        }
    }

    /// Builds the problem document with its status and header.
    pub(in crate::http) fn into_answer(self) -> Answer {
        let (status, code, title, detail) = self.row();
        let error = self.oauth();
        let problem = Problem {
            kind: format!("urn:staunch:problem:{code}"),
            title,
            status: status.as_u16(),
            detail,
            error,
            error_description: error.map(|_| detail),
            errors: self
                .fields()
                .iter()
                .map(|error| ProblemField { field: error.field, message: &error.message })
                .collect(),
        };
        let answer = Answer::document(status, "application/problem+json", &problem).no_store();
        match self.header() {
            Some((name, value)) => answer.with(name, value),
            None => answer,
        }
    }
}

/// Rounds up to whole seconds.
///
/// A client that waits so long is not refused again for a fraction of a second.
pub(in crate::http) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } => {
                trace::note_failure(with_causes(&error));
                Self::DatabaseAway
            }
            StoreError::Conflict { .. } | StoreError::Failed { .. } => {
                trace::note_failure(with_causes(&error));
                Self::Internal
            }
        }
    }
}

impl From<HashError> for ApiError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::QueueFull { retry_after }
            | HashError::WaitTooLong { retry_after }
            | HashError::Expired { retry_after } => Self::Busy { retry_after },
            HashError::ShuttingDown => Self::NotReady,
            HashError::Stored(_) | HashError::Panicked | HashError::Random => internal(&error),
        }
    }
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Invalid(errors) => Self::Unprocessable(errors),
            RegisterError::Taken { field } => Self::Taken { field },
            RegisterError::Limited(status) => Self::RateLimited(status),
            RegisterError::Hash(error) => error.into(),
            RegisterError::Store(error) => error.into(),
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Rejected => Self::WrongCredentials,
            LoginError::Locked { retry_after } => Self::LoginLocked { retry_after },
            LoginError::Limited(status) => Self::RateLimited(status),
            LoginError::Hash(error) => error.into(),
            LoginError::Store(error) => error.into(),
            LoginError::Token(_) => internal(&error),
        }
    }
}

impl From<RefreshError> for ApiError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Rejected | RefreshError::Reused => Self::InvalidRefreshToken,
            RefreshError::Limited(status) => Self::RateLimited(status),
            RefreshError::Store(error) => error.into(),
            RefreshError::Token(_) => internal(&error),
        }
    }
}

impl From<MeError> for ApiError {
    fn from(error: MeError) -> Self {
        match error {
            MeError::Rejected => Self::TokenInvalid,
            MeError::Store(error) => error.into(),
        }
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Token(error) => error.into(),
            PasswordError::Invalid(errors) => Self::Unprocessable(errors),
            PasswordError::Rejected => Self::WrongCredentials,
            PasswordError::Locked { retry_after } => Self::LoginLocked { retry_after },
            PasswordError::Limited(status) => Self::RateLimited(status),
            PasswordError::Hash(error) => error.into(),
            PasswordError::Store(error) => error.into(),
        }
    }
}

impl From<ClientCallError> for ApiError {
    fn from(error: ClientCallError) -> Self {
        match error {
            ClientCallError::Client => Self::InvalidClient,
            ClientCallError::Store(error) => error.into(),
        }
    }
}

/// Returns the internal error, and puts its cause into the request's log line.
fn internal(error: &dyn std::error::Error) -> ApiError {
    trace::note_failure(with_causes(error));
    ApiError::Internal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
        assert_eq!(whole_seconds(Duration::from_millis(3_001)), 4);
    }

    #[test]
    fn a_rejected_login_has_the_required_status_and_headers() {
        let response = ApiError::WrongCredentials.into_answer().into_response();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["www-authenticate"], CHALLENGE);
        assert_eq!(response.headers()["cache-control"], "no-store");
    }
}
